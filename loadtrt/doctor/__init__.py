"""What this machine can run, what is wrong with it, and what to do about it. Works without a GPU, too."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Status = Literal["ok", "info", "warn", "fail"]

# The checks that decide what can be run, by name.
ONNX_RUNTIME = "ONNX Runtime"
GPU_OPENS = "opens"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the machine.

    name: what was examined.
    status: "ok"; "info", a fact without a judgement; "warn", a measurement may suffer or something is not available;
        "fail", something that is installed is broken.
    remedy: what to do, of "warn" and "fail" alone.
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
    """The result of an examination.

    runs: whether each kind of engine ("simulated", "onnxruntime", "tensorrt") can run.
    verdict: `runs` in words.
    """

    groups: Sequence[Group]
    runs: dict[str, bool]
    verdict: str

    @property
    def failed(self) -> bool:
        """Whether anything that is installed is broken."""
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

    able = ["TensorRT plans on the GPU"] if runs["tensorrt"] else []
    able += ["ONNX models on the CPU (ONNX Runtime)"] if onnx else []
    able += ["simulated engines"]
    missing = [] if gpu else ["an NVIDIA GPU that works, with its driver and the CUDA bindings"]
    missing += [] if module else ["a TensorRT module, such as pip install 'loadtrt[tensorrt]'"]
    verdict = f"This machine can run {', '.join(able[:-1])}{' and ' if able[:-1] else ''}{able[-1]}."
    if missing:
        verdict += f" TensorRT plans would need {', and '.join(missing)}."
    return Report(groups, runs, verdict)


__all__ = ["Check", "Group", "Report", "examine"]


def examine(root: Path = Path("/")) -> Report:
    """Examine this machine; `root` is the folder of /proc, /sys and /dev. Takes about a second a GPU; never raises.

    Opens a CUDA context on every visible GPU, the only proof that it can be used; it lives until this process ends.
    """
    from loadtrt.doctor import host, nvidia

    groups = [
        *_examined("Python and packages", lambda: [Group("Python and packages", host.packages())]),
        *_examined("Host", lambda: [Group("Host", host.host(root))]),
        *_examined("Limits and permissions", lambda: [Group("Limits and permissions", host.limits(root))]),
        *_examined("Driver and CUDA", lambda: [Group("Driver and CUDA", nvidia.driver(root))]),
        *_examined("GPU", nvidia.gpus),
        *_examined("TensorRT", lambda: [Group("TensorRT", host.tensorrt())]),
    ]
    return conclude(groups)


def _examined(title: str, look: Callable[[], list[Group]]) -> list[Group]:
    """The groups that `look` returns. An exception becomes a failed check: the other checks are still shown."""
    try:
        return look()
    except Exception as error:
        found = f"could not be examined: {type(error).__name__}: {error}"
        remedy = "please report this with the output of 'loadtrt doctor --json'"
        return [Group(title, [fail("examination", found, remedy)])]
