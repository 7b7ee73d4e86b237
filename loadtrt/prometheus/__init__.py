"""The metrics that loadtrt exports."""
