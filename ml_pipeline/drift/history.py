"""What chunks of the reference differ by anyway.

Real batches are not independent draws: Mondays differ from Sundays, one site from the next. The floors learned here say
how far a chunk of the reference lies from all its other chunks; a batch within that range is no news.

Notations
=========

==========  =============================================================================================  ==========
symbol      meaning                                                                                        shape
==========  =============================================================================================  ==========
C           chunks of the reference, at least 20                                                           scalar
a_i         an effect (D, W, √PSI, change in nulls) of chunk i against the rest of the reference           (C,)
MAD         1.4826 · median |a_i - median a|: one sigma where a is normal, whatever a few wild chunks say      scalar
floor       median a + 3 · MAD, never below the floor without history                                      scalar
==========  =============================================================================================  ==========

PSI grows with the square of a shift, and three MAD of a square are no limit at all: its root is what is measured.

Source: P. J. Huber, "Robust Statistics" (1981), section 5.1.
"""

from __future__ import annotations

import math
from dataclasses import astuple, replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from ml_pipeline.drift.counts import BatchCounts
from ml_pipeline.drift.effects import Floors
from ml_pipeline.drift.measure import measure
from ml_pipeline.drift.verdict import LEAST_ROWS
from ml_pipeline.errors import DriftInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_pipeline.drift.bins import Bins, Counted
    from ml_pipeline.drift.profile import ReferenceProfile

__all__ = ["LEAST_CHUNKS", "learn_floors"]

LEAST_CHUNKS = 20
"""No floor from fewer chunks: the spread of a handful is anyone's guess, that of a single one is zero."""

_DEVIATIONS = 3
_SIGMA_OF_MAD = 1.4826


def learn_floors(
    profile: ReferenceProfile, chunks: Sequence[BatchCounts], *, floors: Floors | None = None
) -> ReferenceProfile:
    """Learn effect floors from how much the reference's own chunks (days, sites, deliveries) differ.

    Args:
        profile: The reference.
        chunks: Its chunks, counted with the profile: 20 or more, of 50 rows or more each.
        floors: The floors without history; learned ones are never lower.

    Returns:
        The profile with floors a feature, which `check` then uses and `to_json` keeps.

    Raises:
        DriftInputError: If there are too few chunks, a chunk is too small, lacks a column, or was counted by other
            bins.
    """
    _require_chunks(profile, chunks)
    whole = reduce(BatchCounts.merge, chunks)
    rests = [whole.minus(chunk) for chunk in chunks]
    learned = {
        name: _floors(
            bins,
            [(rest.columns[name], chunk.columns[name]) for rest, chunk in zip(rests, chunks, strict=True)],
            floors or Floors(),
        )
        for name, bins in profile.bins.items()
    }
    return replace(profile, floors=learned)


def _require_chunks(profile: ReferenceProfile, chunks: Sequence[BatchCounts]) -> None:
    if len(chunks) < LEAST_CHUNKS:
        raise DriftInputError(
            f"floors are learned from at least {LEAST_CHUNKS} chunks",
            len(chunks),
            "cut the reference finer, or do without",
        )
    smallest = min(chunk.rows for chunk in chunks)
    if smallest < LEAST_ROWS:
        raise DriftInputError(f"a chunk has at least {LEAST_ROWS} rows", smallest, "cut the reference coarser")
    for chunk in chunks:
        chunk.require_bins(profile.bins_id)
        if absent := sorted(profile.bins.keys() - chunk.columns.keys()):
            raise DriftInputError(
                "a chunk of the reference has every feature", absent, "count chunks of the reference itself"
            )


def _floors(bins: Bins, pairs: Sequence[tuple[Counted, Counted]], base: Floors) -> Floors:
    measured = [measure(bins, rest, chunk, minimum_rows=LEAST_ROWS) for rest, chunk in pairs]
    effects = [each.effects for each in measured if each.effects]
    moved = [(each.cdf_gap, each.wasserstein or 0.0, math.sqrt(each.psi.excess)) for each in effects]
    # A feature that is null in most chunks has no history of its values, only one of its nulls.
    cdf_gap, wasserstein, root_psi = _limits(moved) if len(moved) >= LEAST_CHUNKS else (0.0, 0.0, 0.0)
    (null_gap,) = _limits([(each.null_gap,) for each in measured])
    return Floors(*map(max, astuple(base), (cdf_gap, wasserstein, root_psi**2, null_gap)))


def _limits(effects: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    table = np.array(effects)
    median = np.median(table, axis=0)
    spread = _SIGMA_OF_MAD * np.median(np.abs(table - median), axis=0)
    return tuple((median + _DEVIATIONS * spread).tolist())
