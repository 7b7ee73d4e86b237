"""Plans without their lean runtime: the library that runs them, named or installed. TensorRT is a fake here."""

from __future__ import annotations

import _struct
import gc
import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from command_line import loadtrt
from loadtrt.engines import lean_library
from loadtrt.engines.lean_library import LeanLibrary
from loadtrt.errors import EngineError, UsageError
from shared_libraries import library_named
from tensorrt_bench import Bench, bench_of, write_plan

if TYPE_CHECKING:
    from collections.abc import Callable

LIBRARY = "libnvinfer_lean.so.8"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    """Dispatch 10.16 with a plan of 8.6 that carries no lean runtime."""
    bench = bench_of("dispatch", monkeypatch, tmp_path)
    write_plan(Path(bench.path), version=(8, 6, 0, 12))
    return bench


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Makes a file that passes for the lean runtime of a version."""

    def make(version: tuple[int, ...] = (8, 6, 0), folder: Path = tmp_path) -> str:
        path = folder / LIBRARY
        path.write_bytes(b"\x7fELF")
        monkeypatch.setattr(lean_library, "_loaded", lambda path: LeanLibrary(path, version))
        return str(path)

    return make


def sidecar(plan: str, **options: Any) -> None:
    """The description that `loadtrt build` leaves beside a plan."""
    facts = {"loadtrt_version": "0", "model": "m", "model_sha256": "", "precision": "", "flavour": "tensorrt"}
    more = {"flavour_version": "8.6.1", "gpu": "", "targets": [], "tensors": [], "build_ns": 1, "plan_sha256": ""}
    Path(f"{plan}.json").write_text(json.dumps({**facts, **more, "plan_bytes": 1, "options": options}))


def test_a_named_library_runs_the_plan(bench: Bench, library: Callable[..., str]) -> None:
    """Law: its runtime deserializes the plan without --allow-host-code, the notes name it, and the runtime that loaded
    it is freed after it."""
    name = library()
    plan = bench.load(batch=1, lean_library=name, allow_host_code=False)
    assert f"load_runtime {name}" in bench.world.calls
    assert plan.notes[0] == f"the lean runtime {name} (TensorRT 8.6.0) runs the plan"
    assert plan.open.loader is not plan.open.runtime
    plan.close()
    gc.collect()
    assert bench.world.events[-3:] == ["engine", "runtime", "runtime"]


def test_an_installed_library_is_found(
    bench: Bench, library: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Law: of the version that built the plan alone, and without an import of its package."""
    package = tmp_path / "packages" / "tensorrt_lean_libs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('bindings of another Python')")
    monkeypatch.syspath_prepend(package.parent)
    name = library(folder=package)
    plan = bench.load(batch=1)
    assert plan.open.lean is not None
    assert str(plan.open.lean.path) == name
    plan.close()
    library((8, 5, 0), package)
    plan = bench.load(batch=1)
    assert plan.open.lean is None
    plan.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"exclude_lean_runtime": True, "version_compatible": True},
            "without its lean runtime.*--lean-library, such as",
        ),
        ({"version_compatible": False}, "without --version-compatible.*install that TensorRT"),
        (None, "carries no lean runtime.*if the plan is version-compatible, name the lean runtime of TensorRT 8.6.0"),
    ],
)
def test_why_a_plan_without_its_lean_runtime_does_not_load(
    bench: Bench, options: dict[str, bool] | None, words: str
) -> None:
    """Law: TensorRT is asked first; the cause is what the description of the build says, or both that can be."""
    bench.world.refuses = "Failed due to an old deserialization call on a newer plan file."
    if options is not None:
        sidecar(bench.path, **options)
    with pytest.raises(EngineError, match=rf"was built by TensorRT 8.6.0.12.*{words}.*says.*old deserialization"):
        bench.load(batch=1)


def test_a_lean_runtime_is_not_advised_where_it_would_not_help(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A TensorRT that is older than the plan, or two major versions newer, loads no lean runtime of the plan's."""
    for version, plan in (("10", (10, 99, 0, 1)), ("11", (8, 6, 0, 12))):
        bench = bench_of(version, monkeypatch, tmp_path, refuses="Version tag does not match.")
        write_plan(Path(bench.path), version=plan)
        with pytest.raises(EngineError, match=r"carries no lean runtime.*install that TensorRT") as error:
            bench.load(batch=1)
        assert "--lean-library" not in str(error.value)


def test_a_library_of_another_version_is_told(bench: Bench, library: Callable[..., str]) -> None:
    """Law: TensorRT is asked here too; both versions are in the sentence."""
    bench.world.refuses = "Version tag does not match. Note: Current Version: 239, Serialized Engine Version: 236"
    name = library((10, 16, 1))
    with pytest.raises(EngineError, match=r"built by TensorRT 8.6.0.12, and .* another version, .*TensorRT 10.16.1"):
        bench.load(batch=1, lean_library=name)
    with pytest.raises(EngineError, match=r"runs only version-compatible plans"):
        bench.load(batch=1, lean_library=library())


def test_a_library_that_tensorrt_does_not_load(bench: Bench, library: Callable[..., str]) -> None:
    """Law: one sentence with TensorRT's own reason."""
    bench.world.lean_loads = False
    with pytest.raises(EngineError, match=r"cannot load the lean runtime.*could not create lean runtime"):
        bench.load(batch=1, lean_library=library())


def files(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    """What is no lean runtime, by kind, and what is said of it."""
    text, cut, full = tmp_path / "notes.txt", tmp_path / "cut.so", Path(_struct.__file__)
    text.write_text("no library")
    cut.write_bytes(full.read_bytes()[:100])
    return {
        "missing": (tmp_path / "none.so", "cannot read --lean-library .*No such file"),
        "folder": (tmp_path, "cannot read --lean-library .*Is a directory"),
        "text": (
            text,
            "is not a shared library: name a file such as libnvinfer_lean.so.8 of pip's tensorrt-lean==8.6.0",
        ),
        "cut": (cut, "cannot be loaded: .*cut.so: "),
        "another": (full, "is not a lean runtime of TensorRT"),
        "dispatch": (
            library_named(tmp_path / "libnvinfer_lean.so.8", "libnvinfer_dispatch.so.10"),
            "is libnvinfer_dispatch.so.10, which is not a lean runtime of TensorRT: name a file such as",
        ),
        "plugins": (
            library_named(tmp_path / "plugins.so", "libplugins.so"),
            "is libplugins.so, which is not a lean runtime of TensorRT",
        ),
    }


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "cut", "another", "dispatch", "plugins"])
def test_files_that_are_no_lean_runtime(bench: Bench, tmp_path: Path, kind: str) -> None:
    """Law: each kind of bad file is a UsageError, before any GPU is asked."""
    path, words = files(tmp_path)[kind]
    with pytest.raises(UsageError, match=words):
        bench.load(batch=1, lean_library=str(path))
    assert not bench.world.preflighted


def test_the_version_is_that_which_the_library_tells() -> None:
    """Law: that of its package, of a real library, which has a lean runtime's entry."""
    package = pytest.importorskip("tensorrt_dispatch_libs")
    (path,) = Path(package.__path__[0]).glob("libnvinfer_dispatch.so.*")
    installed = importlib.metadata.version("tensorrt_dispatch_cu13_libs").split(".")
    assert lean_library._loaded(path).version == tuple(map(int, installed[:3]))


def test_the_command_line_takes_it(tmp_path: Path) -> None:
    """Law: run and inspect refuse a bad library in one sentence with exit code 2; plans of RTX have none; a result
    makes no run load one."""
    plan = write_plan(tmp_path / "p.plan", version=(8, 6, 0, 12))
    rtx = write_plan(tmp_path / "r.plan", version=(1, 7, 1, 116), magic=b"vtrt")
    for command in ("run", "inspect"):
        for engine, words in ((plan, "No such file or directory"), (rtx, "for plans of TensorRT, and TensorRT-RTX")):
            done = loadtrt(command, engine, "--lean-library", str(tmp_path / "none"))
            assert done.returncode == 2, done.stdout
            assert words in done.stderr
    done = loadtrt("run", "simulated:null", "--lean-library", "x.so")
    assert done.returncode == 2
    assert "--lean-library is for TensorRT plans, not for simulated engines" in done.stderr
