"""The adapter and its fake against the real bindings of TensorRT, version by version, on a machine without a GPU.

What the names do, nothing here proves; that they are there and take what the adapter gives them, these tests do.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from adapter_names import OF_FILE, RECEIVERS, Adapter, read_adapter
from fake_tensorrt import World, make
from real_bindings import ROOT, Binding, UnavailableError, Wheel, compile_stubs, fetch, load, parse_signatures
from tensorrt_bench import plan_bytes

from loadtrt.engines import facts
from loadtrt.engines.flavour import capabilities_of
from loadtrt.load.tensors import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable
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
}
SEVERITIES = {"INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"}
INVENTED = {"NEWTYPE"}  # the fake's member of DataType that no TensorRT has: a type from the future
BUILD_FILES = ("build", "build_config")
# What building uses under conditions on its options, which toolchain.py refuses elsewhere: in weak typing, in RTX.
WEAK = {"int8_calibrator"}
TARGETS = {"num_compute_capabilities", "set_compute_capability", "ComputeCapability"}
FILES = ("context", "deserialize", "facts", "inspection", "log", "tensorrt")


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Wheel], Binding]:
    """The binding of a wheel; skips where it cannot be had. A crash in its import fails the tests of this wheel."""
    folders, stubs = fetch(list(TABLE)), tmp_path_factory.mktemp("stubs")
    missing = ""
    try:
        compile_stubs(stubs, list(TABLE))
    except UnavailableError as error:
        missing = str(error)

    @functools.cache
    def of(wheel: Wheel) -> Binding:
        folder = folders[wheel]
        if isinstance(folder, UnavailableError) or missing:
            pytest.skip(missing or str(folder))
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
    return read_adapter(ROOT / "loadtrt" / "engines" / f"{name}.py" for name in FILES)


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
    paths = [ROOT / "loadtrt" / "engines" / f"{name}.py" for name in BUILD_FILES]
    if not binding.capabilities["build"] or not all(path.exists() for path in paths):
        pytest.skip(f"{wheel} does not build")
    found = _missing(read_adapter(paths), binding)
    weak = "FP16" in binding.enums["BuilderFlag"]
    lacks = (set() if weak else WEAK) | (set() if wheel.module == "tensorrt_rtx" else TARGETS)
    assert {name for name, _ in found} == lacks, found


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
    calls = {(use.owner, use.name) for use in adapter.uses}
    assert set(ORDER) <= calls
    assert len(calls) > 40


def test_the_order_of_parameters(binding: Binding) -> None:
    """Law: where the adapter calls by position, some overload takes those kinds in that order and no more."""
    for (owner, name), kinds in ORDER.items():
        if name in binding.classes[owner]:
            found = binding.signatures(owner, name)
            assert kinds in [signature.kinds for signature in found], (owner, name, found)


def test_tables_of_names(binding: Binding) -> None:
    """Law: loadtrt knows every type that a tensor can have, every severity of the log, the bits of RTX's diagnosis in
    their order, and a static plan's context comes without asking for anything."""
    types = {facts._DTYPES.get(name, name.lower()) for name in binding.enums["DataType"]}
    assert types <= set(DTYPES)
    assert set(facts._DTYPES) <= set(binding.enums["DataType"])
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
    all callers of a private function."""
    path = tmp_path / "some.py"
    path.write_text(
        "def f(engine, x):\n"
        "    if not x.capabilities.a:\n        return engine.one\n"
        "    if x.capabilities.b and engine.two:\n        engine.three = _g(engine)\n"
        "    else:\n        engine.four(1, k=2)\n"
        "def _g(engine):\n    return engine.five if x.capabilities.c else engine.six\n"
    )
    a, b, c = ("a", True), ("b", True), ("c", True)
    found = {use.name: use for use in read_adapter([path]).uses}
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
