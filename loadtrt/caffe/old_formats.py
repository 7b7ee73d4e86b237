"""Layers of Caffe's two old formats (V0 and V1, both in `layers`) as layers of today's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt.caffe.caffe_proto import NetParameter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.errors import UsageError

# The names that today's format has for the types of V1, where title case is not the answer.
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
_V0_TYPES = {
    "accuracy": "Accuracy",
    "bnll": "BNLL",
    "concat": "Concat",
    "conv": "Convolution",
    "data": "Data",
    "dropout": "Dropout",
    "euclidean_loss": "EuclideanLoss",
    "flatten": "Flatten",
    "hdf5_data": "HDF5Data",
    "hdf5_output": "HDF5Output",
    "images": "ImageData",
    "infogain_loss": "InfogainLoss",
    "innerproduct": "InnerProduct",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MultinomialLogisticLoss",
    "pool": "Pooling",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "softmax": "Softmax",
    "softmax_loss": "SoftmaxWithLoss",
    "split": "Split",
    "tanh": "TanH",
    "window_data": "WindowData",
}
# The parameters that a type of V0 reads: today's message, and each field's name there where it is another.
_V0_PARAMETERS: dict[str, tuple[str, dict[str, str]]] = {
    "conv": (
        "convolution_param",
        {"num_output": "", "biasterm": "bias_term", "pad": "", "kernelsize": "kernel_size", "group": "", "stride": ""},
    ),
    "innerproduct": ("inner_product_param", {"num_output": "", "biasterm": "bias_term"}),
    "pool": ("pooling_param", {"pool": "", "pad": "", "kernelsize": "kernel_size", "stride": ""}),
    "dropout": ("dropout_param", {"dropout_ratio": ""}),
    "lrn": ("lrn_param", {"local_size": "", "alpha": "", "beta": "", "k": ""}),
    "concat": ("concat_param", {"concat_dim": ""}),
}


def upgraded(old_layers: Sequence[Any], wrong: Callable[[int, str], UsageError]) -> list[Any]:
    """The layers, with None in the place of V0's padding layers, whose padding their readers have.

    wrong: the error of the layer with this number, for a sentence.
    """
    layers: list[Any] = [_of_v0(old) if old.HasField("layer") else _of_v1(old) for old in old_layers]
    padded: dict[str, tuple[str, int]] = {}  # what a padding layer writes: its bottom and its padding
    for number, (layer, old) in enumerate(zip(layers, old_layers, strict=True)):
        if old.layer.type == "padding":
            if len(layer.bottom) != 1 or len(layer.top) != 1:
                raise wrong(number, "pads, and needs one bottom and one top")
            padded[layer.top[0]] = (layer.bottom[0], old.layer.pad)
            layers[number] = None
        elif reads := [bottom for bottom in layer.bottom if bottom in padded]:
            name = _V0_PARAMETERS.get(old.layer.type, ("",))[0]
            if name not in ("convolution_param", "pooling_param") or len(layer.bottom) != 1:
                raise wrong(number, f"reads {reads[0]}, which a padding layer writes: convolutions and pools alone can")
            layer.bottom[0], padding = padded[reads[0]]
            getattr(layer, name).pad[:] = [padding]
    return layers


def _of_v1(old: Any) -> Any:
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


def _of_v0(old: Any) -> Any:
    inner = old.layer
    new = NetParameter().layer.add(name=inner.name, bottom=old.bottom, top=old.top)
    new.type = _V0_TYPES.get(inner.type, inner.type)
    message, fields = _V0_PARAMETERS.get(inner.type, ("", {}))
    for field, today in fields.items():
        if inner.HasField(field):
            parameters, value = getattr(new, message), getattr(inner, field)
            if hasattr(getattr(parameters, today or field), "extend"):
                getattr(parameters, today or field).append(value)
            else:
                setattr(parameters, today or field, value)
    return new
