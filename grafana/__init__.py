"""What Grafana is given: the source of its dashboards."""
