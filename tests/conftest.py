"""Every async test runs twice: on asyncio, and on trio's virtual clock, where sleeping takes no time."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

# As `loadtrt` sets it, before numpy is imported: OpenBLAS's threads spin while they wait for each other, and take
# several times as long where other processes have the cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
import trio.testing
from hypothesis import HealthCheck, settings

from fake_tensorrt import World
from loadtrt import environment
from loadtrt.cuda.runtime import has_gpu
from loadtrt.engines.open import open_engine
from loadtrt.sizing.rig import Rig
from rigs import Heard
from tensorrt_bench import FLAVOURS, Bench

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

_SERVING = re.compile(r"^from (benchmarks|loadtrt\.(lanes|sizing))\b", re.MULTILINE)
_SERVING_ROOMS = ("api", "capacity", "runs")  # through loadtrt.run
_ENGINES = ("onnxruntime", "tensorrt", "tensorrt_rtx", "tensorrt_dispatch", "tensorrt_lean")

# Hypothesis: no limit of time, and the same examples in every run, so that a change fails for what it changes alone.
# pytest --hypothesis-profile explore draws new examples.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("explore"), derandomize=True)
settings.register_profile("few", settings.get_profile("same"), max_examples=10)  # .ci/versions
settings.load_profile("same")

# Garbage is looked for once in what stays: a run collects all of it before it measures, 0.15 s each time, and modules
# of tests make a hundred runs while they are imported.
_THRESHOLDS = gc.get_threshold()
gc.set_threshold(0)
gc.unfreeze = lambda: None

# A shell has what it starts with & ignore Ctrl-C, as .ci/run starts .ci/versions.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="Skip tests of schedulers, processes and real engines.")
    parser.addoption("--first", action="store_true", help="Run the first case alone of each test that has several.")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --quick no test of rooms that serve, or simulate, thousands of requests, which take three quarters of all
    time."""
    if config.getoption("quick") and collection_path.suffix == ".py":
        serves = collection_path.parent.name in _SERVING_ROOMS or _SERVING.search(collection_path.read_text())
        return bool(serves) or None
    return None


def pytest_collection(session: pytest.Session) -> None:
    """With --quick a test is skipped once it starts a process or imports an engine: no list of such tests is kept."""
    if session.config.getoption("quick"):

        def start(*_: object, **__: object) -> None:
            pytest.skip("starts a process", allow_module_level=True)

        subprocess.Popen.__init__ = start  # type: ignore[method-assign]
        sys.meta_path.insert(0, _NoEngine())


class _NoEngine:
    """A finder of modules that skips the test which imports a real engine."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name.partition(".")[0].removesuffix("_bindings") in _ENGINES:
            pytest.skip(f"runs {name}", allow_module_level=True)


@pytest.fixture(scope="session", autouse=True)
def frozen() -> None:
    """Garbage is not looked for in what is imported and collected."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


@pytest.fixture(scope="session", autouse=True)
def asked_once() -> Iterator[None]:
    """git is asked about this checkout by the first of two thousand runs alone: 20 ms each time."""
    asked, here = environment.revision, (None, os.getcwd(), os.environ.get("PATH"))
    first = cache(asked)  # not before a run asks: with --quick that is a process, which skips the test

    def revision(folder: Path | None = None) -> str:
        return (first if (folder, os.getcwd(), os.environ.get("PATH")) == here else asked)(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "revision", revision)
        yield


@pytest.fixture(params=["asyncio", "trio-mock"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """asyncio as users have it, or trio with a clock that jumps to the next deadline as soon as all tasks wait."""
    if request.param == "asyncio":
        return ("asyncio", {"debug": False})
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """GPU tests are skipped where there is no GPU, and each where its plan is missing (PLANS names their folder). With
    --first other cases of a test are left out: they make the same calls of other libraries."""
    if config.getoption("first"):
        items[:] = reversed({item.nodeid.partition("[")[0]: item for item in reversed(items)}.values())
    here = Path(__file__).parent / "gpu"
    skip = pytest.mark.skip(reason="no CUDA GPU here")
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not has_gpu():
                item.add_marker(skip)


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A rig that tells nobody."""
    with Rig(Heard()) as one:
        yield one


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every engine that a rig opens."""
    found: list[Any] = []

    def opening(*arguments: Any) -> Any:
        engine = open_engine(*arguments)
        found.append(engine)
        return engine

    monkeypatch.setattr("loadtrt.runs.opened.open_engine", opening)
    return found


def _plan(name: str) -> Path:
    path = Path(os.environ.get("PLANS", "nowhere")) / name
    if not path.exists():
        pytest.skip(f"{path} is missing: set PLANS to the folder of plans")
    return path


@pytest.fixture(scope="session")
def googlenet() -> Path:
    """data fp32[1..32, 3, 224, 224] → prob fp32[N, 1000], FP16 inside, version-compatible."""
    return _plan("googlenet_dyn_fp16_vc.plan")


@pytest.fixture
def tiny() -> Path:
    """x fp32[1, 256] → y fp32[1, 10], version-compatible."""
    return _plan("tiny_mlp_fp32_vc.plan")


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    """Every flavour of TensorRT, as a fake."""
    return str(request.param)


@pytest.fixture
def bench(flavour: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    """A plan's file and the fake TensorRT that runs it."""
    return Bench(flavour, monkeypatch, tmp_path, World())
