"""The profile as text: one JSON object with its format and version, checked field by field when read back.

::

    {"format": "ml_pipeline.drift.profile", "version": 1, "rows": 2000, "bins_id": "9f…",
     "features": [
       {"kind": "numeric", "name": "age", "minimum": 18.0, "edges": […], "centres": […],
        "counts": […], "unseen": []},
       {"kind": "categorical", "name": "site", "levels": […], "closed": true, "has_text": true,
        "counts": […], "unseen": [["C", 3]]}],
     "floors": {"age": {"cdf_gap": 0.05, "wasserstein": 0.1, "psi": 0.1, "null_gap": 0.05}}}
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

from ml_pipeline.drift.bins import CategoricalBins, Counted, NumericBins, fingerprint, require_cells
from ml_pipeline.drift.counts import BatchCounts
from ml_pipeline.drift.effects import Floors
from ml_pipeline.errors import DriftInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_pipeline.drift.bins import Bins

__all__ = ["parse_profile", "profile_text"]

Parts: TypeAlias = "tuple[dict[str, Bins], BatchCounts, dict[str, Floors]]"

_FORMAT = "ml_pipeline.drift.profile"
_VERSION = 1
_REMEDY = "save the profile again with to_json, or fit it again"


def profile_text(bins: Mapping[str, Bins], counts: BatchCounts, floors: Mapping[str, Floors]) -> str:
    """Write the parts of a profile as JSON.

    Args:
        bins: The cells of each feature.
        counts: The reference, counted in them.
        floors: Learned effect floors.

    Returns:
        The text; floats are written so that they read back bit for bit.
    """
    columns = counts.columns
    features = [
        {"kind": each.kind, **asdict(each), "counts": columns[name].cells, "unseen": columns[name].unseen}
        for name, each in bins.items()
    ]
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "rows": counts.rows,
        "bins_id": counts.bins_id,
        "features": features,
        "floors": {name: asdict(each) for name, each in floors.items()},
    }
    return json.dumps(document, allow_nan=False)


def parse_profile(text: str) -> Parts:
    """Read the parts of a profile back.

    Args:
        text: What `profile_text` wrote.

    Returns:
        Bins, counts and floors.

    Raises:
        DriftInputError: If the text is cut off, altered, of another format or of another version.
    """
    try:
        document = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise DriftInputError("a drift profile is one JSON object", str(error), _REMEDY) from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise DriftInputError(f"a drift profile has the format {_FORMAT!r}", document, _REMEDY)
    if document.get("version") != _VERSION:
        raise DriftInputError(f"a drift profile has version {_VERSION}", document.get("version"), _REMEDY)
    try:
        return _parts(document)
    except DriftInputError:
        raise
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        fault = f"{type(error).__name__}: {error}"
        raise DriftInputError("a drift profile has every field of its version", fault, _REMEDY) from error


def _parts(document: dict[str, Any]) -> Parts:
    rows = _whole(document["rows"])
    bins: dict[str, Bins] = {}
    columns: dict[str, Counted] = {}
    for feature in document["features"]:
        each = _bins(feature)
        bins[each.name] = each
        unseen = tuple((_text(label), _whole(rows_of)) for label, rows_of in feature["unseen"])
        columns[each.name] = Counted(tuple(map(_whole, feature["counts"])), unseen)
        require_cells(each, columns[each.name], rows)
    bins_id = fingerprint(bins.values())
    if bins_id != document["bins_id"]:
        raise DriftInputError("a drift profile's bins are those it was saved with", document["bins_id"], _REMEDY)
    floors = {
        name: Floors(**{key: _real(value) for key, value in each.items()}) for name, each in document["floors"].items()
    }
    if floors.keys() - bins.keys():
        raise DriftInputError("learned floors belong to features", sorted(floors.keys() - bins.keys()), _REMEDY)
    return bins, BatchCounts(bins_id, rows, columns), floors


def _bins(feature: dict[str, Any]) -> Bins:
    name = _text(feature["name"])
    if feature["kind"] == NumericBins.kind:
        minimum = None if feature["minimum"] is None else _real(feature["minimum"])
        edges = tuple(map(_real, feature["edges"]))
        return NumericBins(name, minimum, edges, tuple(map(_real, feature["centres"])))
    if feature["kind"] == CategoricalBins.kind:
        levels = tuple(map(_text, feature["levels"]))
        return CategoricalBins(name, levels, _truth(feature["closed"]), _truth(feature["has_text"]))
    raise ValueError(f"kind {feature['kind']!r}")


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _real(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is not a finite number")
    return float(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"{value!r} is not text")
    return value


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(f"{value!r} is not true or false")
    return value
