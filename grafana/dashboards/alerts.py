"""Alerts Dashboard: what fires, since when, whose is it, and would anybody hear of it?"""

from __future__ import annotations

from typing import Final

from grafana.dashboards import _queries as q
from grafana.dashboards._board import Board
from grafana.dashboards._links import ERRORS, Logs, explore_url, link, runbook_link
from grafana.dashboards._panels import bars, lines, log_lines, ranking, timeline, words
from grafana.dashboards._tables import Column, failures, rows
from grafana.dashboards._words import YES_OR_NO, Scale, lower_is_better, trouble

__all__ = ["BOARD"]

_LINES: Final = Logs(tail='| logger="alerting"')
_KEYS: Final = "alertname, pipeline, kind, severity, job, instance"
_WAYS: Final = '{integration=~"email|slack|pagerduty|webhook"}'
_SENT: Final = f"alertmanager_notifications_total{_WAYS}"
_NOT_SENT: Final = f"alertmanager_notifications_failed_total{_WAYS}"
_TAKEN: Final = 'result="sent"'
_NOT_TAKEN: Final = 'result!="sent"'
_NO_ALERTMANAGER: Final = "no Alertmanager reports"
_NO_PROMETHEUS: Final = "Prometheus does not report on itself"
_WORKS: Final = Scale(((None, "red"), (1, "green")), {"1": ("works", "green")})
_FIRES: Final = Scale(((None, "red"),), {"1": ("firing", "red")})
_OF_PIPELINE: Final = explore_url(
    '{job="ml_pipeline", pipeline="${__data.fields.pipeline:percentencode}", level=~"WARNING|ERROR|CRITICAL"}'
)


def _firing(severity: str) -> str:
    chosen = q.FIRING.replace("{", f'{{severity=~"{severity}", ')
    return q.at_least_zero(f"count({chosen})", f"0 * count({q.WATCHDOG})")


FINE_NOW: Final = (
    words(
        "Critical",
        _firing("critical"),
        trouble("none"),
        w=3,
        about="Critical alerts that fire now: somebody has to act.",
        unit="suffix: firing",
        empty="alerting is silent: the watchdog is missing",
        logs=_LINES,
        runbook="PipelineFailure",
    ),
    words(
        "Warnings",
        _firing("warning|info"),
        trouble("none", "orange"),
        w=3,
        about="Warnings that fire now: somebody should look today.",
        unit="suffix: firing",
        empty="alerting is silent: the watchdog is missing",
        logs=_LINES,
        runbook="DataDrift",
    ),
    words(
        "Open in the pipelines",
        f"sum({q.now('alerts_active', 'pipeline, severity')})",
        trouble("none", "orange"),
        w=3,
        about="Alerts that the processes themselves raised and that are not resolved, as their store has them.",
        unit="suffix: open",
        empty="no pipeline reports",
        logs=_LINES,
        runbook="PipelineFailure",
    ),
    words(
        "Alerting",
        f"clamp_max(count({q.WATCHDOG}), 1)",
        _WORKS,
        w=2,
        about="The watchdog always fires: while it does, rules are evaluated.",
        unit="short",
        empty="the watchdog is missing: no alert can fire",
        runbook="Watchdog",
    ),
    words(
        "Notifications that failed",
        q.grown(_NOT_SENT),
        trouble("none"),
        w=3,
        about="Mails and messages that Alertmanager could not send in this range. It tries again.",
        unit="suffix: failed",
        empty=_NO_ALERTMANAGER,
        runbook="NotificationsFailing",
    ),
    words(
        "Given up by the pipelines",
        q.at_least_zero(q.in_range("alert_deliveries_total", where='result="dead"'), q.zero_of("alerts_total")),
        trouble("none"),
        w=3,
        about="Messages that the processes could not deliver in this range and try no more: `ml-pipeline alerts show`.",
        unit="suffix: given up",
        empty="no pipeline reports",
        logs=_LINES,
        runbook="NotificationsFailing",
    ),
    words(
        "Rules that failed",
        q.grown("prometheus_rule_evaluation_failures_total"),
        trouble("none"),
        w=3,
        about="Evaluations of rules that failed in this range: such a rule can neither fire nor resolve.",
        unit="suffix: failed",
        empty=_NO_PROMETHEUS,
        runbook="RuleEvaluationFailing",
    ),
    words(
        "Configuration",
        "min(prometheus_config_last_reload_successful) * min(alertmanager_config_last_reload_successful)",
        Scale(((None, "red"), (1, "green")), {"0": ("not loaded", "red"), "1": ("loaded", "green")}),
        w=2,
        about="Whether Prometheus and Alertmanager run with the configuration that lies on disk.",
        unit="short",
        empty=_NO_ALERTMANAGER,
        runbook="ConfigReloadFailed",
    ),
    words(
        "Silences",
        'sum(alertmanager_silences{state="active"})',
        Scale(((None, "green"), (1, "orange")), {"0": ("none", "green")}),
        w=2,
        about="Silences in force: alerts that they match fire here, but send nothing.",
        unit="suffix: in force",
        empty=_NO_ALERTMANAGER,
        runbook="NotificationsFailing",
    ),
)

SINCE_WHEN: Final = (
    timeline(
        "What fired",
        f"max by (alertname, pipeline, severity) ({q.FIRING})",
        "{{alertname}} {{pipeline}} ({{severity}})",
        _FIRES,
        w=8,
        about="Each alert while it fired. A short bar again and again is a threshold that is too tight.",
        unit="short",
        empty="nothing fired in this range",
        logs=_LINES,
        runbook="PipelineFailure",
    ),
    bars(
        "Raised by the pipelines, by kind",
        {"{{kind}}": f"60 * {q.rate('alerts_total', 'kind')}"},
        w=8,
        about="Alerts that the processes themselves raised, a minute, by kind.",
        unit="cpm",
        empty="no pipeline reports",
        logs=_LINES,
        runbook="PipelineFailure",
    ),
    lines(
        "Open in the pipelines, by severity",
        {"{{severity}}": f"sum by (severity) ({q.now('alerts_active', 'pipeline, severity')})"},
        w=8,
        about="Alerts that the processes themselves raised and that nobody and nothing has resolved, by severity.",
        unit="short",
        empty="no pipeline reports",
        logs=_LINES,
        runbook="PipelineFailure",
    ),
)

WHERE: Final = (
    rows(
        "Firing now",
        _KEYS.split(", "),
        [Column("For", f"max by ({_KEYS}) ((time() - ALERTS_FOR_STATE) and ignoring(alertstate) {q.FIRING})", "s")],
        sort="For",
        links=[
            runbook_link("${__data.fields.alertname:percentencode}"),
            link("Warnings and errors of its pipeline", _OF_PIPELINE),
        ],
        w=16,
        about="Every alert that fires, longest first. Its name leads to its runbook and to the lines of its pipeline.",
        unit="short",
        empty="nothing fires",
        logs=_LINES,
        runbook="PipelineFailure",
    ),
    ranking(
        "Time spent firing",
        f"60 * sum by (alertname) (sum_over_time({q.FIRING}[$__range:1m]))",
        "{{alertname}}",
        Scale(((None, "orange"),)),
        about="How long each alert fired in this range, all its series together.",
        unit="s",
        empty="nothing fired in this range",
        logs=_LINES,
        runbook="PipelineFailure",
    ),
    rows(
        "Raised by each pipeline",
        ["pipeline", "kind", "severity"],
        [Column("Raised", q.in_range("alerts_total", "pipeline, kind, severity"))],
        sort="Raised",
        w=8,
        about="Alerts that each process itself raised in this range, by kind and severity.",
        unit="short",
        empty="no pipeline reports",
        logs=_LINES,
        runbook="PipelineFailure",
    ),
    ranking(
        "Held back by the pipelines",
        q.at_least_zero(
            q.in_range("alerts_suppressed_total", "pipeline, reason"), q.zero_of("alerts_total", label="reason")
        ),
        "{{pipeline}} {{reason}}",
        about="Repeats and alerts that the processes held back in this range: within the cooldown, silenced, or muted "
        "by the alert that caused them.",
        unit="short",
        empty="no pipeline reports",
        logs=_LINES,
        runbook="PipelineFailure",
    ),
    rows(
        "Sent by the pipelines themselves",
        ["channel", "result"],
        [Column("Attempts", q.in_range("alert_deliveries_total", "channel, result"))],
        sort="Attempts",
        w=8,
        about="Attempts to deliver by the processes in this range, to Alertmanager or through channels of their own, "
        "such as mail: sent, failed and to be tried again, or dead: given up.",
        unit="short",
        empty="no pipeline has sent an alert",
        logs=_LINES,
        runbook="NotificationsFailing",
    ),
)

IS_IT_HEARD: Final = (
    bars(
        "Notifications sent, by way",
        {
            "{{integration}}": f"60 * sum by (integration) (rate({_SENT}[$__rate_interval]))",
            "pipelines, {{channel}}": f"60 * {q.rate('alert_deliveries_total', 'channel', _TAKEN)}",
        },
        w=8,
        about="Mails and messages that Alertmanager and the processes themselves sent, a minute, by way.",
        unit="cpm",
        empty=_NO_ALERTMANAGER,
        runbook="NotificationsFailing",
    ),
    bars(
        "Notifications that failed, by way",
        {
            "{{integration}}": f"60 * sum by (integration) (rate({_NOT_SENT}[$__rate_interval]))",
            "dropped by Prometheus": "60 * sum(rate(prometheus_notifications_dropped_total[$__rate_interval]))",
            "pipelines, {{channel}}": f"60 * {q.rate('alert_deliveries_total', 'channel', _NOT_TAKEN)}",
        },
        w=8,
        about="What Alertmanager and the processes could not send, and what Prometheus could not hand over, a minute.",
        unit="cpm",
        empty=_NO_ALERTMANAGER,
        runbook="NotificationsFailing",
    ),
    lines(
        "Time to send (95 %)",
        {
            "Alertmanager": "histogram_quantile(0.95, sum by (le) "
            "(rate(alertmanager_notification_latency_seconds_bucket[$__rate_interval])))",
            "pipelines, {{channel}}": q.quantile(0.95, "alert_delivery_seconds", "channel"),
        },
        w=8,
        about="95 of 100 notifications took no longer: from Alertmanager to the receiver, and from raising to delivery "
        "where pipelines send themselves.",
        unit="s",
        empty="nothing sent yet",
        runbook="NotificationsFailing",
    ),
    rows(
        "Groups of rules",
        ["rule_group"],
        [
            Column("Took", "max by (rule_group) (prometheus_rule_group_last_duration_seconds)", "s", 3),
            Column("Every", "max by (rule_group) (prometheus_rule_group_interval_seconds)", "s"),
            Column(
                "Of its time",
                "max by (rule_group) (prometheus_rule_group_last_duration_seconds) "
                "/ max by (rule_group) (prometheus_rule_group_interval_seconds)",
                "percentunit",
                1,
                lower_is_better(0.5, 0.9),
            ),
            Column(
                "Evaluated",
                "time() - min by (rule_group) (prometheus_rule_group_last_evaluation_timestamp_seconds > 0)",
                "s",
            ),
        ],
        sort="Of its time",
        about="How long each group of rules takes of the time that it has. Past 100 % alerts come late.",
        unit="short",
        empty="Prometheus has no rules",
        runbook="RuleEvaluationFailing",
    ),
    rows(
        "Where alerts go",
        ["job", "instance"],
        [
            Column("Up", 'min by (job, instance) (up{job=~"alertmanager|prometheus|mailpit"})', scale=YES_OR_NO),
            Column("Alerts held", 'sum by (job, instance) (alertmanager_alerts{state="active"})'),
        ],
        about="The services on an alert's way, and how many alerts each Alertmanager holds.",
        unit="short",
        empty="Prometheus has no targets",
        runbook="TargetDown",
    ),
)

WHY: Final = (
    failures(
        "Latest failures",
        ERRORS,
        about="The latest errors. An operation_id leads to every line of that step, a run_id to the whole run.",
        unit="short",
        empty="no error in this range",
        runbook="PipelineFailure",
    ),
    log_lines(
        "What the pipelines alerted on",
        _LINES,
        about="Lines of alerts that the pipelines raised, held back and resolved; newest first.",
        unit="short",
        empty="no alert in this range",
        runbook="PipelineFailure",
    ),
)

BOARD: Final = Board(
    uid="ml-alerts",
    title="Alerts Dashboard",
    about="What fires, since when, whose is it, and would anybody hear of it?",
    alertmanager=True,
    links=[link("Silences", "/alerting/silences?alertmanager=${alertmanager_datasource:text}")],
    rows={
        "Is it fine now?": FINE_NOW,
        "Since when?": SINCE_WHEN,
        "Where?": WHERE,
        "Is it heard?": IS_IT_HEARD,
        "Why?": WHY,
    },
)
