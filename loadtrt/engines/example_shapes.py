"""Sizes that a model accepts, found by trying: the example of an error about sizes that are open.

A shape of 1s runs in few models. ONNX Runtime, where it is installed, is given the model as it is and a few usual sizes
(images of 224 and 640, sequences of 128, a second of sound), until a request is served or the time is over.
"""

from __future__ import annotations

import re
import threading
from itertools import product
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from loadtrt.engines.batch_size import is_batch, is_name, is_other
from loadtrt.engines.index_tables import branch_values, index_tables
from loadtrt.engines.onnx_model import input_specs
from loadtrt.engines.onnxruntime import session_of
from loadtrt.environment import import_onnxruntime
from loadtrt.load.inputs import make_inputs
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.engines.external_data import ExternalData
    from loadtrt.engines.shapes import InputShape, OpenSizesError, Shape
    from loadtrt.load.tensors import TensorSpec

_PATIENCE_NS = 4 * SECOND_NS  # after which no other sizes are tried
_MOST_MODEL_BYTES = 512 << 20
_MOST_INPUT_BYTES = 64 << 20
_SIDES = (224, 640, 48, 32, 64, 96, 112, 128, 256, 299, 320, 416, 512, 608, 1024)
_COLOURS = (3, 1, 4)  # in the order in which to try them
_COLOUR = re.compile(r"c|ch|(n|num)?_?(in_?)?channels?|colou?rs?", re.IGNORECASE)
_LENGTH = re.compile(
    r"(?:^|[_\W])(?:seq|sequence|len|length|times?|t|frames?|samples?|tokens?|steps?|audio|past|total)(?:$|[_\W\d])",
    re.IGNORECASE,
)
_LENGTHS = (128, 512, 16000, 16, 1024, 32, 64, 256, 576, 320, 80, 77, 40, 8, 4, 2, 1)


def tried_example(model: Any, external: ExternalData | None, error: OpenSizesError) -> dict[str, Shape] | None:
    """Shapes with which ONNX Runtime serves a request of random inputs; None where none of the usual sizes is taken in
    time, the model is large, or it cannot be opened. model: an onnx.ModelProto."""
    data = model.SerializeToString()
    if len(data) + (external.nbytes if external else 0) > _MOST_MODEL_BYTES:
        return None
    try:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = session_of(data, external, options)
    except Exception:  # this is about sizes: what else is wrong is told where the model is run
        return None
    until = perf_counter_ns() + _PATIENCE_NS
    rows, modes = index_tables(model), branch_values(model)
    for shapes in candidates(error.inputs, error.shapes):
        specs = input_specs(error.inputs, shapes, rows, modes)
        left = (until - perf_counter_ns()) / SECOND_NS
        if left <= 0:
            return None
        if _serves(session, specs, onnxruntime.RunOptions(), left):
            return shapes
    return None


def candidates(inputs: Sequence[InputShape], shapes: Mapping[str, Shape]) -> Iterator[dict[str, Shape]]:
    """Whole shapes in the order in which to try them: the same name is the same size, batches are 1, images have three
    colours, one or four, and first 1 is what is open beside a fixed first size, such as the batch of a recurrent
    state."""
    seen: list[dict[str, Shape]] = []
    sizes = [(_SIDES[min(place, len(_SIDES) - 1)], length) for place, length in enumerate(_LENGTHS)]
    for with_length, (side, length), place, colours in product((False, True), sizes, (1, 3), _COLOURS):
        usual = _ExampleSizes(side, length, length if with_length else 1, place, colours, {})
        found = {item.name: _whole(item, shapes[item.name], usual) for item in inputs}
        if found not in seen:
            seen.append(found)
            yield found


class _ExampleSizes(NamedTuple):
    """Sizes to try.

    side, colours: of images.
    place: which size of an image is its colours, where no name says so.
    length: of sequences.
    beside: of what is open beside a fixed first size.
    named: sizes by name, which grow.
    """

    side: int
    length: int
    beside: int
    place: int
    colours: int
    named: dict[str, int]


def _whole(item: InputShape, shape: Shape, usual: _ExampleSizes) -> Shape:
    """The shape with a size for all that is open."""
    decided = []
    coloured = any(map(_COLOUR.fullmatch, item.symbols)) or not {*shape[1:2], *shape[3:4]}.isdisjoint(_COLOURS)
    for axis, size in enumerate(shape):
        symbol = item.symbols[axis] if item.symbols else ""
        chosen = size
        if size < 0:
            if is_batch(symbol, axis, len(shape)) or (axis == 0 and len(shape) > 1 and not is_other(symbol)):
                chosen = 1
            elif _COLOUR.fullmatch(symbol) or (
                len(shape) == 4 and axis == usual.place and not coloured and not is_other(symbol)
            ):
                chosen = usual.colours
            elif len(shape) >= 4:
                chosen = usual.side if axis >= len(shape) - 3 else 1
            else:
                chosen = usual.length if shape[0] < 0 or axis == 0 or _LENGTH.search(symbol) else usual.beside
            if is_name(symbol):
                chosen = usual.named.setdefault(symbol, chosen)
        decided.append(chosen)
    return tuple(decided)


def _serves(session: Any, specs: Sequence[TensorSpec], options: Any, patience_s: float) -> bool:
    if sum(spec.nbytes for spec in specs) > _MOST_INPUT_BYTES:
        return False
    timer = threading.Timer(patience_s, lambda: setattr(options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        (feeds,) = make_inputs(specs, ("random",), 1, {}, 1)
        session.run(None, dict(feeds), options)
    except Exception:  # whatever it is, these sizes do not run
        return False
    finally:
        timer.cancel()
    return True
