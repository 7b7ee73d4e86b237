"""Layers of Caffe's two old formats (V0 and V1, both in `layers`) as layers of today's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt.caffe.caffe_proto import NetParameter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.errors import UsageError

# The names that today's format has for the types of V1, where title case is not the answer.
_V1_NAMES = {name.upper(): name for name in ("AbsVal", "ArgMax", "BNLL", "LRN", "MVN", "ReLU", "TanH")}
_V1_NAMES |= {"HDF5_DATA": "HDF5Data", "HDF5_OUTPUT": "HDF5Output", "SOFTMAX_LOSS": "SoftmaxWithLoss"}
# The types of V0 are those of V1 in lower case, but for four.
_V0_TYPES = {
    name: name.upper()
    for name in (
        *("accuracy", "bnll", "concat", "data", "dropout", "euclidean_loss", "flatten", "hdf5_data", "hdf5_output"),
        *("infogain_loss", "lrn", "multinomial_logistic_loss", "relu", "sigmoid", "softmax", "softmax_loss", "split"),
        *("tanh", "window_data"),
    )
}
_V0_TYPES |= {"conv": "CONVOLUTION", "images": "IMAGE_DATA", "innerproduct": "INNER_PRODUCT", "pool": "POOLING"}
# Today's message for a type of V0, and the fields that this type reads.
_V0_PARAMETERS = {
    "conv": ("convolution_param", "num_output biasterm pad kernelsize group stride"),
    "innerproduct": ("inner_product_param", "num_output biasterm"),
    "pool": ("pooling_param", "pool pad kernelsize stride"),
    "dropout": ("dropout_param", "dropout_ratio"),
    "lrn": ("lrn_param", "local_size alpha beta k"),
    "concat": ("concat_param", "concat_dim"),
}
_V0_FIELDS = {"biasterm": "bias_term", "kernelsize": "kernel_size"}  # fields with another name today


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
            name = _V0_PARAMETERS.get(old.layer.type, ("", ""))[0]
            if name not in ("convolution_param", "pooling_param") or len(layer.bottom) != 1:
                raise wrong(number, f"reads {reads[0]}, which a padding layer writes: only convolutions and pools can")
            layer.bottom[0], padding = padded[reads[0]]
            getattr(layer, name).pad[:] = [padding]
    return layers


def _of_v1(old: Any) -> Any:
    new = NetParameter().layer.add()
    new.name = old.name
    v1_type = old.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[old.type].name
    new.type = "" if v1_type == "NONE" else _today(v1_type)
    for descriptor, value in old.ListFields():
        if descriptor.name in ("name", "type"):
            continue
        field = getattr(new, descriptor.name)
        (field.extend if hasattr(value, "extend") else field.CopyFrom)(value)
    return new


def _of_v0(old: Any) -> Any:
    inner = old.layer
    new = NetParameter().layer.add(name=inner.name, bottom=old.bottom, top=old.top)
    new.type = _today(_V0_TYPES[inner.type]) if inner.type in _V0_TYPES else inner.type
    message, fields = _V0_PARAMETERS.get(inner.type, ("", ""))
    for field in fields.split():
        if inner.HasField(field):
            parameters, today, value = getattr(new, message), _V0_FIELDS.get(field, field), getattr(inner, field)
            if hasattr(getattr(parameters, today), "extend"):
                getattr(parameters, today).append(value)
            else:
                setattr(parameters, today, value)
    return new


def _today(v1_type: str) -> str:
    return _V1_NAMES.get(v1_type, v1_type.title().replace("_", ""))
