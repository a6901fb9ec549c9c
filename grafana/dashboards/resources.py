"""Resource Monitoring Dashboard: do the pipelines, the host and the monitoring itself have what they need?"""

from __future__ import annotations

from typing import Final

from grafana.dashboards import _queries as q
from grafana.dashboards._board import Board
from grafana.dashboards._links import TROUBLE, Logs
from grafana.dashboards._panels import bars, lines, log_lines, words
from grafana.dashboards._tables import Column, failures, rows
from grafana.dashboards._words import YES_OR_NO, Scale, higher_is_better, lower_is_better, trouble

__all__ = ["BOARD"]

_SAMPLES: Final = Logs(channel="monitoring.system_metrics")
_NO_HOST: Final = "no node-exporter"
_NO_SAMPLE: Final = "no resource sample yet"
_HOST_CPU: Final = '1 - avg by (instance) (rate(node_cpu_seconds_total{{mode="idle"}}[{window}]))'
_HOST_MEMORY: Final = "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes"
_REAL: Final = '{fstype!~"tmpfs|ramfs|overlay|squashfs|fuse.*", mountpoint!~"/(dev|proc|run|sys)($|/.*)"}'
_DISK_FREE: Final = f"node_filesystem_avail_bytes{_REAL} / node_filesystem_size_bytes{_REAL}"
_NOT_FILLING: Final = Scale(((None, "text"),), nothing="not filling")
_FREE: Final = q.selector("disk_free_bytes")
_CHANGE: Final = q.alive(f"deriv({_FREE}[$__range])")
_FULL_IN: Final = f"min by (path) ({_FREE} / (-1 * (({_CHANGE}) < 0)))"

FINE_NOW: Final = (
    words(
        "Host processor",
        f"max({_HOST_CPU.format(window='$__range')})",
        lower_is_better(0.8, 0.9),
        w=3,
        about="Share of the host's processor time in use, over this range. Orange from 80 %, red from 90 %.",
        unit="percentunit",
        empty=_NO_HOST,
        logs=_SAMPLES,
        runbook="HighCpu",
    ),
    words(
        "Host memory",
        f"max({_HOST_MEMORY})",
        lower_is_better(0.8, 0.9),
        w=3,
        about="Share of the host's memory in use now. Orange from 80 %, red from 90 %.",
        unit="percentunit",
        empty=_NO_HOST,
        logs=_SAMPLES,
        runbook="HostMemoryLow",
    ),
    words(
        "Fullest disk: free",
        f"min({_DISK_FREE})",
        higher_is_better(0.2, 0.05),
        w=3,
        about="Free share of the host's fullest file system. Orange below 20 %, red below 5 %.",
        unit="percentunit",
        empty=_NO_HOST,
        logs=_SAMPLES,
        runbook="DiskFilling",
    ),
    words(
        "Pipelines: processor",
        f"sum({q.living('process_cpu_ratio', 'pipeline')})",
        w=3,
        decimals=2,
        about="Processor cores that the pipelines keep busy, at their last samples. A training may use all.",
        unit="suffix: cores",
        empty=_NO_SAMPLE,
        logs=_SAMPLES,
        runbook="HighCpu",
    ),
    words(
        "Pipelines: memory",
        f"sum({q.living('process_resident_memory_bytes', 'pipeline')})",
        w=3,
        decimals=1,
        about="Resident memory of the pipelines, at their last samples.",
        unit="bytes",
        empty=_NO_SAMPLE,
        logs=_SAMPLES,
        runbook="HighMemory",
    ),
    words(
        "Targets down",
        "count(up == 0) or 0 * count(up)",
        trouble("all up"),
        w=3,
        about="Services that Prometheus cannot read now. The table names them.",
        unit="suffix: down",
        empty="Prometheus has no targets",
        runbook="TargetDown",
    ),
    words(
        "Telemetry errors",
        q.at_least_zero(q.in_range("telemetry_errors_total"), q.zero_of("audit_records_total")),
        trouble("none"),
        w=3,
        about="Failures of the observability itself in this range: a sink that raised. The pipeline goes on.",
        unit="suffix: errors",
        empty="no pipeline reports",
        logs=Logs(channel="monitoring.monitoring"),
        runbook="TelemetryErrors",
    ),
    words(
        "Log lines lost",
        q.at_least_zero(q.in_range("log_records_dropped_total"), q.zero_of("audit_records_total")),
        trouble("none"),
        w=3,
        about="Log records that could not be written in this range: a full disk, or a full queue.",
        unit="suffix: lost",
        empty="no pipeline reports",
        logs=Logs(channel="monitoring.monitoring"),
        runbook="LogRecordsDropped",
    ),
)

SINCE_WHEN: Final = (
    lines(
        "Processor, each pipeline",
        {"{{pipeline}}": q.living("process_cpu_ratio", "pipeline", how="sum")},
        w=8,
        about="Cores that a pipeline keeps busy; 1 is one core.",
        unit="suffix: cores",
        empty=_NO_SAMPLE,
        logs=_SAMPLES,
        runbook="HighCpu",
    ),
    lines(
        "Memory, each pipeline",
        {"{{pipeline}}": q.living("process_resident_memory_bytes", "pipeline", how="sum")},
        w=8,
        about="Resident memory of a pipeline's processes. A line that only climbs is a leak.",
        unit="bytes",
        empty=_NO_SAMPLE,
        logs=_SAMPLES,
        runbook="HighMemory",
    ),
    lines(
        "Storage, each pipeline",
        {
            "{{pipeline}} read": q.rate("process_read_bytes", "pipeline"),
            "{{pipeline}} written": q.rate("process_written_bytes", "pipeline"),
        },
        w=8,
        about="Bytes a second read from and written to storage.",
        unit="Bps",
        empty=_NO_SAMPLE,
        logs=_SAMPLES,
        runbook="DiskFilling",
    ),
    lines(
        "Processor, host",
        {"{{instance}}": _HOST_CPU.format(window="$__rate_interval")},
        limits=lower_is_better(0.8, 0.9),
        high=1,
        w=8,
        about="Share of the host's processor time in use.",
        unit="percentunit",
        empty=_NO_HOST,
        logs=_SAMPLES,
        runbook="HighCpu",
    ),
    lines(
        "Memory that is left",
        {
            "as a pipeline sees it": q.living("system_memory_available_bytes", how="min"),
            "host {{instance}}": "min by (instance) (node_memory_MemAvailable_bytes)",
        },
        w=8,
        about="Memory that could still be given, as the pipelines sampled it and as the host reports it.",
        unit="bytes",
        empty=_NO_SAMPLE,
        logs=_SAMPLES,
        runbook="HostMemoryLow",
    ),
    lines(
        "Disk space that is left",
        {"{{path}}": q.living("disk_free_bytes", "path", how="min")},
        w=8,
        about="Free bytes where the pipelines write their logs and data.",
        unit="bytes",
        empty=_NO_SAMPLE,
        logs=_SAMPLES,
        runbook="DiskFilling",
    ),
)

WHERE: Final = (
    rows(
        "Each pipeline",
        ["pipeline"],
        [
            Column("Cores", q.living("process_cpu_ratio", "pipeline", how="sum"), "short", 2),
            Column("Memory", q.living("process_resident_memory_bytes", "pipeline", how="sum"), "bytes", 1),
            Column("Read", q.living("process_read_bytes", "pipeline", how="sum"), "bytes", 1),
            Column("Written", q.living("process_written_bytes", "pipeline", how="sum"), "bytes", 1),
        ],
        sort="Memory",
        w=8,
        about="What each pipeline uses now; read and written since its processes started.",
        unit="short",
        empty=_NO_SAMPLE,
        logs=_SAMPLES,
        runbook="HighMemory",
    ),
    rows(
        "Each disk",
        ["path"],
        [
            Column("Free", q.living("disk_free_bytes", "path", how="min"), "bytes", 1),
            Column("Change a day", f"86400 * min by (path) ({_CHANGE})", "bytes", 1),
            Column("Full in", _FULL_IN, "s", scale=_NOT_FILLING),
        ],
        w=8,
        about="Space where the pipelines write, how it changes at the pace of this range, and when it would be gone. "
        "Not filling: it has not shrunk.",
        unit="short",
        empty=_NO_SAMPLE,
        logs=_SAMPLES,
        runbook="DiskFilling",
    ),
    rows(
        "Each target",
        ["job", "instance"],
        [
            Column("Up", "min by (job, instance) (up)", scale=YES_OR_NO),
            Column("Takes", "max by (job, instance) (scrape_duration_seconds)", "s", 2),
            Column("Up in this range", "min by (job, instance) (avg_over_time(up[$__range]))", "percentunit", 1),
        ],
        w=8,
        about="Each service that Prometheus reads: whether it answers, how long that takes, and how often it did.",
        unit="short",
        empty="Prometheus has no targets",
        runbook="TargetDown",
    ),
)

THE_MONITORING: Final = (
    bars(
        "Log lines, by level",
        {"{{level}}": q.rate("log_records_total", "level")},
        colours={"ERROR": "red", "CRITICAL": "purple", "WARNING": "orange", "INFO": "blue"},
        about="Log records a second that the pipelines wrote, by level.",
        unit="short",
        empty="no log line yet",
        runbook="LogRecordsDropped",
    ),
    bars(
        "What was recorded",
        {
            "lineage node: {{type}}": f"60 * {q.rate('lineage_nodes_total', 'type')}",
            "lineage edge: {{kind}}": f"60 * {q.rate('lineage_edges_total', 'kind')}",
            "audit record": f"60 * {q.rate('audit_records_total')}",
        },
        about="Lineage that was new to the store, and audit records on disk, a minute.",
        unit="cpm",
        empty="nothing recorded yet",
        runbook="TelemetryErrors",
    ),
    rows(
        "Telemetry errors and lost lines",
        ["sink", "error", "reason"],
        [
            Column(
                "Number",
                q.at_least_zero(
                    f"{q.in_range('telemetry_errors_total', 'sink, error')} "
                    f"or {q.in_range('log_records_dropped_total', 'reason')}",
                    q.zero_of("audit_records_total", label="error"),
                ),
                scale=trouble("none"),
            )
        ],
        sort="Number",
        about="Which sink failed with what, and why log lines were lost, in this range.",
        unit="short",
        empty="no pipeline reports",
        logs=Logs(channel="monitoring.monitoring"),
        runbook="TelemetryErrors",
    ),
    rows(
        "Versions",
        ["version", "python"],
        [Column("Processes", f"count by (version, python) ({q.alive(q.selector('build_info'))})")],
        about="Versions of this package and of Python that run now. More than one row: an update is half done.",
        unit="short",
        empty="no pipeline reports",
        runbook="PipelineAbsent",
    ),
)

WHY: Final = (
    failures(
        "Latest warnings",
        Logs(TROUBLE.level, "ml_pipeline|monitoring.*"),
        about="The latest warnings and errors. An operation_id leads to the step that ran at that moment.",
        unit="short",
        empty="no warning in this range",
        runbook="HighMemory",
    ),
    log_lines(
        "Resource samples",
        _SAMPLES,
        about="What the pipelines sampled, newest first.",
        unit="short",
        empty="no resource sample in this range",
        runbook="HighMemory",
    ),
)

BOARD: Final = Board(
    uid="ml-resources",
    title="Resource Monitoring Dashboard",
    about="Do the pipelines, the host and the monitoring itself have what they need? If not: since when, where, why.",
    rows={
        "Is it fine now?": FINE_NOW,
        "Since when?": SINCE_WHEN,
        "Where?": WHERE,
        "The monitoring itself": THE_MONITORING,
        "Why?": WHY,
    },
)
