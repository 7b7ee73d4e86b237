"""What TensorRT warned of, as findings: each known warning with its cause and remedy, the others as one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from loadtrt.printing import shortened
from loadtrt.results.run_result import Finding
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from loadtrt.results.engine_info import EngineInfo, LogMessage

_QUOTED = 160  # characters of a message in a sentence
_TOLD = 3  # messages in a sentence
_OTHER_MODEL = "across different models of devices"
_EAGER = "lazy loading is not enabled"


def log_findings(engine: EngineInfo, log_file: str | None = None) -> list[Finding]:
    """Findings by the log of an engine's library. log_file: where --trt-log puts it, None for nowhere."""
    return findings_of_log(engine.log, engine.name, engine.device, engine.build, log_file)


def findings_of_log(
    log: Iterable[LogMessage], plan: str, device: str, build: Mapping[str, Any] | None, log_file: str | None = None
) -> list[Finding]:
    """The same of a plan on this device; build: how it was built, None if not known."""
    found, others = [], []
    for message in log:
        if _OTHER_MODEL in message.text:
            found.append(_built_elsewhere(message, plan, device, build or {}))
        elif _EAGER in message.text:
            found.append(_loaded_eagerly(message))
        else:
            others.append(message)
    if others:
        errors = sum(message.times for message in others if message.severity == "error")
        where = "--trt-log FILE shows"
        if log_file is not None:
            where = "look on stderr at" if log_file == "-" else f"look in {log_file} at"
        found.append(
            Finding(
                kind="tensorrt-error" if errors else "tensorrt-warning",
                evidence=f"TensorRT logged {log_summary(others)}",
                cause="TensorRT logged this about the plan or this machine, and continued"
                if not errors
                else "a call failed that loadtrt does not need, or TensorRT continued in another way",
                remedy=f"{where} what it logged around that; run.json has each message in full",
            )
        )
    return found


def log_summary(messages: Iterable[LogMessage]) -> str:
    """ "3 warnings: X (2 times); Y", the most telling first, cut where they are long or many."""
    ordered = sorted(messages, key=lambda message: (message.severity != "error", -message.times))
    counts = [
        plural(number, severity)
        for severity in ("error", "warning")
        if (number := sum(message.times for message in ordered if message.severity == severity))
    ]
    told = [f'"{shortened(message.text, _QUOTED)}"{_times(message)}' for message in ordered[:_TOLD]]
    more = [f"and {plural(len(ordered) - _TOLD, 'other message')}"] if len(ordered) > _TOLD else []
    return f"{' and '.join(counts)}: {'; '.join([*told, *more])}"


def together(engines: Sequence[EngineInfo]) -> EngineInfo:
    """An engine that was opened several times, with what was logged each time."""
    log: dict[tuple[str, str], LogMessage] = {}
    for message in (message for engine in engines for message in engine.log):
        key = (message.severity, message.text)
        log[key] = replace(message, times=message.times + (log[key].times if key in log else 0))
    return replace(engines[0], log=tuple(log.values()))


def _built_elsewhere(message: LogMessage, plan: str, device: str, build: Mapping[str, Any]) -> Finding:
    built_on = str(build.get("gpu") or "").partition(", compute capability")[0]
    if built_on == device:
        cause = f"the plan was built on a {built_on} of another kind: other memory, clocks, or a MIG slice"
    else:
        there = f" ({built_on})" if built_on else ""
        cause = f"the plan was built on another model of GPU{there} than this one ({device})"
    options = f", with the options in {plan}.json" if build.get("options") else ""
    return Finding(
        kind="built-elsewhere",
        evidence=f'TensorRT warns{_times(message)}: "{shortened(message.text, _QUOTED)}"',
        cause=f"{cause}; its kernels are those that were fastest there",
        remedy=f"build it again on this GPU: loadtrt build {build.get('model') or 'MODEL'} -o {plan}{options}",
    )


def _loaded_eagerly(message: LogMessage) -> Finding:
    return Finding(
        kind="eager-loading",
        evidence=f'TensorRT warns{_times(message)}: "{shortened(message.text, _QUOTED)}"',
        cause="CUDA loads every kernel of each library at the start, which takes GPU memory and time; latencies do not "
        "depend on it",
        remedy="set CUDA_MODULE_LOADING=LAZY in the environment",
    )


def _times(message: LogMessage) -> str:
    return f" ({message.times} times)" if message.times > 1 else ""
