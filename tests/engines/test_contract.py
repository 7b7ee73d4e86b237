"""The adapter and its fake against the real bindings of TensorRT, version by version, on a machine without a GPU.

What the names do, nothing here proves; that they are there and take what the adapter gives them, these tests do.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from adapter_names import OF_FILE, RECEIVERS, Adapter, read_adapter
from downloads import UnavailableError, Wheel
from fake_tensorrt import World, make
from loadtrt.engines import toolchain
from loadtrt.engines.flavour import Flavour, capabilities_of
from loadtrt.load.tensors import DTYPES, dtype_named
from real_bindings import ROOT, Binding, compile_stubs, load, parse_signatures
from tensorrt_bench import plan_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_FULL = "build plugins inspector"
_NEW = "engine_stat profile_values shared_profiles"
_RTX = "rtx_config capture_query validity"
# One row a version: what the adapter finds in it, recorded from the real thing.
TABLE = {
    Wheel("tensorrt", "8.6.1", "tensorrt-bindings"): f"{_FULL} bindings_api",
    Wheel("tensorrt", "10.16.1.11", "tensorrt-cu12-bindings"): f"{_FULL} {_NEW}",
    Wheel("tensorrt", "11.4.0.106", "tensorrt-cu13-bindings"): f"{_FULL} {_NEW}",
    Wheel("tensorrt_lean", "10.16.1.11", "tensorrt-lean-cu13-bindings"): _NEW,
    Wheel("tensorrt_lean", "11.4.0.106", "tensorrt-lean-cu13-bindings"): _NEW,
    Wheel("tensorrt_dispatch", "10.16.1.11", "tensorrt-dispatch-cu13-bindings"): _NEW,
    Wheel("tensorrt_dispatch", "11.4.0.106", "tensorrt-dispatch-cu13-bindings"): _NEW,
    Wheel("tensorrt_rtx", "1.7.1.116", "tensorrt-rtx-cu13-bindings"): f"{_FULL} {_NEW} {_RTX}",
}
LIBRARIES = {
    "tensorrt": "libnvinfer.so.",
    "tensorrt_lean": "libnvinfer_lean.so.",
    "tensorrt_dispatch": "libnvinfer_dispatch.so.",
    "tensorrt_rtx": "libtensorrt_rtx.so.",
}
# The order of parameters that calls by position rely on, where a method is there.
ORDER = {
    ("ICudaEngine", "get_tensor_name"): ("int",),
    ("ICudaEngine", "get_tensor_profile_shape"): ("str", "int"),
    ("ICudaEngine", "get_tensor_profile_values"): ("int", "str"),
    ("ICudaEngine", "get_profile_shape_input"): ("int", "str"),
    ("ICudaEngine", "get_tensor_vectorized_dim"): ("str", "int"),
    ("ICudaEngine", "get_tensor_components_per_element"): ("str", "int"),
    ("ICudaEngine", "get_tensor_bytes_per_component"): ("str", "int"),
    ("IExecutionContext", "set_optimization_profile_async"): ("int", "int"),
    ("IExecutionContext", "set_input_shape"): ("str", "Dims"),
    ("IExecutionContext", "set_tensor_address"): ("str", "int"),
    ("IExecutionContext", "get_max_output_size"): ("str",),
    ("IExecutionContext", "execute_async_v3"): ("int",),
    ("IExecutionContext", "is_stream_capturable"): ("int",),
    ("IExecutionContext", "report_to_profiler"): (),
    ("EngineInspector", "get_engine_information"): ("LayerInformationFormat",),
}
SEVERITIES = {"INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"}
INVENTED = {"NEWTYPE"}  # the fake's member of DataType that no TensorRT has: a type from the future
BUILD_FILES = ("plan_builder", "build_config", "toolchain")
# What building uses under conditions that toolchain.py knows: in weak typing, from 10 on, in RTX.
WEAK = {"int8_calibrator", "IInt8EntropyCalibrator2"}
PROGRESS = {"progress_monitor", "IProgressMonitor"}
TARGETS = {"num_compute_capabilities", "set_compute_capability", "ComputeCapability"}
# Weak typing, for GPUs that are not here, progress: by the name of the builder in the sentences of toolchain.py.
TOOLCHAINS = {
    "8.6": (True, False, False),
    "10": (True, False, True),
    "11": (False, False, True),
    "RTX": (False, True, True),
}
OWN = {"close"}  # what the adapter adds to TensorRT's classes
OPTIONAL = {"get_algorithm"}  # what it leaves to them
FILES = ("context", "deserialize", "plan_facts", "inspection", "flavour", "tensorrt", "tensorrt_log")


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Wheel], Binding]:
    """The binding of a wheel; skips where it cannot be had. A crash in its import fails the tests of this wheel."""
    stubs = tmp_path_factory.mktemp("stubs")
    missing = ""
    try:
        compile_stubs(stubs, list(TABLE))
    except UnavailableError as error:
        missing = str(error)

    @functools.cache
    def of(wheel: Wheel) -> Binding:
        try:
            folder = wheel.folder
        except UnavailableError as error:
            pytest.skip(str(error))
        if missing:
            pytest.skip(missing)
        return load(wheel, folder, stubs)

    return of


@pytest.fixture(params=TABLE, ids=str)
def wheel(request: pytest.FixtureRequest) -> Wheel:
    found: Wheel = request.param
    return found


@pytest.fixture
def binding(wheel: Wheel, real: Callable[[Wheel], Binding]) -> Binding:
    return real(wheel)


@pytest.fixture(scope="module")
def adapter() -> Adapter:
    return _read(FILES)


def _fake(wheel: Wheel) -> Any:
    return make(wheel.version, wheel.module, World(preflighted=True))


def test_capabilities_are_as_recorded(wheel: Wheel, binding: Binding) -> None:
    """Law: the adapter finds each module by its bindings alone, knows its version and its library's file, and finds in
    it what the table says; the fake of that version has the same capabilities."""
    assert (binding.version, binding.reason, binding.errors) == (wheel.version, "", [])
    assert binding.library == LIBRARIES[wheel.module] + wheel.version.split(".")[0]
    assert {name for name, has in binding.capabilities.items() if has} == set(TABLE[wheel].split())
    assert asdict(capabilities_of(_fake(wheel))) == binding.capabilities


def test_every_name_of_the_adapter_is_there(adapter: Adapter, binding: Binding) -> None:
    """Law: every name that the adapter uses in a flavour of these capabilities is there, can be assigned where it is
    assigned, and takes as many arguments as it is given; so do the enums' members by their names."""
    wrong = [text for _, text in _missing(adapter, binding)]
    for method, member, where in adapter.compared:
        enum = binding.signatures("ICudaEngine", method)[0].returns
        if member not in binding.enums[enum]:
            wrong.append(f"{where}: {enum} has no {member}")
    assert not wrong


def test_every_name_of_the_builder_is_there(wheel: Wheel, binding: Binding) -> None:
    """Law: where a flavour builds, so is every name that building uses, but those of options that it lacks."""
    weak, rtx, progress = TOOLCHAINS[_builder(wheel, binding)]
    found = _missing(_read(BUILD_FILES), binding)
    lacks = (set() if weak else WEAK) | (set() if rtx else TARGETS) | (set() if progress else PROGRESS)
    assert {name for name, _ in found} == lacks, found


def test_the_toolchain_finds_what_it_says(wheel: Wheel, binding: Binding, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: each builder is told for what it is, and has the options that the sentence of their refusal names it for."""
    name, module = _builder(wheel, binding), _stand_in(binding)
    monkeypatch.setattr("loadtrt.engines.tensorrt_log._journals", {})
    tool = toolchain._toolchain(Flavour(wheel.module, module, wheel.version, capabilities_of(module), None))
    assert (tool.weak_typing, tool.rtx, tool.progress) == TOOLCHAINS[name]
    for option, (has, who) in toolchain._FEATURES.items():
        named = {found for found in TOOLCHAINS if re.search(rf"(?<![\d.]){re.escape(found)}(?![\d.])", who)}
        assert has(module) == (name in named), (option, who)


def test_what_tensorrt_calls_back_is_what_it_knows(adapter: Adapter, binding: Binding) -> None:
    """Law: of a class of TensorRT's that the adapter subclasses, every method is overridden, under its name and with as
    many parameters: a misspelt one would never be called, or end the process."""
    overrides = (*adapter.overrides, *_read(BUILD_FILES).overrides)
    bases = {item.base for item in overrides}
    assert bases == {"ILogger", "IProfiler", "IProgressMonitor", "IInt8EntropyCalibrator2"}
    for base in bases & set(binding.classes):
        found = {item.name: item for item in overrides if item.base == base and item.name not in OWN}
        known = {name for name in binding.classes[base] if name[0] != "_" and binding.signatures(base, name)}
        assert set(found) == known - OPTIONAL
        for name, item in found.items():
            assert any(signature.accepts(item.positional) for signature in binding.signatures(base, name)), item


def _read(names: Iterable[str]) -> Adapter:
    return read_adapter(ROOT / "loadtrt" / "engines" / f"{name}.py" for name in names)


def _builder(wheel: Wheel, binding: Binding) -> str:
    """A key of TOOLCHAINS; skips what builds nothing."""
    if not binding.capabilities["build"]:
        pytest.skip(f"{wheel} does not build")
    numbers = wheel.version.split(".")
    return "RTX" if wheel.module == "tensorrt_rtx" else "8.6" if numbers[0] == "8" else numbers[0]


def _stand_in(binding: Binding) -> Any:
    """A module with the binding's names, classes, their members and enums, and nothing behind them."""
    module = types.ModuleType("tensorrt")
    for title in binding.names:
        members: dict[str, Any] = {name: None for name in binding.classes.get(title, {}) if not name.startswith("_")}
        if not title.startswith("_"):
            setattr(module, title, type(title, (), {"__members__": binding.enums.get(title, {}), **members}))
    return module


def _missing(adapter: Adapter, binding: Binding) -> list[tuple[str, str]]:
    """Names that the adapter uses where they are not, or not so; each with what is wrong."""
    wrong = []
    for use in adapter.uses:
        owner = use.owner.removesuffix("?")
        if not use.applies(binding.capabilities) or (owner != use.owner and owner not in binding.names):
            continue
        members: Any = binding.enums.get(owner) or binding.classes.get(owner, {})
        if use.name not in (binding.names if owner == "module" else members):
            wrong.append((use.name, f"{use.where}: {owner} has no {use.name}"))
        elif use.stored and not binding.classes[owner][use.name][1]:
            wrong.append((use.name, f"{use.where}: {owner}.{use.name} cannot be assigned"))
        elif use.call is not None:
            is_class = owner == "module" and use.name in binding.classes
            found = binding.signatures(*(use.name, "__init__") if is_class else (owner, use.name))
            if not any(signature.accepts(*use.call) for signature in found):
                wrong.append((use.name, f"{use.where}: {owner}.{use.name} does not take {use.call}: {found}"))
    return wrong


def test_reading_the_adapter_misses_nothing(adapter: Adapter, binding: Binding) -> None:
    """Law: no attribute in the adapter is named as a member of TensorRT's classes on an expression whose class these
    tests do not know (words without an underscore are everybody's), so a renamed variable cannot hide a name."""
    owners = {owner.removesuffix("?") for owner in (*RECEIVERS.values(), *OF_FILE["context"].values())}
    members = {member for owner in owners for member in binding.classes.get(owner, {}) if "_" in member.strip("_")}
    assert len(members) > 50
    assert not {(name, where) for name, where in adapter.others if name in members}
    used = {use.name for use in adapter.uses}
    assert {"execute_async_v3", "set_tensor_address", "get_tensor_profile_values", "engine_host_code_allowed"} <= used
    assert {"IProfiler", "profiler", "enqueue_emits_profile", "report_to_profiler", "get_engine_information"} <= used
    calls = {(use.owner, use.name) for use in adapter.uses}
    assert set(ORDER) <= calls
    assert len(calls) > 40


def test_the_order_of_parameters(binding: Binding) -> None:
    """Law: where the adapter calls by position, some overload takes those kinds in that order and no more."""
    for (owner, name), kinds in ORDER.items():
        if name in binding.classes.get(owner, {}):  # lean and dispatch have no inspector
            found = binding.signatures(owner, name)
            assert kinds in [signature.kinds for signature in found], (owner, name, found)


def test_tables_of_names(binding: Binding) -> None:
    """Law: loadtrt knows every type that a tensor can have, every severity of the log, the bits of RTX's diagnosis in
    their order, and a static plan's context comes without asking for anything."""
    known = {dtype_named(name) for name in binding.enums["DataType"]}
    assert known <= set(DTYPES)
    assert set(binding.enums["ILogger.Severity"]) == SEVERITIES
    assert any(signature.accepts(0) for signature in binding.signatures("ICudaEngine", "create_execution_context"))
    if binding.capabilities["validity"]:
        source = (ROOT / "loadtrt" / "engines" / "deserialize.py").read_text(encoding="utf-8")
        bits = binding.enums["EngineInvalidityDiagnostics"]
        assert list(bits.values()) == [1 << place for place in range(len(bits))]
        assert "".join(f'"{name}",' for name in bits) in "".join(source.split())
    if binding.capabilities["rtx_config"]:
        kinds = [signature.kinds for signature in binding.signatures("ICudaEngine", "create_execution_context")]
        assert ("IRuntimeConfig",) in kinds


def test_the_fake_has_no_name_that_the_real_one_lacks(wheel: Wheel, binding: Binding) -> None:
    """Law: every public name of the fake, of its classes and of their objects, is in the real module of that version,
    and its methods take what the real ones take, by number and by kind."""
    assert not _lies(_fake(wheel), binding)


def _lies(fake: Any, binding: Binding) -> list[str]:
    """What is wrong with the fake. Its objects are gone when this returns: they mind the order in which they go."""
    runtime = fake.Runtime(type("Log", (fake.ILogger,), {"log": lambda *_: None})())
    engine = runtime.deserialize_cuda_engine(plan_bytes())
    context = engine.create_execution_context()
    wrong = [name for name in vars(fake) if not name.startswith("_") and name not in binding.names]
    for title, thing in {**vars(fake), "runtime": runtime, "engine": engine, "context": context}.items():
        if title.startswith("_") or (callable(thing) and not isinstance(thing, type)):
            continue
        owner = title if isinstance(thing, type) else type(thing).__name__
        if title in binding.enums:
            wrong += [f"{title}.{name}" for name in set(thing.__members__) - set(binding.enums[title]) - INVENTED]
            continue
        for name, value in vars(thing).items():
            if name.startswith("_"):
                continue
            if name not in binding.classes.get(owner, {}):
                wrong.append(f"{owner}.{name}")
            elif inspect.isfunction(value):
                wrong += _disagreement(binding, owner, name, value)
    return wrong


def _disagreement(binding: Binding, owner: str, name: str, method: Callable[..., Any]) -> list[str]:
    """What the fake's method takes and no overload of the real one does."""
    parameters = list(inspect.signature(method).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters) or owner == "ILogger":
        return []  # a stand-in for a property's getter; and ILogger.log is for subclasses to write
    kinds = [parameter.annotation for parameter in parameters]
    for signature in binding.signatures(owner, name):
        pairs = list(zip(kinds, signature.kinds, strict=False))
        if signature.accepts(len(kinds)) and all(kind == real for kind, real in pairs if kind in ("int", "str")):
            return []
    return [f"{owner}.{name}({', '.join(map(str, parameters))})"]


def test_signatures_are_read_from_docstrings() -> None:
    """Law: overloads, defaults with commas in brackets, both spellings of int, and classes without their modules."""
    one, two = parse_signatures(
        "f(*args, **kwargs)\nOverloaded function.\n\n"
        "1. f(self: a.B, name: str, shape: tuple[int, ...] = (1, 2)) -> trt.Dims\n\n    text (as) -> this\n"
        "2. f(self: a.B, stream: typing.SupportsInt, kind: a.b::Kind) -> None\n",
        method=True,
    )
    assert one.parameters == (("name", "str", False), ("shape", "tuple[int, ...]", True))
    assert one.returns == "Dims"
    assert one.accepts(1)
    assert one.accepts(1, ("shape",))
    assert not one.accepts(0)
    assert not one.accepts(3)
    assert not one.accepts(1, ("size",))
    assert two.kinds == ("int", "Kind")


def test_conditions_are_read_from_the_source(tmp_path: Path) -> None:
    """Law: a use belongs to the flavours that come to it: by if, else, not, and, an early return, and the conditions of
    all callers of a private function. What a subclass of TensorRT's class overrides is read, too."""
    path = tmp_path / "some.py"
    path.write_text(
        "def f(engine, x):\n"
        "    if not x.capabilities.a:\n        return engine.one\n"
        "    if x.capabilities.b and engine.two:\n        engine.three = _g(engine)\n"
        "    else:\n        engine.four(1, k=2)\n"
        "def _g(engine):\n    return engine.five if x.capabilities.c else engine.six\n"
        "class C(some.module.IThing):\n"
        "    def __init__(self):\n        pass\n"
        "    def told(self, a, b):\n        pass\n"
    )
    a, b, c = ("a", True), ("b", True), ("c", True)
    read = read_adapter([path])
    assert [(item.base, item.name, item.positional) for item in read.overrides] == [("IThing", "told", 2)]
    found = {use.name: use for use in read.uses if use.owner != "module"}
    assert {name: set(use.guards) for name, use in found.items()} == {
        "one": {("a", False)},
        "two": {a, b},
        "three": {a, b},
        "four": {a},
        "five": {a, b, c},
        "six": {a, b, ("c", False)},
    }
    assert found["three"].stored
    assert found["four"].call == (1, ("k",))
