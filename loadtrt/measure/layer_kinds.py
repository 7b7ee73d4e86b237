"""One word for what a layer does, whatever its engine calls it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadtrt.measure.layers import Layer

# The first that is found in a type wins, so the special comes before the general: CaskGemmConvolution is a
# convolution, ConvertToHalf is none, LRN is no normalization of the LayerNorm sort.
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


def kind_of(layer: Layer) -> str:
    """ "convolution" for CaskConvolution, FusedConv and the like; types without such a word stay as they are.

    "" where the engine tells names alone; reformats are known by their names even then.
    """
    if not layer.type:
        return "reformat" if re.search(r"^Reformatting CopyNode |(in|out)put reformatter \d+$", layer.name) else ""
    return next((kind for kind, pattern in _KINDS if pattern.search(layer.type)), layer.type)
