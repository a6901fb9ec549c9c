"""The modules that users call: logging, operations, monitoring, alerting, metrics, lineage and dashboards."""
