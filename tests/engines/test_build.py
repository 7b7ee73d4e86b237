"""Building plans: for real with TensorRT-RTX on the CPU, and bad inputs, each of which ends in one sentence."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from command_line import loadtrt
from half_models import answer
from loadtrt.engines.build_config import BuildOptions, shape_profiles
from loadtrt.engines.build_model import calibration_sets, inputs_of, prepare, read_source
from loadtrt.engines.inspection import inspect_file
from loadtrt.engines.plan import read_header, read_sidecar, sidecar_of
from loadtrt.engines.plan_builder import BuiltPlan, build_plan
from loadtrt.engines.toolchain import Progress, Watch
from loadtrt.errors import EngineError, LoadtrtError, UsageError
from versions import needs

SIZE = (3, 8, 8)


def conv(folder: Path, first: int | str = "N", **save: Any) -> str:
    """y = conv(x), x fp32[first, 3, 8, 8]."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv1", pads=[1, 1, 1, 1])
    return _save(folder / "conv.onnx", [node], (first, *SIZE), {"w": weight}, **save)


def _save(file: Path, nodes: Any, shape: Any, weights: dict[str, Any], opset: int = 17, **save: Any) -> str:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), file, **save)
    return str(file)


def build(model: str, output: Path, **options: Any) -> BuiltPlan:
    """With the real RTX, for a GPU that is not here."""
    pytest.importorskip("tensorrt_rtx")
    of = BuildOptions(**{"flavour": "rtx", "targets": ("SM86",), **options})
    return build_plan(read_source(model, of), output, of)


def refused(kind: type[LoadtrtError], sentence: str, model: str, output: Path, **options: Any) -> None:
    with pytest.raises(kind, match=re.escape(sentence)) as caught:
        build(model, output, **options)
    assert "\n" not in str(caught.value)
    assert not output.is_file()
    assert [path for path in (output.parent.iterdir() if output.parent.is_dir() else ()) if ".part" in path.name] == []


@pytest.mark.parametrize(
    ("target", "precision", "least", "most"), [("SM86", "", 25, 32), ("SM89", "fp16", 12, 17), ("SM86", "int8", 9, 14)]
)
def test_googlenet_for_two_gpus_in_three_precisions(
    target: str, precision: str, least: int, most: int, tmp_path: Path
) -> None:
    """The header names the GPU asked for, the size in MB follows the precision, the sidecar tells the same plan."""
    options = {precision: True} if precision else {}
    built = build("zoo:googlenet", tmp_path / "g.plan", batch=1, targets=(target,), **options)
    header = read_header(built.path)
    assert header.family == "rtx"
    assert header.compute_capabilities == (f"{target[2]}.{target[3]}",)
    assert least < header.size_bytes / 1e6 < most
    kept = read_sidecar(built.path)
    assert kept == built.sidecar
    assert (kept.plan_sha256, kept.plan_bytes) == (header.sha256, header.size_bytes)
    assert kept.targets == (target,)
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in kept.tensors] == [
        ("data", "fp32", (1, 3, 224, 224)),
        ("prob", "fp32", (1, 1000)),
    ]
    assert kept.options == {"flavour": "rtx", "batch": 1, "targets": [target], **options}
    assert "INFO" in built.log.read_text()
    assert any("RANDOM" in note for note in built.notes) == (precision == "int8")


def test_inspect_tells_the_build(tmp_path: Path) -> None:
    """The sidecar's facts; after the plan has changed they are another plan's, and not told."""
    plan = build(conv(tmp_path), tmp_path / "a.plan", batch=2).path
    found = inspect_file(plan)
    assert found["build"]["model"].endswith("conv.onnx")
    assert found["build"]["options"]["batch"] == 2
    sidecar_of(plan).write_text(sidecar_of(plan).read_text().replace(found["sha256"], "0" * 64))
    found = inspect_file(plan)
    assert found["build"] is None
    assert "another plan" in found["no_build"]
    sidecar_of(plan).write_text("{")
    assert "is not the sidecar of a build" in inspect_file(plan)["no_build"]


def test_one_plan_for_several_gpus(tmp_path: Path) -> None:
    """--target sm86,sm89: the header names both."""
    plan = build(conv(tmp_path, 1), tmp_path / "a.plan", targets=("SM86", "SM89")).path
    assert read_header(plan).compute_capabilities == ("8.6", "8.9")


def test_profiles_leave_sizes_open(tmp_path: Path) -> None:
    """Two profiles over an open batch: the plan's input stays open."""
    least, best, most = ([{"x": (batch, *SIZE)} for batch in sizes] for sizes in ((1, 5), (4, 8), (4, 8)))
    profiles = shape_profiles(least, best, most)
    built = build(conv(tmp_path), tmp_path / "a.plan", profiles=profiles)
    assert built.sidecar.tensors[0].shape == (-1, *SIZE)
    assert built.sidecar.options["profiles"][1]["x"] == [[5, *SIZE], [8, *SIZE], [8, *SIZE]]


def test_shapes_not_given_follow_from_those_that_are() -> None:
    """opt alone is all three; opt of min and max is max, as in trtexec; several inputs share a profile."""
    assert shape_profiles([], [{"x": (4,)}], []) == ({"x": ((4,), (4,), (4,))},)
    assert shape_profiles([{"x": (1,)}], [], [{"x": (8,)}]) == ({"x": ((1,), (8,), (8,))},)
    assert shape_profiles([], [], []) == ()
    with pytest.raises(UsageError, match="min ≤ opt ≤ max"):
        shape_profiles([{"x": (9,)}], [{"x": (4,)}], [])
    with pytest.raises(UsageError, match="--opt-shapes is given 1 times"):
        shape_profiles([{"x": (1,)}] * 2, [{"x": (4,)}], [])


@pytest.mark.parametrize("io", ["fp32", "fp16"])
def test_fp16_keeps_fp32_inputs_unless_asked(io: str, tmp_path: Path) -> None:
    """The plan's own inputs and outputs have the type of --io."""
    built = build(conv(tmp_path), tmp_path / "a.plan", batch=2, fp16=True, io=io)
    assert {tensor.dtype for tensor in built.sidecar.tensors} == {io}


def test_int8_has_a_symmetric_scale_for_each_channel_and_no_quantized_bias(tmp_path: Path) -> None:
    """Q/DQ of int8 with zero points 0 on the input and on the weight, whose scales are one for each of 4 channels;
    the activation's scale is max |x| / 127 over the calibration data."""
    data = np.random.default_rng(1).standard_normal((5, 2, *SIZE)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=data)
    options = BuildOptions(batch=2, int8=True, calibration=tmp_path / "data.npz")
    ready = prepare(read_source(conv(tmp_path), options), options, weak_typing=False)
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in ready.model.graph.initializer}
    pairs = {node.input[0]: node for node in ready.model.graph.node if node.op_type == "QuantizeLinear"}
    assert constants[pairs["x"].input[1]] == pytest.approx(np.abs(data).max() / 127, rel=1e-6)
    weight = next(
        node for node in ready.model.graph.node if node.op_type == "DequantizeLinear" and "w" in node.input[0]
    )
    assert constants[weight.input[1]].shape == (4,)
    points = [array for name, array in constants.items() if "zero_point" in name]
    assert all(array.dtype == np.int8 and not array.any() for array in points)
    assert ready.notes == ()
    build(conv(tmp_path), tmp_path / "a.plan", batch=2, int8=True, calibration=tmp_path)  # the folder does as well


def test_calibration_items_are_batched(tmp_path: Path) -> None:
    """Five items for an input of batch 2 are three batches, in order, the last filled with the first item."""
    items = np.random.default_rng(1).standard_normal((5, *SIZE)).astype(np.float32)
    np.savez(tmp_path / "items.npz", x=items)
    options = BuildOptions(batch=2, int8=True, calibration=tmp_path / "items.npz")
    sets, notes = calibration_sets(read_source(conv(tmp_path, 2), options), options)
    assert [item["x"].tolist() for item in sets] == [items[pair].tolist() for pair in ([0, 1], [2, 3], [4, 0])]
    assert notes == ("x: 5 arrays of [3, 8, 8] in 3 requests of batch 2, the last filled from the beginning",)


def test_int8_and_fp16_together(tmp_path: Path) -> None:
    """Q/DQ nodes between FP16 tensors, at an opset that has them; inputs and outputs stay FP32; RTX takes it."""
    options = BuildOptions(batch=2, int8=True, fp16=True)
    ready = prepare(read_source(conv(tmp_path), options), options, weak_typing=False)
    kinds = {item.name: item.data_type for item in ready.model.graph.initializer}
    scales = [
        kinds[node.input[1]]
        for node in ready.model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    ]
    assert set(scales) == {TensorProto.FLOAT16}
    assert ready.model.opset_import[0].version >= 19
    built = build(conv(tmp_path), tmp_path / "a.plan", batch=2, int8=True, fp16=True)
    assert {tensor.dtype for tensor in built.sidecar.tensors} == {"fp32"}
    assert "INT8" in built.sidecar.precision
    assert "FP16" in built.sidecar.precision


@needs("onnxruntime", "1.30", "its answers for quantized nodes in FP16 are others")
@pytest.mark.parametrize("lifts", [True, False])
def test_a_model_with_older_qdq_nodes_becomes_fp16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, lifts: bool
) -> None:
    """At an opset whose Q/DQ nodes take FP16; where onnx cannot lift it, these stay FP32. The answers are FP32's, and
    RTX takes it."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    weights = {
        "scale": np.float32(0.05),
        "zero": np.int8(0),
        "w": rng.standard_normal((8, 4)).astype(np.float32),
    }
    if not lifts:
        monkeypatch.setattr("onnx.version_converter.convert_version", None)
    file = _save(tmp_path / "qdq.onnx", nodes, (2, 8), weights, opset=13)
    options = BuildOptions(fp16=True)
    ready = prepare(read_source(file, options), options, weak_typing=False)
    assert (ready.model.opset_import[0].version == 19) == lifts
    kinds = {item.name: item.data_type for item in ready.model.graph.initializer}
    (quantizer,) = [node for node in ready.model.graph.node if node.op_type == "QuantizeLinear"]
    assert (kinds[quantizer.input[1]] == TensorProto.FLOAT16) == lifts
    assert ("opset 13 became 19" in ready.notes[0]) == lifts
    assert ready.conversion is not None
    assert ready.conversion.converted >= 1
    x = rng.uniform(-1, 1, (2, 8)).astype(np.float32)
    wanted, found = (answer(made, {"x": x})[0] for made in (onnx.load(file), ready.model))
    assert found == pytest.approx(wanted, rel=0.01, abs=0.05)
    assert "FP16" in build(file, tmp_path / "a.plan", fp16=True).sidecar.precision


def test_dynamic_quantization_is_refused_with_what_helps(tmp_path: Path) -> None:
    """Whatever the opset and the precision: --fp16 is not at fault."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    file = _save(tmp_path / "dynamic.onnx", nodes, (2, 8), {})
    sentence = (
        "(operator DynamicQuantizeLinear) is refused: TensorRT has no dynamic quantization: bring the model in FP32"
    )
    for fp16 in (False, True):
        refused(EngineError, sentence, file, tmp_path / "a.plan", fp16=fp16)


def test_a_model_that_is_quantized_stays_as_it_is(tmp_path: Path) -> None:
    """--int8 on Q/DQ nodes calibrates nothing and warns of nothing."""
    options = BuildOptions(batch=2, int8=True)
    once = prepare(read_source(conv(tmp_path), options), options, weak_typing=False)
    onnx.save(once.model, tmp_path / "int8.onnx")
    again = prepare(
        read_source(str(tmp_path / "int8.onnx"), BuildOptions(int8=True)), BuildOptions(int8=True), weak_typing=False
    )
    assert len(again.model.graph.node) == len(once.model.graph.node)
    assert again.notes == ()


@pytest.mark.parametrize("options", [{}, {"fp16": True}, {"int8": True}])
def test_external_data_is_found(options: dict[str, Any], tmp_path: Path) -> None:
    """Weights beside the model go into the plan in every precision."""
    model = conv(tmp_path, 1, save_as_external_data=True, location="w.bin", size_threshold=0)
    build(model, tmp_path / "a.plan", **options)


def test_options_that_rtx_has_on_a_cpu(tmp_path: Path) -> None:
    """They build, and the sidecar names them."""
    given: dict[str, Any] = {
        "no_tf32": True,
        "strongly_typed": True,
        "builder_optimization_level": 1,
        "workspace": 1 << 28,
        "tactic_sources": ("-JIT_CONVOLUTIONS",),
        "version_compatible": True,
        "exclude_lean_runtime": True,
        "sparsity": True,
        "max_aux_streams": 0,
        "profiling_verbosity": "none",
    }
    built = build(conv(tmp_path, 1), tmp_path / "a.plan", **given)
    kept = json.loads(sidecar_of(built.path).read_text())["options"]
    assert {key: kept[key] for key in given} == {**given, "tactic_sources": ["-JIT_CONVOLUTIONS"]}


def test_files_that_are_no_model(tmp_path: Path) -> None:
    """Missing, empty, broken, Caffe's and UFF."""
    output = tmp_path / "a.plan"
    refused(UsageError, "cannot read model nope.onnx: No such file", "nope.onnx", output)
    whole = Path(conv(tmp_path)).read_bytes()
    for data in (b"", b"hello", whole[:200]):
        (tmp_path / "broken.onnx").write_bytes(data)
        refused(UsageError, "broken.onnx is ", str(tmp_path / "broken.onnx"), output)
    refused(UsageError, "convert the TensorFlow model to ONNX", "model.uff", output)
    refused(UsageError, "--deploy FILE.prototxt", "model.prototxt", output)
    refused(UsageError, "the zoo has no model", "zoo:googlenot", output)


def test_a_node_that_tensorrt_refuses_is_named(tmp_path: Path) -> None:
    """Node, operator, remedy and the parser's words."""
    unknown = _save(
        tmp_path / "u.onnx", [helper.make_node("Foo", ["x"], ["y"], name="foo1", domain="acme")], (1, 4), {}
    )
    refused(
        EngineError, "node 'foo1' (operator Foo) is refused: name the library that has Foo", unknown, tmp_path / "a"
    )
    odd = _save(tmp_path / "m.onnx", [helper.make_node("MatMul", ["x", "x"], ["y"], name="mm")], (1, 4), {})
    refused(EngineError, "node 'mm' (operator MatMul) is refused: its sizes do not fit", odd, tmp_path / "a")
    converted = f"{unknown} as loadtrt converted it to FP16: node 'foo1' (operator Foo) is refused: leave --fp16 out"
    refused(EngineError, converted, unknown, tmp_path / "a", fp16=True)


def test_sizes_that_are_open_or_do_not_fit(tmp_path: Path) -> None:
    """Every way to decide them is named; a profile covers every open input with the model's rank and fixed sizes."""
    model, output = conv(tmp_path), tmp_path / "a.plan"
    refused(UsageError, "add --batch N; or give ranges of sizes, with --min-shapes", model, output)
    refused(UsageError, "has 4 dimensions, not 1", model, output, shapes={"x": (2,)})
    for shape in ((4, 3, 8, 9), (4, 3)):
        refused(UsageError, "does not fit input x[?,3,8,8]", model, output, profiles=({"x": (shape,) * 3},))
    refused(UsageError, "names 'z'", model, output, profiles=({"z": ((1,),) * 3},))
    refused(UsageError, "a profile does not cover it", model, output, profiles=({},))
    refused(UsageError, "--batch fixes sizes", model, output, batch=2, profiles=({"x": ((1, *SIZE),) * 3},))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": np.zeros((2, 3, 9, 9), np.float32)}, "holds x with shape [2, 3, 9, 9]; input x fp32[2,3,8,8] needs"),
        ({"x": np.zeros((2, *SIZE))}, "holds x as float64"),
        ({"z": np.zeros((2, *SIZE), np.float32)}, "no input 'z'"),
    ],
)
def test_calibration_data_that_do_not_fit(arrays: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    """Shape, type and name are told with what is needed."""
    np.savez(tmp_path / "c.npz", **arrays)
    options = {"batch": 2, "int8": True, "calibration": tmp_path / "c.npz"}
    refused(UsageError, sentence, conv(tmp_path), tmp_path / "a.plan", **options)


def test_calibration_files_that_are_not_there(tmp_path: Path) -> None:
    """No file, an empty folder, another kind of file, a model too old for it."""
    model, output = conv(tmp_path), tmp_path / "a.plan"
    (tmp_path / "empty").mkdir()
    for path, sentence in (
        ("nope.npz", "cannot read inputs"),
        ("empty", "a folder without inputs: put files there that end in .npy, .npz"),
        ("conv.onnx", "bytes; input x fp32[2,3,8,8] takes"),
    ):
        refused(UsageError, sentence, model, output, batch=2, int8=True, calibration=tmp_path / path)
    old = _save(tmp_path / "old.onnx", [helper.make_node("Relu", ["x"], ["y"])], (1, 4), {}, opset=11)
    refused(UsageError, "has opset 11, and INT8 needs 13", old, output, int8=True)


def test_output_that_cannot_be_written_is_told_before_building(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, a folder, a place where nobody writes, a pipe: the builder is not even looked for."""
    monkeypatch.setattr("loadtrt.engines.plan_builder.choose_toolchain", lambda _: pytest.fail("it went on"))
    model = conv(tmp_path)
    refused(UsageError, "there is no folder", model, tmp_path / "no" / "a.plan")
    refused(UsageError, "is a folder", model, tmp_path)
    refused(UsageError, "cannot be written", model, Path("/proc/a.plan"))
    os.mkfifo(tmp_path / "pipe")
    refused(UsageError, "is not a regular file", model, tmp_path / "pipe")


def test_a_failed_build_leaves_the_old_plan(tmp_path: Path) -> None:
    """The plan is replaced at the very end, or not at all."""
    old = build(conv(tmp_path), tmp_path / "a.plan", batch=2)
    before = old.path.read_bytes()
    with pytest.raises(EngineError, match="cannot build"):
        build(conv(tmp_path), tmp_path / "a.plan", batch=2, version_compatible=True)
    assert old.path.read_bytes() == before
    assert read_sidecar(old.path) == old.sidecar


def test_options_that_rtx_lacks_name_who_has_them(tmp_path: Path) -> None:
    """What RTX has by name only, without effect, it does not have."""
    model, output = conv(tmp_path, 1), tmp_path / "a.plan"
    refused(UsageError, "has no --bf16; builders of TensorRT 10 have it", model, output, bf16=True)
    refused(UsageError, "has no --fp8; builders of TensorRT 8.6 and 10 have it", model, output, fp8=True)
    refused(UsageError, "has no --timing-cache; TensorRT 8.6, 10, 11", model, output, timing_cache=tmp_path / "t")
    refused(UsageError, "has no --hardware-compatible; TensorRT 8.6", model, output, hardware_compatible=True)
    refused(UsageError, "has no --dla; TensorRT 8.6", model, output, dla=0)
    refused(UsageError, "--target sm99 is unknown", model, output, targets=("SM99",))
    refused(UsageError, "--tactic-sources cudnn is unknown", model, output, tactic_sources=("CUDNN",))


def test_rtx_without_a_gpu_wants_a_target(tmp_path: Path) -> None:
    """Without a GPU there is nothing to build for but what --target names; a refit needs one even then."""
    from loadtrt.cuda.runtime import has_gpu

    if has_gpu():
        pytest.skip("there is a GPU: this is about its absence")
    model, output = conv(tmp_path, 1), tmp_path / "a.plan"
    refused(UsageError, "such as --target sm86,sm89", model, output, targets=())
    refused(UsageError, "such as --target sm86,sm89", model, output, targets=("CURRENT",))
    refused(UsageError, "needs a GPU for --refit", model, output, refit=True)


def test_contradicting_options() -> None:
    """Each pair in one sentence."""
    for given, sentence in (
        ({"exclude_lean_runtime": True}, "add --version-compatible"),
        ({"io": "fp16"}, "add --fp16"),
        ({"strongly_typed": True, "bf16": True}, "--strongly-typed forbids it"),
        ({"calibration": Path("x.npz")}, "add --int8"),
    ):
        with pytest.raises(UsageError, match=sentence):
            BuildOptions(**given)


def test_zoo_and_open_sizes(tmp_path: Path) -> None:
    """zoo:googlenet is made with the batch asked for, 1 (with a note) without, open for profiles."""
    for options, first, notes in (
        (BuildOptions(batch=4), 4, 0),
        (BuildOptions(), 1, 1),
        (BuildOptions(profiles=({},)), -1, 0),
    ):
        source = read_source("zoo:googlenet", options)
        assert inputs_of(source.model)["data"][0] == first
        assert len(source.notes) == notes


def test_progress_is_the_fraction_of_nested_steps() -> None:
    """2 phases of 4 steps: one outer step done and half of an inner phase of 2 is (1 + 1/2) / 4; remaining time at the
    same pace is elapsed · (1 − f) / f."""
    watch = Watch()
    watch.start("outer", None, 4)
    watch.step("outer")
    watch.start("inner", "outer", 2)
    assert watch.step("inner")
    now = watch.progress(3_000_000_000, reports=True)
    assert now == Progress("inner", 0.375, 3_000_000_000)
    assert now.remaining_ns == 5_000_000_000
    assert Progress("starting", None, 1).remaining_ns is None
    watch.stopped = True
    assert not watch.step("inner")


def test_interrupting_the_caller_stops_the_real_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the progress is shown: the builder ends, KeyboardInterrupt comes out, no plan is left."""
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr("loadtrt.engines.toolchain._EVERY_S", 0.02)
    seen = []

    def show(progress: Progress) -> None:
        seen.append(progress)
        raise KeyboardInterrupt

    options = BuildOptions(flavour="rtx", targets=("SM86",), batch=1)
    with pytest.raises(KeyboardInterrupt):
        build_plan(read_source("zoo:googlenet", options), tmp_path / "a.plan", options, show)
    assert len(seen) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.plan.log"]
    assert "ancel" in (tmp_path / "a.plan.log").read_text()


def test_ctrl_c_on_the_command_line_is_exit_130(tmp_path: Path) -> None:
    """SIGINT during a build: "interrupted", 130, no plan and no part of one."""
    pytest.importorskip("tensorrt_rtx")
    plan = tmp_path / "a.plan"
    command = [sys.executable, "-m", "loadtrt", "build", "zoo:googlenet", "-o", str(plan)]
    command += ["--flavour", "rtx", "--target", "sm86,sm89,sm120"]
    leader, follower = pty.openpty()
    with subprocess.Popen(command, stderr=follower, preexec_fn=_heed_interrupts) as run:  # noqa: PLW1509  # no threads
        os.close(follower)
        said = b""
        while b"%" not in said:  # the builder reports on the terminal: it is at work
            said += os.read(leader, 1000)
        os.kill(run.pid, signal.SIGINT)
        with suppress(OSError):  # a terminal whose last writer has gone answers EIO
            while more := os.read(leader, 1000):
                said += more
    os.close(leader)
    assert run.returncode == 130
    assert said.decode().splitlines()[-1].endswith("loadtrt: interrupted")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.plan.log"]


def _heed_interrupts() -> None:
    """What is started in the background of a shell inherits that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


PROTOTXT = """
name: "small" input: "data" input_shape { dim: 10 dim: 3 dim: 8 dim: 8 }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "prob" type: "Softmax" bottom: "conv1" top: "prob" }
"""


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ("", 2, "the model is missing"),
        ("conv.onnx", 2, "the plan has no file"),
        ("conv.onnx --output a.plan", 2, "--output is for Caffe networks: add --deploy FILE.prototxt"),
        ("conv.onnx --deploy net.prototxt -o a.plan", 2, "are two models"),
        ("--deploy none.prototxt -o a.plan", 2, "none.prototxt"),
        ("--uff x.uff", 2, "UFF, which TensorRT has not supported"),
        ("conv.onnx -o a.plan --target sm", 2, "--target sm is not a compute capability"),
        ("conv.onnx -o a.plan --workspace 1", 2, "'1' is not a size"),
        ("conv.onnx -o a.plan --opt-shapes x=1", 2, "--opt-shapes x=1 is not NAME:SIZES"),
        ("conv.onnx -o a.plan --flavour rtx --target sm86", 2, "leaves its first dimension open"),
        ("conv.onnx -o /proc/a.plan --flavour rtx --target sm86 --batch 1", 2, "cannot be written"),
        ("odd.onnx -o a.plan --flavour rtx --target sm86", 3, "node 'foo1' (operator Foo)"),
    ],
)
def test_bad_command_lines_are_one_sentence(arguments: str, code: int, sentence: str, tmp_path: Path) -> None:
    """stdout stays empty, stderr holds one line, the exit code says whose fault it is."""
    pytest.importorskip("tensorrt_rtx")
    conv(tmp_path)
    _save(tmp_path / "odd.onnx", [helper.make_node("Foo", ["x"], ["y"], name="foo1", domain="acme")], (1, 4), {})
    (tmp_path / "net.prototxt").write_text(PROTOTXT)
    done = loadtrt("build", *arguments.split(), folder=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert len(done.stderr.splitlines()) == 1
    assert sentence in done.stderr


def test_a_caffe_network_from_the_command_line(tmp_path: Path) -> None:
    """--batch wins over the prototxt's 10, --output chooses the blob, random weights are told loudly."""
    pytest.importorskip("tensorrt_rtx")
    (tmp_path / "net.prototxt").write_text(PROTOTXT)
    given = "--deploy net.prototxt -o c.plan --flavour rtx --target sm86,8.9 --batch 2 --output conv1 --fp16"
    done = loadtrt("build", *given.split(), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "RANDOM" in done.stderr
    assert "output conv1 fp32[2,4,8,8]" in done.stdout
    kept = read_sidecar(tmp_path / "c.plan")
    assert kept is not None
    assert (kept.model, kept.targets) == ("net.prototxt", ("SM86", "SM89"))


def test_a_caffe_network_has_the_sizes_of_shapes(tmp_path: Path) -> None:
    """--shapes sets height, width and batch; a profile leaves the batch open, and its image is the optimum's."""
    pytest.importorskip("tensorrt_rtx")
    (tmp_path / "net.prototxt").write_text(PROTOTXT)
    fixed = "--shapes data:1x3x64x48"
    ranges = "--min-shapes data:1x3x64x48 --opt-shapes data:2x3x64x48 --max-shapes data:4x3x64x48"
    for options, sizes in ((fixed, "1,3,64,48"), (ranges, "?,3,64,48")):
        given = f"--deploy net.prototxt -o c.plan --flavour rtx --target sm86 --output conv1 --force {options}"
        done = loadtrt("build", *given.split(), folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"input data fp32[{sizes}]" in done.stdout
