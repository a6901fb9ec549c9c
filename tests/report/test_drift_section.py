"""Drift on the page: verdicts, effects and distributions, whatever a pipeline knew of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.drift import Floors, ReferenceProfile, check, distribution
from ml_pipeline.report.distributions import rebinned
from ml_pipeline.report.drift_batches import DEFAULT_FLOOR, batches_of
from ml_pipeline.report.drift_section import drift_section
from tests.report.runs import RUN_ID, drift_details
from tests.report.strict_html import Page

SIGMA = "\N{GREEK SMALL LETTER SIGMA}"


def _read(summary: dict[str, object]) -> Page:
    page = Page()
    page.feed(str(drift_section(batches_of(summary))))
    assert page.open == []
    return page


def test_a_drifted_batch() -> None:
    """Its verdict and why, the effect on each feature with the largest first, and both distributions."""
    page = _read({"drift_details": [drift_details("batch-1"), drift_details("batch-2", "drift", 0.4)]})
    text = page.text
    assert "1 of 2 batches drifted from the reference" in text
    assert f"drift batch-2 64 1 of 2 features drifted: age 0.30 {SIGMA}" in text
    assert "age 0.40 drift site 0.01" in text
    assert "effect 0.40 · p < 0.001 · batch-2" in text
    assert "null 0 % → 10 %" in text
    assert "effect 0.400, drift" in page.attributes["aria-label"]
    assert (
        "age: below 40: reference 0 %, batch 0 %; above 80: reference 0 %, batch 20 %" in page.attributes["aria-label"]
    )
    assert "details" not in page.tags


def test_categories_are_drawn_by_name() -> None:
    """Each level that either sample has, with its share of the batch."""
    page = _read({"drift_details": [drift_details("batch-1")]})
    assert "A 50 % B 49 % unseen 1 %" in page.text
    assert "reference 60 %, batch 50 %" in page.attributes["aria-label"]


def test_many_categories_are_folded() -> None:
    """The six with most rows are named, the others are one bar."""
    details = drift_details("batch-1")
    shares = [0.0, 0.0, *(0.05,) * 20]
    details["features"][1] |= {
        "labels": ["null", "infinite", *(f"level {number}" for number in range(20))],
        "reference": shares,
        "batch": shares,
    }
    text = _read({"drift_details": [details]}).text
    assert "level 5 5 % 14 more 70 %" in text
    assert "level 6" not in text


def test_without_drift_the_pictures_are_folded_away() -> None:
    """A run that needs nobody does not show thirty bars; they are one click away."""
    page = _read({"drift_details": [drift_details("batch-1")]})
    assert page.tags.count("details") == 1
    assert "How far each feature moved" in page.text


def test_events_alone_give_verdicts_and_bars() -> None:
    """Where a pipeline kept no details, its drift events are shown; the batch's name loses the run's id."""
    event = {
        "batch": f"{RUN_ID}/batch-7",
        "verdict": "drift",
        "rows": 500,
        "effects": {"age": 0.3, "height": 0.01},
        "drifted": ["age"],
        "reason": "age moved",
    }
    text = _read({"run_id": RUN_ID, "drift": [event]}).text
    assert "drift batch-7 500 age moved" in text
    assert "age 0.30 drift height 0.01" in text


def test_no_verdict_is_no_fine_verdict() -> None:
    """A batch that could not be judged says so, and is neither green nor counted as drifted."""
    page = _read({"drift_details": [{"batch": "b", "verdict": "insufficient_data", "reason": "20 rows", "rows": 20}]})
    assert "0 of 1 batch drifted" in page.text
    assert "no verdict" in page.text
    assert "pill idle" in page.attributes["class"]


def test_what_is_left_out_is_said() -> None:
    """Of many batches and features the first are shown, drifted ones among them."""
    details = [drift_details(f"batch-{number}", "drift" if number == 99 else "no_drift") for number in range(100)]
    details[0]["features"] = [
        {"name": f"f{number:02}", "verdict": "no_drift", "effect": number / 1_000} for number in range(40)
    ]
    text = _read({"drift_details": details}).text
    assert "50 more are not shown." in text
    assert "batch-99" in text
    assert "27 more features with an effect of 0.025 or less." in text


@pytest.mark.parametrize(
    "feature",
    [
        {},
        {"name": "x", "labels": ["a"], "reference": [1.0], "batch": []},
        {
            "name": "x",
            "labels": ["null", "infinite", "below", "above"],
            "edges": [],
            "reference": [0] * 4,
            "batch": [0] * 4,
        },
        {"name": "x", "labels": ["null"] * 6, "edges": [1.0, 1.0, 1.0], "reference": [0.2] * 6, "batch": [0] * 6},
        {"name": "x", "labels": ["null"] * 6, "edges": ["a", None, 2], "reference": ["NaN"] * 6, "batch": [None] * 6},
        {"name": "x", "labels": ["null", "infinite"], "reference": [0.5, 0.5], "batch": [1, 0]},
        {"name": "x", "effect": 1e300, "p_adjusted": "NaN", "floor": -1},
    ],
)
def test_odd_features_are_drawn_as_far_as_they_go(feature: dict[str, object]) -> None:
    """Empty, constant, unordered or not what they should be: none keeps the page from being built."""
    page = _read({"drift_details": [{"batch": "b", "verdict": "drift", "features": [feature, "text", None]}]})
    assert "0 of" not in page.text


def test_the_floor_is_that_of_the_drift_check() -> None:
    """A pipeline that does not say which floor it used has used the default one."""
    assert Floors().cdf_gap == DEFAULT_FLOOR


def test_it_draws_what_the_drift_check_found() -> None:
    """A profile, a shifted batch and its distribution from the drift package go in as they are."""
    random = np.random.default_rng(0)
    reference = {"age": random.normal(70, 8, 5_000), "site": random.choice(["A", "B", "C"], 5_000)}
    batch = {"age": random.normal(76, 8, 800), "site": random.choice(["A", "B", "D"], 800)}
    profile = ReferenceProfile.fit(reference)
    report, counts = check(profile, batch), profile.count(batch)
    features = []
    for found in report.features:
        drawn = distribution(profile, counts, found.name)
        about = {"name": found.name, "kind": found.kind, "verdict": found.verdict.value, "effect": found.effect}
        shares = {"labels": drawn.labels, "edges": drawn.edges, "reference": drawn.reference, "batch": drawn.batch}
        features.append(about | shares | {"p_adjusted": found.p_adjusted})
    text = _read({"drift_details": [{"batch": "b", "verdict": report.verdict.value, "features": features}]}).text
    assert "1 of 1 batch drifted" in text
    assert "age 0.3" in text
    assert "unseen" in text


@given(
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=2, max_size=30),
    st.floats(-1e6, 1e6, allow_subnormal=False),
    st.floats(1e-3, 1e6),
    st.integers(1, 40),
)
def test_rebinning_loses_no_row(edges: list[float], low: float, width: float, bins: int) -> None:
    """Shares add up to what they were, none is negative, and what lies outside is in the end bins."""
    edges.sort()
    shares = [abs(hash((edge, index))) % 1_000 / 1_000 for index, edge in enumerate(edges[1:])]
    spread = rebinned(edges, shares, low, low + width, bins)
    assert len(spread) == bins + 2
    assert min(spread) >= 0
    assert sum(spread) == pytest.approx(sum(shares), rel=1e-6, abs=1e-9)
    below = sum(share for (_, right), share in zip(pairwise(edges), shares, strict=True) if right < low)
    assert spread[0] >= below * (1 - 1e-9)


def test_rebinning_a_uniform_law_is_uniform() -> None:
    """Quantile bins of any width, of an evenly spread sample, become bins of the same share."""
    edges = [0.0, 1.0, 3.0, 7.0, 10.0]
    spread = rebinned(edges, [0.1, 0.2, 0.4, 0.3], 0.0, 10.0, bins=5)
    assert spread == pytest.approx([0.0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.0])
