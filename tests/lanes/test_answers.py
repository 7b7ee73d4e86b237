"""How far answers are from a reference: by hand-made engines in virtual time, and whole runs on ONNX Runtime."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper

from command_line import loadtrt
from half_models import model, value, weight
from loadtrt.asked.config import RunConfig
from loadtrt.engines.open import open_engine
from loadtrt.engines.reference import Reference
from loadtrt.errors import EngineError
from loadtrt.lanes.verify import _of, deviation_from
from loadtrt.load.inputs import make_inputs

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.results.precisions import Deviation


class _Answering:
    """An engine whose every answer is `outputs`."""

    per_launch = 1

    def __init__(self, engine: Any, outputs: Any) -> None:
        self._engine, self._outputs = engine, outputs

    def outputs(self, *_: int) -> Any:
        return self._outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


async def _deviation(
    outputs: Any,
    reference: Any,
    *,
    demanded: bool = False,
    unknown: str = "",
    again: Any = None,
    engine: type[_Answering] = _Answering,
) -> Deviation:
    config = RunConfig.of(engine="simulated:service=1ms,clock=virtual")
    inner = open_engine(config.model)
    inner.allocate(make_inputs(inner.info.tensors, ("zeros",), 1, {}, 1))
    compared = Reference("the oracle", reference, unknown, 0.01, demanded, again)
    arrays = {name: np.asarray(numbers) for name, numbers in outputs.items()}
    return await deviation_from(engine(inner, arrays), compared)


def _arrays(**numbers: Any) -> dict[str, Any]:
    return {name: np.asarray(item) for name, item in numbers.items()}


@pytest.mark.anyio
async def test_the_output_that_deviates_most_is_told() -> None:
    """Relative to its own largest magnitude: 0.1 of 200 is less than 0.03 of 1."""
    found = await _deviation(
        _arrays(a=[200.1, 1.0], b=[1.0, 0.47], c=np.ones(2, np.float16)),
        _arrays(a=[200.0, 1.0], b=[1.0, 0.5], c=[1.0, 1.0]),
    )
    assert (found.output, found.outputs, found.largest, found.not_finite) == ("b", 3, 1.0, 0)
    assert found.absolute == pytest.approx(0.03)
    assert found.relative == pytest.approx(0.03)
    assert found.cosine == pytest.approx((1 + 0.47 * 0.5) / np.hypot(1, 0.47) / np.hypot(1, 0.5))
    assert found.beyond
    assert found.text == "0.03 of the largest 1 (at most 0.03), in output b, cosine 0.999705"


@pytest.mark.anyio
async def test_numbers_that_are_none_are_told_first() -> None:
    """NaN and infinities that the reference does not have; those that it has are no fault."""
    found = await _deviation(
        _arrays(a=[np.nan, np.inf, 1.0, np.nan], b=[3.0]), _arrays(a=[1.0, 2.0, 1.0, np.nan], b=[1.0])
    )
    assert (found.output, found.not_finite, found.relative, found.beyond) == ("a", 2, 0.0, True)
    one, both = "2 numbers NaN or infinite on one side only", "1 number NaN or infinite on both sides"
    assert found.text.endswith(f"{one}, {both}")
    same = await _deviation(_arrays(a=[np.nan, np.inf, 1.0]), _arrays(a=[np.nan, np.inf, 1.0]))
    assert not same.beyond


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("output", "wanted"), [(1.0, np.nan), (1.0, np.inf), (np.inf, -np.inf), (np.nan, np.inf), (np.inf, 1.0)]
)
async def test_numbers_that_the_reference_does_not_have_are_a_fault(output: float, wanted: float) -> None:
    """Also where all of them are none, and there is no largest."""
    for numbers, expected in (([output, 1.0], [wanted, 1.0]), ([output], [wanted])):
        found = await _deviation(_arrays(a=numbers), _arrays(a=expected), demanded=True)
        assert found.not_finite == 1
        assert found.fault is not None
        assert "1 number NaN or infinite on one side only" in found.fault[0]
        assert "largest 0" not in found.text


@pytest.mark.anyio
async def test_another_shape_is_a_deviation_and_the_others_are_compared() -> None:
    found = await _deviation(_arrays(a=[1.0, 2.0], b=[3.0], n=[1]), _arrays(a=[[1.0]], b=[3.0], n=[1]), demanded=True)
    assert (found.output, found.outputs, found.beyond) == ("a", 3, True)
    assert found.text == "output a is [2] instead of [1, 1]"
    assert found.fault is not None


@pytest.mark.anyio
async def test_outputs_that_the_reference_does_not_have_are_named() -> None:
    found = await _deviation(_arrays(a=[1.0], b=[2.0]), _arrays(a=[1.0], c=[2.0]))
    assert (found.outputs, found.missing, found.beyond) == (1, ("b",), False)
    assert found.text.endswith("not compared, as the reference does not have them: b")


@pytest.mark.anyio
async def test_texts_are_equal_or_not() -> None:
    """Whether they are numpy's, bytes or Python's."""
    texts = np.asarray(["é", "b", "c", "d"], object)
    same = await _deviation(_arrays(s=texts), _arrays(s=["é", "b", "c", "d"]))
    assert (same.beyond, same.relative) == (False, 0.0)
    found = await _deviation(_arrays(s=texts), _arrays(s=np.asarray(["é".encode(), b"b", b"c", b"x"], object)))
    assert (found.beyond, found.text) == (True, "25 % of the texts in output s differ")


class _Restless(_Answering):
    """Answers otherwise each time, in the outputs named."""

    def outputs(self, *_: int) -> Any:
        self.asked = getattr(self, "asked", 0) + 1
        return {name: array + self.asked * (name in "rq") for name, array in self._outputs.items()}


@pytest.mark.anyio
async def test_what_differs_from_itself_is_not_compared() -> None:
    """Whether it is the engine or the reference that draws random numbers: the others are compared."""
    arrays = _arrays(r=[1.0, 2.0], y=[1.0])
    found = await _deviation(arrays, _arrays(r=[5.0, 7.0], y=[1.5]), engine=_Restless)
    assert (found.output, found.outputs, found.random) == ("y", 1, ("r",))
    assert found.text.endswith("not compared, as two requests with the same inputs differ: r")
    twice = await _deviation(arrays, _arrays(r=[5.0, 7.0], y=[1.0]), again=_arrays(r=[4.0, 4.0], y=[1.0]))
    assert (twice.beyond, twice.random) == (False, ("r",))
    alone = await _deviation(_arrays(r=[1.0]), _arrays(r=[5.0]), engine=_Restless)
    assert (alone.beyond, alone.outputs) == (False, 0)
    assert alone.text == (
        "not known: two requests with the same inputs differ in output r: the model draws random numbers"
    )


@pytest.mark.anyio
async def test_an_answer_that_fp16_cannot_hold_is_measured_against_what_it_holds() -> None:
    """1e-7 of a probability of 5e-7 is FP16's rounding, and 1 where nothing should be is not."""
    near = await _deviation(_arrays(p=[4e-7, 0]), _arrays(p=[5e-7, 0]))
    assert near.relative == pytest.approx(1e-7 * 2**14)
    assert not near.beyond
    far = await _deviation(_arrays(p=[1.0, 0]), _arrays(p=[0.0, 0]))
    assert (far.beyond, far.cosine) == (True, None)


@pytest.mark.anyio
async def test_of_integers_the_share_that_differs() -> None:
    found = await _deviation(_arrays(n=[1, 2, 3, 9]), _arrays(n=[1, 2, 3, 4]))
    assert (found.relative, found.absolute, found.cosine) == (0.25, 5, None)
    assert found.text == "25 % of the integers in output n differ, by at most 5"
    flags = await _deviation(_arrays(n=[True, False]), _arrays(n=[False, False]))
    assert (flags.relative, flags.absolute) == (0.5, 1)


@pytest.mark.anyio
async def test_what_cannot_be_compared_says_why() -> None:
    """No output of that name, no reference; asked for, that is an error."""
    for outputs, why in (
        (_arrays(b=[1.0]), "none of the outputs b"),
        ({}, "that the engine can tell"),
    ):
        found = await _deviation(outputs, _arrays(a=[1.0]))
        assert why in found.unknown
        assert not found.beyond
        with pytest.raises(EngineError, match=why):
            await _deviation(outputs, _arrays(a=[1.0]), demanded=True)
    assert (await _deviation({}, None, unknown="nobody knows")).text == "not known: nobody knows"


def _file(folder: Path, factor: float) -> Path:
    """y = ((x w) factor) / factor."""
    w = np.random.default_rng(1).standard_normal((8, 8))
    made = model(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Mul", ["a", "factor"], ["b"]),
            helper.make_node("Div", ["b", "factor"], ["y"]),
        ],
        [value("x", 2, 8)],
        [value("y", 2, 8)],
        [weight("w", w), weight("factor", factor)],
    )
    onnx.save(made, folder / "model.onnx")
    np.savez(folder / "x.npz", x=np.full((2, 8), 3, np.float32))
    return folder / "model.onnx"


def _run(folder: Path, *options: Any) -> tuple[int, dict[str, Any], str]:
    """Exit code, what is kept of the model, and what is shown."""
    common = ("--duration", "10ms", "--warmup", "0", "--json", folder / "run.json", "--force")
    done = loadtrt("run", "--engine", folder / "model.onnx", "--on", "onnxruntime", *common, *options)
    kept = json.loads((folder / "run.json").read_text())["models"]
    return done.returncode, next(iter(kept.values())), done.stdout


def test_a_run_in_fp16_says_how_far_its_answers_are(tmp_path: Path) -> None:
    """In the summary and in run.json, and no finding where it is FP16's rounding; without --fp16 nothing is said."""
    _file(tmp_path, 4.0)
    _, kept, shown = _run(tmp_path, "--fp16")
    deviation, became = kept["deviation"], kept["engine"]["conversion"]
    assert 0 < deviation["relative"] < deviation["tolerance"] < 0.01
    assert (deviation["output"], deviation["unknown"], deviation["demanded"]) == ("y", "", False)
    assert (became["converted"], became["nodes"], became["weights"]) == (3, 3, 65)
    assert "converted to FP16: 3 of 3 nodes" in shown
    assert "in output y, cosine 1.000000" in " ".join(shown.split())
    assert not [finding for finding in kept["findings"] if finding["kind"] == "deviates"]
    _, plain, shown = _run(tmp_path)
    assert (plain["deviation"], plain["engine"]["conversion"]) == (None, None)
    assert "deviation" not in shown


def test_answers_that_fp16_spoils_are_a_finding(tmp_path: Path) -> None:
    """Weights of 1e-9 among larger ones become 0, and matter here: how fast that is says nothing of the network. The
    run itself is no worse."""
    w = np.eye(8)
    w[:, 0] = 1e-9
    made = model(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Gather", ["a", "first"], ["b"], axis=1),
            helper.make_node("Mul", ["b", "factor"], ["y"]),
        ],
        [value("x", 2, 8)],
        [value("y", 2)],
        [weight("w", w), weight("first", 0, np.int64), weight("factor", 1e9)],
    )
    onnx.save(made, tmp_path / "model.onnx")
    _, kept, shown = _run(tmp_path, "--fp16")
    assert kept["deviation"]["relative"] == pytest.approx(1)
    assert (kept["engine"]["conversion"]["zeroed"], kept["engine"]["conversion"]["most_zeroed"]) == (8, "w")
    assert "outputs-differ" not in [problem["kind"] for problem in kept["problems"]]
    assert "deviates" in [finding["kind"] for finding in kept["findings"]]
    assert "! deviates: outputs deviate" in shown
    assert "8 became 0 (8 of 64 in w)" in " ".join(shown.split())


def test_what_fp16_cannot_hold_is_a_finding_on_onnx_runtime(tmp_path: Path) -> None:
    """Whose CPU computes FP16 in FP32, so that its answers are right; INVALID it is for what was compared alone."""
    made = model(
        [helper.make_node("MatMul", ["x", "w"], ["first"]), helper.make_node("Mul", ["first", "tiny"], ["y"])],
        [value("x", 2, 8)],
        [value("y", 2, 8)],
        [weight("w", 6e4 * np.eye(8)), weight("tiny", 1e-4)],
    )
    onnx.save(made, tmp_path / "model.onnx")
    for options in ((), ("--verify-tolerance", "5%")):
        _, kept, shown = _run(tmp_path, "--fp16", "--input-range", "x:2..3", *options)
        deviation = kept["deviation"]
        assert deviation["relative"] < deviation["tolerance"]
        assert (deviation["overflows"], deviation["first_overflow"]) == (1, "first")
        assert "outputs-differ" not in [problem["kind"] for problem in kept["problems"]]
        assert "deviates" in [finding["kind"] for finding in kept["findings"]]
        assert "1 result beyond FP16's 65 504, the first first (up to 1" in " ".join(shown.split())


def test_an_integer_beside_the_right_one_does_not_accuse_fp16(tmp_path: Path) -> None:
    """Before a quantizer FP16's rounding may decide between two integers: one step of INT8 is what that network's
    answers are exact to."""
    made = model(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("QuantizeLinear", ["a", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ],
        [value("x", 2, 8)],
        [value("y", 2, 8)],
        [weight("w", 1.0003 * np.eye(8)), weight("scale", 0.1), weight("zero", 0, np.int8)],
    )
    onnx.save(made, tmp_path / "model.onnx")
    x = np.full((2, 8), 12.7, np.float32)
    x[:, 0] = 0.04999  # times 1.0003 it is quantized to 0.1, times FP16's 1 to 0
    np.savez(tmp_path / "x.npz", x=x)
    _, kept, _ = _run(tmp_path, "--fp16", "--inputs", tmp_path / "x.npz")
    deviation = kept["deviation"]
    assert deviation["absolute"] == pytest.approx(0.1, rel=1e-3)
    assert deviation["tolerance"] == pytest.approx(8 * 2**-8 * 3**0.5)
    assert not [finding for finding in kept["findings"] if finding["kind"] == "deviates"]


def test_random_numbers_and_texts_do_not_accuse_fp16(tmp_path: Path) -> None:
    """In a branch, and by a Dropout that trains; texts are compared as they are."""
    for name, nodes, ends in (
        ("Dropout", [helper.make_node("Dropout", ["x", "half", "on"], ["y"])], [value("y", 2, 8)]),
        (
            "text",
            [helper.make_node("Identity", ["s"], ["t"]), helper.make_node("Abs", ["x"], ["y"])],
            [value("t", 2, kind=onnx.TensorProto.STRING), value("y", 2, 8)],
        ),
    ):
        text = [value("s", 2, kind=onnx.TensorProto.STRING)] if name == "text" else []
        weights = [weight("half", 0.5), weight("on", True, bool)]
        onnx.save(model(nodes, [value("x", 2, 8), *text], ends, weights), tmp_path / "model.onnx")
        code, kept, _ = _run(tmp_path, "--fp16")
        assert code in (0, 97)
        assert not [finding for finding in kept["findings"] if finding["kind"] == "deviates"]
        assert ("draws random numbers" in kept["deviation"]["unknown"]) == (name == "Dropout")


def test_a_tolerance_that_is_asked_for_decides_like_verify(tmp_path: Path) -> None:
    """Beyond it the run is INVALID, as where --verify finds other outputs."""
    _file(tmp_path, 4.0)
    code, kept, _ = _run(tmp_path, "--fp16", "--verify-tolerance", "0.0001%")
    assert code == 97
    assert "outputs-differ" in [problem["kind"] for problem in kept["problems"]]
    _, kept, _ = _run(tmp_path, "--fp16", "--verify-tolerance", "10%")
    assert "outputs-differ" not in [problem["kind"] for problem in kept["problems"]]


def test_outputs_of_another_tool_decide_like_verify(tmp_path: Path) -> None:
    """numpy's own, right and wrong by a tenth."""
    file = _file(tmp_path, 4.0)
    w = onnx.numpy_helper.to_array(onnx.load(file).graph.initializer[0])
    for factor, differs in ((1.0, False), (1.1, True)):
        np.savez(tmp_path / "y.npz", y=factor * (np.full((2, 8), 3, np.float32) @ w))
        _, kept, shown = _run(tmp_path, "--inputs", tmp_path / "x.npz", "--verify-against", tmp_path / "y.npz")
        assert ("outputs-differ" in [problem["kind"] for problem in kept["problems"]]) == differs
        assert "deviation from" in shown


def test_a_sweep_shows_fp32_beside_fp16(tmp_path: Path) -> None:
    """The ratio with its interval, and the deviation, at each of the other settings."""
    _file(tmp_path, 4.0)
    done = loadtrt(
        *("sweep", "--engine", tmp_path / "model.onnx", "--on", "onnxruntime", "--fp16", "off,on"),
        *("--contexts", "1,2", "--duration", "200ms", "--warmup", "0", "--json", tmp_path / "sweep.json"),
    )
    assert done.returncode in (0, 97)  # the engine may outrun the host
    points = json.loads((tmp_path / "sweep.json").read_text())["points"]
    settings = [(point["settings"]["fp16"], point["settings"]["contexts"]) for point in points]
    assert settings == [(False, 1), (False, 2), (True, 1), (True, 2)]
    compared = [next(iter(point["run"]["models"].values()))["deviation"] for point in points]
    assert compared[:2] == [None, None]
    assert all(deviation["relative"] < 0.01 for deviation in compared[2:])
    assert "FP16 / FP32" in done.stdout
    assert done.stdout.count("in output y") == 2
    assert done.stderr.count("in output y") == 1  # two engines, compared to the same end


def test_a_switch_without_a_value_is_on_in_a_sweep(tmp_path: Path) -> None:
    _file(tmp_path, 4.0)
    done = loadtrt(
        *("sweep", "--engine", tmp_path / "model.onnx", "--on", "onnxruntime", "--fp16", "--contexts", "1"),
        *("--duration", "50ms", "--warmup", "0", "--json", tmp_path / "sweep.json"),
    )
    assert done.returncode in (0, 97)
    (point,) = json.loads((tmp_path / "sweep.json").read_text())["points"]
    assert point["settings"] == {"fp16": True, "contexts": 1}


def test_numbers_that_compare_nothing_are_counted() -> None:
    """The same NaN or infinity on both sides is no difference, and no agreement either: it is said."""
    nan, inf = np.nan, np.inf
    found = _of("y", np.array([1, nan, inf, 2, nan]), np.array([1, nan, inf, -inf, 3]), 0.1)
    assert (found.not_compared, found.not_finite) == (2, 2)
    assert "2 numbers NaN or infinite on both sides" in found.text
    assert "both sides" not in _of("y", np.ones(3), np.ones(3), 0.1).text
