"""The adapter's contract with TensorRT: against a fake of each flavour, and against real wheels where they are installed."""

from __future__ import annotations

import gc
import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from fake_tensorrt import Tensor, World, batch_in_out, install, write_plan

from loadtrt.cli.inspect import command as inspect_command
from loadtrt.config import RunConfig
from loadtrt.engines.deserialize import open_plan
from loadtrt.engines.log import journal_of
from loadtrt.engines.tensorrt import Plan, load_plan
from loadtrt.errors import EngineError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

# name of the module, its version, what of the plan's header makes it that flavour's
FLAVOURS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "8.6": ("tensorrt", "8.6.1", {"version": (8, 6, 1, 6)}),
    "10": ("tensorrt", "10.16.1.11", {"version": (10, 16, 1, 11)}),
    "11": ("tensorrt", "11.4.0.106", {"version": (11, 4, 0, 106)}),
    "lean": ("tensorrt_lean", "10.16.1.11", {"version": (8, 6, 0, 12), "host_code": True}),
    "dispatch": ("tensorrt_dispatch_bindings", "10.16.1.11", {"version": (8, 6, 0, 12), "host_code": True}),
    "rtx": ("tensorrt_rtx", "1.7.1.116", {"version": (1, 7, 1, 116), "magic": b"vtrt"}),
}
ADDRESS = 256 * 1024


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Bench:
    """A world of one flavour and a plan's file in it."""

    def __init__(self, flavour: str, monkeypatch: pytest.MonkeyPatch, path: Path, world: World) -> None:
        name, version, of = FLAVOURS[flavour]
        self.world = install(monkeypatch, version, name, world)
        self.path = write_plan(path / "model.plan", **of)

    def load(self, **options: Any) -> Plan:
        given = {"engine": self.path, "allow_host_code": True, **options}
        return load_plan(RunConfig.model_validate(given))


@pytest.fixture
def bench(flavour: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    return Bench(flavour, monkeypatch, tmp_path, World())


def _bench(flavour: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **world: Any) -> Bench:
    return Bench(flavour, monkeypatch, tmp_path, World(**world))


def test_a_plan_is_loaded_driven_and_let_go(bench: Bench) -> None:
    """Law: in every flavour: shapes decided, contexts enqueue once everything is bound, and nothing is left behind:
    the engine goes after its contexts, the runtime last, streams are destroyed."""
    plan = bench.load(batch=16)
    assert [str(spec) for spec in plan.tensors] == ["data fp32[16,3,224,224]", "prob fp32[16,1000]"]
    assert [spec.nbytes for spec in plan.tensors] == [16 * 3 * 224 * 224 * 4, 16 * 1000 * 4]
    assert plan.batch == 16
    assert bench.world.streams == []
    context = plan.context(5)
    assert not context.enqueue(5)
    assert "Address is not set for data, prob" in context.reason()
    for spec in plan.tensors:
        context.bind(spec.name, ADDRESS)
    assert context.enqueue(5) is True
    assert context.output_shape("prob") == (16, 1000)
    assert context.capturable(5) is (True if plan.flavour.name == "tensorrt_rtx" else None)
    bench.world.events.clear()
    plan.close()
    plan.close()
    gc.collect()
    assert bench.world.events == ["context", "engine", "runtime"]
    with pytest.raises(EngineError, match="closed"):
        context.enqueue(5)


def test_each_flavour_is_what_it_is(flavour: str, bench: Bench) -> None:
    """Law: memory comes from what the flavour can tell: engine statistics from 10.14 on, else the plan without its lean
    runtime; scratch memory by the new name, else the old."""
    plan = bench.load(batch=1)
    assert plan.context_bytes == (2048 if flavour == "8.6" else 4096)
    assert plan.weights_bytes == (plan.header.engine_bytes if flavour == "8.6" else 12345)
    assert plan.notes == ()
    assert plan.precision == ""
    plan.close()


@pytest.mark.parametrize(("version", "known"), [("10", 2048), ("11", None)])
def test_a_plan_of_86_in_a_newer_runtime(
    version: str, known: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Law: an answer of 0 with an error logged is no answer: the old name is asked, or the size is not known and said so."""
    plan = _bench(version, monkeypatch, tmp_path, inner_86=True).load(batch=1)
    assert plan.context_bytes == known
    assert len(plan.notes) == (known is None)
    assert plan.weights_bytes == plan.header.engine_bytes
    plan.close()


def test_rtx_specialises_its_kernels_before_the_measurement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: on RTX a lane's context has EAGER kernels and no graph of RTX's own."""
    plan = _bench("rtx", monkeypatch, tmp_path).load(batch=1)
    context = plan.context(5)
    config = context._context.config
    assert config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
    assert config.cuda_graph_strategy.name == "DISABLED"
    plan.close()


def test_preflight_comes_before_everything_of_tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: without a GPU nothing of TensorRT is touched: the fake's Runtime fails its assertion, the real one the process."""
    bench = _bench("10", monkeypatch, tmp_path)

    def no_gpu() -> int:
        raise EngineError("no CUDA GPU is visible")

    monkeypatch.setattr("loadtrt.engines.deserialize.device_count", no_gpu)
    with pytest.raises(EngineError, match="no CUDA GPU"):
        bench.load(batch=1)
    assert not bench.world.preflighted
    assert bench.world.calls == []


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, UsageError, "data fp32.*leaves its first dimension open: add --batch N"),
        ({"batch": 33}, UsageError, "size 33 of dimension 0.*optimization profile 0, 1..32"),
        ({"shapes": {"dat": "1x3x224x224"}}, UsageError, "did you mean 'data'"),
        ({"shapes": {"data": "4x3x112x112"}}, UsageError, "fixed at 224"),
        ({"batch": 1, "profile": 1}, UsageError, "--profile 1 is not in plan.*profile 0 alone"),
        ({"batch": 1, "device": 1}, UsageError, "--device 1 is not there: CUDA sees 1 GPU, number 0"),
        ({"batch": 1, "shape_values": {"data": "1"}}, UsageError, "--shape-values names 'data'.*inputs are none"),
        ({"batch": 1, "plugins": "/none/x.so"}, UsageError, "--plugins /none/x.so: there is no such file"),
        ({"batch": 1, "plugins": __file__}, EngineError, "cannot load plugin library"),
        ({"batch": 1, "engine": "/none/x.plan"}, UsageError, "there is no plan"),
        ({"batch": 1, "module": "torch"}, UsageError, "no TensorRT module"),
    ],
)
def test_bad_options(bench: Bench, options: dict[str, Any], error: type[Exception], words: str) -> None:
    """Law: each bad option is one sentence of the right kind, in every flavour; everything opened on the way is closed."""
    with pytest.raises(error, match=words):
        bench.load(**options)
    gc.collect()
    assert bench.world.streams == []
    assert bench.world.events.count("runtime") <= 1


def test_host_code_runs_only_on_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: a plan with a lean runtime is refused before any CUDA call unless --allow-host-code says otherwise."""
    bench = _bench("dispatch", monkeypatch, tmp_path)
    with pytest.raises(EngineError, match="carries a lean runtime.*--allow-host-code if you trust"):
        bench.load(batch=1, allow_host_code=False)
    assert bench.world.calls == []
    plan = bench.load(batch=1)
    assert plan.open.runtime.engine_host_code_allowed
    plan.close()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "Error Code 6: The engine plan file is generated on an incompatible device, expecting compute 8.9 got compute "
            "9.0, please rebuild.",
            "built for another GPU than this one .Fake H100, compute capability 9.0.*expecting compute 8.9",
        ),
        (
            "compute capability 9.0. Supported compute capabilities: 8.0 8.6 8.9 12.0",
            "does not support this GPU .Fake H100",
        ),
        (
            "not compatible with this version of TensorRT, expecting library version 10.16",
            "which tensorrt 10.16.1.11 does not",
        ),
        ("old deserialization call on a newer plan file", "without its lean runtime"),
        ("Could not find plugin: MyNms version 1", "--plugins"),
        ("OutOfMemory (no further information)", "does not fit into the memory"),
        ("Serialization assertion magicTagRead == kMAGIC_TAG failed. Magic tag does not match", "is damaged"),
        ("something new", "cannot be loaded.*says.*something new"),
    ],
)
def test_what_tensorrt_refuses(said: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: each known refusal has its cause and remedy, and TensorRT's own words are quoted."""
    bench = _bench("10", monkeypatch, tmp_path, refuses=said)
    with pytest.raises(EngineError, match=words) as error:
        bench.load(batch=1)
    assert said[:20] in str(error.value)
    gc.collect()
    assert bench.world.events == ["runtime"]


def test_rtx_adds_its_own_diagnosis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: where RTX can judge a plan, the names of its diagnosis stand in the sentence."""
    bench = _bench("rtx", monkeypatch, tmp_path, refuses="no idea")
    with pytest.raises(EngineError, match="another GPU than this one.*says UNSUPPORTED_CC; no idea"):
        bench.load(batch=1)


def test_implicit_batch_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: an 8.6 engine with an implicit batch dimension is an error."""
    with pytest.raises(EngineError, match="implicit batch dimension"):
        _bench("8.6", monkeypatch, tmp_path, implicit_batch=True).load(batch=1)


def test_contexts_share_a_profile_where_they_may(bench: Bench, flavour: str) -> None:
    """Law: from 10 on contexts share one profile; in 8.6 the second one is refused with the ways out."""
    plan = bench.load(batch=1)
    first = plan.context(5)
    if flavour == "8.6":
        with pytest.raises(
            EngineError, match="no more than 1 context at once.*PROFILE_SHARING_0806.*chosen by another"
        ):
            plan.context(6)
        first.close()
        plan.context(6)
    else:
        assert [plan.context(6).profile for _ in range(3)] == [0, 0, 0]
    plan.close()


def test_86_gives_each_context_a_profile_that_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: in 8.6 contexts take the wanted profile and then the free ones whose range holds the shapes; a closed
    context frees its profile."""
    tensors = batch_in_out(profiles=4)
    image = (3, 224, 224)
    tensors[0].ranges[2] = ((1, *image), (1, *image), (2, *image))  # too small for batch 16
    plan = _bench("8.6", monkeypatch, tmp_path, tensors=tensors, profiles=4).load(batch=16, profile=1)
    contexts = [plan.context(5) for _ in range(3)]
    assert [context.profile for context in contexts] == [1, 0, 3]
    with pytest.raises(EngineError, match="no more than 3 contexts"):
        plan.context(5)
    contexts[1].close()
    assert plan.context(5).profile == 0
    plan.close()


@pytest.mark.parametrize(
    "world", [{"sharing": True}, {"tensors": [Tensor("x", (4, 8)), Tensor("y", (4,), is_input=False)]}]
)
def test_86_contexts_without_a_contest(world: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: in 8.6 plans built for sharing, and plans whose shapes are fixed, have as many contexts as asked for."""
    bench = _bench("8.6", monkeypatch, tmp_path, **world)
    plan = bench.load(batch=4)
    assert len([plan.context(5) for _ in range(4)]) == 4
    plan.close()


def test_memory_for_another_context_runs_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: None from create_execution_context is an error with the number, the reason and the ways out."""
    plan = _bench("10", monkeypatch, tmp_path, contexts_possible=1).load(batch=1)
    plan.context(5)
    with pytest.raises(EngineError, match="execution context number 2 .it says.*OutOfMemory.*fewer --contexts"):
        plan.context(5)
    plan.close()


def _shape_tensors() -> list[Tensor]:
    values = [((1, 1), (4, 4), (16, 16))]
    return [
        Tensor("x", (2, 8)),
        Tensor("size", (2,), dtype="INT32", host=True, values=values),
        Tensor("y", (2, 8), is_input=False),
        Tensor("shape", (2,), dtype="INT32", host=True, is_input=False),
    ]


def test_shape_tensors_are_bound_in_host_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: values of --shape-values and host outputs are bound by the adapter, so a lane binds the others alone."""
    bench.world.tensors = _shape_tensors()
    plan = bench.load(shape_values={"size": "8,9"})
    assert [spec.name for spec in plan.tensors if spec.shape_values] == ["size", "shape"]
    assert plan.batch == 2
    context = plan.context(5)
    for name in ("x", "y"):
        context.bind(name, ADDRESS)
    assert context.enqueue(5)
    assert context._kept[-2].tolist() == [8, 9]
    plan.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "size carries a shape.*--shape-values size:(4,4|N,N)"),
        ({"shape_values": {"size": "17,1"}}, "outside the plan's profile"),
        ({"shape_values": {"size": "1,2,3"}}, "has 2 values, not 3"),
        ({"shape_values": {"six": "1,2"}}, "did you mean 'size'"),
    ],
)
def test_bad_shape_values(bench: Bench, options: dict[str, Any], words: str) -> None:
    """Law: shape tensors need their values, in number and range, in every flavour (8.6 knows the first range only)."""
    bench.world.tensors = _shape_tensors()
    with pytest.raises(UsageError, match=words):
        bench.load(**options)


def test_buffers_are_as_large_as_their_layout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: bytes = ceil(elements × bits / 8), or padded elements × component for vectorised layouts, or TensorRT's bound
    where the data decide the shape."""
    tensors = [
        Tensor("chw4", (2, 3, 5, 5), dtype="INT8", vector=(1, 4, 1)),
        Tensor("hwc8", (2, 9, 5, 5), dtype="HALF", vector=(1, 8, 2)),
        Tensor("nibbles", (2, 3), dtype="INT4"),
        Tensor("long", (2,), dtype="INT64"),
        Tensor("brain", (2, 2), dtype="BF16"),
        Tensor("flag", (2, 3), dtype="BOOL"),
        Tensor("boxes", (2, -1, 4), is_input=False, data_decides=True, bound=4096),
    ]
    plan = _bench("10", monkeypatch, tmp_path, tensors=tensors).load()
    assert {spec.name: spec.nbytes for spec in plan.tensors} == {
        "chw4": 2 * 4 * 25,
        "hwc8": 2 * 16 * 25 * 2,
        "nibbles": 3,
        "long": 16,
        "brain": 8,
        "flag": 6,
        "boxes": 4096,
    }
    assert plan.tensors[-1].shape == (2, -1, 4)
    plan.close()


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (Tensor("boxes", (2, -1), is_input=False, data_decides=True), "boxes.*only the data decide.*no upper bound"),
        (Tensor("odd", (2,), dtype="NEWTYPE"), "tensor odd has the type newtype.*update loadtrt"),
    ],
)
def test_buffers_that_cannot_be_sized(
    tensor: Tensor, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Law: no bound and an unknown type are errors that name the tensor; nothing is guessed."""
    with pytest.raises(EngineError, match=words):
        _bench("10", monkeypatch, tmp_path, tensors=[Tensor("x", (2,)), tensor]).load()


def test_shapes_that_tensorrt_cannot_infer(bench: Bench) -> None:
    """Law: what infer_shapes leaves open is an error that names it."""
    bench.world.infer_missing = ["mystery"]
    with pytest.raises(EngineError, match="cannot infer shapes from mystery"):
        bench.load(batch=1)
    assert bench.world.streams == []


def test_addresses_that_tensorrt_refuses(bench: Bench) -> None:
    """Law: False from set_tensor_address is an error with the tensor, the address and TensorRT's reason."""
    plan = bench.load(batch=1)
    context = plan.context(5)
    with pytest.raises(EngineError, match="cannot bind data to address 0x101.*not aligned"):
        context.bind("data", 257)
    plan.close()


def _layers(*types: str) -> dict[str, Any]:
    return {
        "Layers": [
            {
                "Name": f"l{n}",
                "LayerType": "conv",
                "Inputs": [],
                "Outputs": [{"Format/Datatype": text}],
                "TacticName": "t",
            }
            for n, text in enumerate(types)
        ]
    }


def test_fp16_is_confirmed_contradicted_or_not_knowable(flavour: str, bench: Bench) -> None:
    """Law: --fp16 is judged by the layers' types where there is an inspector and detail, and never guessed."""
    fp32, fp16 = "Row major linear FP32", "Row major linear FP16"
    bench.world.layers = _layers(fp16, fp16, fp32)
    plan = bench.load(batch=1, fp16=True)
    if flavour in ("lean", "dispatch"):
        assert plan.precision == f"not knowable here: {plan.flavour.name} has no engine inspector"
        return
    assert plan.precision == "confirmed: 2 of 3 layers compute in FP16"
    plan.close()
    bench.world.layers = {"Layers": ["l0"]}
    plan = bench.load(batch=1, fp16=True)
    assert "without ProfilingVerbosity.DETAILED" in plan.precision
    plan.close()
    bench.world.layers = _layers(fp32, fp32)
    with pytest.raises(EngineError, match="contradicts --fp16.*of its 2 computing layers none is FP16 .2 in FP32"):
        bench.load(batch=1, fp16=True)


def test_inspect_shows_the_engine(bench: Bench, flavour: str) -> None:
    """Law: inspect gives the same facts as JSON and as text, and says what this flavour cannot tell."""
    bench.world.layers = _layers("Row major linear FP16")
    found = CliRunner().invoke(inspect_command, [bench.path, "--allow-host-code", "--json"], catch_exceptions=False)
    loaded = json.loads(found.stdout)["loaded"]
    assert loaded["tensors"][0]["ranges"][0]["max"] == [32, 3, 224, 224]
    assert loaded["tensors"][1] | {"format": ""} == {
        "name": "prob",
        "input": False,
        "dtype": "fp32",
        "shape": [-1, 1000],
        "location": "device",
        "format": "",
        "ranges": [],
        "values": [],
    }
    bare = flavour in ("lean", "dispatch")
    assert len(loaded["layers"]) == (0 if bare else 1)
    assert bool(loaded["layers_missing"]) == bare
    text = CliRunner().invoke(inspect_command, [bench.path, "--allow-host-code"], catch_exceptions=False).stdout
    for word in ("fp32[?,3,224,224]", loaded["flavour_version"], "inspector" if bare else "fp16"):
        assert word in text


def test_inspect_without_a_gpu_shows_the_header(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: without what loading needs, inspect shows the header, says why there is no more, and succeeds; with --module
    it is an error."""
    bench = _bench("dispatch", monkeypatch, tmp_path)
    found = CliRunner().invoke(inspect_command, [bench.path], catch_exceptions=False)
    assert found.exit_code == 0
    for word in ("TensorRT 8.6.0.12", "version-compatible", "Not loaded: plan", "--allow-host-code", "this also shows"):
        assert word in found.stdout
    with pytest.raises(EngineError, match="allow-host-code"):
        CliRunner().invoke(inspect_command, [bench.path, "--module", "tensorrt_dispatch"], catch_exceptions=False)


def test_inspect_of_a_model(tmp_path: Path) -> None:
    """Law: of an ONNX model inspect tells inputs, outputs, opset, parameters and nodes; a broken one is a UsageError."""
    from loadtrt.zoo import make

    path = tmp_path / "g.onnx"
    path.write_bytes(make("googlenet", None, 0).SerializeToString())
    found = json.loads(CliRunner().invoke(inspect_command, [str(path), "--json"], catch_exceptions=False).stdout)
    assert [tensor["input"] for tensor in found["tensors"]] == [True, False]
    assert found["nodes"]["Conv"] == 57
    assert found["parameters"] > 6_000_000
    assert "Conv" in CliRunner().invoke(inspect_command, [str(path)], catch_exceptions=False).stdout
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UsageError, match="not an ONNX model, or it is cut short"):
        CliRunner().invoke(inspect_command, [str(path)], catch_exceptions=False)


def test_the_log_goes_to_python_and_never_to_stdout(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Law: TensorRT's messages reach the logger "loadtrt.tensorrt" and nothing else; one logger object a module; errors
    outrank internal notices; the first error after a mark is the cause."""
    install(monkeypatch, "10.16.1.11")
    module = sys.modules["tensorrt"]
    journal = journal_of(module)
    assert journal_of(module) is journal
    severity = module.ILogger.Severity  # type: ignore[attr-defined]
    with caplog.at_level("DEBUG", logger="loadtrt.tensorrt"):
        journal.logger.log(severity.ERROR, "before")
        mark = journal.mark()
        journal.logger.log(severity.INTERNAL_ERROR, "a notice")
        assert journal.reason(mark) == "a notice"
        journal.logger.log(severity.ERROR, "the\n cause")
        journal.logger.log(severity.ERROR, "an effect")
        journal.logger.log(severity.INFO, "chatter")
    assert journal.reason(mark) == "the cause; an effect"
    assert journal.latest(mark) == "an effect"
    assert journal.reason(journal.mark()) == "nothing: TensorRT gave no reason"
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "ERROR", "ERROR", "DEBUG"]
    assert capfd.readouterr() == ("", "")


# From here on: real wheels, where they are installed.


def _rtx_plan(path: Path) -> Path:
    """A small RTX plan, really built: on the CPU, ahead of time."""
    from onnx import TensorProto, helper

    rtx = pytest.importorskip("tensorrt_rtx")
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    logger = journal_of(rtx).logger
    builder = rtx.Builder(logger)
    network = builder.create_network(0)
    assert rtx.OnnxParser(network, logger).parse(model.SerializeToString())
    built = builder.build_serialized_network(network, builder.create_builder_config())
    path.write_bytes(bytes(built))
    return path


def test_real_rtx_without_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: a really built RTX plan has the header that is read, and the failure of the real library to load it without a
    driver is an EngineError with its reason, not a crash."""
    from loadtrt.cuda.runtime import has_gpu
    from loadtrt.engines.plan import read_header

    path = _rtx_plan(tmp_path / "relu.plan")
    rtx = sys.modules["tensorrt_rtx"]
    header = read_header(path)
    assert header.built_by == f"TensorRT-RTX {rtx.__version__}"
    if has_gpu():
        pytest.skip("there is a GPU: this is about its absence")
    with pytest.raises(EngineError, match="cudaGetDeviceCount|CUDA bindings"):
        open_plan(path, module=None, plugins=(), allow_host_code=False, device=0)
    world = World()
    monkeypatch.setattr("loadtrt.engines.deserialize.device_count", lambda: 1)
    monkeypatch.setattr("loadtrt.engines.deserialize.call", lambda *_: world.calls.append("call"))
    properties = type("P", (), {"name": "none", "compute_capability": (0, 0)})
    monkeypatch.setattr("loadtrt.engines.deserialize.device_properties", lambda _: properties)
    with pytest.raises(EngineError, match=r"tensorrt_rtx 1\..* says "):
        open_plan(path, module=None, plugins=(), allow_host_code=False, device=0)


@pytest.mark.parametrize("name", ["tensorrt_lean", "tensorrt_dispatch"])
def test_preflight_saves_the_process(name: str, tmp_path: Path) -> None:
    """Law: where there is no driver, loading a plan with a real lean or dispatch runtime is an error of exit code 3; the
    same runtime without the preflight ends the process with a signal."""
    from loadtrt.cuda.runtime import has_gpu

    module = name if importlib.util.find_spec(name) else f"{name}_bindings"
    if importlib.util.find_spec(module) is None or has_gpu():
        pytest.skip(f"{name} is not installed, or there is a GPU")
    path = write_plan(tmp_path / "model.plan", version=(10, 16, 1, 11), host_code=True)
    safe = (
        "from loadtrt.engines.tensorrt import load_plan; from loadtrt.config import RunConfig\n"
        f"load_plan(RunConfig(engine={path!r}, module={name!r}, allow_host_code=True))"
    )
    done = subprocess.run([sys.executable, "-c", safe], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "EngineError" in done.stderr or "CudaError" in done.stderr
    unsafe = f"import {module} as t\nr = t.Runtime(t.Logger())\nr.engine_host_code_allowed = True\ndel r"
    done = subprocess.run([sys.executable, "-c", unsafe], capture_output=True, check=False)
    assert done.returncode < 0
