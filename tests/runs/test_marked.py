"""--nvtx: ranges of phases, of requests where Python drives, and of turns where it does not."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from callback_device import CallbackDevice
from command_line import loadtrt
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Load, Stop, drive
from loadtrt.loop.compiled import is_compiled
from loadtrt.results.run_result import RunResult
from loadtrt.runs.marked import Marked, Marks
from spinning_engine import SpinningEngine, use

if TYPE_CHECKING:
    from pathlib import Path

    from spinning_engine import Way

WAYS = ("compiled", "python", "waits") if is_compiled() else ("python", "waits")


class Domain:
    """What nvtx.get_domain gives, with what is asked of it. log: ("begin" or "end", message) of each range."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self._begun: dict[int, str] = {}

    def get_event_attributes(self, message: str) -> str:
        return message

    def start_range(self, attributes: str) -> int:
        self._begun[len(self.log)] = attributes
        self.log.append(("begin", attributes))
        return len(self.log) - 1

    def end_range(self, begun: int) -> None:
        self.log.append(("end", self._begun.pop(begun)))

    @property
    def open(self) -> list[str]:
        return list(self._begun.values())


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Domain:
    """Of a module nvtx that is put in place of the real one."""
    made = Domain()
    monkeypatch.setitem(sys.modules, "nvtx", SimpleNamespace(get_domain=lambda name: {"loadtrt": made}[name]))
    return made


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_phases_and_requests_have_ranges(quiet: tuple[str, ...], domain: Domain, tmp_path: Path) -> None:
    """One phase after the other, and a range on its lane for each request that is sent."""
    options = ("--engine", "simulated:service=1ms", "--contexts", "2", "--requests", "40", "--warmup", "50ms", *quiet)
    assert loadtrt("run", *options, "--nvtx", "--json", "run.json", folder=tmp_path).returncode in (0, 97)
    phases = [entry for entry in domain.log if not entry[1].startswith("lane ")]
    assert phases == [(what, phase) for phase in ("load", "warm-up", "measure") for what in ("begin", "end")]
    assert domain.open == []
    result = RunResult.model_validate_json((tmp_path / "run.json").read_text())
    begun = [message for what, message in domain.log if what == "begin" and message.startswith("lane ")]
    assert len(begun) == result.model.submitted + result.phases.warmup_requests
    assert set(begun) == {"lane 0", "lane 1"}
    measured = domain.log[domain.log.index(("begin", "measure")) :]
    assert sum(what == "begin" and message.startswith("lane ") for what, message in measured) == 40


def test_each_engine_of_a_sweep_is_loaded_in_a_range(domain: Domain, tmp_path: Path) -> None:
    options = ("--engine", "simulated:service=1ms", "--requests", "4", "--warmup", "0", "--quiet")
    assert loadtrt("sweep", *options, "--contexts", "1,2", "--nvtx", folder=tmp_path).returncode in (0, 97)
    phases = [message for what, message in domain.log if what == "begin" and not message.startswith("lane ")]
    assert phases == ["load", "measure"] * 2
    assert domain.open == []


@pytest.mark.parametrize("way", WAYS)
def test_turns_have_ranges_where_python_does_not_submit(
    way: Way, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is the one that it is without ranges, and what it submits has none; `submit` and `wait` have."""
    use(monkeypatch, way)
    device = CallbackDevice(lanes=2, slots=2, per_launch=2, service_ns=(200_000,))
    whole: Any = SpinningEngine(device, way)
    whole.parts, whole.batches = ((),), (1,)
    marks = Marks()
    engine: Any = Marked(whole, [{}], marks)
    assert (engine.spins() is None) == (whole.spins() is None) == (way == "waits")
    recorder = Recorder(2, engine.now_ns(), keep=4096)
    recorder.begin(engine.now_ns())
    driven = anyio.run(drive, engine, recorder, Load(None, least_ns=50_000_000), Stop())
    marks.close()
    assert driven.submitted > 100
    assert domain.open == []
    begun = [message for what, message in domain.log if what == "begin"]
    if way == "waits":
        assert 2 * sum(message.startswith("lane ") for message in begun) == driven.submitted  # two a launch
    else:
        assert set(begun) == {"turn"}
        assert begun.count("turn") > 5


def test_without_the_option_nothing_is_loaded(domain: Domain, tmp_path: Path) -> None:
    options = ("--engine", "simulated:null", "--requests", "4", "--warmup", "0", "--quiet")
    assert loadtrt("run", *options, folder=tmp_path).returncode in (0, 97)
    assert domain.log == []


def test_a_package_that_is_missing_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "nvtx", None)
    done = loadtrt("run", "--engine", "simulated:null", "--duration", "10h", "--nvtx", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "loadtrt: --nvtx needs the package nvtx: pip install 'loadtrt[nvtx]'\n"


def test_the_real_package_takes_the_ranges(tmp_path: Path) -> None:
    """Nobody listens to it here."""
    options = ("--engine", "simulated:service=1ms", "--requests", "20", "--warmup", "0", "--quiet")
    done = loadtrt("run", *options, "--nvtx", "--json", "run.json", folder=tmp_path)
    assert done.returncode in (0, 97), done.stderr
    assert RunResult.model_validate_json((tmp_path / "run.json").read_text()).model.ok == 20
