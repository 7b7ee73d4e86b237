"""Which layers a network needs for its outputs, and whether all of them can be converted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.caffe import activations, arithmetic, arrangement, resizing, windows
from loadtrt.caffe.spelling import corrected
from loadtrt.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.caffe.graph import Pen, Tensor
    from loadtrt.caffe.prototxt import Layer, Network

LAYERS: dict[str, Callable[[Pen], list[Tensor]]] = {
    "AbsVal": activations.plain("Abs"),
    "ArgMax": arithmetic.arg_max,
    "Axpy": arithmetic.axpy,
    "BN": arithmetic.bn,
    "BNLL": activations.plain("Softplus"),
    "BatchNorm": arithmetic.batch_norm,
    "Bias": arithmetic.bias,
    "Clip": activations.clip,
    "Concat": arrangement.concat,
    "Convolution": windows.convolution,
    "Crop": arrangement.crop,
    "Deconvolution": windows.deconvolution,
    "Dropout": arithmetic.dropout,
    "ELU": activations.elu,
    "Eltwise": arithmetic.eltwise,
    "Exp": activations.exp,
    "Flatten": arrangement.flatten,
    "HardSwish": activations.hard_swish,
    "InnerProduct": arithmetic.inner_product,
    "Interp": resizing.interp,
    "LRN": windows.lrn,
    "Log": activations.log,
    "MVN": arithmetic.mvn,
    "Mish": activations.mish,
    "Normalize": arithmetic.normalize,
    "PReLU": activations.prelu,
    "Permute": arrangement.permute,
    "Pooling": windows.pooling,
    "Power": activations.power,
    "ReLU": activations.relu,
    "ReLU6": activations.relu6,
    "Reduction": arithmetic.reduction,
    "Reorg": arrangement.reorg,
    "Reshape": arrangement.reshape,
    "SELU": activations.plain("Selu"),
    "Scale": arithmetic.scale,
    "SeLu": activations.plain("Selu"),
    "ShuffleChannel": arrangement.shuffle_channel,
    "Sigmoid": activations.plain("Sigmoid"),
    "Slice": arrangement.slice_,
    "Softmax": arithmetic.softmax,
    "Split": lambda pen: [pen.bottom()] * len(pen.names),
    "Swish": activations.swish,
    "TanH": activations.plain("Tanh"),
    "Tile": arrangement.tile,
    "Upsample": resizing.upsample,
}
# Forks have several names for a convolution of each channel by itself, with more capitals or fewer.
_DEPTHWISE = frozenset(
    [
        *("convolutiondepthwise", "convolutiondw", "convdepthwise", "convdw"),
        *("depthwiseconvolution", "depthwiseconv", "dwconvolution", "dwconv"),
    ]
)
_MOST_NAMED = 4  # outputs that an error proposes


def layer_of(type_: str) -> Callable[[Pen], list[Tensor]] | None:
    """What writes a layer of this type; None where it is not supported."""
    if type_.lower().replace("_", "") in _DEPTHWISE:
        return windows.depthwise
    return LAYERS.get(type_)


def needed_layers(network: Network, outputs: Sequence[str]) -> list[Layer]:
    """The layers that the `outputs` need, all where there are none, in the file's order. Raises UsageError for outputs
    that no layer writes."""
    if not outputs:
        return list(network.layers)
    writers = {top: layer for layer in network.layers for top in layer.tops}
    for name in outputs:
        if name not in writers and name in network.inputs:
            raise UsageError(f"{name} is an input of {network.file}, not an output: name a blob that a layer writes")
        if name not in writers:
            written = [
                f"layer {name} writes {' and '.join(layer.tops)}" for layer in network.layers if layer.name == name
            ]
            hint = nearest(name, writers, written[0] if written else f"its last is {next(reversed(writers), 'none')}")
            raise UsageError(f"{network.file} has no blob {name} to put out: {hint}")
    needed, layers = set(outputs), []
    for layer in reversed(network.layers):
        if needed.intersection(layer.tops):
            needed.update(layer.bottoms)
            layers.append(layer)
    return layers[::-1]


def require_supported(layers: Sequence[Layer]) -> None:
    """Raise UsageError for the first layer that cannot be converted, with what can be done about it."""
    lines: dict[str, int] = {}
    for layer in layers:
        if not layer.type:
            raise layer.wrong("has no type: give it one")
        if layer.type != "Silence" and layer_of(layer.type) is None:
            raise layer.wrong(_unsupported(layer, layers))
        if layer.fault:
            raise UsageError(layer.fault)
        if layer.name in lines:
            raise layer.wrong(f"has the name of the layer on line {lines[layer.name]}: give each a name of its own")
        lines[layer.name] = layer.line


def _unsupported(layer: Layer, layers: Sequence[Layer]) -> str:
    if meant := corrected(layer.type, (*LAYERS, "Input", "Silence")):
        return f"is of a type that is not supported: did you mean '{meant}'?"
    if layer.type.endswith("Data") or any(word in layer.type for word in ("Loss", "Accuracy", "Evaluat")):
        sentence = "is for training: give the network's deploy.prototxt, not its train_val.prototxt"
    else:
        sentence = "is of a type that is not supported: build this network from ONNX"
    before = _before_unsupported(layers)
    if not before:
        return sentence
    more = " …" if len(before) > _MOST_NAMED else ""
    return f"{sentence}, or leave it and what follows out with --output {' --output '.join(before[:_MOST_NAMED])}{more}"


def _before_unsupported(layers: Sequence[Layer]) -> list[str]:
    """The blobs at which a network ends that is cut before all layers that are not supported."""
    behind: set[str] = set()
    read: set[str] = set()
    ends: dict[str, None] = {}
    for layer in layers:
        if layer.type == "Silence":
            continue
        if layer_of(layer.type) is None or behind.intersection(layer.bottoms):
            behind.update(layer.tops)
        else:
            read.update(bottom for bottom in layer.bottoms if bottom not in layer.tops)
            ends.update(dict.fromkeys(layer.tops[:1] if layer.type == "Pooling" else layer.tops))
    return [name for name in ends if name not in read and name not in behind]
