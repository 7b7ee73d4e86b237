"""What TensorRT says on a real GPU, and what is said of plans that it does not take.

Of the plans in $PLANS those of the kit, built on an H100, make TensorRT warn on any other model of GPU. Some tests need
more, and are skipped without it: $PLANS/tiny_no_lean.plan, built by TensorRT 8.6 as `loadtrt build tiny.onnx -o
tiny_no_lean.plan --version-compatible --exclude-lean-runtime` does, and $LEAN_LIBRARY, the libnvinfer_lean.so.8 of
pip's tensorrt-lean 8.6.0; tensorrt_rtx; a TensorRT with a builder.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtrt.cuda.runtime import device_properties
from loadtrt.engines.flavour import find_flavour, unsupported_gpu
from onnx_files import doubling

OTHER_MODEL = "across different models of devices"


def _loadtrt(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtrt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _told(done: subprocess.CompletedProcess[str]) -> str:
    """All that it said, without the ends of lines."""
    return " ".join((done.stdout + done.stderr).split())


def _installed(package: str, pattern: str) -> Path:
    """A package's library."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return next(Path(spec.submodule_search_locations[0]).glob(pattern))


def _plan(name: str) -> Path:
    path = Path(os.environ.get("PLANS", "nowhere")) / name
    if not path.exists():
        pytest.skip(f"{path} is missing")
    return path


@pytest.fixture
def elsewhere(googlenet: Path) -> Path:
    """A plan of another model of GPU."""
    if "H100" in device_properties(0).name:
        pytest.skip("the plan was built on this model of GPU")
    return googlenet


def test_a_plan_of_another_model_of_gpu_is_told(elsewhere: Path, tmp_path: Path) -> None:
    """TensorRT's own words are whole in run.json, and a finding has the remedy; inspect and profile tell it too."""
    run = tmp_path / "run.json"
    load = ("--batch", "16", "--contexts", "2", "--requests", "50")
    done = _loadtrt("run", elsewhere, "--allow-host-code", *load, "--json", run)
    assert done.returncode in (0, 97), done.stderr
    (model,) = json.loads(run.read_text())["models"].values()
    (message,) = [message for message in model["engine"]["log"] if OTHER_MODEL in message["text"]]
    assert message["severity"] == "warning"
    (found,) = [finding for finding in model["findings"] if finding["kind"] == "built-elsewhere"]
    assert device_properties(0).name in found["cause"]
    assert "build it again on this GPU" in _told(done)
    errors = [message for message in model["engine"]["log"] if message["severity"] == "error"]
    assert errors == [], "a healthy run has no errors: what loadtrt's own questions raise is not to be told"
    for command in (("inspect",), ("profile", "--batch", "16", "--duration", "200ms")):
        done = _loadtrt(*command, elsewhere, "--allow-host-code")
        assert "build it again on this GPU" in _told(done), command


def test_a_sweep_tells_it_once(elsewhere: Path) -> None:
    """However many points there are."""
    points = ("--contexts", "1,2", "--batch", "16", "--duration", "300ms", "--warmup", "100ms")
    done = _loadtrt("sweep", elsewhere, "--allow-host-code", *points)
    assert done.returncode in (0, 97), done.stderr
    assert _told(done).count("build it again on this GPU") == 1


def test_more_contexts_than_memory_holds(googlenet: Path) -> None:
    """Memory's words, before anything is allocated. (A GPU that holds 32 767 contexts of 32 images has 1 TB.)"""
    done = _loadtrt("run", googlenet, "--allow-host-code", "--batch", "32", "--contexts", "32767")
    assert done.returncode == 3
    assert "is free: use fewer --contexts" in _told(done)


def _one_run(plan: Path, *more: str | Path) -> tuple[int, str, dict[str, Any]]:
    done = _loadtrt(
        "run", plan, "--requests", "2000", "--verify", "--max-lateness", "1s", "--json", "-", "--quiet", *more
    )
    (model,) = json.loads(done.stdout)["models"].values() if done.stdout else ({},)
    return done.returncode, done.stderr, model


def _is_86() -> bool:
    found = find_flavour("tensorrt").flavour
    return found is not None and found.version.startswith("8.6")


@pytest.fixture(scope="module")
def no_lean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version-compatible plan of 8.6 without its lean runtime: that of $PLANS, or built here."""
    if not _is_86():
        return _plan("tiny_no_lean.plan")
    folder = tmp_path_factory.mktemp("no_lean")
    model, plan = doubling(folder, 1, 256), folder / "tiny_no_lean.plan"
    done = _loadtrt("build", model, "-o", plan, "--version-compatible", "--exclude-lean-runtime")
    assert done.returncode == 0, done.stderr
    return plan


@pytest.fixture
def refused(no_lean: Path) -> Path:
    """The same, where this TensorRT is another version."""
    if _is_86():
        pytest.skip("TensorRT 8.6 runs the plan by itself")
    return no_lean


@pytest.fixture
def library() -> Path:
    path = Path(os.environ.get("LEAN_LIBRARY", "nowhere"))
    if not path.is_file():
        pytest.skip("LEAN_LIBRARY names no lean runtime")
    return path


@pytest.mark.parametrize("contexts", ["1", "4"])
def test_a_lean_library_runs_a_plan_without_its_lean_runtime(no_lean: Path, library: Path, contexts: str) -> None:
    """Its outputs are those of a quiet run, and the notes name the library."""
    code, said, model = _one_run(no_lean, "--lean-library", library, "--contexts", contexts)
    assert code in (0, 97), said
    assert model["verification"]["different"] == 0
    assert model["ok"] == model["submitted"] >= 2000
    assert any("the lean runtime" in note and "TensorRT 8.6.0" in note for note in model["engine"]["notes"])
    shown = _loadtrt("inspect", no_lean, "--lean-library", library).stdout
    assert "lean runtime  " in shown
    assert str(library) in shown


def test_without_it_the_cause_is_named(refused: Path) -> None:
    """TensorRT is asked, and refuses; the sentence is of the lean runtime."""
    if importlib.util.find_spec("tensorrt_lean_libs") or importlib.util.find_spec("tensorrt_lean"):
        pytest.skip("a lean runtime is installed")
    code, said, _ = _one_run(refused)
    assert code == 3
    assert len(said.splitlines()) == 1
    assert "carries no lean runtime" in said or "without its lean runtime" in said
    assert "--lean-library" in said


def test_the_lean_runtime_of_another_version_is_told(refused: Path) -> None:
    """As where the installed one, of 10, is named for a plan of 8.6."""
    library = _installed("tensorrt_lean_libs", "libnvinfer_lean.so.*")
    code, said, _ = _one_run(refused, "--lean-library", library)
    assert code == 3
    assert "another version" in said


def test_a_dispatch_library_is_refused_runtime(refused: Path) -> None:
    """One sentence, whatever the library answers."""
    library = _installed("tensorrt_dispatch_libs", "libnvinfer_dispatch.so.*")
    code, said, _ = _one_run(refused, "--lean-library", library)
    assert code in (2, 3)
    assert len(said.splitlines()) == 1


def test_rtx_on_a_gpu_that_it_does_not_support(tmp_path: Path) -> None:
    """`build` warns; `run` and `inspect` say which GPUs RTX supports, and what to use instead."""
    flavour = find_flavour("tensorrt_rtx").flavour
    if flavour is None or unsupported_gpu(flavour, device_properties(0).compute_capability) is None:
        pytest.skip("TensorRT-RTX is not installed, or supports this GPU")
    plan = tmp_path / "rtx.plan"
    done = _loadtrt("build", "zoo:googlenet", "-o", plan, "--flavour", "rtx", "--batch", "16", "--fp16")
    assert done.returncode == 0, done.stderr
    assert "WARNING: TensorRT-RTX does not support compute capability" in done.stderr
    for command in ("run", "inspect", "profile"):
        done = _loadtrt(command, plan)
        said = _told(done)
        assert "TensorRT-RTX does not support compute capability" in said, said
        assert "built for another GPU" not in said
        assert "full TensorRT" in said
        assert done.returncode == (0 if command == "inspect" else 3)


def test_loading_the_builder_is_told(tmp_path: Path) -> None:
    """Beside what building took."""
    flavour = find_flavour("tensorrt").flavour
    if flavour is None or not flavour.capabilities.build:
        pytest.skip("no TensorRT here builds")
    plan = tmp_path / "g.plan"
    done = _loadtrt("build", "zoo:googlenet", "-o", plan, "--batch", "1", "--builder-optimization-level", "0")
    assert done.returncode == 0, done.stderr
    assert "in all, of which loading the builder took" in done.stdout
    assert json.loads(Path(f"{plan}.json").read_text())["load_ns"] > 10**6
