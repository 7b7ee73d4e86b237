"""The house: a module imports only from its own floor or lower ones, heavy packages lie where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import loadtrt
from onnx_files import doubling

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parent.parent / "loadtrt"
FLOORS = {
    "units": 0,
    "errors": 0,
    "printing": 0,
    "recognizing": 0,
    "files": 1,
    "signals": 1,
    "reading_files": 1,
    "load": 1,
    "loop": 1,
    "records": 1,
    "asked": 2,
    "environment": 2,
    "results": 3,
    "cuda": 3,
    "stats": 4,
    "prometheus": 4,
    "findings": 5,
    "engines": 5,
    "zoo": 5,
    "caffe": 5,
    "lanes": 6,
    "runs": 7,
    "live": 6,
    "report": 6,
    "sizing": 8,
    "api": 9,
    "doctor": 8,
    "cli": 9,
}
SIBLINGS = {"lanes", "live", "report"}  # of one floor, and strangers to each other
# What a result does for its owner: it shows, writes and tabulates itself by report, which it imports when it is asked.
CLIMBING = {("results.__init__", "report")}


@cache
def _imports(type_checking: bool = False) -> dict[str, set[str]]:
    """Of each module of the package: everything imported when the code runs; type_checking: for type checkers, too."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): set(
            _imported(ast.parse(path.read_text()), type_checking)
        )
        for path in PACKAGE.rglob("*.py")
        if path.name != "__main__.py"
    }


def _imported(tree: ast.AST, type_checking: bool) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not type_checking:
            for other in node.orelse:
                yield from _imported(ast.Module([other], []), type_checking)
        else:
            yield from _imported(node, type_checking)


def _room(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def test_a_module_imports_only_from_its_own_floor_or_below() -> None:
    """floor(imported) ≤ floor(importer), and lanes, live and report never import each other; for type checkers
    neither."""
    wrong = []
    for module, imports in _imports(type_checking=True).items():
        if module == "__init__":
            continue
        mine = _room(module)
        for name in imports:
            if not name.startswith("loadtrt."):
                continue
            theirs = _room(name.removeprefix("loadtrt."))
            if theirs not in FLOORS:
                continue  # loadtrt.__version__
            climbs = FLOORS[theirs] > FLOORS[mine] and (module, theirs) not in CLIMBING
            if climbs or (theirs != mine and {theirs, mine} <= SIBLINGS):
                wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_tensorrt_and_cuda_stay_in_their_rooms() -> None:
    """tensorrt is imported in engines alone (or by name), cuda-python in cuda alone."""
    wrong = []
    for module, imports in _imports().items():
        for name in imports:
            top = name.split(".", maxsplit=1)[0]
            if (top.startswith("tensorrt") and _room(module) != "engines") or (
                top == "cuda" and _room(module) != "cuda"
            ):
                wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_onnxruntime_is_imported_in_one_place() -> None:
    """By `environment.import_onnxruntime`, which turns its telemetry off before: also in tests and benchmarks."""
    root = PACKAGE.parent
    wrong = [
        f"{path.relative_to(root)} imports {name}"
        for folder in ("loadtrt", "tests", "benchmarks", "grafana")
        for path in (root / folder).rglob("*.py")
        for name in _imported(ast.parse(path.read_text()), type_checking=False)
        if name.split(".", maxsplit=1)[0] == "onnxruntime"
    ]
    named = [path.name for path in PACKAGE.rglob("*.py") if 'import_module("onnxruntime' in path.read_text()]
    assert (wrong, named) == ([], ["environment.py"])


def test_caffe_is_imported_when_it_is_asked_for() -> None:
    """Outside of its room by cli/build.py alone, and there within a function: no other command loads it."""
    importing = {
        module
        for module, imports in _imports(type_checking=True).items()
        for name in imports
        if f"{name}.".startswith("loadtrt.caffe.") and _room(module) != "caffe"
    }
    assert importing == {"cli.build"}
    tree = ast.parse((PACKAGE / "cli" / "build.py").read_text())
    at_once = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    assert not [name for node in at_once for name in _imported(ast.Module([node], []), True) if "caffe" in name]


def test_numba_is_imported_in_one_place() -> None:
    """By loop/compiled.py, where machine code is made."""
    importing = {
        module
        for module, imports in _imports().items()
        for name in imports
        if name.split(".", maxsplit=1)[0] in ("numba", "llvmlite")
    }
    assert importing == {"loop.compiled"}


@pytest.mark.parametrize("engine", ["simulated:null", "onnx"])
def test_a_run_that_compiles_nothing_does_not_import_numba(tmp_path: Path, engine: str) -> None:
    """An engine that does not spin is driven by Python: numba takes half a second to import."""
    engine = doubling(tmp_path, 2) if engine == "onnx" else engine
    code = "import atexit, sys\natexit.register(lambda: print('numba' in sys.modules))\n"
    code += "from loadtrt.__main__ import main\nmain()\n"
    run = ["run", "--engine", engine, "--requests", "10", "--warmup", "0", "--quiet"]
    done = subprocess.run([sys.executable, "-c", code, *run], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode in (0, 97, 98), done.stderr
    assert done.stdout.splitlines() == ["False"]


def test_pure_rooms_know_no_event_loop_and_no_engine() -> None:
    """load, loop, records, results, stats, findings and report import no event loop, cuda, tensorrt or onnxruntime."""
    impure = {"anyio", "asyncio", "trio", "cuda", "onnxruntime", "tensorrt", "threading"}
    wrong = [
        f"{module} imports {name}"
        for module, imports in _imports().items()
        if _room(module) in ("load", "loop", "records", "results", "stats", "findings", "report")
        for name in imports
        if name.split(".", maxsplit=1)[0] in impure
    ]
    assert wrong == []


def test_text_for_the_terminal_passes_one_function() -> None:
    """Besides print and echo of texts of loadtrt's own, stdout and stderr are written to by `printing.say`, by
    `delivery.show`, by files.py (results) and by what draws (the live view, progress, rich's tables)."""
    own = {"__main__.py", "main.py", "schema.py", "options.py", "delivery.py"}  # help, schemas, fixed sentences
    drawing = {"terminal.py", "voice.py", "inspect.py", "doctor.py", "observing.py"}
    writing = ("print", "echo", "secho", "sys.stdout.write", "sys.stderr.write", "sys.stdout.buffer.write")
    found = {
        path.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and (ast.unparse(node.func) in writing or ast.unparse(node.func).endswith((".echo", ".secho", ".print")))
    }
    assert found == own | drawing | {"printing.py", "files.py"}


def test_no_room_has_a_name_that_says_nothing() -> None:
    """No utils, common, core, base, helpers or schemas."""
    nothing = {"utils", "common", "core", "base", "helpers", "misc", "schemas"}
    assert not nothing & {part for path in PACKAGE.rglob("*") for part in (path.stem,)}


def test_no_file_is_longer_than_350_lines() -> None:
    """A longer one wants splitting."""
    long = {str(path): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {path: lines for path, lines in long.items() if lines > 350} == {}


def test_help_imports_nothing_heavy() -> None:
    """`loadtrt --help` loads neither numpy nor pydantic nor anyio nor any engine: it must answer within 0.2 s."""
    heavy = (
        "numpy",
        "pydantic",
        "anyio",
        "asyncio",
        "rich",
        "onnx",
        "onnxruntime",
        "cuda",
        "tensorrt",
        "numba",
        "pynvml",
        "yaml",
        "prometheus_client",
    )
    code = (
        "import sys\n"
        "from loadtrt.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("options", [[], ["--verify"], ["--rate", "1000", "--objective", "latency.p99 < 1s"]])
def test_a_run_measures_before_it_loads_what_tells_of_it(options: list[str]) -> None:
    """When measuring begins, nothing of report/ is loaded but text.py, nor the models of a result, nor what finds out
    what bound the run: to load them takes a slow host a tenth of a second."""
    code = (
        "import sys\n"
        "import loadtrt.lanes.session as session\n"
        "measure = session._measure\n"
        "async def watched(*given):\n"
        "    late = ('loadtrt.results.run_result', 'loadtrt.findings.findings', 'loadtrt.results.profile_result')\n"
        "    print([name for name in sys.modules if name in late or name.startswith('loadtrt.report.')])\n"
        "    return await measure(*given)\n"
        "session._measure = watched\n"
        "from loadtrt.__main__ import main\n"
        "main()\n"
    )
    run = ["run", "--engine", "simulated:null", "--requests", "100", "--warmup", "0", "--quiet", *options]
    done = subprocess.run([sys.executable, "-c", code, *run], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 97, 98), done.stderr
    assert done.stdout.splitlines() == ["['loadtrt.report.formatting']"]


def test_no_public_name_is_that_of_a_module() -> None:
    """Once `loadtrt.x.y` is imported, `loadtrt.x` is the module x, whatever function had the name."""
    modules = {path.stem for path in PACKAGE.glob("*")}
    assert not modules & set(loadtrt.__all__)


def test_no_base_name_stands_twice() -> None:
    """A file is found by its name, and a command's module by the name of the command."""
    names = [path.name for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []
