"""What is said of an engine's layers and of a whole file: --fp16 and `loadtrt inspect`. TensorRT is a fake here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from loadtrt.cli.inspect import command as inspect_command
from loadtrt.errors import EngineError, UsageError
from tensorrt_bench import Bench, bench_of

if TYPE_CHECKING:
    from pathlib import Path


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
    with pytest.raises(EngineError, match=r"contradicts --fp16.*of its 2 computing layers none is FP16 .2 in FP32"):
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
    bench = bench_of("dispatch", monkeypatch, tmp_path)
    found = CliRunner().invoke(inspect_command, [bench.path], catch_exceptions=False)
    assert found.exit_code == 0
    for word in ("TensorRT 8.6.0.12", "version-compatible", "Not loaded: plan", "--allow-host-code", "also shows"):
        assert word in found.stdout
    with pytest.raises(EngineError, match="allow-host-code"):
        CliRunner().invoke(inspect_command, [bench.path, "--module", "tensorrt_dispatch"], catch_exceptions=False)


def test_inspect_of_a_model(tmp_path: Path) -> None:
    """Law: of an ONNX model inspect tells inputs, outputs, parameters and nodes; a broken one is a UsageError."""
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


@pytest.mark.parametrize(
    "option", [("--module", "tensorrt"), ("--plugins", "x.so"), ("--lean-library", "x.so"), ("--allow-host-code",)]
)
def test_options_of_plans_are_not_ignored_for_a_model(option: tuple[str, ...], tmp_path: Path) -> None:
    """No TensorRT reads the model: what would change how it does is refused."""
    model = tmp_path / "m.onnx"
    model.write_bytes(b"")
    with pytest.raises(
        UsageError, match=rf"^{option[0]} is for TensorRT plans, not for ONNX models such as .*leave it out$"
    ):
        CliRunner().invoke(inspect_command, [str(model), *option], catch_exceptions=False)
