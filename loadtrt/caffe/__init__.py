"""Caffe networks (deploy.prototxt, .caffemodel) as ONNX, layer by layer: TensorRT dropped its Caffe parser after 8.6.

Import it where it is used: it needs numpy, onnx and protobuf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import helper

from loadtrt.caffe.graph import NOWHERE, Graph, Pen, Sizes, Tensor, Weights
from loadtrt.caffe.prototxt import format_shape, read_prototxt, require_sizes
from loadtrt.caffe.supported import layer_of, needed_layers, require_supported
from loadtrt.errors import UsageError, nearest
from loadtrt.zoo import model_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx

    from loadtrt.caffe.prototxt import Layer, Network, Shapes

_MOST_PLACEHOLDER_PIXELS = 256  # OpenPose's files have images of 1x1 and of 16x16


def convert(
    deploy: Path,
    weights: Path | None,
    outputs: Sequence[str] = (),
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> onnx.ModelProto:
    """A Caffe network as ONNX, fp32, opset 13.

    Nodes carry the layers' names; a tensor has the name of its blob as the last layer that wrote to it left it.

    deploy: the .prototxt.
    weights: the .caffemodel; without one they are random (He et al. 2015), as trtexec's were.
    outputs: blobs, those that nothing reads where none are given; what they do not need is left out, and not judged.
    seed: of random weights: the same seed gives the same bytes.
    shapes: of inputs, batch included, in place of the prototxt's: sizes that follow from them follow, as with Caffe's
        net.reshape, and weights keep theirs.
    Raises UsageError, one sentence with file and line, for whatever is wrong with the files.
    """
    network = read_prototxt(deploy, shapes)
    layers = needed_layers(network, outputs)
    require_sizes(network, layers)
    require_supported(layers)
    names = [layer.name for layer in layers]
    graph = _graph(network, layers, Weights(weights, names, seed, _written_sizes(network, layers)))
    unread = _add_layers(graph, layers, network.inputs)
    return _model(network, graph, _outputs(network, graph, outputs, unread))


def placeholder_notes(
    deploy: Path, model: onnx.ModelProto, shapes: Shapes, batch: int | None = None
) -> tuple[str, ...]:
    """Remarks on inputs whose sizes in the file are likely placeholders, which Caffe leaves to its user to set. batch:
    the one that is asked for in place of the file's."""
    return tuple(
        f"WARNING: input {name} is {format_shape(sizes)}, as {deploy} says: set its size with --shapes "
        f"{name}:{format_shape((batch or sizes[0], sizes[1]))}x224x224 if that is a placeholder"
        for name, sizes in (
            (each.name, [d.dim_value for d in each.type.tensor_type.shape.dim]) for each in model.graph.input
        )
        if name not in shapes and len(sizes) == 4 and sizes[2] * sizes[3] <= _MOST_PLACEHOLDER_PIXELS
    )


def _written_sizes(network: Network, layers: Sequence[Layer]) -> Sizes:
    """The sizes of all weights with the input shapes of the file itself, where others are given than these but for the
    batch; empty where the file's cannot be: then they are placeholders."""
    read = {bottom for layer in layers for bottom in layer.bottoms}
    pairs = [(network.written[name], shape) for name, shape in network.inputs.items() if name in read]
    if all(own[1:] == shape[1:] for own, shape in pairs) or any(min(own, default=0) < 1 for own, _ in pairs):
        return {}
    try:
        sizes = blueprint(network, layers, network.written).weights
    except UsageError:
        return {}
    return sizes if isinstance(sizes, dict) else {}


def blueprint(network: Network, layers: Sequence[Layer], inputs: Shapes) -> Graph:
    """The graph for these input shapes, with shapes of weights in place of weights. Raises UsageError."""
    graph = _graph(network, layers, {})
    _add_layers(graph, layers, inputs)
    return graph


def _graph(network: Network, layers: Sequence[Layer], weights: Weights | Sizes) -> Graph:
    read = frozenset(bottom for layer in layers for bottom in layer.bottoms)
    return Graph(weights, read, frozenset(layer.type for layer in network.layers))


def _add_layers(graph: Graph, layers: Sequence[Layer], inputs: Shapes) -> list[str]:
    """Add the layers to the graph; returns the blobs that nothing reads."""
    graph.blobs.update({name: Tensor(name, shape) for name, shape in inputs.items()})
    last_writers = {top: layer.name for layer in layers if not _is_alias(layer) for top in layer.tops}
    unread = dict.fromkeys(inputs)
    for layer in layers:
        for name in layer.bottoms:
            if name not in graph.blobs:
                hint = nearest(name, graph.blobs, "layers stand in the order in which they run")
                raise layer.wrong(f"reads blob {name}, which nothing above it writes: {hint}")
            unread.pop(name, None)
        bottoms = [graph.blobs[name] for name in layer.bottoms]
        if taken := [top for top in layer.tops if top in graph.blobs and top not in layer.bottoms]:
            raise layer.wrong(f"writes blob {taken[0]}, which another layer has written: rename its top")
        names = [
            top if last_writers.get(top) == layer.name and top not in inputs else f"{layer.name}:top{index}"
            for index, top in enumerate(layer.tops)
        ]
        for top, tensor in zip(layer.tops, _written(Pen(graph, layer, bottoms, names)), strict=True):
            if tensor is not NOWHERE:
                graph.blobs[top] = tensor
                unread[top] = None
    return list(unread)


def _is_alias(layer: Layer) -> bool:
    """Whether the layer's tops are its bottom: no node."""
    return layer.type == "Split" or (layer.type == "Dropout" and layer.message.dropout_param.scale_train)


def _written(pen: Pen) -> list[Tensor]:
    if pen.layer.type == "Silence":
        if pen.names:
            raise pen.wrong("has a top, where it only consumes bottoms: remove it")
        return []
    if not pen.names:
        raise pen.wrong("needs a top")
    write = layer_of(pen.layer.type)
    assert write is not None  # noqa: S101  # require_supported has looked
    return write(pen)


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
            places = f"blob {name} of {network.file} holds the places of maxima"
            raise UsageError(f"{places}, which are not made: name another")
        tensor = graph.blobs[name]
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
