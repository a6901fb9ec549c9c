"""PromQL, built so that every query adds up the processes of a pipeline and names only metrics that exist.

A pipeline may be scraped, pushed, or both, by several processes. So every query aggregates; none shows a bare series.
"""

from __future__ import annotations

from typing import Final

from ml_pipeline.config._metric_specs import METRICS, PREFIX

__all__ = [
    "FIRING",
    "MODEL",
    "OVER_SECONDS",
    "WATCHDOG",
    "alive",
    "at_least_zero",
    "failing_now",
    "grown",
    "in_range",
    "last",
    "living",
    "now",
    "quantile",
    "quantile_in_range",
    "rate",
    "selector",
    "share",
    "state",
    "zero_of",
]

MODEL: Final = 'model=~"$model"'
FIRING: Final = 'ALERTS{alertstate="firing", alertname!="Watchdog", pipeline=~"$pipeline|"}'
"""Alerts that fire: those of the chosen pipelines, and those of the stack, which have no pipeline."""
WATCHDOG: Final = 'ALERTS{alertname="Watchdog", alertstate="firing"}'
OVER_SECONDS: Final = 60
"""What was pushed longer ago than this is of a job that is over; one that runs pushes every few seconds."""
_OVER: Final = f"push_time_seconds < time() - {OVER_SECONDS}"
_LAST_SUCCESS: Final = "operation_last_success_timestamp_seconds"
_LAST_FAILURE: Final = "operation_last_failure_timestamp_seconds"


def selector(name: str, where: str = "") -> str:
    """Name a metric of ours and choose its series.

    Args:
        name: Without the prefix; a histogram's with ``_bucket``, ``_sum`` or ``_count``.
        where: Further matchers, as PromQL writes them.

    Returns:
        The selector; limited to the chosen pipelines if the metric has that label.

    Raises:
        KeyError: If no such metric is declared.
    """
    base = name if name in METRICS else name.rsplit("_", 1)[0]
    own = 'pipeline=~"$pipeline"' if "pipeline" in METRICS[base].labels else ""
    matchers = ", ".join(filter(None, (own, where)))
    return f"{PREFIX}{name}{{{matchers}}}" if matchers else PREFIX + name


def now(name: str, by: str = "", where: str = "", *, how: str = "max") -> str:
    """The value of a gauge now."""
    return _over(how, by, selector(name, where))


def living(name: str, by: str = "", where: str = "", *, how: str = "max") -> str:
    """As `now`, of processes that live: a Pushgateway holds what a job last said for ever, also of its memory."""
    return _over(how, by, alive(selector(name, where)))


def alive(expression: str) -> str:
    """An expression without the series that were pushed by a job that is over."""
    return f"{expression} unless on (job, instance) ({_OVER})"


def rate(name: str, by: str = "", where: str = "") -> str:
    """How fast a counter grows, a second."""
    return _over("sum", by, f"rate({selector(name, where)}[$__rate_interval])")


def in_range(name: str, by: str = "", where: str = "") -> str:
    """How much a counter grew in the time that the dashboard shows.

    A series that was born in the range counts in full: ``increase`` alone would miss its first value, and so the only
    error of its kind, or the only push of a batch job.
    """
    return grown(selector(name, where), by)


def share(name: str, where: str, among: str = "") -> str:
    """Share of a counter's growth in the time shown: what *where* matches, of all that *among* does."""
    return f"{in_range(name, where=', '.join(filter(None, (among, where))))} / {in_range(name, where=among)}"


def grown(series: str, by: str = "") -> str:
    """As `in_range`, for any counter; *series* is its selector.

    A series that is not there as the range begins was born in it, if its target or its push was there, or if every
    process seen in the range is younger than that; then it counts in full. Else a scrape was missed, or the Pushgateway
    was away: then a series that was seen in the day before is no newborn, and only what it grew counts.

    What was born and then began anew, with its process, counts its least value and what it grew: a little less than
    the truth if it fell below the value that it was born with. Without that its highest value is the truth.
    """
    young = "min_over_time(process_start_time_seconds[$__range]) > time() - $__range_s"
    reached = f"up offset $__range == 1 or push_time_seconds offset $__range or {young}"
    missed = f"max_over_time({series}[1d] offset $__range) unless on (job, instance) ({reached})"
    known = f"({series} offset $__range or ({missed}))"
    anew = f"increase({series}[$__range]) + min_over_time({series}[$__range]) and resets({series}[$__range]) > 0"
    newborn = f"({anew} or max_over_time({series}[$__range])) unless {known}"
    return _over("sum", by, f"(increase({series}[$__range]) and {known}) or ({newborn})")


def quantile(share: float, name: str, by: str = "", where: str = "") -> str:
    """A quantile of a histogram, over the last moments."""
    return f"histogram_quantile({share}, {rate(f'{name}_bucket', _with_le(by), where)})"


def quantile_in_range(share: float, name: str, by: str = "", where: str = "") -> str:
    """A quantile of a histogram, over the time that the dashboard shows."""
    return f"histogram_quantile({share}, {in_range(f'{name}_bucket', _with_le(by), where)})"


def last(by: str = "", where: str = "", *, of: str = "success") -> str:
    """When an operation last succeeded, or last failed, in milliseconds; known also of a process that has gone."""
    name = _LAST_SUCCESS if of == "success" else _LAST_FAILURE
    return f"1000 * {_newest(name, by, where)}"


def failing_now(by: str = "pipeline", where: str = "") -> str:
    """How many steps stand failed: their last try failed. 0 if all are fine, nothing where nothing ever ended."""
    success = _newest(_LAST_SUCCESS, "pipeline, kind", where)
    failure = _newest(_LAST_FAILURE, "pipeline, kind", where)
    count = f"count by ({by})" if by else "count"
    failed = f"{count} (({failure} > {success}) or ({failure} unless {success}))"
    return f"{failed} or 0 * {count} ({success})"


def state(by: str, where: str = "") -> str:
    """1 while the last try of a step is a failed one, else 0; over time."""
    success, failure = now(_LAST_SUCCESS, by, where), now(_LAST_FAILURE, by, where)
    return f"({failure} > bool {success}) or (0 * {failure} + 1) or (0 * {success})"


def zero_of(name: str, where: str = "", *, label: str = "") -> str:
    """0 as long as a metric exists at all.

    Args:
        name: The metric that witnesses that something was there to count.
        where: Matchers on it.
        label: A label to set to ``none``, which the legend shows.
    """
    zero = f"0 * sum({selector(name, where)})"
    return f'label_replace({zero}, "{label}", "none", "", "")' if label else zero


def at_least_zero(expression: str, witness: str) -> str:
    """An expression, or *witness* where it has no series at all: "none happened" is not "nothing is known"."""
    return f"({expression}) or on() ({witness})"


def _newest(name: str, by: str, where: str) -> str:
    return _over("max", by, f"max_over_time({selector(name, where)}[$__range])")


def _over(how: str, by: str, expression: str) -> str:
    return f"{how} by ({by}) ({expression})" if by else f"{how}({expression})"


def _with_le(by: str) -> str:
    return f"le, {by}" if by else "le"
