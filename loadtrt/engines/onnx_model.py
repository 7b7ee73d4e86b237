"""An ONNX model made ready to run: read, its open sizes decided, converted to FP16 when asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtrt.engines.external_data import find_external_data, load_external_data, messages_of
from loadtrt.engines.index_tables import Role, branch_values, index_tables, roles
from loadtrt.engines.old_opsets import lifted, opset_of
from loadtrt.engines.shapes import InputShape, OpenSizesError, require_known, resolve_shapes
from loadtrt.engines.value_types import given_inputs
from loadtrt.errors import EngineError, UsageError
from loadtrt.load.tensors import TensorSpec, bytes_of, dtype_named, in_numpy
from loadtrt.printing import shortened
from loadtrt.reading_files import MOST_MODEL_BYTES, read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.asked.model import Model
    from loadtrt.engines.external_data import ExternalData
    from loadtrt.engines.shapes import Sizes
    from loadtrt.results.precisions import HalfPrecision

_IN_FP32 = "ONNX Runtime's CPU computes most FP16 nodes in FP32: on a GPU, answers may deviate more, and gains differ"
LEAVE_OUT = "convert it beforehand, or leave --fp16 out"
_ONNX_RUNTIME = "ONNX Runtime"


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A model ready to run.

    data: the serialized model with its input sizes decided.
    sha256: of the file as it was read (for the zoo: as it was made), without external data.
    weights_bytes: size of the model with its external data.
    sizes: its inputs, and what they are in a request of each kind.
    conversion: what became of it in FP16; None where it was not converted.
    notes: what the user should read.
    """

    name: str
    data: bytes
    external: ExternalData | None
    sha256: str
    weights_bytes: int
    sizes: DecidedSizes
    output_dtypes: Mapping[str, str]
    conversion: HalfPrecision | None
    notes: tuple[str, ...]
    opset: int

    def without_sizes(self) -> OnnxModel:
        """The model with its inputs and outputs as they were declared: sizes that are written into a model reach its
        branches, too, and ONNX Runtime refuses those that cannot have them, though they may never be taken."""
        import onnx

        model = onnx.load_model_from_string(self.data)
        declared = {value.name: value for value in map(onnx.ValueInfoProto.FromString, self.sizes.declared)}
        for value in (*model.graph.input, *model.graph.output):  # without weights that were inputs, once it is FP16
            elem_type = value.type.tensor_type.elem_type
            value.CopyFrom(declared[value.name])
            value.type.tensor_type.elem_type = elem_type
        return replace(self, data=model.SerializeToString())


@dataclass(frozen=True, slots=True)
class DecidedSizes:
    """Sizes of a model's inputs.

    inputs: as the model declares them.
    parts: in a request of each kind.
    declared: the model's inputs and outputs as they were before sizes were written into them, as protobuf; empty where
        none were.
    notes: what the user should read.
    roles: what integer inputs decide; see engines/index_tables.py.
    """

    inputs: tuple[InputShape, ...]
    parts: tuple[tuple[TensorSpec, ...], ...]
    declared: tuple[bytes, ...]
    notes: tuple[str, ...]
    roles: Mapping[str, Role]


def read_model(config: Model) -> OnnxModel:
    """The model that `config.engine` names, a file or zoo:NAME, with --batch, --shapes and --fp16 applied.

    Raises UsageError for a file that cannot be read or is not an ONNX model, for external data that are missing or are
    other files than the model's, and for sizes that stay open or contradict the model; EngineError for tensors that are
    not arrays and for a failing conversion.
    """
    given = config.parts[0].batch if len(config.parts) == 1 else None
    # Of the zoo's: with --shapes the model stays dynamic, for them to decide.
    first = given or (None if config.shapes or len(config.parts) > 1 else 1)
    model, digest, external, lifting = read_onnx(config.engine, first)
    notes = [*lifting]
    if config.engine.startswith("zoo:") and first == 1 and given is None:
        notes.append(f"{config.engine} was made with batch 1, since no --batch was given")
    sizes = decide_sizes(model, config.engine, config.parts, external)
    notes += sizes.notes
    dtypes = {
        output.name: _moved_dtype(output, f"output {output.name} of {config.engine}") for output in model.graph.output
    }
    conversion = None
    if config.fp16:
        model, conversion = to_fp16(model, external, config.engine)
        external = None
        notes.append(_IN_FP32)
    data = model.SerializeToString()
    weights = len(data) + (external.nbytes if external else 0)
    return OnnxModel(
        config.engine, data, external, digest, weights, sizes, dtypes, conversion, tuple(notes), opset_of(model)
    )


def read_onnx(name: str, first: int | None) -> tuple[Any, str, ExternalData | None, tuple[str, ...]]:
    """The model `name`, an ONNX file or zoo:NAME, the SHA-256 of its bytes, its external data, and notes. first: the
    first size of a model of the zoo; None: open. Raises UsageError."""
    if name.startswith("zoo:"):
        from loadtrt import zoo

        model = zoo.make(name.removeprefix("zoo:"), first, seed=0)
        return model, sha256(model.SerializeToString()).hexdigest(), None, ()
    model, digest = parse_model(Path(name))
    external = find_external_data(model, Path(name))
    model, notes = lifted(model, name)
    return model, digest, external, notes


def parse_model(file: Path) -> tuple[Any, str]:
    """The model in `file` and the SHA-256 of its bytes. Raises UsageError for what cannot be read or is not a model."""
    import onnx

    data = read_bytes(file, "model", MOST_MODEL_BYTES)
    if not data:
        raise UsageError(f"{file} is empty: the program that wrote it failed; export or copy it again")
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf's DecodeError, by whichever of its implementations
        raise UsageError(f"{file} is not an ONNX model, or it is cut short: export or copy it again") from None
    if not model.graph.node:  # an empty file is a valid protobuf
        raise UsageError(f"{file} is not an ONNX model: it has no nodes; export or copy it again")
    if not all(map(_is_text, messages_of(model))):
        raise UsageError(f"{file} has names that are not text (UTF-8): it is damaged; export or copy it again")
    _open_unknown_sizes(model)
    return model, sha256(data).hexdigest()


def _is_text(message: Any) -> bool:
    """Whether the strings of a message are: protobuf gives bytes for others."""
    return not any(
        field.type == field.TYPE_STRING and (isinstance(value, bytes) or any(isinstance(item, bytes) for item in value))
        for field, value in message.ListFields()
    )


def decide_sizes(
    model: Any, name: str, sizes: Sequence[Sizes], external: ExternalData | None = None, *, runtime: str = _ONNX_RUNTIME
) -> DecidedSizes:
    """The inputs of each part, after writing what --batch and --shapes decide into `model`; with several parts it stays
    open. Raises UsageError, with an example that the model accepts where sizes are left open and one is found."""
    values = {value.name: value for value in given_inputs(model.graph)}
    declared = tuple(value.SerializeToString() for value in (*model.graph.input, *model.graph.output))
    decided = []
    for part in sizes:
        require_known("--shapes", part.shapes, list(values))
        _require_ranks(values, part, name)
        inputs = tuple(_input_shape(value, name, part, runtime) for value in values.values())
        try:
            decided.append(resolve_shapes(inputs, batch=part.batch, shapes=part.shapes))
        except OpenSizesError as error:
            from loadtrt.engines.example_shapes import tried_example

            example = None if error.by_batch else tried_example(model, external, error)
            raise OpenSizesError(error.inputs, error.shapes, example) from None
    if len(sizes) == 1:
        for item, shape in decided[0].shapes.items():
            _write(values[item], shape)
        symbols = decided[0].symbols
        for output in model.graph.output:  # the rest of their sizes ONNX Runtime infers
            for dim in output.type.tensor_type.shape.dim:
                if dim.dim_param in symbols:
                    dim.dim_value = symbols[dim.dim_param]
    if declared == tuple(value.SerializeToString() for value in (*model.graph.input, *model.graph.output)):
        declared = ()
    rows, modes = index_tables(model), branch_values(model)
    parts = tuple(input_specs(inputs, resolved.shapes, rows, modes) for resolved in decided)
    notes = dict.fromkeys(note for resolved in decided for note in resolved.notes)
    return DecidedSizes(inputs, parts, declared, tuple(notes), roles(model))


def input_specs(
    inputs: Sequence[InputShape],
    shapes: Mapping[str, tuple[int, ...]],
    rows: Mapping[str, int],
    modes: Mapping[str, int],
) -> tuple[TensorSpec, ...]:
    """The inputs with their decided shapes. rows, modes: see engines/index_tables.py."""
    return tuple(
        TensorSpec(
            item.name,
            True,
            item.dtype,
            shapes[item.name],
            bytes_of(item.dtype, shapes[item.name]),
            rows=rows.get(item.name),
            mode=modes.get(item.name),
        )
        for item in inputs
    )


def outputs_of(model: Any) -> tuple[InputShape, ...]:
    """The outputs as the model declares them."""
    return tuple(
        InputShape(value.name, "", shape_of(value), symbols=_symbols(value))
        for value in model.graph.output
        if value.type.tensor_type.HasField("shape")
    )


def _require_ranks(values: Mapping[str, Any], sizes: Sizes, model: str) -> None:
    """Raise UsageError for inputs whose number of sizes neither the model nor --shapes tells."""
    unknown = [
        name
        for name, value in values.items()
        if name not in sizes.shapes
        and value.type.HasField("tensor_type")
        and not value.type.tensor_type.HasField("shape")
    ]
    if unknown:
        what = f"inputs {', '.join(unknown)} of {model} have" if unknown[1:] else f"input {unknown[0]} of {model} has"
        raise UsageError(f"{what} no declared shape: add --shapes {','.join(f'{name}:...' for name in unknown)}")


def _input_shape(value: Any, model: str, sizes: Sizes, runtime: str) -> InputShape:
    """An input as the model declares it; --shapes tells how many sizes it has where the model does not."""
    name = value.name
    dtype = _moved_dtype(value, f"input {name} of {model}", runtime)
    if not value.type.tensor_type.HasField("shape"):
        return InputShape(name, dtype, (-1,) * len(sizes.shapes[name]))
    return InputShape(name, dtype, shape_of(value), symbols=_symbols(value))


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of an input or output; -1 for an open size."""
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim)


def _open_unknown_sizes(model: Any) -> None:
    """Say what is meant where an exporter wrote 0 or less for a size that it does not know: ONNX Runtime takes the 0 of
    an input as it stands, and refuses every other size."""
    inputs = [dim for value in given_inputs(model.graph) for dim in value.type.tensor_type.shape.dim]
    if all(dim.dim_value > 0 or not dim.HasField("dim_value") for dim in inputs):
        return
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                dim.ClearField("value")


def _symbols(value: Any) -> tuple[str, ...]:
    return tuple(dim.dim_param for dim in value.type.tensor_type.shape.dim)


def _write(value: Any, shape: tuple[int, ...]) -> None:
    dims = value.type.tensor_type.shape
    dims.Clear()
    value.type.tensor_type.shape.SetInParent()  # a scalar's shape has no dims, but is there
    for size in shape:
        dims.dim.add().dim_value = size


def dtype_of(value: Any) -> str:
    """The type of an input or output of the model."""
    from onnx import TensorProto

    number = value.type.tensor_type.elem_type
    try:
        return dtype_named(TensorProto.DataType.Name(number))
    except ValueError:
        raise EngineError(
            f"{shortened(value.name)} is of ONNX's element type {number}, which the onnx package here does not know: "
            "export the model again, or install a newer onnx"
        ) from None


def _moved_dtype(value: Any, where: str, runtime: str = _ONNX_RUNTIME) -> str:
    """`dtype_of`. Raises EngineError for what the runtime does not take and give."""
    if not value.type.HasField("tensor_type"):
        raise EngineError(
            f"{where} is a {value.type.WhichOneof('value')}, not a tensor: loadtrt moves plain tensors only"
        )
    dtype = dtype_of(value)
    if runtime == _ONNX_RUNTIME and not in_numpy(dtype):
        raise EngineError(f"{where} is of type {dtype.upper()}, which ONNX Runtime's Python interface does not move")
    return dtype


def to_fp16(model: Any, external: ExternalData | None, name: str, *, keep_io: bool = True) -> tuple[Any, HalfPrecision]:
    """`model` in FP16 where that computes the same, external data taken in, and what became of it. keep_io: inputs and
    outputs stay FP32.

    Raises EngineError where the conversion fails.
    """
    from loadtrt.engines.half_precision import convert_to_fp16

    try:
        load_external_data(model, external)
        converted, became = convert_to_fp16(model, keep_io=keep_io)
    except Exception as error:  # a model that no runtime would take, or one that the conversion does not know
        reason = shortened(" ".join(str(error).split()) or type(error).__name__, 400)
        raise EngineError(f"the conversion of {name} to FP16 failed: {reason}: {LEAVE_OUT}") from None
    if converted.ByteSize() >= MOST_MODEL_BYTES:
        raise EngineError(f"{name} has over 2 GiB of weights in FP16, too, more than one file holds: {LEAVE_OUT}")
    return converted, became
