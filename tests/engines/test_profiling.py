"""Profiles: the law of samples, TensorRT's profiler on a fake, and ONNX Runtime's for real."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from fake_cuda import FakeCuda
from fake_tensorrt import World
from loadtrt.asked.config import RunConfig
from loadtrt.engines.onnx_profile import fused_nodes, runs_of
from loadtrt.engines.open import open_engine
from loadtrt.engines.placement import Placement
from loadtrt.engines.plan_profile import Profiled, ProfileLength, ProfilesLayers, Watch, profile_plan, turns
from loadtrt.errors import EngineError
from loadtrt.load.inputs import make_inputs
from loadtrt.results.engine_info import Layer
from loadtrt.results.profile_result import ProfilePass
from loadtrt.stats.profiles import Samples
from tensorrt_bench import Bench
from versions import needs

if TYPE_CHECKING:
    from pathlib import Path

QUIET = Watch(lambda: False, lambda _, __: None)
THREE = ProfileLength(0, 3, 0)
CUDA_MODULES = ("engines.plan_profile", "cuda.stream", "cuda.memory")
LAYERS = {
    "Layers": [
        {"Name": "conv + relu", "LayerType": "CaskConvolution", "Metadata": "[ONNX Layer: conv]\x1e[ONNX Layer: relu]"},
        {"Name": "softmax", "LayerType": "CudaSoftMax", "Metadata": "[ONNX Layer: softmax]"},
    ]
}


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 10**9)), max_size=8),
        min_size=1,
        max_size=20,
    )
)
def test_times_are_conserved(inferences: list[list[tuple[str, int]]]) -> None:
    """Σ over layers of total = Σ of all samples = layers_ns · inferences, shares sum to 1, and counts add up."""
    samples = Samples()
    for inference in inferences:
        samples.add(inference)
    found = samples.to_pass("plain", ())
    whole = sum(time for inference in inferences for _, time in inference)
    assert sum(layer.total_ns for layer in found.layers) == pytest.approx(whole)
    assert found.layers_ns * found.inferences == pytest.approx(whole)
    assert sum(layer.share for layer in found.layers) == pytest.approx(1 if whole else 0)
    assert sum(layer.count for layer in found.layers) == sum(map(len, inferences))
    assert ProfilePass.model_validate_json(found.model_dump_json()) == found


def test_a_name_that_comes_twice_is_two_layers() -> None:
    """The n-th time of a name in an inference is of the n-th layer of that name; their order is that of running."""
    samples = Samples()
    for _ in range(3):
        samples.add([("a", 1.0), ("b", 2.0), ("a", 5.0)])
    known = (Layer("a", type="first"), Layer("b"), Layer("a", type="second"))
    found = samples.to_pass("plain", known, [10.0]).layers
    assert [(item.layer.type, item.average_ns, item.count) for item in found] == [
        ("first", 1, 3), ("", 2, 3), ("second", 5, 3),
    ]  # fmt: skip


@pytest.mark.parametrize(("count", "told"), [(458, False), (459, True)])
def test_p99_needs_a_sample_that_supports_it(count: int, told: bool) -> None:
    """p99 is the nearest rank of 459 samples or more, and None of fewer; the median is of all."""
    samples = Samples()
    for number in range(count):
        samples.add([("a", number)])
    (layer,) = samples.to_pass("plain", ()).layers
    assert layer.median_ns == (count - 1) / 2
    assert layer.p99_ns == (454 if told else None)


def test_turns_are_at_least_as_many_and_end_when_asked() -> None:
    """n inferences with no duration; one when stopped at once."""
    assert len(list(turns(ProfileLength(0, 7, 0), QUIET, "x"))) == 7
    assert len(list(turns(ProfileLength(0, 8, 0), QUIET, "x", 0.25))) == 2
    assert len(list(turns(ProfileLength(10**15, 7, 0), Watch(lambda: True, lambda _, __: None), "x"))) == 1
    told: list[float] = []
    assert len(list(turns(ProfileLength(0, 4, 0), Watch(lambda: False, lambda _, f: told.append(f)), "x"))) == 4
    assert told == [0.25, 0.5, 0.75]


class _Rig:
    """A plan on a fake TensorRT and a fake CUDA."""

    def __init__(self, flavour: str, monkeypatch: pytest.MonkeyPatch, path: Path, world: World, **options: Any) -> None:
        bench = Bench(flavour, monkeypatch, path, world)
        self.cuda = FakeCuda()
        self.plan = bench.load(batch=16, **options)
        self.cuda.install(monkeypatch, *CUDA_MODULES)
        self.cuda.work_ns = 900_000
        self.profiled = Profiled()
        self.inputs = {"data": np.zeros((16, 3, 224, 224), np.float32)}

    def profile(self, *, graph: bool = True, watch: Watch = QUIET, length: ProfileLength = THREE) -> Profiled:
        enqueue = self.plan.context
        cuda = self.cuda

        def context(stream: int, part: int = 0, **options: Any) -> Any:
            made = enqueue(stream, part, **options)
            inner = made.enqueue

            def counted(stream: int) -> bool:
                cuda.work()
                return inner(stream)

            made.enqueue = counted
            return made

        self.plan.context = context  # type: ignore[method-assign]
        profile_plan(self.plan, self.inputs, length, graph, self.profiled, watch, Placement())
        return self.profiled


def _world(**of: Any) -> World:
    return World(**{"layers": LAYERS, "times": [("conv + relu", 0.5), ("softmax", 0.25), ("copy", 0.0)], **of})


@pytest.mark.parametrize("name", ["8.6", "10", "11", "rtx"])
def test_both_passes_join_times_with_what_the_inspector_tells(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The graph's pass comes first; layers keep their order, types and nodes; whole inferences are timed without a
    profiler; nothing is left on the device."""
    rig = _Rig(name, monkeypatch, tmp_path, _world())
    found = rig.profile()
    assert [item.mode for item in found.passes] == ["graph", "plain"]
    for item in found.passes:
        assert (item.inferences, item.layers_ns, item.inference_ns) == (3, 750_000, 900_000)
        assert [(x.layer.name, x.layer.type, x.layer.nodes, x.average_ns) for x in item.layers] == [
            ("conv + relu", "CaskConvolution", ("conv", "relu"), 500_000),
            ("softmax", "CudaSoftMax", ("softmax",), 250_000),
            ("copy", "", (), 0),
        ]
    assert found.notes == []
    assert json.loads(found.layer_info or "") == LAYERS
    assert rig.cuda.alive == set()
    assert not rig.plan.contexts


@pytest.mark.parametrize("name", ["lean", "dispatch"])
def test_without_an_inspector_there_are_names_and_times(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Lean and dispatch profile too; a note says what is missing."""
    found = _Rig(name, monkeypatch, tmp_path, _world()).profile()
    assert [item.layer for item in found.passes[0].layers] == [
        Layer("conv + relu", nodes=("conv", "relu")),
        Layer("softmax", nodes=("softmax",)),
        Layer("copy", nodes=("copy",)),
    ]
    assert found.layer_info is None
    assert "no engine inspector" in found.notes[0]


def test_a_plan_of_names_alone_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """LAYER_NAMES_ONLY: the nodes are in the names."""
    found = _Rig("10", monkeypatch, tmp_path, _world(layers={"Layers": ["conv + relu", "softmax"]})).profile()
    assert found.passes[0].layers[0].layer.nodes == ("conv", "relu")
    assert "DETAILED" in found.notes[0]


def test_a_graph_that_cannot_be_captured_leaves_the_plain_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And the reason."""
    rig = _Rig("10", monkeypatch, tmp_path, _world())
    rig.cuda.captures = False
    found = rig.profile()
    assert [item.mode for item in found.passes] == ["plain"]
    assert any("no profile of a CUDA graph" in note for note in found.notes)
    assert rig.cuda.alive == set()


def test_without_a_graph_none_is_captured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """graph=False: the plain pass alone."""
    rig = _Rig("10", monkeypatch, tmp_path, _world())
    assert [item.mode for item in rig.profile(graph=False).passes] == ["plain"]
    assert "cudaStreamBeginCapture" not in rig.cuda.calls


def test_a_profiler_that_says_nothing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No pass is made up."""
    found = _Rig("10", monkeypatch, tmp_path, _world(times=[])).profile()
    assert found.passes == []
    assert found.notes == [
        "TensorRT's profiler reported no layers of a plain inference",
        "TensorRT's profiler reported no layers of a CUDA graph",
    ]


def test_stopping_keeps_what_was_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stopped in the first layers' pass: it is there with the inferences until then, and no other one is begun."""
    rig = _Rig("10", monkeypatch, tmp_path, _world())
    told: list[str] = []
    watch = Watch(lambda: told.count("plain: layers") >= 2, lambda name, _: told.append(name))
    found = rig.profile(watch=watch, length=ProfileLength(0, 100, 0))
    assert [(item.mode, item.inferences) for item in found.passes] == [("plain", 3)]
    assert found.stopped


def test_a_refused_enqueue_frees_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """EngineError with TensorRT's reason, and nothing left on the device."""
    rig = _Rig("10", monkeypatch, tmp_path, _world())
    monkeypatch.setattr(rig.plan.flavour.module.IExecutionContext, "execute_async_v3", lambda *_: False)
    with pytest.raises(EngineError, match="refused an enqueue"):
        rig.profile()
    assert rig.cuda.alive == set()
    assert not rig.plan.contexts


def _event(cat: str, name: str, ts: int, dur: int) -> dict[str, Any]:
    return {"cat": cat, "name": name, "ts": ts, "dur": dur, "args": {"op_name": name.title()}}


def test_events_belong_to_the_run_they_lie_in_and_bodies_to_their_loop() -> None:
    """Runs in order; a node within another's time is part of it; what lies outside of runs is in none."""
    events = [
        _event("Session", "model_run", 100, 50),
        _event("Node", "loop", 100, 30),
        _event("Node", "body", 105, 10),
        _event("Node", "after", 130, 20),
        _event("Node", "between", 160, 5),
        _event("Session", "model_run", 200, 10),
        _event("Node", "loop", 200, 0),
        _event("Node", "after", 200, 9),
        _event("Session", "session_initialization", 0, 90),
    ]
    assert [[event["name"] for event in run] for run in runs_of(events)] == [["loop", "after"], ["loop", "after"]]


def test_fused_nodes_lead_back_to_the_models_own() -> None:
    """Each node of the model is in the optimised node that needs it and that no other one makes."""
    own = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[2, 2]),
        helper.make_node("Concat", ["p", "r"], ["y"], name="cat", axis=1),
    ]
    graph = helper.make_graph(own, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])], [])
    model = helper.make_model(graph).SerializeToString()
    optimised = [
        helper.make_node("Conv", ["x", "w"], ["token_0"], name="r_nchwc", domain="com.microsoft.nchwc"),
        helper.make_node("ReorderOutput", ["token_0"], ["r"], name="ReorderOutput", domain="com.microsoft.nchwc"),
        helper.make_node("MaxPool", ["token_0"], ["token_1"], name="p_nchwc"),
        helper.make_node("Concat", ["token_1", "token_0"], ["token_2"], name="cat"),
    ]
    assert fused_nodes(model, optimised) == {
        "r_nchwc": ("conv", "relu"), "ReorderOutput": (), "p_nchwc": ("pool",), "cat": ("cat",),
    }  # fmt: skip


def test_names_that_optimisers_made_lead_back_too() -> None:
    """Of a conversion to FP16 and of quantizing; and behind a node that cannot be told nobody walks back."""
    own = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Sin", ["r"], ["s"], name="sin"),
        helper.make_node("Exp", ["s"], ["y"], name="exp"),
    ]
    graph = helper.make_graph(own, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])], [])
    model = helper.make_model(graph).SerializeToString()
    cast = [
        helper.make_node("Conv", ["x", "w"], ["token"], name="InsertedPrecisionFreeCast_r_nchwc"),
        helper.make_node("ReorderOutput", ["token"], ["InsertedPrecisionFreeCast_r"], name="ReorderOutput_token_3"),
        helper.make_node("Sin", ["InsertedPrecisionFreeCast_r"], ["s"], name="sin_token_12"),
        helper.make_node("Exp", ["s"], ["y"], name="exp"),
    ]
    assert list(fused_nodes(model, cast).values()) == [("conv", "relu"), (), ("sin",), ("exp",)]
    blind = [helper.make_node("Riddle", ["x", "w"], ["?"], name="?"), helper.make_node("Exp", ["?"], ["y"], name="exp")]
    assert fused_nodes(model, blind) == {"?": (), "exp": ("exp",)}


@needs("onnxruntime", "1.23", "it fuses other nodes")
@pytest.mark.parametrize(("fp16", "count"), [(False, 142), (True, 143)])
def test_onnx_runtime_profiles_googlenet(fp16: bool, count: int) -> None:
    """For real: every node of the model is in exactly one layer (of FP16, all but one of two casts, which is optimised
    away), every layer has a type and a time, and a normalisation holds nothing but itself."""
    config = RunConfig.of(engine="zoo:googlenet", on="onnxruntime", fp16=fp16)
    engine = open_engine(config.model)
    assert isinstance(engine, ProfilesLayers)
    (inputs,) = make_inputs(engine.info.tensors, config.model.inputs, 1, config.model.input_range, config.model.seed)
    profiled = Profiled()
    engine.profile(inputs, THREE, profiled, QUIET)
    engine.close()
    (found,) = profiled.passes
    assert found.inferences == 3
    nodes = [node for item in found.layers for node in item.layer.nodes]
    assert len(nodes) == len(set(nodes)) == count
    assert next(item.layer.nodes for item in found.layers if item.layer.name == "conv2/norm2") == ("conv2/norm2",)
    assert all(item.layer.type and item.count == 3 for item in found.layers)
    assert found.inference_ns is not None
    assert found.layers_ns > 0
