"""A layered drawing of a directed graph: which column each node stands in, and how high.

The five steps of the layered method: turn round the edges that close a cycle; give each node the column after the last
of its sources; let long edges pass each column between as if they were small nodes; order each column so that few edges
cross; and set the heights so that edges are short and nothing overlaps.

Source: Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system structures", IEEE Transactions
on Systems, Man, and Cybernetics 11(2), 1981. The heights are isotonic regressions by pooling adjacent violators, one
column at a time.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Layout", "lay_out"]

_MOST_BENDS: Final = 5_000
_SWEEPS: Final = 8

Node = int
"""A node or a bend by number; the bends come after the nodes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything stands.

    Attributes:
        column: Of each node, from the left, starting at 0.
        height: Of each node's middle, downwards; the highest box begins at 0.
        bends: For each edge the (column, height) of the places that it passes, from left to right.
        turned: For each edge whether its target stands left of its source, because it closes a cycle.
    """

    column: tuple[int, ...]
    height: tuple[float, ...]
    bends: tuple[tuple[tuple[int, float], ...], ...]
    turned: tuple[bool, ...]


def lay_out(count: int, edges: Sequence[tuple[Node, Node]], *, box: float, gap: float, bend: float) -> Layout:
    """Place a graph.

    Args:
        count: How many nodes; they are numbered from 0.
        edges: (source, target) of each; an edge from a node to itself has no bends and moves nothing.
        box: Height of a node.
        gap: Least distance between the boxes of a column.
        bend: Height kept free for an edge that passes a column.

    Returns:
        The places; the same for the same arguments.
    """
    turned = _closing_cycles(count, edges)
    forward = [(b, a) if back else (a, b) for (a, b), back in zip(edges, turned, strict=True)]
    column = _columns(count, [edge for edge in forward if edge[0] != edge[1]])
    chains = _chains(forward, column)
    below, above = _neighbours(chains)
    order = _ordered(_by_column(column), below, above)
    sizes = [box] * count + [bend] * (len(column) - count)
    height = _heights(order, below, above, sizes, gap)
    top = min((height[node] - box / 2 for node in range(count)), default=0.0)
    height = [value - top for value in height]
    bends = tuple(tuple((column[node], height[node]) for node in chain[1:-1]) for chain in chains)
    return Layout(tuple(column[:count]), tuple(height[:count]), bends, turned)


def _closing_cycles(count: int, edges: Sequence[tuple[Node, Node]]) -> tuple[bool, ...]:
    """Say of each edge whether it leads back to a node that a depth-first walk is still inside of."""
    leaving: dict[Node, list[int]] = defaultdict(list)
    for index, (source, _) in enumerate(edges):
        leaving[source].append(index)
    turned = [False] * len(edges)
    state = [0] * count  # 0 not seen, 1 inside, 2 done
    for root in range(count):
        stack = [] if state[root] else [(root, iter(leaving[root]))]
        state[root] = state[root] or 1
        while stack:
            node, rest = stack[-1]
            for index in rest:
                target = edges[index][1]
                if state[target] == 1:
                    turned[index] = target != node
                elif state[target] == 0:
                    state[target] = 1
                    stack.append((target, iter(leaving[target])))
                    break
            else:
                state[node] = 2
                stack.pop()
    return tuple(turned)


def _columns(count: int, edges: Sequence[tuple[Node, Node]]) -> list[int]:
    """Give each node the column after the last of its sources, then move what can be moved towards its targets."""
    targets: dict[Node, set[Node]] = defaultdict(set)
    sources: dict[Node, set[Node]] = defaultdict(set)
    for source, target in edges:
        targets[source].add(target)
        sources[target].add(source)
    waiting = [len(sources[node]) for node in range(count)]
    ready = [node for node in range(count) if not waiting[node]]
    column = [0] * count
    for node in ready:  # grows while it is walked: a topological order
        for target in sorted(targets[node]):
            column[target] = max(column[target], column[node] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    for node in reversed(ready):
        if targets[node] and len(targets[node]) >= len(sources[node]):
            column[node] = min(column[target] for target in targets[node]) - 1
    return column


def _chains(edges: Sequence[tuple[Node, Node]], column: list[int]) -> list[tuple[Node, ...]]:
    """Return every edge as the nodes and bends it passes; bends are added to *column*."""
    chains: list[tuple[Node, ...]] = []
    shared: dict[tuple[Node, Node], tuple[Node, ...]] = {}
    room = _MOST_BENDS
    for source, target in edges:
        known = shared.get((source, target))
        if known is None:
            between = range(column[source] + 1, column[target])
            if len(between) > room:
                between = range(0)
            room -= len(between)
            first = len(column)
            column.extend(between)
            known = shared[source, target] = (source, *range(first, len(column)), target)
        chains.append(known)
    return chains


def _neighbours(chains: Iterable[tuple[Node, ...]]) -> tuple[dict[Node, list[Node]], dict[Node, list[Node]]]:
    below: dict[Node, list[Node]] = defaultdict(list)
    above: dict[Node, list[Node]] = defaultdict(list)
    for source, target in dict.fromkeys(pair for chain in chains for pair in itertools.pairwise(chain)):
        if source != target:
            below[target].append(source)
            above[source].append(target)
    return below, above


def _by_column(column: Sequence[int]) -> list[list[Node]]:
    order: list[list[Node]] = [[] for _ in range(max(column, default=-1) + 1)]
    for node, where in enumerate(column):
        order[where].append(node)
    return order


def _ordered(
    order: list[list[Node]], below: Mapping[Node, list[Node]], above: Mapping[Node, list[Node]]
) -> list[list[Node]]:
    """Order every column by the mean place of its neighbours, forth and back, and keep what crosses least."""
    best, fewest = [list(nodes) for nodes in order], _crossings(order, below)
    for sweep in range(_SWEEPS):
        if sweep % 2 == 0:
            for before, nodes in itertools.pairwise(order):
                _sort_by_mean(nodes, before, below)
        else:
            for after, nodes in itertools.pairwise(reversed(order)):
                _sort_by_mean(nodes, after, above)
        crossings = _crossings(order, below)
        if crossings < fewest:
            best, fewest = [list(nodes) for nodes in order], crossings
    return best


def _sort_by_mean(nodes: list[Node], beside: list[Node], neighbours: Mapping[Node, list[Node]]) -> None:
    place = {node: (index + 0.5) / len(beside) for index, node in enumerate(beside)}
    mean = {}
    for index, node in enumerate(nodes):
        near = [place[other] for other in neighbours.get(node, ()) if other in place]
        mean[node] = _mean(near) if near else (index + 0.5) / len(nodes)
    nodes.sort(key=mean.__getitem__)


def _crossings(order: Sequence[Sequence[Node]], below: Mapping[Node, list[Node]]) -> int:
    total = 0
    place = {node: index for nodes in order for index, node in enumerate(nodes)}
    for nodes in order:
        passed: list[int] = []
        for node in nodes:
            ends = sorted(place[other] for other in below.get(node, ()))
            total += sum(len(passed) - bisect.bisect_right(passed, end) for end in ends)
            for end in ends:
                bisect.insort(passed, end)
    return total


def _heights(
    order: Sequence[Sequence[Node]],
    below: Mapping[Node, list[Node]],
    above: Mapping[Node, list[Node]],
    sizes: Sequence[float],
    gap: float,
) -> list[float]:
    height = [0.0] * len(sizes)
    for nodes in order:
        _set_heights(nodes, [0.0] * len(nodes), sizes, gap, height)
    both = {node: [*below.get(node, ()), *above.get(node, ())] for nodes in order for node in nodes}
    for sweep in range(2 * _SWEEPS):
        leftwards = sweep % 2 == 1
        last = sweep >= 2 * _SWEEPS - 2
        neighbours = both if last else above if leftwards else below
        for nodes in reversed(order) if leftwards else order:
            wanted = [
                _mean([height[other] for other in neighbours[node]]) if neighbours.get(node) else height[node]
                for node in nodes
            ]
            _set_heights(nodes, wanted, sizes, gap, height)
    return height


def _set_heights(
    nodes: Sequence[Node], wanted: Sequence[float], sizes: Sequence[float], gap: float, height: list[float]
) -> None:
    """Come as near to the wanted heights as order and distance allow, in the sense of least squares."""
    offsets = [0.0]
    for one, other in itertools.pairwise(nodes):
        offsets.append(offsets[-1] + (sizes[one] + sizes[other]) / 2 + gap)
    pools: list[tuple[float, int]] = []  # (mean, how many)
    for value, offset in zip(wanted, offsets, strict=True):
        mean, size = value - offset, 1
        while pools and pools[-1][0] > mean:
            other_mean, other_size = pools.pop()
            mean = (mean * size + other_mean * other_size) / (size + other_size)
            size += other_size
        pools.append((mean, size))
    level = [mean for mean, size in pools for _ in range(size)]
    for node, value, offset in zip(nodes, level, offsets, strict=True):
        height[node] = value + offset


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
