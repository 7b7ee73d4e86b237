"""Arrays of single files, judged before they are read: numpy's .npy, ONNX's TensorProto, raw bytes.

Types must match exactly: a silent cast would measure other data than the file's. What numpy cannot name (bf16, fp8) it
loads as raw bytes of that width, which are taken as they are; sub-byte types are packed bytes, uint8 [nbytes].
"""

from __future__ import annotations

import io
import math
import os
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.errors import LoadtrtError, UsageError
from loadtrt.load.inputs import array_shape, require_room
from loadtrt.load.tensors import STRING, bits_of, bytes_of, numpy_dtype
from loadtrt.printing import shortened
from loadtrt.reading_files import MOST_MODEL_BYTES, open_file, read_bytes
from loadtrt.recognizing import HEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from io import BufferedReader

    import numpy.typing as npt

    from loadtrt.load.tensors import TensorSpec

    Array = npt.NDArray[Any]
    Take = Callable[[int], None]  # counts bytes before they are taken; raises EngineError where they are not free

MOST_SETS = 100_000
MOST_HEADER_BYTES = 1 << 16  # numpy takes headers of 10 000
_NPY = b"\x93NUMPY"
_OBJECT_BYTES = 64  # of a short text beside its pointer


def read_npy(
    file: str, tensor: TensorSpec, header: bytes, data: Any, take: Take, *, batched: bool, kind: str = "an .npy"
) -> Array:
    """The array of an .npy. Its header is judged before its data, which may be made to grow a thousandfold.

    header, data: its first bytes, and all of it as an open file.
    batched: whether it may be items of a batch.
    kind: what the file is to be.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy, about files that Python 2 wrote
        try:
            shape, dtype = _header(header)
            require_fits(file, tensor, shape, dtype, batched=batched)
            take(math.prod(shape) * (dtype.itemsize + (_OBJECT_BYTES if tensor.dtype == STRING else 0)))
            array = np.lib.format.read_array(data, allow_pickle=False)
        except (LoadtrtError, MemoryError):
            raise
        except Exception as error:  # numpy lets a dozen types pass for what is damaged
            raise UsageError(f"{file} is damaged or not {kind}: {' '.join(str(error).split())}") from None
    return _typed(array, tensor)


def read_outputs(file: str, free_bytes: int | None) -> dict[str, Array]:
    """The outputs in an .npz by their names, or that of an .npy by the name "". Raises LoadtrtError.

    free_bytes: memory that they may take; None for no bound.
    """
    with open_file(file, "outputs", takes=("npy", "zip")) as opened:
        try:
            head = opened.peek(HEAD_BYTES)[:HEAD_BYTES]
            if head.startswith(_NPY):
                _require_free(file, [_header(head)], free_bytes)
                return {"": np.lib.format.read_array(opened, allow_pickle=False)}
            with zipfile.ZipFile(opened) as archive:
                headers = [_header(archive.open(name).read(MOST_HEADER_BYTES)) for name in archive.namelist()]
            _require_free(file, headers, free_bytes)
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays}
        except (LoadtrtError, MemoryError):
            raise
        except Exception as error:  # numpy and zipfile raise all kinds
            said = shortened(" ".join(str(error).split()), 200)
            raise UsageError(
                f"{file} is damaged or not an .npz or .npy ({said}): write one with numpy.savez(file, NAME=array)"
            ) from None


def _require_free(file: str, headers: Iterable[tuple[tuple[int, ...], np.dtype[Any]]], free_bytes: int | None) -> None:
    """Raise LoadtrtError for arrays of Python objects, which a file would have run as a program, and for more than fits
    into memory."""
    needed = 0
    for shape, dtype in headers:
        if dtype.hasobject:
            raise UsageError(f"{file} holds Python objects (a pickle): save arrays of numbers, or of text as str")
        needed += math.prod(shape) * dtype.itemsize
    require_room(needed, free_bytes)


def read_proto(file: str) -> Any:
    """An onnx.TensorProto, whose data are in it. Raises UsageError."""
    import onnx

    proto = onnx.TensorProto()
    data = read_bytes(file, "inputs", MOST_MODEL_BYTES)
    try:
        proto.ParseFromString(data)
        whole = proto.data_type != proto.UNDEFINED
    except Exception:  # protobuf's DecodeError, by whichever of its implementations
        whole = False
    if not whole:
        raise UsageError(f"{file} is not a TensorProto, or it is cut short: write it with onnx.save_tensor")
    if proto.data_location == proto.EXTERNAL:
        raise UsageError(f"{file} keeps its data in another file: save it with its data")
    return proto


def proto_array(file: str, tensor: TensorSpec, proto: Any, take: Take, *, batched: bool) -> Array:
    import onnx.numpy_helper

    take(proto.ByteSize())
    try:
        array = onnx.numpy_helper.to_array(proto)
    except Exception as error:  # it raises what it stumbles upon
        raise UsageError(f"{file} is not a whole TensorProto: {' '.join(str(error).split())}") from None
    dtype = np.dtype("U") if array.dtype.kind == "O" else array.dtype
    require_fits(file, tensor, array.shape, dtype, batched=batched)
    return _typed(array, tensor)


def read_raw(
    file: str, tensor: TensorSpec, opened: BufferedReader, take: Take, instead: str | None, *, batched: bool
) -> Array:
    """The tensor's own bytes, or those of one item of its batch. instead: what the file is by its first bytes."""
    if tensor.dtype == STRING:
        what = f"it is {instead}" if instead else "it is raw bytes"
        raise UsageError(f"{file} is not text for input {tensor}: {what}; give an .npy, .npz or .pb of strings")
    take(tensor.nbytes)
    try:
        data = opened.read(tensor.nbytes + 1)
        held = max(len(data), os.fstat(opened.fileno()).st_size)
    except OSError as error:
        raise UsageError(f"cannot read input {tensor.name} {file}: {error.strerror}") from None
    shape = array_shape(tensor)
    if batched and held != tensor.nbytes and held == bytes_of(tensor.dtype, tensor.shape[1:]):
        shape = tensor.shape[1:]
    elif held != tensor.nbytes:
        if instead:
            raise not_an_array(file, instead)
        raise UsageError(
            f"{file} has {held} bytes; input {tensor} takes {tensor.nbytes} of its own, or an .npy, .npz or .pb"
        )
    return np.frombuffer(data, numpy_dtype(tensor.dtype)).reshape(shape)


def not_an_array(file: str, instead: str) -> UsageError:
    """The error for a file that is something else by its first bytes. instead: in the words of `recognized`."""
    found, _, remedy = instead.partition("; ")
    remedy = "save its arrays with numpy.savez(FILE, NAME=array)" if "ONNX" in remedy else remedy
    return UsageError(f"cannot read inputs {file}: it is {found}; {remedy}")


def require_fits(file: str, tensor: TensorSpec, shape: tuple[int, ...], dtype: np.dtype[Any], *, batched: bool) -> None:
    """Raise UsageError where an array of this shape and type holds none of the tensor."""
    kind, wanted = numpy_dtype(tensor.dtype), array_shape(tensor)
    text = tensor.dtype == STRING
    right = dtype.kind in "US" if text else dtype == kind
    if not right and not (dtype.kind == kind.kind == "V" and dtype.itemsize == kind.itemsize):
        needed, cast = ("text, such as numpy.array(['a'])", "'str'") if text else (str(kind), repr(str(kind)))
        cast = cast if text or hasattr(np, kind.name) else f"ml_dtypes.{kind}"
        raise UsageError(
            f"{file} holds {tensor.name} as {shortened(str(dtype))}; input {tensor} needs {needed}: convert it before "
            f"saving, with array.astype({cast})"
        )
    some = bool(shape) and shape[0] > 0
    whole = shape == wanted or (some and shape[1:] == wanted)
    items = shape == wanted[1:] or (some and shape[1:] == wanted[1:] and len(shape) == len(wanted))
    if not whole and not (batched and items):
        more = f", or items of {list(wanted[1:])} to put together into batches" if batched else ""
        raise UsageError(
            f"{file} holds {tensor.name} with shape {shortened(str(list(shape)))}; input {tensor} needs "
            f"{shortened(str(list(wanted)))}, or that with the number of sets in front{more}"
        )
    if shape != wanted and shape != wanted[1:] and shape[0] > MOST_SETS:
        raise UsageError(f"{file} holds {shape[0]} sets of {tensor.name}: give at most {MOST_SETS}")


def may_be_items(tensor: TensorSpec, batch: int | None) -> bool:
    """Whether arrays of a tensor may be items: its first size is the batch."""
    return bits_of(tensor.dtype) >= 8 and tensor.shape[:1] == (batch,)


def _header(data: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """(shape, type) of an .npy by its first bytes. Raises ValueError, and what numpy lets pass."""
    head = io.BytesIO(data)
    version = np.lib.format.read_magic(head)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(head)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(head)
    else:
        raise ValueError(f"version {version[0]}.{version[1]} of the .npy format is not supported")
    return shape, dtype


def _typed(array: Array, tensor: TensorSpec) -> Array:
    """The array in the tensor's type, which has the same bytes; text as Python's objects."""
    if tensor.dtype == STRING:
        words = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
        return np.asarray(words.astype(object))
    return np.asarray(array, order="C").view(numpy_dtype(tensor.dtype))
