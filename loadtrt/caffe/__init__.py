"""Caffe networks (deploy.prototxt, .caffemodel) as ONNX, layer by layer: TensorRT dropped its Caffe parser after 8.6.

Import it where it is used: it needs numpy, onnx and protobuf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import helper

from loadtrt.caffe import arithmetic, windows
from loadtrt.caffe.graph import Graph, Pen, Tensor, Weights
from loadtrt.caffe.prototxt import read_prototxt
from loadtrt.errors import UsageError, nearest
from loadtrt.zoo import model_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import onnx

    from loadtrt.caffe.prototxt import Layer, Network

LAYERS: dict[str, Callable[[Pen], list[Tensor]]] = {
    "BatchNorm": arithmetic.batch_norm,
    "Concat": arithmetic.concat,
    "Convolution": windows.convolution,
    "Crop": arithmetic.crop,
    "Deconvolution": windows.deconvolution,
    "Eltwise": arithmetic.eltwise,
    "Flatten": arithmetic.flatten,
    "InnerProduct": arithmetic.inner_product,
    "LRN": windows.lrn,
    "PReLU": arithmetic.prelu,
    "Pooling": windows.pooling,
    "Power": arithmetic.power,
    "ReLU": arithmetic.relu,
    "Reshape": arithmetic.reshape,
    "Scale": arithmetic.scale,
    "Sigmoid": arithmetic.sigmoid,
    "Slice": arithmetic.slice_,
    "Softmax": arithmetic.softmax,
    "TanH": arithmetic.tanh,
}
_LEARNED = ("BatchNorm", "Convolution", "Deconvolution", "InnerProduct", "PReLU", "Scale")
# At inference their tops are their bottom: no node.
_ALIASES = ("Dropout", "Split")
_TRAINING = ("Accuracy", "Data", "DummyData", "HDF5Data", "ImageData", "MemoryData", "WindowData", "HDF5Output")


def convert(deploy: Path, weights: Path | None, outputs: Sequence[str] = (), seed: int = 0) -> onnx.ModelProto:
    """The network of `deploy` (deploy.prototxt) with the `weights` (.caffemodel) as ONNX, fp32, opset 13.

    Shapes, batch included, are the prototxt's. Nodes carry the layers' names; a tensor has the name of its blob as the
    last layer that wrote to it left it. `outputs`: blobs, those that nothing reads where none are given; what they do
    not need is left out. Without weights, random ones from `seed` (He et al. 2015), as trtexec did: same seed, same
    bytes. Raises UsageError, one sentence with file and line, for whatever is wrong with the files.
    """
    network = read_prototxt(deploy)
    lines: dict[str, int] = {}
    for layer in network.layers:
        _require_supported(layer)
        if layer.name in lines:
            raise layer.wrong(f"has the name of the layer on line {lines[layer.name]}: give each a name of its own")
        lines[layer.name] = layer.line
    learned = [layer.name for layer in network.layers if layer.type in _LEARNED]
    graph = Graph(Weights(weights, learned, seed))
    graph.blobs.update({name: Tensor(name, shape) for name, shape in network.inputs.items()})
    last_writers = {top: layer.name for layer in network.layers if layer.type in LAYERS for top in layer.tops}
    unread = dict.fromkeys(network.inputs)
    for layer in network.layers:
        bottoms = [_blob(graph, layer, bottom) for bottom in layer.bottoms]
        for bottom in layer.bottoms:
            unread.pop(bottom, None)
        if taken := [top for top in layer.tops if top in graph.blobs and top not in layer.bottoms]:
            raise layer.wrong(f"writes blob {taken[0]}, which another layer has written: rename its top")
        names = [
            top if last_writers.get(top) == layer.name and top not in network.inputs else f"{layer.name}:top{index}"
            for index, top in enumerate(layer.tops)
        ]
        for top, tensor in zip(layer.tops, _written(Pen(graph, layer, bottoms, names)), strict=True):
            graph.blobs[top] = tensor
            unread[top] = None
    return _model(network, graph, _outputs(network, graph, outputs, list(unread)))


def _require_supported(layer: Layer) -> None:
    if not layer.type:
        raise layer.wrong("has no type: give it one")
    if layer.type in LAYERS or layer.type in (*_ALIASES, "Silence"):
        return
    if layer.type in _TRAINING or layer.type.endswith("Loss"):
        raise layer.wrong("is for training: give the network's deploy.prototxt, not its train_val.prototxt")
    hint = nearest(layer.type, LAYERS, f"supported are {', '.join(sorted((*LAYERS, *_ALIASES, 'Input')))}")
    raise layer.wrong(f"is of a type that is not supported: {hint}")


def _blob(graph: Graph, layer: Layer, name: str) -> Tensor:
    if name not in graph.blobs:
        hint = nearest(name, graph.blobs, "layers stand in the order in which they run")
        raise layer.wrong(f"reads blob {name}, which nothing above it writes: {hint}")
    return graph.blobs[name]


def _written(pen: Pen) -> list[Tensor]:
    """The layer's tops."""
    if pen.layer.type == "Silence":
        if pen.names:
            raise pen.wrong("has a top, where it only consumes bottoms: remove it")
        return []
    if pen.layer.type in _ALIASES:
        return [pen.bottom()] * len(pen.names)
    if not pen.names:
        raise pen.wrong("needs a top")
    return LAYERS[pen.layer.type](pen)


def _outputs(network: Network, graph: Graph, asked: Sequence[str], unread: list[str]) -> list[Tensor]:
    """The output tensors, named as their blobs even where Dropout or Split left no node of that name."""
    chosen = list(dict.fromkeys(asked)) or [
        name for name in unread if graph.blobs[name].name != name or name not in network.inputs
    ]
    if not chosen:
        raise UsageError(f"{network.file} has no output: nothing in it is left unread")
    tensors = []
    for name in chosen:
        if name not in graph.blobs:
            hint = nearest(name, graph.blobs, f"its last is {next(reversed(graph.blobs), 'none')}")
            raise UsageError(f"{network.file} has no blob {name} to put out: {hint}")
        tensor = graph.blobs[name]
        if name in network.inputs and tensor.name == name:
            raise UsageError(f"{name} is an input of {network.file}, not an output: name a blob that a layer writes")
        if tensor.name != name and name not in network.inputs:
            graph.nodes.append(helper.make_node("Identity", [tensor.name], [name], name=f"{name}:output"))
            tensor = Tensor(name, tensor.shape)
        tensors.append(tensor)
    return tensors


def _model(network: Network, graph: Graph, outputs: list[Tensor]) -> onnx.ModelProto:
    """What the outputs need, and no more."""
    needed = {tensor.name for tensor in outputs}
    nodes = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    inputs = [(name, shape) for name, shape in network.inputs.items() if name in needed]
    constants = [tensor for tensor in graph.initializers if tensor.name in needed]
    return model_of(network.name or network.file.stem, nodes[::-1], inputs, outputs, constants)
