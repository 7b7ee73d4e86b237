"""Watching a run while it goes on: the observer process, live view, metrics and GPU telemetry."""
