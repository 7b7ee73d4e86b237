"""Reading a prototxt: inputs with their shapes, and the layers that run at inference, each with its line.

Caffe's wire format stands here as protobuf classes: names, numbers, types and defaults of the fields that conversion
reads, as BVLC defines them. Fields that only training reads are left out: protobuf skips them in binary files, and
`read_prototxt` judges them in text. The classes have a pool of their own, so that another caffe.proto does not clash.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from loadtrt.errors import UsageError, nearest
from loadtrt.reading_files import read_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Each field: type (* repeated), name, number, and the default where it is not zero.
_MESSAGES = {
    "BlobShape": "int64* dim 1",
    # Packed floats are, on the wire, bytes of little-endian numbers: read as such they become arrays without a loop.
    "BlobProto": """BlobShape shape 7; bytes* data 5; bytes* double_data 8
        int32 num 1; int32 channels 2; int32 height 3; int32 width 4""",
    "NetParameter": """string name 1; string* input 3; BlobShape* input_shape 8; int32* input_dim 4
        LayerParameter* layer 100; V1LayerParameter* layers 2""",
    "NetStateRule": "Phase phase 1; int32 min_level 2; int32 max_level 3; string* stage 4; string* not_stage 5",
    "LayerParameter": """string name 1; string type 2; string* bottom 3; string* top 4
        NetStateRule* include 8; NetStateRule* exclude 9; BlobProto* blobs 7
        BatchNormParameter batch_norm_param 139; ConcatParameter concat_param 104
        ConvolutionParameter convolution_param 106; CropParameter crop_param 144; DropoutParameter dropout_param 108
        EltwiseParameter eltwise_param 110; FlattenParameter flatten_param 135
        InnerProductParameter inner_product_param 117; InputParameter input_param 143; LRNParameter lrn_param 118
        PoolingParameter pooling_param 121; PowerParameter power_param 122; PReLUParameter prelu_param 131
        ReLUParameter relu_param 123; ReshapeParameter reshape_param 133; ScaleParameter scale_param 142
        EngineParameter sigmoid_param 124; SliceParameter slice_param 126; SoftmaxParameter softmax_param 125
        EngineParameter tanh_param 127""",
    "V1LayerParameter": """string name 4; V1Type type 5; string* bottom 2; string* top 3
        NetStateRule* include 32; NetStateRule* exclude 33; BlobProto* blobs 6
        ConcatParameter concat_param 9; ConvolutionParameter convolution_param 10; DropoutParameter dropout_param 12
        EltwiseParameter eltwise_param 24; InnerProductParameter inner_product_param 17; LRNParameter lrn_param 18
        PoolingParameter pooling_param 19; PowerParameter power_param 21; ReLUParameter relu_param 30
        EngineParameter sigmoid_param 38; SliceParameter slice_param 31; SoftmaxParameter softmax_param 39
        EngineParameter tanh_param 37""",
    "FillerParameter": """string type 1; float value 2; float min 3; float max 4; float mean 5; float std 6
        int32 sparse 7; VarianceNorm variance_norm 8""",
    "BatchNormParameter": "bool use_global_stats 1; float moving_average_fraction 2; float eps 3 1e-5",
    "ConcatParameter": "int32 axis 2 1; uint32 concat_dim 1",
    # The sizes of a pooling window are single in Caffe; repeated, they read like a convolution's.
    "ConvolutionParameter": """uint32 num_output 1; bool bias_term 2 true; uint32 group 5 1; int32 axis 16 1
        uint32* pad 3; uint32* kernel_size 4; uint32* stride 6; uint32* dilation 18
        uint32 pad_h 9; uint32 pad_w 10; uint32 kernel_h 11; uint32 kernel_w 12; uint32 stride_h 13; uint32 stride_w 14
        FillerParameter weight_filler 7; FillerParameter bias_filler 8; Engine engine 15; bool force_nd_im2col 17""",
    "CropParameter": "int32 axis 1 2; uint32* offset 2",
    "DropoutParameter": "float dropout_ratio 1",
    "EltwiseParameter": "EltwiseOp operation 1 SUM; float* coeff 2; bool stable_prod_grad 3",
    "EngineParameter": "Engine engine 1",
    "FlattenParameter": "int32 axis 1 1; int32 end_axis 2 -1",
    "InnerProductParameter": """uint32 num_output 1; bool bias_term 2 true; int32 axis 5 1; bool transpose 6
        FillerParameter weight_filler 3; FillerParameter bias_filler 4""",
    "InputParameter": "BlobShape* shape 1",
    "LRNParameter": """uint32 local_size 1 5; float alpha 2 1; float beta 3 0.75; NormRegion norm_region 4; float k 5 1
        Engine engine 6""",
    "PReLUParameter": "FillerParameter filler 1; bool channel_shared 2",
    "PoolingParameter": """PoolMethod pool 1; uint32* pad 4; uint32* kernel_size 2; uint32* stride 3
        uint32 pad_h 9; uint32 pad_w 10; uint32 kernel_h 5; uint32 kernel_w 6; uint32 stride_h 7; uint32 stride_w 8
        Engine engine 11; bool global_pooling 12; RoundMode round_mode 13""",
    "PowerParameter": "float power 1 1; float scale 2 1; float shift 3",
    "ReLUParameter": "float negative_slope 1; Engine engine 2",
    "ReshapeParameter": "BlobShape shape 1; int32 axis 2; int32 num_axes 3 -1",
    "ScaleParameter": """int32 axis 1 1; int32 num_axes 2 1; bool bias_term 4
        FillerParameter filler 3; FillerParameter bias_filler 5""",
    "SliceParameter": "int32 axis 3 1; uint32* slice_point 2; uint32 slice_dim 1",
    "SoftmaxParameter": "Engine engine 1; int32 axis 2 1",
}
_ENUMS = {
    "Phase": "TRAIN=0 TEST=1",
    "Engine": "DEFAULT=0 CAFFE=1 CUDNN=2",
    "VarianceNorm": "FAN_IN=0 FAN_OUT=1 AVERAGE=2",
    "EltwiseOp": "PROD=0 SUM=1 MAX=2",
    "NormRegion": "ACROSS_CHANNELS=0 WITHIN_CHANNEL=1",
    "PoolMethod": "MAX=0 AVE=1 STOCHASTIC=2",
    "RoundMode": "CEIL=0 FLOOR=1",
    "V1Type": """NONE=0 ACCURACY=1 BNLL=2 CONCAT=3 CONVOLUTION=4 DATA=5 DROPOUT=6 EUCLIDEAN_LOSS=7 FLATTEN=8 HDF5_DATA=9
        HDF5_OUTPUT=10 IM2COL=11 IMAGE_DATA=12 INFOGAIN_LOSS=13 INNER_PRODUCT=14 LRN=15 MULTINOMIAL_LOGISTIC_LOSS=16
        POOLING=17 RELU=18 SIGMOID=19 SOFTMAX=20 SOFTMAX_LOSS=21 SPLIT=22 TANH=23 WINDOW_DATA=24 ELTWISE=25 POWER=26
        SIGMOID_CROSS_ENTROPY_LOSS=27 HINGE_LOSS=28 MEMORY_DATA=29 ARGMAX=30 THRESHOLD=31 DUMMY_DATA=32 SLICE=33 MVN=34
        ABSVAL=35 SILENCE=36 CONTRASTIVE_LOSS=37 EXP=38 DECONVOLUTION=39""",
}
# The names that today's format has for the types of the first (V1), where title case is not the answer.
V1_NAMES = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}


def _net_parameter() -> Any:
    """The class of caffe.NetParameter, made without protoc."""
    field_types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="loadtrt/caffe.proto", package="caffe", syntax="proto2")
    for name, values in _ENUMS.items():
        # Values are siblings of their type: one enum inside a message each, so that two may have a DEFAULT or a MAX.
        scope = file.message_type.add(name=f"{name}Scope")
        enum = scope.enum_type.add(name=name)
        for value in values.split():
            enum.value.add(name=value.partition("=")[0], number=int(value.partition("=")[2]))
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for line in fields.replace("\n", ";").split(";"):
            if not line.strip():
                continue
            kind, field, number, *default = line.split()
            repeated = kind.endswith("*")
            kind = kind.removesuffix("*")
            added = message.field.add(name=field, number=int(number))
            added.label = field_types.LABEL_REPEATED if repeated else field_types.LABEL_OPTIONAL
            if kind in _MESSAGES:
                added.type, added.type_name = field_types.TYPE_MESSAGE, f".caffe.{kind}"
            elif kind in _ENUMS:
                added.type, added.type_name = field_types.TYPE_ENUM, f".caffe.{kind}Scope.{kind}"
            else:
                added.type = field_types.Type.Value(f"TYPE_{kind.upper()}")
            if default:
                added.default_value = default[0]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


NetParameter: Any = _net_parameter()


_MOST_BYTES = 4 << 20  # of text: weights are in another file
MOST_NUMBERS = (1 << 61) - 1  # of a tensor: what int64 can count the bytes of
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
        raise UsageError(f"{file} is not a Caffe network: it has no layers (a solver has none)")
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
        return read_text(file, "prototxt", _MOST_BYTES)
    except UnicodeDecodeError:
        raise UsageError(f"{file} is a binary file, not a prototxt: --deploy takes text, --model the weights") from None


def _layer_lines(text: str, file: Path) -> list[int]:
    """The line of each layer. Raises UsageError at the first field that would have been skipped in silence."""
    blank = _OPAQUE.sub(lambda match: ("" if match[0][0] == "#" else '"').ljust(len(match[0])), text)
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
        field = getattr(new, descriptor.name)
        (field.extend if hasattr(value, "extend") else field.CopyFrom)(value)
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
    inputs = dict(zip(names, shapes, strict=True))
    for name, shape in inputs.items():
        if wrong := _wrong_sizes(shape):
            raise UsageError(f"{file}: input {name} {wrong}")
    return inputs


def _layer_inputs(layer: Layer) -> dict[str, tuple[int, ...]]:
    shapes = [tuple(shape.dim) for shape in layer.message.input_param.shape]
    if len(shapes) == 1:
        shapes *= len(layer.tops)
    if len(shapes) != len(layer.tops) or not layer.tops:
        raise layer.wrong(f"has {len(layer.tops)} tops and {len(shapes)} shapes: give one shape for all, or one each")
    for shape in shapes:
        if wrong := _wrong_sizes(shape):
            raise layer.wrong(wrong)
    return dict(zip(layer.tops, shapes, strict=True))


def _wrong_sizes(shape: Sequence[int]) -> str:
    if shape and min(shape) > 0 and math.prod(shape) <= MOST_NUMBERS:
        return ""
    return f"needs sizes above 0, and fewer than 2^61 numbers, not {format_shape(shape)}"


def format_shape(shape: Sequence[int]) -> str:
    """(64, 3, 7, 7) -> 64x3x7x7."""
    return "x".join(map(str, shape)) or "nothing"
