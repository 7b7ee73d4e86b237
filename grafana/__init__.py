"""Dashboards, rules and provisioning for watching runs in Grafana; a part of the repository, not of the package."""
