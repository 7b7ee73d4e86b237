"""What a layer is: the unit that an engine runs and times, with the model's nodes that were fused into it."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The first match in a type wins, so the special comes before the general: CaskGemmConvolution is a convolution,
# ConvertToHalf is not, and LRN is not a normalization like LayerNorm.
_KINDS = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        ("reformat", r"reformat|^reorder(in|out)put$|^memcpy"),
        ("no-op", r"^(noop|identity)$"),
        ("quantize", r"quantizelinear|^(de)?quantize$"),
        ("deconvolution", r"deconv|convtranspose"),
        ("convolution", r"conv(?!ert)|^correlation$"),
        ("attention", r"attention|fmha"),
        ("matmul", r"gemm|matmul|matrixmult|fullyconnected"),
        ("pooling", r"pool"),
        ("softmax", r"softmax"),
        ("LRN", r"^(cask)?lrn$"),
        ("normalization", r"normalization|^(layer|rms|group|instance|batch)norm"),
        ("elementwise", r"^(pointwise|elementwise)|^(add|sub|mul|div|sum|pow|sqrt|exp|neg|abs|erf)$"),
        ("activation", r"^activation$|(relu|gelu|elu|sigmoid|tanh|swish|silu|softplus)$|^clip$"),
        ("reduction", r"^reduce"),
        ("concat", r"^concat"),
        ("slice", r"^(slice|split)$"),
        ("shuffle", r"^(shuffle|reshape|transpose|flatten|squeeze|unsqueeze|expand)$"),
        ("gather", r"^gather"),
        ("resize", r"^(resize|upsample)$"),
        ("cast", r"^cast$|^convert"),
        ("plugin", r"^plugin"),
    )
)

_ADDED = ("Reformatting CopyNode",)  # layers that TensorRT puts in by itself


@dataclass(frozen=True, slots=True)
class LayerTensor:
    """One input or output of a layer. dtype "" and shape () where the engine does not say."""

    name: str
    dtype: str
    format: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an engine. If only its name is known, all fields but `name` and `nodes` are empty.

    name: as the engine gives it.
    type: the engine's type, such as "CaskConvolution".
    tactic: the kernel that the builder chose.
    inputs, outputs: its tensors.
    precision: the type in which it computes: that of its weights, or else of its floating-point outputs or inputs, or
        INT8 if all of them are; "" for layers that only move data, and if not known.
    nodes: names of the model's nodes fused into it; none for layers that the engine added, such as reformats.
    """

    name: str
    type: str = ""
    tactic: str = ""
    inputs: tuple[LayerTensor, ...] = ()
    outputs: tuple[LayerTensor, ...] = ()
    precision: str = ""
    nodes: tuple[str, ...] = ()


def nodes_in_name(name: str) -> tuple[str, ...]:
    """The model's nodes that TensorRT names a layer by: " + " joins those in a row, " || " those side by side."""
    if name.startswith(_ADDED):
        return ()
    return tuple(part for part in re.split(r" \+ | \|\| ", name) if part)


def kind_of(layer: Layer) -> str:
    """ "convolution" for CaskConvolution, FusedConv and the like; types without such a word stay as they are.

    "" if the engine gives only names; reformats are known by their names even then.
    """
    if not layer.type:
        return "reformat" if re.search(r"^Reformatting CopyNode |(in|out)put reformatter \d+$", layer.name) else ""
    return next((kind for kind, pattern in _KINDS if pattern.search(layer.type)), layer.type)
