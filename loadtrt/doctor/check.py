"""One check, a group of them, and the report: pure data and the verdict drawn from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Status = Literal["ok", "info", "warn", "fail"]

# The checks that decide what can be run, by name.
ONNX_RUNTIME = "ONNX Runtime"
GPU_OPENS = "opens"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and how that is.

    ok; info: a fact without a judgement; warn: a measurement may suffer, or something is not available; fail: something
    that is here is broken. warn and fail come with a remedy, ok and info without.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if (self.status in ("warn", "fail")) != bool(self.remedy):
            raise ValueError(f"check '{self.name}' is {self.status} and its remedy is '{self.remedy}'")


@dataclass(frozen=True, slots=True)
class Group:
    """Checks that belong together."""

    title: str
    checks: Sequence[Check]


@dataclass(frozen=True, slots=True)
class Report:
    """runs: which kinds of engine can serve here ("simulated", "onnxruntime", "tensorrt"); verdict: that in words."""

    groups: Sequence[Group]
    runs: dict[str, bool]
    verdict: str

    @property
    def failed(self) -> bool:
        """Whether anything that is here is broken."""
        return any(check.status == "fail" for group in self.groups for check in group.checks)

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and strings, for JSON."""
        return asdict(self) | {"failed": self.failed}


def ok(name: str, found: str) -> Check:
    return Check(name, "ok", found)


def info(name: str, found: str) -> Check:
    return Check(name, "info", found)


def warn(name: str, found: str, remedy: str) -> Check:
    return Check(name, "warn", found, remedy)


def fail(name: str, found: str, remedy: str) -> Check:
    return Check(name, "fail", found, remedy)


def warn_if(bad: bool, name: str, found: str, remedy: str) -> Check:
    return warn(name, found, remedy) if bad else ok(name, found)


def conclude(groups: Sequence[Group]) -> Report:
    """The report of these groups. TensorRT needs a GPU that opens and a TensorRT module that loads."""
    checks = [check for group in groups for check in group.checks]
    gpu = any(check.name == GPU_OPENS and check.status == "ok" for check in checks)
    module = any(check.status == "ok" for group in groups if group.title == "TensorRT" for check in group.checks)
    onnx = any(check.name == ONNX_RUNTIME and check.status == "ok" for check in checks)
    runs = {"simulated": True, "onnxruntime": onnx, "tensorrt": gpu and module}

    able = [
        words
        for can, words in (
            (runs["tensorrt"], "TensorRT plans on the GPU"),
            (onnx, "ONNX models on the CPU (ONNX Runtime)"),
            (True, "simulated engines"),
        )
        if can
    ]
    missing = [
        words
        for here, words in (
            (gpu, "an NVIDIA GPU that works, with its driver and the CUDA bindings"),
            (module, "a TensorRT module, such as pip install 'loadtrt[tensorrt]'"),
        )
        if not here
    ]
    verdict = f"This machine can run {', '.join(able[:-1])}{' and ' if able[:-1] else ''}{able[-1]}."
    if missing:
        verdict += f" TensorRT plans would need {', and '.join(missing)}."
    return Report(groups, runs, verdict)
