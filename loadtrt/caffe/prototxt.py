"""Reading a prototxt: inputs with their shapes, and the layers that run at inference, each with its line.

Fields that the classes of `caffe_proto` lack are skipped by protobuf; whether that changes the network is judged here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

from loadtrt.caffe.caffe_proto import HARMLESS_FIELDS, NetParameter
from loadtrt.caffe.old_formats import upgraded
from loadtrt.caffe.spelling import corrected
from loadtrt.errors import UsageError
from loadtrt.reading_files import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Shapes = Mapping[str, tuple[int, ...]]

_MOST_BYTES = 4 << 20  # of text: weights are in another file
MOST_NUMBERS = (1 << 61) - 1  # of a tensor: what int64 can count the bytes of
# Unknown fields are tolerated in these (what training reads is not in our schema, and forks add more), but for a name
# that looks like a slip of the pen; in a layer's own parameters a field that is not read would change the answer.
_OPEN = ("NetParameter", "LayerParameter", "V1LayerParameter", "V0LayerParameter", "FillerParameter")
# Blanks out comments and strings, which may hold braces and colons, but not their line ends.
_OPAQUE = re.compile(r"#[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'")
_MARKS = re.compile(r"(\w+)\s*(?::|(?=[{<\[]))|[{<]|[}>]")


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the file.

    message: caffe.LayerParameter, whichever version the file was written in.
    line: where the layer begins.
    fault: the sentence about a field that is not read and may change what the layer computes; "" without one.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Any
    file: Path
    line: int
    fault: str = ""

    def wrong(self, what: str) -> UsageError:
        """The error whose sentence says where this layer is, and then `what` is wrong with it."""
        return UsageError(f"{self.file}:{self.line}: layer {self.name} ({self.type or 'no type'}) {what}")


@dataclass(frozen=True, slots=True)
class Network:
    """The network of a file.

    inputs: shapes by blob name, in the file's order.
    written: the shapes that the file itself gives.
    """

    name: str
    file: Path
    inputs: dict[str, tuple[int, ...]]
    written: dict[str, tuple[int, ...]]
    layers: tuple[Layer, ...]


def read_prototxt(file: Path, shapes: Shapes | None = None) -> Network:
    """The network in a file, as Caffe runs it in phase TEST, level 0, without stages.

    shapes: of inputs, in place of those in the file.
    Raises UsageError for a file that cannot be read or parsed, and for shapes of what is not an input.
    """
    try:
        text = read_text(file, "prototxt", _MOST_BYTES)
    except UnicodeDecodeError:
        raise UsageError(f"{file} is a binary file, not a prototxt: --deploy takes text, --model the weights") from None
    net = NetParameter()
    try:
        text_format.Parse(text, net, allow_unknown_field=True)
    except text_format.ParseError as error:
        at = f":{error.GetLine()}" if error.GetLine() else ""
        # Of "LINE:COLUMN : 'the line itself': what" the last alone; enums are in scopes that only our schema has.
        what = re.sub(r"^[\d:]+ : ('.*': )?", "", " ".join(str(error).split())).rstrip(".")
        what = re.sub(r"caffe\.\w+Scope\.", "caffe.", what)[:200]
        raise UsageError(f"{file}{at} is not a Caffe prototxt: {what}") from None
    except RecursionError:
        raise UsageError(f"{file} is not a Caffe prototxt: its braces are nested too deep") from None
    lines, faults = _lines_and_faults(text, file)
    if net.layer and net.layers:
        raise UsageError(f"{file} mixes 'layer' and 'layers': keep to one")
    if not net.layer and not net.layers:
        raise UsageError(f"{file} is not a Caffe network: it has no layers (a solver has none)")

    def wrong(number: int, what: str) -> UsageError:
        old = net.layers[number]
        return UsageError(f"{file}:{lines[number]}: layer {old.layer.name} ({old.layer.type}) {what}")

    written = _declared_inputs(net, file)
    layers: list[Layer] = []
    for number, message in enumerate([*net.layer, *upgraded(net.layers, wrong)]):
        if message is None or not _runs(message):
            continue
        name = message.name or next(iter(message.top), "") or message.type
        bottoms, tops, line = tuple(message.bottom), tuple(message.top), lines[number]
        layer = Layer(name, message.type, bottoms, tops, message, file, line, faults.get(number, ""))
        if layer.type == "Input":
            written |= _layer_inputs(layer)
        else:
            layers.append(layer)
    inputs = {**written, **_known(shapes or {}, written, file)}
    return Network(net.name, file, inputs, written, tuple(layers))


def require_sizes(network: Network, layers: Sequence[Layer]) -> None:
    """Raise UsageError for an input that these layers read and whose sizes are not known."""
    read = {bottom for layer in layers for bottom in layer.bottoms}
    for name, shape in network.inputs.items():
        if name in read and not (shape and min(shape) > 0 and math.prod(shape) <= MOST_NUMBERS):
            sizes = f"not {format_shape(shape)}" if shape else "and has none"
            raise UsageError(
                f"{network.file}: input {name} needs sizes above 0, and fewer than 2^61 numbers, {sizes}: "
                f"set them with --shapes {name}:1x3x224x224, or in the file"
            )


def _lines_and_faults(text: str, file: Path) -> tuple[list[int], dict[int, str]]:
    """The line of each layer, and by the layers' numbers the sentence about the first field that is skipped and may
    change the answer. Raises UsageError for one outside of layers."""
    blank = _OPAQUE.sub(lambda match: ("" if match[0][0] == "#" else '"').ljust(len(match[0])), text)
    lines: list[int] = []
    faults: dict[int, str] = {}
    position, line = 0, 1
    # The message each open brace is in (None: inside a field that is not ours), and the field that opened it.
    stack: list[tuple[Any, str]] = []
    message, field = NetParameter.DESCRIPTOR, ""
    for mark in _MARKS.finditer(blank):
        line += blank.count("\n", position, mark.start())
        position = mark.start()
        if name := mark[1]:
            field = name
            if message is not None and name not in message.fields_by_name and (fault := _fault(name, message)):
                if not stack:
                    raise UsageError(f"{file}:{line}: {fault}")
                faults.setdefault(len(lines) - 1, f"{file}:{line}: {fault}")
        elif mark[0] in "{<":
            stack.append((message, field))
            if len(stack) == 1 and field in ("layer", "layers"):
                lines.append(line)
            known = message.fields_by_name.get(field) if message is not None else None
            message = known.message_type if known is not None else None
        elif stack:
            message, field = stack.pop()
    return lines, faults


def _fault(name: str, message: Any) -> str:
    """What is wrong with a field that the message lacks; "" where nothing depends on it."""
    if meant := corrected(name, message.fields_by_name):
        return f"unknown field '{name}': did you mean '{meant}'?"
    if message.name in _OPEN or name in HARMLESS_FIELDS:
        return ""
    return (
        f"'{name}' is not a field of Caffe's {message.name}, and what a fork computes by it is not known here: "
        "build this network from ONNX, or remove the field if the answer does not depend on it"
    )


def _runs(message: Any) -> bool:
    """Caffe's rule: a layer runs if any of its `include` rules holds, or, without those, if no `exclude` rule does."""
    if message.include:
        return any(_holds(rule) for rule in message.include)
    return not any(_holds(rule) for rule in message.exclude)


def _holds(rule: Any) -> bool:
    """Whether the rule is met in phase TEST (1), level 0, with no stages."""
    phase = not rule.HasField("phase") or rule.phase == 1
    return phase and not (rule.min_level > 0 or (rule.HasField("max_level") and rule.max_level < 0) or rule.stage)


def _declared_inputs(net: Any, file: Path) -> dict[str, tuple[int, ...]]:
    """Inputs in the old fashion: `input` with `input_shape`, or with four `input_dim` each; () where none is given."""
    names = list(net.input)
    shapes = [tuple(shape.dim) for shape in net.input_shape]
    if len(net.input_dim) % 4:
        raise UsageError(f"{file} has {len(net.input_dim)} input_dim: give 4 for each 'input'")
    shapes = shapes or [tuple(net.input_dim[i : i + 4]) for i in range(0, len(net.input_dim), 4)]
    if len(shapes) not in (0, len(names)):
        counts = f"{len(names)} 'input' and {len(shapes)} shapes"
        raise UsageError(f"{file} has {counts}: give one input_shape, or 4 input_dim, for each")
    return dict(zip(names, shapes or [()] * len(names), strict=True))


def _layer_inputs(layer: Layer) -> dict[str, tuple[int, ...]]:
    shapes = [tuple(shape.dim) for shape in layer.message.input_param.shape] or [()]
    if len(shapes) == 1:
        shapes *= len(layer.tops)
    if len(shapes) != len(layer.tops) or not layer.tops:
        raise layer.wrong(f"has {len(layer.tops)} tops and {len(shapes)} shapes: give one shape for all, or one each")
    return dict(zip(layer.tops, shapes, strict=True))


def _known(shapes: Shapes, written: Shapes, file: Path) -> Shapes:
    """The shapes. Raises UsageError for what is not an input, and for another number of sizes."""
    for name, shape in shapes.items():
        if name not in written:
            raise UsageError(f"shape of {name}: {file} has no such input: its inputs are {', '.join(written)}")
        if written[name] and len(written[name]) != len(shape):
            raise UsageError(
                f"shape {name}:{format_shape(shape)} has {len(shape)} sizes, and input {name} of {file} has "
                f"{len(written[name])}: {format_shape(written[name])}"
            )
    return shapes


def format_shape(shape: Sequence[int]) -> str:
    """(64, 3, 7, 7) -> 64x3x7x7."""
    return "x".join(map(str, shape)) or "nothing"
