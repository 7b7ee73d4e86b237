"""The doctor: its report and verdict, the software it looks for, the command; and that it does not crash here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from fake_tensorrt import RtxTargets
from loadtrt import doctor
from loadtrt.cli.doctor import command
from loadtrt.cuda import runtime
from loadtrt.doctor import Check, Group, conclude, fail, host, info, ok, warn
from loadtrt.engines.flavour import FLAVOURS, Capabilities, Flavour, FoundFlavour


def of(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


# --- the report


def test_a_remedy_goes_with_a_fault_and_only_with_it() -> None:
    """warn and fail without a remedy, ok and info with one, cannot be made."""
    for status, remedy in (("warn", ""), ("fail", ""), ("ok", "do"), ("info", "do")):
        with pytest.raises(ValueError, match="remedy"):
            Check("name", status, "found", remedy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("opens", "module", "tensorrt", "words"),
    [
        (True, True, True, "can run TensorRT plans on the GPU, ONNX models on the CPU (ONNX Runtime) and simulated"),
        (False, True, False, "would need an NVIDIA GPU that works, with its driver and the CUDA bindings."),
        (True, False, False, "would need a TensorRT module, such as pip install 'loadtrt[tensorrt]'."),
        (False, False, False, "CUDA bindings, and a TensorRT module"),
    ],
)
def test_verdict(opens: bool, module: bool, tensorrt: bool, words: str) -> None:
    """TensorRT runs where a GPU opens and a module loads; the verdict names what is missing, and fails for neither."""
    groups = [
        Group("Python", [ok("ONNX Runtime", "1.31")]),
        Group("GPU 0", [ok("opens", "")] if opens else []),
        Group("TensorRT", [ok("tensorrt", "10")] if module else [info("tensorrt", "none")]),
    ]
    report = conclude(groups)
    assert report.runs == {"simulated": True, "onnxruntime": True, "tensorrt": tensorrt}
    assert words in report.verdict
    assert not report.failed


def test_a_broken_gpu_beside_a_good_one() -> None:
    """One GPU that opens is enough to run; one that does not is still a failure."""
    groups = [Group("GPU 0", [fail("opens", "lost", "reboot")]), Group("GPU 1", [ok("opens", "")])]
    report = conclude([*groups, Group("TensorRT", [ok("tensorrt", "10")])])
    assert (report.runs["tensorrt"], report.failed) == (True, True)


def test_a_crashing_check_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a check did not expect is reported as a failure of that group; the other groups stand."""

    def crash(root: Path) -> list[Check]:
        raise RuntimeError("no such planet")

    monkeypatch.setattr(host, "host", crash)
    report = doctor.examine()
    [check] = next(group.checks for group in report.groups if group.title == "Host")
    assert (check.status, check.found) == ("fail", "could not be examined: RuntimeError: no such planet")
    assert len(report.groups) >= 5
    assert report.failed


# --- software


def test_missing_packages_and_a_broken_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package fails with the pip command; an ONNX Runtime that does not load fails and says why."""
    monkeypatch.setattr(host, "PACKAGES", ("click", "no-such-package"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = host.packages()
    assert of(found, "missing packages").remedy == "pip install no-such-package"
    assert of(found, "ONNX Runtime").status == "fail"
    assert "onnxruntime" in of(found, "ONNX Runtime").remedy


def flavours(monkeypatch: pytest.MonkeyPatch, **reasons: str) -> None:
    """find_flavours gives these: a reason why not, or "" for a module of version 10.16.1."""
    can = Capabilities(**{name: name in ("build", "plugins") for name in Capabilities.__slots__})
    module = SimpleNamespace(ComputeCapability=RtxTargets)
    found = [
        FoundFlavour(name, None if why else Flavour(name, module, "10.16.1", can, Path("/opt/libnvinfer.so.10")), why)
        for name, why in reasons.items()
    ]
    monkeypatch.setattr(host, "find_flavours", lambda: found)


def capability(monkeypatch: pytest.MonkeyPatch, *gpus: tuple[int, int]) -> None:
    monkeypatch.setattr(host, "_compute_capabilities", lambda: list(gpus))


def test_tensorrt_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that loads is shown with version, library and abilities; absent ones are named and no fault."""
    flavours(monkeypatch, tensorrt="", tensorrt_lean="not installed", tensorrt_rtx="not installed")
    capability(monkeypatch, (9, 0))
    found = host.tensorrt()
    assert [(check.name, check.status) for check in found] == [("tensorrt", "ok"), ("not installed", "info")]
    whose = "of no pip package: of the system, a container or an archive of NVIDIA's"
    assert found[0].found == f"10.16.1; library /opt/libnvinfer.so.10 {whose}; can build, plugins"
    assert found[1].found == "tensorrt_lean, tensorrt_rtx"


def test_no_tensorrt_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """None at all is a warning with the pip command beside a GPU, and a fact without one."""
    for name in FLAVOURS:  # what an import of an absent module does
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, f"{name}_bindings", None)
    capability(monkeypatch, (9, 0))
    [check] = host.tensorrt()
    assert (check.status, "loadtrt[tensorrt]" in check.remedy) == ("warn", True)
    capability(monkeypatch)
    assert [check.status for check in host.tensorrt()] == ["info"]


def test_a_broken_tensorrt_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is here and does not load fails beside a GPU; without one it may only lack the driver."""
    flavours(monkeypatch, tensorrt="cannot be imported: libnvinfer.so.10", tensorrt_lean="")
    capability(monkeypatch, (9, 0))
    check = of(host.tensorrt(), "tensorrt")
    assert (check.status, "reinstall" in check.remedy) == ("fail", True)
    capability(monkeypatch)
    assert of(host.tensorrt(), "tensorrt").status == "warn"


@pytest.mark.parametrize(
    ("gpus", "status"),
    [
        ([(9, 0)], "warn"),
        ([(10, 0)], "warn"),
        ([(8, 9)], "ok"),
        ([(12, 0)], "ok"),
        ([(9, 0), (8, 6)], "ok"),
        ([], "ok"),
    ],
)
def test_rtx_refuses_data_centre_gpus(
    monkeypatch: pytest.MonkeyPatch, gpus: list[tuple[int, int]], status: str
) -> None:
    """TensorRT-RTX on GPUs that it refuses is a warning, and does not count as a TensorRT that can run here."""
    flavours(monkeypatch, tensorrt_rtx="")
    capability(monkeypatch, *gpus)
    check = of(host.tensorrt(), "tensorrt_rtx")
    assert check.status == status
    report = conclude([Group("GPU 0", [ok("opens", "")]), Group("TensorRT", [check])])
    assert report.runs["tensorrt"] is (status == "ok")


# --- the command


def examined(monkeypatch: pytest.MonkeyPatch, *checks: Check) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: conclude([Group("Here", checks)]))


def test_command_shows_each_remedy_and_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check, every remedy under it, one closing line; at most 80 columns and no colour codes off a terminal."""
    long = "a finding that is long enough to need more than one line of eighty columns " * 2
    examined(monkeypatch, ok("good", long), warn("so-so", "[bold]slow[/bold]", "hurry"), fail("bad", "gone", "find it"))
    result = CliRunner().invoke(command, env={"COLUMNS": "80"})
    assert result.exit_code == 3
    assert max(len(line) for line in result.output.splitlines()) <= 80
    assert "\x1b" not in result.output
    for words in ("good", "[bold]slow[/bold]", "hurry", "FAIL", "find it", "This machine can run simulated engines."):
        assert words in result.output


def test_command_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 with warnings, 3 with a failure, in both forms."""
    examined(monkeypatch, warn("so-so", "slow", "hurry"))
    assert CliRunner().invoke(command).exit_code == 0
    examined(monkeypatch, fail("bad", "gone", "find it"))
    assert CliRunner().invoke(command, ["--json"]).exit_code == 3


def test_here() -> None:
    """On this very machine the doctor does not crash, agrees with CUDA about the GPU, and its JSON is whole."""
    result = CliRunner().invoke(command, ["--json"])
    assert result.exit_code in (0, 3), result.output
    report = json.loads(result.stdout)
    assert report["failed"] == (result.exit_code == 3)
    assert report["runs"]["simulated"] is True
    assert report["runs"]["onnxruntime"] is True
    titles = [group["title"] for group in report["groups"]]
    assert any(title.startswith("GPU 0") for title in titles) == runtime.has_gpu()
    if not runtime.has_gpu():
        assert report["runs"]["tensorrt"] is False
        assert "TensorRT plans would need" in report["verdict"]
    checks = [check for group in report["groups"] for check in group["checks"]]
    assert all(check["found"] and check["name"] != "examination" for check in checks)
