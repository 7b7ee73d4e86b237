"""Real TensorRT bindings on a machine without TensorRT: wheels of pinned versions, loaded over a library of stubs.

The bindings' wheels (1 MB each, from downloads.py) want a dozen symbols of libraries that are 100 to 1000 times larger;
a stub that answers 0 to each lets them be imported and asked for their names and signatures. As a program, this module
does that for one module and prints what it found: every binding gets a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from downloads import UnavailableError, Wheel

ROOT = Path(__file__).parents[2]
_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
    # 8.6 alone: the parsers of Caffe and UFF
    "_ZN14nvcaffeparser117createCaffeParserEv",
    "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
    "_ZN11nvuffparser15createUffParserEv",
    "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
)
_LIBRARIES = {
    "tensorrt": ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers"),
    "tensorrt_lean": ("nvinfer_lean",),
    "tensorrt_dispatch": ("nvinfer_dispatch",),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_onnxparser_rtx"),
}


@dataclass(frozen=True)
class Signature:
    """One overload. `parameters`: (name, kind, has a default) without self; a kind is int, str, Dims, ..."""

    parameters: tuple[tuple[str, str, bool], ...]
    returns: str

    @property
    def kinds(self) -> tuple[str, ...]:
        """The parameters' kinds."""
        return tuple(kind for _, kind, _ in self.parameters)

    def accepts(self, positional: int, keywords: tuple[str, ...] = ()) -> bool:
        """Whether a call with so many positional arguments and these keywords fits."""
        rest = self.parameters[positional:]
        return (
            positional <= len(self.parameters)
            and set(keywords) <= {name for name, _, _ in rest}
            and all(default or name in keywords for name, _, default in rest)
        )


@dataclass(frozen=True)
class Binding:
    """What a real module has. classes: its members' docstrings, and whether they can be assigned (properties alone).

    errors: what the bindings raised when they were handed what the adapter hands them without an engine.
    """

    version: str
    reason: str
    library: str
    capabilities: dict[str, bool]
    names: list[str]
    functions: dict[str, str]
    classes: dict[str, dict[str, tuple[str, bool]]]
    enums: dict[str, dict[str, int]]
    errors: list[str]

    def signatures(self, owner: str, name: str) -> list[Signature]:
        """All overloads of a method, or of a function where owner is "module"."""
        doc = self.functions[name] if owner == "module" else self.classes[owner][name][0]
        return parse_signatures(doc, owner != "module")


def parse_signatures(doc: str, method: bool) -> list[Signature]:
    """The overloads in a docstring by pybind11."""
    found = []
    for line in doc.splitlines():
        match = re.match(r"(?:\d+\. )?\w*\s*\((.*)\) -> (.*)$", line)
        if match and not match[1].startswith("*args"):
            parts = _split(match[1])[1 if method else 0 :]
            found.append(Signature(tuple(_parameter(part) for part in parts), _kind(match[2])))
    return found


def _split(text: str) -> list[str]:
    """Parts between commas, but for commas in brackets."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "[(<{") - (sign in "])>}")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def _parameter(text: str) -> tuple[str, str, bool]:
    name, _, rest = text.partition(":")
    kind, equals, _ = rest.partition(" = ")
    return name.strip(), _kind(kind), bool(equals)


def _kind(text: str) -> str:
    """int for pybind11's newer typing.SupportsInt too; a class without its module."""
    return "int" if "SupportsInt" in text else re.sub(r"(\w+(\.|::))+(?=\w)", "", text.strip())


def compile_stubs(folder: Path, wheels: list[Wheel]) -> None:
    """All the libraries that these wheels want, under their names, in `folder`. Raises UnavailableError."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise UnavailableError("there is no C compiler to make the stub of TensorRT's libraries with")
    source, stub = folder / "stub.c", folder / "stub.so"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in _SYMBOLS))
    command = [compiler, "-shared", "-fPIC", "-o", str(stub), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{compiler} cannot make the stub of TensorRT's libraries: {done.stderr[-300:]}")
    for wheel in wheels:
        for library in _LIBRARIES[wheel.module]:
            shutil.copy(stub, folder / f"lib{library}.so.{wheel.version.split('.')[0]}")


def load(wheel: Wheel, folder: Path, stubs: Path) -> Binding:
    """Import the wheel's module in a process of its own and describe it. Raises RuntimeError where that fails."""
    paths = os.pathsep.join((str(folder), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": paths, "LD_LIBRARY_PATH": str(stubs)}
    done = subprocess.run(
        [sys.executable, __file__, wheel.module],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"importing {wheel} ended with {done.returncode}: {done.stderr[-2000:]}")
    return Binding(**json.loads(done.stdout.splitlines()[-1]))


def _describe(name: str) -> Binding:
    """In the process of its own: the module, found as the adapter finds it, with nothing else of TensorRT beside it."""
    from loadtrt.engines.flavour import FLAVOURS, find_flavours
    from loadtrt.engines.tensorrt_log import journal_of

    hidden: dict[str, Any] = dict.fromkeys(f"{flavour}_libs" for flavour in FLAVOURS)
    hidden |= dict.fromkeys(FLAVOURS)
    sys.modules.update(hidden | dict.fromkeys(f"{flavour}_bindings" for flavour in FLAVOURS if flavour != name))
    found = next(found for found in find_flavours() if found.name == name)
    if found.flavour is None:
        raise RuntimeError(found.reason)
    module, errors = found.flavour.module, []
    classes, enums = {}, {}
    for title, value in vars(module).items():
        if isinstance(value, type) and not title.startswith("_"):
            classes[title] = {member: _member(value, member) for member in dir(value)}
            for inner in (title, *(f"{title}.{member}" for member in vars(value))):
                kind = value if inner == title else getattr(value, inner.rpartition(".")[2], None)
                if isinstance(kind, type) and hasattr(kind, "__members__"):
                    enums[inner] = {member: int(number) for member, number in kind.__members__.items()}
    functions = {title: value.__doc__ or "" for title, value in vars(module).items() if callable(value)}
    try:
        logger = journal_of(module).logger
        if found.flavour.capabilities.plugins:
            module.init_libnvinfer_plugins(logger, "")
        assert tuple(module.Dims((1, 2, 3))) == (1, 2, 3)
    except Exception as error:  # whatever the bindings raise
        errors.append(f"{type(error).__name__}: {error}")
    library = found.flavour.libs.name if found.flavour.libs else ""
    capabilities = asdict(found.flavour.capabilities)
    return Binding(
        found.flavour.version, found.reason, library, capabilities, dir(module), functions, classes, enums, errors
    )


def _member(owner: type, name: str) -> tuple[str, bool]:
    value = getattr(owner, name, None)
    if isinstance(value, property):
        return (getattr(value.fget, "__doc__", None) or "").strip(), value.fset is not None
    return str(getattr(value, "__doc__", None) or ""), False


if __name__ == "__main__":
    print(json.dumps(asdict(_describe(sys.argv[1]))))
