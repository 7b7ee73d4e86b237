"""What options of trtexec, perf_analyzer, k6 and hyperfine are here: for whoever types them out of habit."""

from __future__ import annotations

import importlib
import re
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
_PERF_ANALYZER |= {
    "model-version": ("", "the engine's file is the version"),
    "protocol": ("", "loadtrt drives the engine itself, without a server"),
    "header": ("", "loadtrt drives the engine itself, without a server"),
    "async": ("", "requests never wait for each other"),
    "sync": ("--buffers 1", "a request of each context at a time"),
    "concurrency": ("--contexts", "in flight are contexts × --buffers"),
    "max-concurrency": ("sweep --contexts", "in flight are contexts × --buffers"),
    "dynamic-concurrency-mode": ("sweep --contexts", "in flight are contexts × --buffers"),
    "zero-input": ("--inputs zeros", ""),
    "verbose": ("--trt-log", "--json has all numbers"),
}
_K6 = {
    "vus": ("--contexts", "or --buffers: requests in flight"),
    "iterations": ("--requests", ""),
    "stage": ("--stages", ""),
    "rps": ("--rate", ""),
    "threshold": ("--objective", ""),
    "thresholds": ("--objective", ""),
    "abort-on-fail": ("--abort-on-fail", ""),
    "out": ("--json", "or --push"),
    "summary-export": ("--json", ""),
    "summary-trend-stats": ("--objective", "p50, p90, p95, p99 and p99.9 are always shown"),
    "tag": ("--label", ""),
    "duration": ("--duration", ""),
    "env": ("", "--config FILE takes options from a file"),
    "paused": ("", "a run begins at once"),
    "linger": ("", "a run ends once it is measured"),
    "config": ("--config", ""),
    "quiet": ("--quiet", ""),
    "verbose": ("--trt-log", "--json has all numbers"),
}
_HYPERFINE = {
    "warmup": ("--warmup", "a time, not a number of runs"),
    "parameter-step-size": ("sweep --contexts", "or --batch, --buffers, --rate"),
    "conclude": ("", "run it yourself after loadtrt"),
    "command-name": ("", "results have the names of their files"),
    "shell": ("", "no shell is started"),
    "ignore-failure": ("", "a run that fails ends with exit code 3"),
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
# Options of one letter, whose capitals differ from small letters.
SHORT = {
    "perf_analyzer": {
        "m": "model-name", "x": "model-version", "b": "batch-size", "t": "concurrency", "c": "max-concurrency",
        "d": "dynamic-concurrency-mode", "p": "measurement-interval", "l": "latency-threshold", "r": "max-trials",
        "s": "stability-percentage", "u": "url", "i": "protocol", "H": "header", "f": "latency-report-file",
        "a": "async", "z": "zero-input", "v": "verbose",
    },
    "k6": {
        "u": "vus", "d": "duration", "i": "iterations", "s": "stage", "e": "env", "o": "out", "p": "paused",
        "l": "linger", "c": "config", "q": "quiet", "v": "verbose",
    },
    "hyperfine": {
        "w": "warmup", "r": "runs", "m": "min-runs", "M": "max-runs", "p": "prepare", "s": "setup", "c": "cleanup",
        "C": "conclude", "n": "command-name", "P": "parameter-scan", "D": "parameter-step-size", "L": "parameter-list",
        "S": "shell", "N": "shell", "i": "ignore-failure", "u": "time-unit",
    },
}  # fmt: skip
TOOLS: dict[str, dict[str, tuple[str, str]]] = {
    "trtexec": {option.name: (option.here, option.note) for option in TRTEXEC.values()},
    "perf_analyzer": _PERF_ANALYZER,
    "k6": _K6,
    "hyperfine": _HYPERFINE,
}


def _plain(name: str) -> str:
    """A name without what people write differently: --batchSize and --batch_size are --batch-size."""
    return re.sub("[-_]", "", name).lower()


_KNOWN = {(tool, _plain(name)): value for tool, options in TOOLS.items() for name, value in options.items()}


def counterpart(written: str, command: str, known: Sequence[str]) -> str | None:
    """What an option of another tool is here, in a sentence, of each tool that has it where they mean different things
    by it; None for an option of none.

    written: the option, with its dashes.
    command: the command that was called, and `known` its options.
    """
    name = written.lstrip("-")
    told: dict[str, str] = {}  # by what is meant
    for tool in TOOLS:
        long = SHORT.get(tool, {}).get(name, "") if written == f"-{name}" else name
        if (tool, _plain(long)) in _KNOWN:
            here, note = _KNOWN[tool, _plain(long)]
            whose = f"{tool}'s" if written.startswith("--") else f"{tool}'s ({long.replace('-', ' ')})"
            told.setdefault(here or note, whose + _told(here, note, command, known))
    return f"{written} is {'; or '.join(told.values())}" if told else None


def _told(here: str, note: str, command: str, known: Sequence[str]) -> str:
    """What an option is here, in the words that follow whose it is."""
    if not here:
        return f" and has no counterpart here: {note}"
    if here == command:
        return f" and is not needed here, as it is what 'loadtrt {command}' does"
    if not set(re.findall("--[a-z-]+", note)) <= set(known):
        note = ""  # it names an option that this command lacks
    return f": that is {_named(here, known)} here{note and f' ({note})'}"


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
