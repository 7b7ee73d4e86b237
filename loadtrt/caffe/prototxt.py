"""A prototxt read: its inputs with their shapes, and the layers that run at inference, each with its line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

from loadtrt.caffe.schema import V1_NAMES, NetParameter
from loadtrt.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Unknown fields are tolerated in these (what training reads is not in our schema, and forks add more), but for a name
# that looks like a slip of the pen; in a layer's own parameters a field that is not read would change the answer.
_OPEN = ("NetParameter", "LayerParameter", "V1LayerParameter")
# Blanks out comments and strings, which may hold braces and colons, but not their line ends.
_OPAQUE = re.compile(r"#[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'")
_MARKS = re.compile(r"(\w+)\s*(?::|(?=[{<\[]))|[{<]|[}>]")


@dataclass(frozen=True, slots=True)
class Layer:
    """`message`: caffe.LayerParameter, whichever version the file was written in. `line`: where the layer begins."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Any
    file: Path
    line: int

    def wrong(self, what: str) -> UsageError:
        """The error whose sentence says where this layer is, and then `what` is wrong with it."""
        return UsageError(f"{self.file}:{self.line}: layer {self.name} ({self.type or 'no type'}) {what}")


@dataclass(frozen=True, slots=True)
class Network:
    """`inputs`: shapes by blob name, in the file's order."""

    name: str
    file: Path
    inputs: dict[str, tuple[int, ...]]
    layers: tuple[Layer, ...]


def read_prototxt(file: Path) -> Network:
    """The network in `file`, as Caffe runs it in phase TEST, level 0, without stages.

    Raises UsageError for a file that cannot be read or parsed, for fields of layers that are not read and for inputs
    without shapes.
    """
    text = _text(file)
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
    lines = _layer_lines(text, file)
    if net.layer and net.layers:
        raise UsageError(f"{file} mixes 'layer' and 'layers': keep to one of the two formats")
    if not net.layer and not net.layers:
        raise UsageError(f"{file} is not a Caffe network: there are no layers in it (a solver has none)")
    messages = [*net.layer, *(_upgraded(old) for old in net.layers)]
    inputs = _declared_inputs(net, file)
    layers: list[Layer] = []
    for message, line in zip(messages, lines, strict=True):
        if not _runs(message):
            continue
        name = message.name or next(iter(message.top), "") or message.type
        layer = Layer(name, message.type, tuple(message.bottom), tuple(message.top), message, file, line)
        if layer.type == "Input":
            inputs |= _layer_inputs(layer)
        else:
            layers.append(layer)
    return Network(net.name, file, inputs, tuple(layers))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read prototxt {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is no prototxt but a binary file: --deploy takes text, --model the weights") from None


def _layer_lines(text: str, file: Path) -> list[int]:
    """The line of each layer. Raises UsageError at the first field that would have been skipped in silence."""
    blank = _OPAQUE.sub(lambda found: ("" if found[0][0] == "#" else '"').ljust(len(found[0])), text)
    lines: list[int] = []
    position, line = 0, 1
    # The message each open brace is in (None: inside a field that is not ours), and the field that opened it.
    stack: list[tuple[Any, str]] = []
    message, field = NetParameter.DESCRIPTOR, ""
    for mark in _MARKS.finditer(blank):
        line += blank.count("\n", position, mark.start())
        position = mark.start()
        if name := mark[1]:
            field = name
            if message is not None and name not in message.fields_by_name:
                _refuse_unknown(name, message, f"{file}:{line}")
        elif mark[0] in "{<":
            stack.append((message, field))
            if len(stack) == 1 and field in ("layer", "layers"):
                lines.append(line)
            known = message.fields_by_name.get(field) if message is not None else None
            message = known.message_type if known is not None else None
        elif stack:
            message, field = stack.pop()
    return lines


def _refuse_unknown(name: str, message: Any, where: str) -> None:
    is_open = message.name in _OPEN
    if near := nearest(name, message.fields_by_name, "", cutoff=0.9 if is_open else 0.6):
        raise UsageError(f"{where}: unknown field '{name}': {near}")
    if not is_open:
        raise UsageError(f"{where}: Caffe's {message.name} has no field '{name}': remove it")


def _upgraded(old: Any) -> Any:
    """A V1 layer as one of today's."""
    new = NetParameter().layer.add()
    new.name = old.name
    v1_type = old.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[old.type].name
    new.type = "" if v1_type == "NONE" else V1_NAMES.get(v1_type, v1_type.title().replace("_", ""))
    for descriptor, value in old.ListFields():
        if descriptor.name in ("name", "type"):
            continue
        if hasattr(value, "extend"):
            getattr(new, descriptor.name).extend(value)
        else:
            getattr(new, descriptor.name).CopyFrom(value)
    return new


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
    """Inputs in the old fashion: `input` with `input_shape`, or with four `input_dim` each."""
    names = list(net.input)
    shapes = [tuple(shape.dim) for shape in net.input_shape]
    if len(net.input_dim) % 4:
        raise UsageError(f"{file} has {len(net.input_dim)} input_dim: give 4 for each 'input'")
    shapes = shapes or [tuple(net.input_dim[i : i + 4]) for i in range(0, len(net.input_dim), 4)]
    if len(shapes) != len(names):
        counts = f"{len(names)} 'input' and {len(shapes)} shapes"
        raise UsageError(f"{file} has {counts}: give one input_shape, or 4 input_dim, for each")
    for name, shape in zip(names, shapes, strict=True):
        _require_shape(shape, UsageError(f"{file}: input {name} needs sizes above 0, not {format_shape(shape)}"))
    return dict(zip(names, shapes, strict=True))


def _layer_inputs(layer: Layer) -> dict[str, tuple[int, ...]]:
    shapes = [tuple(shape.dim) for shape in layer.message.input_param.shape]
    if len(shapes) == 1:
        shapes *= len(layer.tops)
    if len(shapes) != len(layer.tops) or not layer.tops:
        raise layer.wrong(f"has {len(layer.tops)} tops and {len(shapes)} shapes: give one shape for all, or one each")
    for shape in shapes:
        _require_shape(shape, layer.wrong(f"needs sizes above 0, not {format_shape(shape)}"))
    return dict(zip(layer.tops, shapes, strict=True))


def _require_shape(shape: Sequence[int], error: UsageError) -> None:
    if not shape or min(shape) < 1:
        raise error


def format_shape(shape: Sequence[int]) -> str:
    """(64, 3, 7, 7) -> 64x3x7x7."""
    return "x".join(map(str, shape)) or "nothing"
