"""What options of trtexec, perf_analyzer, k6 and hyperfine are here: for whoever types them out of habit."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from loadtrt.cli.trtexec_options import TRTEXEC

if TYPE_CHECKING:
    from collections.abc import Sequence

# option: what it is in loadtrt, in options of loadtrt; "" and the reason for one that has no counterpart.
_PERF_ANALYZER = {
    "model-name": ("--engine", ""),
    "concurrency-range": ("sweep --contexts", "in flight are contexts × --buffers"),
    "request-rate-range": ("sweep --rate", ""),
    "request-rate": ("--rate", ""),
    "request-distribution": ("--arrivals", ""),
    "request-intervals": ("--trace", "instants, not gaps"),
    "latency-threshold": ("capacity --objective", "such as 'latency.p99 < 10ms'"),
    "binary-search": ("capacity --objective", "finds the highest rate"),
    "measurement-interval": ("--duration", "with a unit"),
    "measurement-mode": ("--requests", "or --duration, or --precision"),
    "measurement-request-count": ("--requests", ""),
    "request-count": ("--requests", ""),
    "warmup-request-count": ("--warmup", "a time"),
    "stability-percentage": ("--precision", ""),
    "max-trials": ("--precision", "ends a run once it is precise enough"),
    "percentile": ("--objective", "p50, p90, p95, p99 and p99.9 are always shown"),
    "input-data": ("--inputs", ""),
    "shape": ("--shapes", ""),
    "batch-size": ("--batch", ""),
    "shared-memory": ("--no-copies", ""),
    "collect-metrics": ("--telemetry", "on by default"),
    "metrics-url": ("--telemetry", "by NVML, without a URL"),
    "metrics-interval": ("--telemetry", "by NVML, without an interval"),
    "latency-report-file": ("--json", "report run.json -o run.csv makes the CSV"),
    "profile-export-file": ("--json", ""),
    "max-threads": ("--contexts", "one task drives all of them"),
    "string-data": ("--inputs", ""),
    "service-kind": ("", "loadtrt drives the engine itself, without a server"),
    "streaming": ("", "loadtrt drives the engine itself, without a server"),
    "url": ("", "loadtrt drives the engine itself, without a server"),
    "sequence-length": ("", "requests do not depend on each other"),
}
_K6 = {
    "vus": ("--contexts", "or --buffers: requests in flight"),
    "iterations": ("--requests", ""),
    "stage": ("--stages", ""),
    "rps": ("--rate", ""),
    "threshold": ("--objective", ""),
    "thresholds": ("--objective", ""),
    "abort-on-fail": ("--abort-on-fail", ""),
    "out": ("--json", "or --metrics"),
    "summary-export": ("--json", ""),
    "summary-trend-stats": ("--objective", "p50, p90, p95, p99 and p99.9 are always shown"),
    "tag": ("", "results have no tags"),
}
_HYPERFINE = {
    "runs": ("--repeat", ""),
    "min-runs": ("--repeat", ""),
    "max-runs": ("--repeat", ""),
    "parameter-scan": ("sweep --contexts", "or --batch, --buffers, --rate"),
    "parameter-list": ("sweep --contexts", "or --batch, --buffers, --rate"),
    "export-json": ("--json", ""),
    "export-csv": ("report --output", "of a file of --json"),
    "export-markdown": ("report --output", "of a file of --json"),
    "reference": ("compare --a", "of files of --json"),
    "prepare": ("", "run it yourself before loadtrt"),
    "setup": ("", "run it yourself before loadtrt"),
    "cleanup": ("", "run it yourself after loadtrt"),
    "time-unit": ("", "--json keeps all times in ns"),
}
TOOLS: dict[str, dict[str, tuple[str, str]]] = {
    "trtexec": {option.name: (option.here, option.note) for option in TRTEXEC.values()},
    "perf_analyzer": _PERF_ANALYZER,
    "k6": _K6,
    "hyperfine": _HYPERFINE,
}
_KNOWN = {(tool, name.lower()): value for tool, options in TOOLS.items() for name, value in options.items()}


def counterpart(written: str, known: Sequence[str]) -> str | None:
    """What an option of another tool is here, in a sentence; None for an option of none.

    written: the option, with its dashes.
    known: the options of the command that was called.
    """
    tool = next((tool for tool in TOOLS if (tool, written.lstrip("-").lower()) in _KNOWN), None)
    if tool is None:
        return None
    here, note = _KNOWN[tool, written.lstrip("-").lower()]
    if not here:
        return f"{written} is {tool}'s and has no counterpart here: {note}"
    return f"{written} is {tool}'s: that is {_named(here, known)} here{note and f'; {note}'}"


def _named(here: str, known: Sequence[str]) -> str:
    """The options, with the command that has them where it is not the one that was called."""
    options = [word for word in here.split() if word.startswith("--")]
    if here.startswith(("--", "build --")) and set(options) <= set(known):
        return here[here.index("--") :]
    command = "" if not here.startswith("--") else f"{command_of(options[0])} "
    return f"'loadtrt {command}{here}'"


def command_of(option: str) -> str:
    """The first command that has an option."""
    from loadtrt.cli.main import COMMANDS

    commands = {name: importlib.import_module(module).command for name, (module, _) in COMMANDS.items()}
    return next(
        name
        for name, command in commands.items()
        if any(option in (*parameter.opts, *parameter.secondary_opts) for parameter in command.params)
    )
