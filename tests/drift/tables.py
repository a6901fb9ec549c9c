"""Tables that the drift tests share: drawn from fixed seeds, never from what the package computed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = dict[str, NDArray[Any]]


def normals(rows: int, features: int, seed: int) -> Table:
    """Independent standard normal columns ``x0``, ``x1`` and so on."""
    random = np.random.default_rng(seed)
    return {f"x{i}": random.normal(size=rows) for i in range(features)}


def mixed(rows: int, seed: int) -> Table:
    """Two numeric columns, one of them with nulls, a count and a category."""
    random = np.random.default_rng(seed)
    holes = random.normal(50, 10, rows)
    holes[random.random(rows) < 0.1] = np.nan
    return {
        "age": random.normal(70, 8, rows),
        "score": holes,
        "visits": random.poisson(2, rows),
        "site": np.array(["A", "B", "C"], dtype=object)[random.choice(3, rows, p=[0.5, 0.3, 0.2])],
    }
