"""One word for what a layer does, whatever its engine calls it."""

from __future__ import annotations

import pytest

from loadtrt.results.engine_info import Layer, kind_of


@pytest.mark.parametrize(
    ("kind", "types"),
    [
        ("convolution", "CaskConvolution CaskGemmConvolution CaskJitConv Conv FusedConv QLinearConv correlation conv"),
        ("deconvolution", "CaskDeconvolutionV2 ConvTranspose Deconvolution"),
        ("matmul", "gemm Gemm FusedMatMul CaskGemmMatrixMultiply MatrixMultiply QLinearMatMul FullyConnected"),
        ("pooling", "CaskPooling MaxPool GlobalAveragePool pool"),
        ("reformat", "Reformat ReorderInput ReorderOutput MemcpyFromHost"),
        ("no-op", "NoOp Identity"),
        ("softmax", "CaskSoftMaxV2 Softmax SoftMax"),
        ("LRN", "LRN CaskLRN"),
        ("normalization", "LayerNormalization SkipLayerNormalization BatchNormalization"),
        ("elementwise", "PointWiseV2 ElementWise Add Mul"),
        ("activation", "Relu LeakyRelu Sigmoid QuickGelu Clip Activation"),
        ("attention", "MultiHeadAttention Attention fmha"),
        ("quantize", "QuantizeLinear DequantizeLinear"),
        ("cast", "Cast ConvertToHalf"),
        ("plugin", "PluginV2 PluginV3"),
        ("concat", "Concat Concatenation"),
    ],
)
def test_engines_words_for_one_kind(kind: str, types: str) -> None:
    """TensorRT's types and ONNX Runtime's operators become one word."""
    assert {type_: kind_of(Layer("x", type_)) for type_ in types.split()} == dict.fromkeys(types.split(), kind)


@pytest.mark.parametrize("type_", ["kgen", "Myelin", "wait", "NonMaxSuppression", "MyOwnOp"])
def test_kinds_that_are_not_known_stay_as_they_are(type_: str) -> None:
    """kind_of is the identity on what it does not know."""
    assert kind_of(Layer("x", type_)) == type_


def test_reformats_are_known_by_name_where_types_are_not_told() -> None:
    """Engines of LAYER_NAMES_ONLY tell no types: "" but for what TensorRT calls a reformat."""
    names = ("Reformatting CopyNode for Input Tensor 0 to x", "x input reformatter 1", "x")
    assert [kind_of(Layer(name)) for name in names] == ["reformat", "reformat", ""]
