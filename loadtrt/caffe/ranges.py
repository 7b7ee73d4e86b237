"""Ranges of sizes for a Caffe network: which sizes of its image its ONNX may leave open, and still be the same network.

Caffe's sizes are always known, and some layers are written with numbers that follow from them: weights of a full
connection, edges of a pool, factors of a resized image. A range is possible where all of these stay what they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.caffe import blueprint
from loadtrt.caffe.prototxt import format_shape, read_prototxt
from loadtrt.caffe.supported import needed_layers
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import onnx

    from loadtrt.caffe.graph import Graph
    from loadtrt.caffe.prototxt import Layer, Network, Shapes

    Ranges = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]  # min, opt, max by input

_MOST_STEP = 64  # pixels: no usual network halves its image more often than six times


def open_ranges(
    model: onnx.ModelProto, deploy: Path, outputs: Sequence[str], profiles: Sequence[Ranges]
) -> tuple[str, ...]:
    """Leave open what varies in `profiles`, whose first optimum `model` was converted with; the batch always. Returns
    remarks.

    Raises UsageError for the first layer that needs other weights or settings at a shape of these.
    """
    optimum = {name: best for name, (_, best, _) in profiles[0].items()}
    network = read_prototxt(deploy, optimum)
    layers = needed_layers(network, outputs)
    base = blueprint(network, layers, network.inputs)
    varying = {
        (name, axis)
        for ranges in profiles
        for name, shapes in ranges.items()
        for axis in range(1, len(shapes[0]))
        if {shape[axis] for shape in shapes} != {optimum.get(name, shapes[1])[axis]}
    }
    sizes = {name: [tensor.shape] for name, tensor in base.blobs.items()}
    for shapes in _corners(network, profiles) if varying else ():
        graph = blueprint(network, layers, shapes)
        if layer := _differing(layers, base, graph):
            ours, theirs = (" and ".join(map(format_shape, each.values())) for each in (network.inputs, shapes))
            raise layer.wrong(
                f"needs other weights or settings for inputs of {theirs} than of {ours}, and a plan has one: fix the "
                "sizes with --shapes, or give ranges in which they stay, such as multiples of 32"
            )
        for name, tensor in graph.blobs.items():
            sizes[name].append(tensor.shape)
    _open(model, varying, sizes)
    told: dict[str, list[str]] = {}
    for name, axis in sorted(varying):
        if sentence := _between(network, layers, base, name, axis, profiles):
            told.setdefault(sentence, []).append(f"{axis} of input {name}")
    return tuple(f"WARNING: size {' and '.join(places)}: {sentence}" for sentence, places in told.items())


def _corners(network: Network, profiles: Sequence[Ranges]) -> Iterator[Shapes]:
    """Input shapes at the least, best and largest of each profile, with the batch of the first one's best."""
    for ranges in profiles:
        for place in range(3):
            yield {
                name: (*shape[:1], *ranges[name][place][1:]) if name in ranges else shape
                for name, shape in network.inputs.items()
            }


def _differing(layers: Sequence[Layer], one: Graph, other: Graph) -> Layer | None:
    """The first layer with other nodes, constants, or shapes of weights; None where all are the same."""
    if _written(one) == _written(other):
        return None
    for layer in layers:
        own, others = (_of_layer(graph, layer.name) for graph in (one, other))
        if own != others:
            return layer
    return layers[-1]


def _written(graph: Graph) -> list[object]:
    return [graph.nodes, graph.initializers, graph.weights]


def _of_layer(graph: Graph, name: str) -> list[object]:
    nodes = [node for node in graph.nodes if node.name == name or node.name.startswith(f"{name}:")]
    constants = [each for each in graph.initializers if each.name.startswith(f"{name}.")]
    weights = graph.weights if isinstance(graph.weights, dict) else {}
    return [nodes, constants, {key: shape for key, shape in weights.items() if key[0] == name}]


def _open(
    model: onnx.ModelProto, varying: set[tuple[str, int]], sizes: Mapping[str, Sequence[tuple[int, ...]]]
) -> None:
    """Leave these sizes of inputs open, those of outputs that follow from them, and all first ones."""
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if (value.name, axis) in varying:
                dim.dim_param = f"{value.name}.{axis}"
    for value in model.graph.output:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if len({shape[axis] for shape in sizes[value.name]}) > 1:
                dim.dim_param = f"{value.name}.{axis}"


def _between(
    network: Network, layers: Sequence[Layer], base: Graph, name: str, axis: int, profiles: Sequence[Ranges]
) -> str:
    """What is to be known of the sizes between: at some a layer may have other settings in Caffe, such as a pool whose
    last window reaches beyond the image. "" where there is nothing."""
    given = {ranges[name][place][axis] for ranges in profiles if name in ranges for place in range(3)}
    shape = network.inputs[name]
    best, least = shape[axis], min(given)
    sizes = range(least, min(max(given), least + _MOST_STEP) + 1)

    def other(size: int) -> Layer | None:
        shapes = {**network.inputs, name: (*shape[:axis], size, *shape[axis + 1 :])}
        try:
            return _differing(layers, base, blueprint(network, layers, shapes))
        except UsageError:
            return layers[-1]

    first = next(((size, layer) for size in sizes if (layer := other(size))), None)
    if first is None:
        return ""
    steps = (2**power for power in range(1, _MOST_STEP.bit_length()))
    step = next((each for each in steps if not any(map(other, sizes[(best - least) % each :: each]))), 0)
    which = " and ".join(map(str, sorted(given)))
    if step:
        which = f"those that differ from {best} by a multiple of {step}"
    size, layer = first
    return f"{which} are computed as in Caffe, where layer {layer.name} has other settings at others, such as {size}"
