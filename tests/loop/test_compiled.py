"""Machine code is kept, and made anew once a file of the loop has changed; numba is imported where it is used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from callback_device import CallbackDevice
from loadtrt.errors import EngineError
from loadtrt.loop import compiled
from loadtrt.loop.compiled import is_compiled
from loadtrt.loop.requests import new_state

ROOT = Path(__file__).parents[2]
# In place of the loop, whose compilation takes seconds: one row of a request of lane 0.
SHORT = """
def spin(s, d, soon, until):
    write_row(s, 0, 1, 2, 0, 0, 0, 0, 0)
    return until
"""
SERVES = """
import numpy as np
from callback_device import CallbackDevice
from loadtrt.loop import compiled
from loadtrt.loop.requests import LAST, DRAINS, begin, new_state, view_of
device = CallbackDevice().device(compiled=True)
rows, cursor = np.zeros((9, 11), np.int64), np.array((0, 9), np.int64)
state = new_state(1, 1, 1, None, (0,), rows, cursor)
told = []
compiled.tell_of_compiling(told.append)
begin(view_of(state), 0)
state.n[LAST] = state.n[DRAINS] = 1
compiled.spinner(state, device)(10_000, 10_000)
hits = sum(compiled._entry(compiled.spin, compiled._STEPS, kept=True).stats.cache_hits.values())
print(compiled.is_compiled(), hits, cursor[0], rows[0, 8], bool(compiled.compiled_ns()), *told, sep="\\t")
"""


def serve(package: Path, cache: Path) -> list[str]:
    """Whether it was compiled, code taken from the cache, rows, and the lane of the first. What was told of compiling
    holds."""
    given = {**os.environ, "PYTHONPATH": f"{package}:{ROOT / 'tests/support'}", "NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", SERVES]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False, cwd=package)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *found, took_time = done.stdout.strip("\n").split("\t")[:5]
    told = done.stdout.strip("\n").split("\t")[5:]
    assert (took_time, bool(told)) == (("False", False) if found[1] == "1" else ("True", True))
    for sentence in told:
        assert sentence.startswith("compiling the loop, which takes seconds (")
        assert f"it is kept in {cache}" in sentence or "it cannot be kept" in sentence
    return found


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy that may be edited."""
    if not is_compiled():
        pytest.skip("numba is not installed")
    shutil.copytree(ROOT / "loadtrt", tmp_path / "loadtrt", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "loadtrt/loop/device.py").open("a") as file:
        file.write(SHORT)
    return tmp_path


@pytest.mark.parametrize("name", ["requests.py", "device.py"])
def test_code_is_kept_until_a_file_of_the_loop_changes(package: Path, tmp_path: Path, name: str) -> None:
    """Three processes: one compiles, one takes what it has kept, and one that has other lines compiles again."""
    cache = tmp_path / "cache"
    assert serve(package, cache) == ["True", "0", "1", "0"]
    assert serve(package, cache) == ["True", "1", "1", "0"]
    file = package / "loadtrt/loop" / name
    source = file.read_text()
    if name == "device.py":
        changed = source.replace(SHORT, SHORT.replace("0, 0)", "7, 0)"))
    else:
        changed = source.replace("rows[at + 8] = lane", "rows[at + 8] = 7")
    assert changed != source
    file.write_text(changed)
    assert serve(package, cache) == ["True", "0", "1", "7"]


def test_a_cache_that_cannot_be_written_costs_time_alone(package: Path, tmp_path: Path) -> None:
    """The folder of the cache is there when numba asks, and then it is full."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (package / "sitecustomize.py").write_text(
        "import os\ndef replace(*_): raise OSError(28, 'No space left on device')\nos.replace = replace\n"
    )
    assert serve(package, cache) == ["True", "0", "1", "0"]


def test_a_cache_that_cannot_be_read_costs_time_alone(package: Path, tmp_path: Path) -> None:
    """Folders stand where numba's index should be, as good as files that another user owns."""
    cache = tmp_path / "cache"
    serve(package, cache)
    for index in cache.rglob("*.nbi"):
        index.unlink()
        index.mkdir()
    assert serve(package, cache) == ["True", "0", "1", "0"]


def test_a_cache_that_is_damaged_costs_time_alone(package: Path, tmp_path: Path) -> None:
    """A host that lost power may leave an empty index behind."""
    cache = tmp_path / "cache"
    serve(package, cache)
    for index in cache.rglob("*.nbi"):
        index.write_bytes(b"")
    assert serve(package, cache) == ["True", "0", "1", "0"]


@pytest.mark.parametrize("error", ["ImportError", "OSError", "SystemError", "AttributeError"])
def test_a_numba_that_is_broken_is_as_good_as_none(tmp_path: Path, error: str) -> None:
    """numba beside a numpy that it does not know raises errors of any kind."""
    (tmp_path / "numba.py").write_text(f"raise {error}('broken')\n")
    given = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-c", "from loadtrt.loop.compiled import is_compiled; print(is_compiled())"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.skipif(not is_compiled(), reason="without numba nothing is compiled")
def test_a_numba_that_cannot_compile_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to do, instead of a traceback."""

    class Entry:
        def compile(self, _: object) -> None:
            raise TypeError("no such type")

    monkeypatch.setattr(compiled, "_entry", lambda *_, **__: Entry())
    nothing = np.zeros(1, np.int64)
    state = new_state(1, 1, 1, None, (0,), nothing, nothing)
    with pytest.raises(EngineError, match=r"numba .* cannot compile .*TypeError.*loadtrt\[fast\].*NUMBA_DISABLE_JIT=1"):
        compiled.spinner(state, CallbackDevice().device(compiled=True))


@pytest.mark.skipif(not is_compiled(), reason="without numba nothing is compiled")
def test_code_that_was_kept_under_other_types_costs_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that write numba's index at once may leave the code of one under the types of the other."""

    class Entry:
        overloads: ClassVar[dict[object, object]] = {}

        def compile(self, _: object) -> None:
            pass

    def double(number: int) -> int:
        return 2 * number

    made = compiled._entry
    monkeypatch.setattr(compiled, "_entry", lambda *given, kept: made(*given, kept=kept) if not kept else Entry())
    assert compiled.machine_code(double, (), (1,), "a double")((4,)) == 8
