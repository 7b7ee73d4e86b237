"""The engine inspector's JSON, in the form of TensorRT up to 10 and in that of 11 and RTX."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadtrt.engines.plan_facts import is_detailed, parse_layers, precisions


def _old(name: str, kind: str, source: str, sink: str, **more: Any) -> dict[str, Any]:
    """A layer as TensorRT 8.6 and 10 write it."""

    def tensor(label: str, text: str) -> dict[str, Any]:
        return {"Name": label, "Location": "Device", "Dimensions": [16, 64, 56, 56], "Format/Datatype": text}

    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [tensor("a", source)],
        "Outputs": [tensor("b", sink)],
        "TacticValue": "0x1",
        **more,
    }


def _new(name: str, kind: str, dtype: str, **more: Any) -> dict[str, Any]:
    """A layer as TensorRT 11 and RTX write it."""
    tensor = {
        "Name": "a",
        "Dimensions": [16, 64],
        "Format": "Row major linear FP16 format (kLINEAR)",
        "Datatype": dtype,
    }
    return {"Name": name, "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor], **more}


OLD = {
    "Layers": [
        _old("in", "Reformat", "Row major linear FP32", "Channel major FP16 format where channel % 4 == 0"),
        _old(
            "conv1",
            "CaskConvolution",
            "Channel major FP16 format where channel % 4 == 0",
            "Channel major FP16 format where channel % 8 == 0",
            Weights={"Type": "Half", "Count": 9408},
            TacticName="sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16",
        ),
        _old("lrn", "LRN", "Row major linear FP32", "Row major linear FP32"),
        _old(
            "q", "CaskConvolution", "Thirty-two wide channel vectorized row major Int8 format", "Row major Int8 format"
        ),
    ],
    "Bindings": ["data", "prob"],
}
NEW = {
    "Layers": [
        _new("conv1", "conv", "Half", TacticName="t"),
        _new("fc", "gemm", "BFloat16"),
        _new("pool", "pool", "Float"),
        _new("copy", "NoOp", "Half"),
    ],
    "I/O Tensors": [{"Name": "data", "IOMode": "Input", "DataType": "Float"}],
}


def test_form_up_to_10() -> None:
    """Law: "Format/Datatype" gives type and format, weights give the precision, movers of data have none."""
    reformat, conv, lrn, quantized = parse_layers(json.dumps(OLD))
    assert reformat.precision == ""
    assert reformat.outputs[0].dtype == "fp16"
    assert (conv.name, conv.type, conv.precision) == ("conv1", "CaskConvolution", "fp16")
    assert conv.tactic == "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16"
    assert conv.inputs[0].shape == (16, 64, 56, 56)
    assert conv.inputs[0].format == "Channel major FP16 format where channel % 4 == 0"
    assert lrn.precision == "fp32"
    assert quantized.inputs[0].dtype == "int8"
    assert precisions((reformat, conv, lrn)) == {"fp16": 1, "fp32": 1}


def test_weights_outrank_inputs_and_outputs() -> None:
    """Law: a layer with FP32 tensors around FP16 weights computes in FP16."""
    layer = _old("c", "CaskConvolution", "Row major linear FP32", "Row major linear FP32", Weights={"Type": "Half"})
    assert parse_layers(json.dumps({"Layers": [layer]}))[0].precision == "fp16"


def test_form_from_11_on() -> None:
    """Law: "Format" and "Datatype" are read apart; the type wins over what the format says."""
    layers = parse_layers(json.dumps(NEW))
    assert precisions(layers) == {"fp16": 1, "bf16": 1, "fp32": 1}
    assert layers[1].inputs[0].dtype == "bf16"
    assert layers[0].inputs[0].format == "Row major linear FP16 format (kLINEAR)"
    assert is_detailed(layers)


@pytest.mark.parametrize("names", [["conv1", "fc"], []])
def test_names_alone_are_not_detailed(names: list[str]) -> None:
    """Law: LAYER_NAMES_ONLY (strings) and NONE (nothing) give layers without type, precision or detail."""
    layers = parse_layers(json.dumps({"Layers": names, "Bindings": []}))
    assert [layer.name for layer in layers] == names
    assert not is_detailed(layers)
    assert not precisions(layers)


def test_what_the_inspector_leaves_out() -> None:
    """Law: missing keys and open shapes make empty fields, never an exception."""
    layers = parse_layers('{"Layers": [{"Name": "x", "Inputs": [{"Format/Datatype": "N/A due to dynamic shapes"}]}]}')
    assert layers[0].inputs[0].dtype == ""
    assert layers[0].precision == ""


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Layers": 3}'])
def test_text_that_is_not_the_inspectors(text: str) -> None:
    """Law: anything but an object with a list "Layers" is a ValueError."""
    with pytest.raises(ValueError):
        parse_layers(text)


def test_what_tensorrt_8_6_really_writes_is_read() -> None:
    """Recorded from TensorRT 8.6.1 on an H100: ONNX layers in "Metadata" lie between bare U+001E, which strict JSON
    forbids; weights of type Half are a layer that computes in FP16."""
    text = (
        '{"Layers": [{"Name": "conv1/7x7_s2 + conv1/relu_7x7", "LayerType": "CaskConvolution", "Inputs": [{"Name": '
        '"Reformatted Input Tensor 0 to conv1/7x7_s2 + conv1/relu_7x7", "Location": "Device", "Dimensions": '
        '[16,3,224,224], "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}], "Outputs": [{"Name": '
        '"conv1/relu_7x7", "Location": "Device", "Dimensions": [16,64,112,112], "Format/Datatype": "Channel major FP16 '
        'format where channel % 8 == 0"}], "ParameterType": "Convolution", "Weights": {"Type": "Half", "Count": 9408}, '
        '"TacticValue": "0xa570c55d303796ff", "StreamId": 0, "Metadata": "[ONNX Layer: conv1/7x7_s2]\x1e[ONNX Layer: '
        'conv1/relu_7x7]"}], "Bindings": ["data", "prob"]}'
    )
    (layer,) = parse_layers(text)
    assert (layer.type, layer.precision) == ("CaskConvolution", "fp16")
    assert layer.inputs[0].shape == (16, 3, 224, 224)
