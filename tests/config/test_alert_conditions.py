"""When a condition holds: levels with hysteresis, k of m, how long; whatever the values and however the clock runs."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.config._alert_conditions import Condition, Scalar, Step, Watch

VALUES = st.lists(st.floats(-10, 10), max_size=60)
SECONDS = st.lists(st.floats(0, 100), min_size=60, max_size=60)


def steps(
    condition: Condition,
    values: list[Scalar],
    times: list[float] | None = None,
    *,
    cooldown: float = 0.0,
    watch: Watch | None = None,
) -> list[Step]:
    """Return what each value asks for, a second apart unless told otherwise."""
    watch, said = watch or Watch(is_known=True), []
    for place, value in enumerate(values):
        watch, step = watch.after(condition, value, times[place] if times else float(place), cooldown)
        said.append(step)
    return said


@pytest.mark.parametrize(
    ("condition", "values", "wanted"),
    [
        (Condition(above=5), [5, 5.1, 6, 5, 4], ["", "fire", "repeat", "clear", ""]),
        (Condition(above=5, clear=3), [6, 5, 3.1, 3, 5, 6], ["fire", "repeat", "repeat", "clear", "", "fire"]),
        (Condition(below=5, clear=7), [4, 5, 6.9, 7, 6], ["fire", "repeat", "repeat", "clear", ""]),
        (Condition(equals="drift"), ["no", "drift", "drift", "no"], ["", "fire", "repeat", "clear"]),
        (Condition(equals=True), [1, True, 1], ["", "fire", "clear"]),
        (Condition(equals=1), [True, 1, True], ["", "fire", "clear"]),
        (Condition(above=5), [6, math.nan, "much", True, 4], ["fire", "", "", "", "clear"]),
        (
            Condition(above=5, needed=2, window=3),
            [6, 1, 6, 1, 1, 6],
            ["", "", "fire", "clear", "", ""],
        ),
        (Condition(above=5, for_seconds=2), [6, 6, 6, 6, 1], ["", "", "fire", "repeat", "clear"]),
        (Condition(above=5, for_seconds=2), [6, 6, 1, 6, 6, 6], ["", "", "", "", "", "fire"]),
        (Condition(), [1, 2], ["", ""]),
    ],
)
def test_what_a_series_of_values_asks_for(condition: Condition, values: list[Scalar], wanted: list[Step]) -> None:
    """It fires once it holds, counts what is bad while it fires, and clears once it holds no longer."""
    assert steps(condition, values) == wanted


def test_a_clock_that_goes_back_neither_fires_early_nor_starts_anew() -> None:
    """A time before the latest one counts as that one."""
    condition = Condition(above=0, for_seconds=10)
    assert steps(condition, [1, 1, 1, 1], [100, 50, 109.9, 110]) == ["", "", "", "fire"]


def test_it_does_not_fire_again_within_the_cooldown() -> None:
    """What clears and comes back is held back once, and fires when the cooldown is over and it still holds."""
    wanted = ["fire", "clear", "hold", "", "fire", "repeat"]
    assert steps(Condition(above=0), [1, 0, 1, 1, 1, 1], [0, 1, 2, 3, 10, 11], cooldown=10) == wanted
    assert steps(Condition(above=0), [1, 0, 1, 0, 1], [0, 1, 2, 3, 10], cooldown=10) == [
        "fire", "clear", "hold", "", "fire",
    ]  # fmt: skip


def test_an_alert_of_an_earlier_process_is_cleared_once_it_is_certain_to_be_over() -> None:
    """The first value may be the first good one; of k of m, enough of them must have been seen; between, none says so."""
    assert steps(Condition(above=5), [1, 1], watch=Watch()) == ["clear", ""]
    assert steps(Condition(above=5, clear=1), [3, 3, 1], watch=Watch()) == ["", "", "clear"]
    assert steps(Condition(above=5, needed=2, window=3), [1, 1, 1], watch=Watch()) == ["", "clear", ""]
    assert steps(Condition(above=5, needed=2, window=3), [6, 6, 1, 1], watch=Watch()) == ["", "fire", "", "clear"]
    assert steps(Condition(above=5, for_seconds=2), [6, 1], watch=Watch()) == ["", "clear"]


@given(VALUES, SECONDS, st.floats(-5, 5), st.floats(0, 5), st.integers(1, 4), st.integers(0, 3), st.floats(0, 300))
def test_fired_and_resolved_alternate(  # noqa: PLR0917 - as hypothesis gives them
    values: list[Scalar], gaps: list[float], above: float, band: float, needed: int, more: int, seconds: float
) -> None:
    """Whatever comes, an alert that was raised is resolved exactly once before the next one is raised."""
    condition = Condition(above=above, clear=above - band, needed=needed, window=needed + more, for_seconds=seconds)
    times = [sum(gaps[:place]) for place in range(len(values))]
    told = [step for step in steps(condition, values, times) if step in ("fire", "clear")]
    assert told[::2] == ["fire"] * len(told[::2])
    assert told[1::2] == ["clear"] * len(told[1::2])


@given(st.floats(-5, 5), st.floats(0.1, 5), st.lists(st.floats(0.001, 1), max_size=60), st.booleans())
def test_between_the_levels_nothing_changes(above: float, band: float, places: list[float], is_high: bool) -> None:
    """However a value wavers between the two, it neither fires nor clears."""
    first = above + 1 if is_high else above - band - 1
    inside = [min(above, above - band + band * place) for place in places]
    inside = [value for value in inside if value > above - band]
    told = steps(Condition(above=above, clear=above - band), [first, *inside])
    assert set(told[1:]) <= ({"repeat"} if is_high else {""})


@given(VALUES, SECONDS, st.floats(0.1, 300))
def test_it_never_fires_before_it_has_held_long_enough(
    values: list[Scalar], gaps: list[float], for_seconds: float
) -> None:
    """When it fires, every value of the last ``for_seconds`` was bad, and the first of them is that old."""
    times = [sum(gaps[:place]) for place in range(len(values))]
    for place, step in enumerate(steps(Condition(above=0, for_seconds=for_seconds), values, times)):
        if step == "fire":
            good = [at for at, value in zip(times[:place], values, strict=False) if not value > 0]  # type: ignore[operator]
            bad = [at for at, value in zip(times, values, strict=True) if value > 0]  # type: ignore[operator]
            since = min(at for at in bad if not good or at >= good[-1])
            assert times[place] - since >= for_seconds


@given(VALUES, SECONDS, st.floats(0, 300))
def test_within_the_cooldown_it_fires_once(values: list[Scalar], gaps: list[float], cooldown: float) -> None:
    """Two alerts of one rule and identity are never closer than its cooldown."""
    times = [sum(gaps[:place]) for place in range(len(values))]
    told = steps(Condition(above=0), values, times, cooldown=cooldown)
    fired = [at for at, step in zip(times, told, strict=True) if step == "fire"]
    assert all(later - earlier >= cooldown for earlier, later in itertools.pairwise(fired))


@given(VALUES, st.floats(-5, 5), st.floats(0, 5))
def test_below_mirrors_above(values: list[float], level: float, band: float) -> None:
    """The two sides are judged alike."""
    above = steps(Condition(above=level, clear=level - band), list(values))
    below = steps(Condition(below=-level, clear=band - level), [-value for value in values])
    assert above == below
