"""What bounds the series of the metrics, and the collector that reads counters from plain integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily

from ml_pipeline.config._encoding import to_plain
from ml_pipeline.config._metric_specs import FROM_TALLY, METRICS, PREFIX, MetricSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ml_pipeline._tally import Tally
    from ml_pipeline.config._events import AlertEvent

__all__ = ["MOST_SERIES", "OTHER", "TallyCollector", "declared", "identity_of", "label"]

OTHER: Final = "other"
MOST_SERIES: Final = 1_000
"""Of one metric; past it, the labels of every further series but its pipeline are ``other``."""
_MOST_LABEL_CHARACTERS: Final = 128
_KINDS: Final = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


def declared(spec: MetricSpec, registry: CollectorRegistry) -> Any:
    """Make the metric that a specification describes, and register it."""
    options = {"buckets": spec.buckets} if spec.buckets else {}
    return _KINDS[spec.type](PREFIX + spec.name, spec.help, spec.labels, registry=registry, **options)


class TallyCollector:
    """Reads the counters of the hot paths when Prometheus asks, not when something happens."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def describe(self) -> Iterable[CounterMetricFamily]:
        return [self._family(name) for name in sorted(FROM_TALLY)]

    def collect(self) -> Iterator[CounterMetricFamily]:
        tally = self._tally
        yield self._family("log_records_total", {key: tally.log_records[key] for key in list(tally.log_records)})
        dropped = {(reason,): tally.log_records_dropped[reason] for reason in list(tally.log_records_dropped)}
        yield self._family("log_records_dropped_total", dropped)
        yield self._family("audit_records_total", {(): tally.audit_records})
        errors = {key: tally.telemetry_errors[key] for key in list(tally.telemetry_errors)}
        yield self._family("telemetry_errors_total", errors)

    def _family(self, name: str, values: Mapping[Any, int] | None = None) -> CounterMetricFamily:
        spec = METRICS[name]
        family = CounterMetricFamily(PREFIX + name.removesuffix("_total"), spec.help, labels=spec.labels)
        for labels, value in _folded(values or {}).items():
            family.add_metric(labels, value)
        return family


def label(value: object) -> str:
    """Any value as a label: short, and text that UTF-8 can hold, or no metric at all could be read any more."""
    if type(value) is str and len(value) <= _MOST_LABEL_CHARACTERS and value.isascii():
        return value
    plain = to_plain(value)
    return "" if plain is None else str(plain)[:_MOST_LABEL_CHARACTERS]


def identity_of(event: AlertEvent) -> tuple[str, ...]:
    """What tells an alert apart from others, its pipeline first: of one identity, the latest alert is active."""
    return (event.pipeline, event.kind, event.operation, event.model, event.feature, event.error_type)


def _folded(values: Mapping[Any, int]) -> dict[tuple[str, ...], int]:
    """The counts by their labels; past the bound of series, the further ones together."""
    folded: dict[tuple[str, ...], int] = {}
    for key, value in values.items():
        labels = tuple(map(label, key))
        if labels not in folded and len(folded) >= MOST_SERIES:
            labels = tuple(OTHER for _ in labels)
        folded[labels] = folded.get(labels, 0) + value
    return folded
