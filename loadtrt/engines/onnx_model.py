"""An ONNX model made ready to run: read, its open sizes decided, converted to FP16 when asked."""

from __future__ import annotations

import contextlib
import difflib
import io
import warnings
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from loadtrt.errors import EngineError, UsageError
from loadtrt.load.tensors import TensorSpec, bytes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtrt.config import RunConfig

# onnx.TensorProto's names of the types that numpy shares: what ONNX Runtime's Python interface takes and gives.
_DTYPES = {"FLOAT": "fp32", "FLOAT16": "fp16", "DOUBLE": "fp64", "BOOL": "bool"}
_DTYPES |= {f"{sign}INT{bits}": f"{sign}int{bits}".lower() for sign in ("", "U") for bits in (8, 16, 32, 64)}

Size: TypeAlias = int | str  # of one dimension: decided, or its symbol ("" where it has none)


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """`data`: the serialized model with its input sizes decided. `folder`: where its external data lies, None without.

    `weights_bytes` counts the model with its external data; `sha256` is of the file as it was read (for the zoo: as it
    was made), without external data. `output_dtypes` by output name.
    """

    name: str
    data: bytes
    folder: Path | None
    sha256: str
    weights_bytes: int
    inputs: tuple[TensorSpec, ...]
    output_dtypes: Mapping[str, str]
    precision: str
    notes: tuple[str, ...]


def read_model(config: RunConfig) -> OnnxModel:
    """The model that `config.engine` names, a file or zoo:NAME, with --batch, --shapes and --fp16 applied.

    Raises UsageError for a file that cannot be read, is no ONNX model or lacks its external data, and for sizes left
    open or contradicting the model; EngineError for tensors that are not plain arrays and for a failing conversion.
    """
    notes = []
    folder: Path | None = None
    if config.engine.startswith("zoo:"):
        from loadtrt import zoo

        # With --shapes the model stays dynamic, for them to decide.
        batch = config.batch or (None if config.shapes else 1)
        if batch == 1 and config.batch is None:
            notes.append(f"{config.engine} was made with batch 1, since no --batch was given")
        model = zoo.make(config.engine.removeprefix("zoo:"), batch, seed=0)
        digest, external = sha256(model.SerializeToString()).hexdigest(), 0
    else:
        model, digest = _parse(Path(config.engine))
        files = _external_files(model, Path(config.engine))
        external = sum(file.stat().st_size for file in files)
        folder = Path(config.engine).resolve().parent if files else None
    inputs = _decide_sizes(model, config)
    dtypes = {output.name: _dtype(output, f"output {output.name} of {config.engine}") for output in model.graph.output}
    if config.fp16:
        model, folder, external = _to_fp16(model, folder, config.engine), None, 0
        notes.append("CPUs mostly compute FP16 in FP32, with casts around: this tells about accuracy, not about speed")
    data = model.SerializeToString()
    precision = "converted to FP16 (FP32 inputs and outputs kept)" if config.fp16 else ""
    weights = len(data) + external
    return OnnxModel(config.engine, data, folder, digest, weights, inputs, dtypes, precision, tuple(notes))


def _parse(file: Path) -> tuple[Any, str]:
    """The model in `file` and the SHA-256 of its bytes."""
    import onnx

    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read model {file}: {error.strerror}") from None
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf's DecodeError, by whichever of its implementations
        raise UsageError(f"{file} is not an ONNX model, or is damaged") from None
    if not model.graph.node:  # an empty file is a valid protobuf
        raise UsageError(f"{file} is not an ONNX model: there is no graph in it")
    return model, sha256(data).hexdigest()


def _external_files(model: Any, file: Path) -> set[Path]:
    """The files beside the model that hold its weights. Raises UsageError where one is missing."""
    from onnx import TensorProto

    files = set()
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            files.add(file.parent / location)
    for missing in sorted(path for path in files if not path.is_file()):
        raise UsageError(f"{file} keeps weights in {missing}, which is missing: put it there")
    return files


def _decide_sizes(model: Any, config: RunConfig) -> tuple[TensorSpec, ...]:
    """The inputs, after writing what --batch and --shapes decide into `model`; no size is ever assumed."""
    weights = {tensor.name for tensor in model.graph.initializer}
    values = {value.name: value for value in model.graph.input if value.name not in weights}
    for name in config.shapes:
        if name not in values:
            near = difflib.get_close_matches(name, values, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"its inputs are {', '.join(values) or 'none'}"
            raise UsageError(f"--shapes {name}: {config.engine} has no such input: {hint}")
    dtypes = {name: _dtype(value, f"input {name} of {config.engine}") for name, value in values.items()}
    declared = {name: _declared(value) for name, value in values.items()}
    decided = {name: _given(name, sizes, config) for name, sizes in declared.items()}
    if config.batch is not None and all(not sizes or sizes[0] != config.batch for sizes in decided.values()):
        fixed = ", ".join(f"{name}[{_text(sizes)}]" for name, sizes in declared.items()) or "nothing"
        raise UsageError(
            f"--batch {config.batch}: {config.engine} takes {fixed}, with a fixed first size: "
            f"leave --batch out, or export the model with a dynamic one"
        )
    symbols: dict[str, tuple[int, str]] = {}
    for name, sizes in decided.items():
        for symbol, size in zip(declared[name] or [], sizes, strict=False):
            if isinstance(symbol, str) and symbol and isinstance(size, int):
                known, where = symbols.setdefault(symbol, (size, name))
                if known != size:
                    conflict = f"{known} in {where} but {size} in {name}"
                    raise UsageError(f"size '{symbol}' of {config.engine} would be {conflict}: make them equal")
    specs = []
    for name, open_sizes in decided.items():
        sizes = [symbols[size][0] if isinstance(size, str) and size in symbols else size for size in open_sizes]
        shape = tuple(size for size in sizes if isinstance(size, int))
        still_open = [at for at, size in enumerate(sizes) if isinstance(size, str)]
        if still_open:
            example = "x".join(str(size) if isinstance(size, int) else "16" for size in sizes)
            flag = "--batch 16" if still_open == [0] else f"--shapes {name}:{example}"
            raise UsageError(
                f"input {name}[{_text(sizes)}] of {config.engine} leaves sizes open: decide them, such as by {flag}"
            )
        _write(values[name], shape)
        specs.append(TensorSpec(name, True, dtypes[name], shape, bytes_of(dtypes[name], shape)))
    for output in model.graph.output:  # the rest of their sizes ONNX Runtime infers
        for dim in output.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_value = symbols[dim.dim_param][0]
    return tuple(specs)


def _given(name: str, declared: list[Size] | None, config: RunConfig) -> list[Size]:
    """The sizes of input `name` by --shapes, else by --batch for an open first one, else as declared."""
    given = config.shapes.get(name)
    if given is None:
        if declared is None:
            raise UsageError(f"input {name} of {config.engine} has no declared shape: add --shapes {name}:...")
        if config.batch is not None and declared and isinstance(declared[0], str):
            return [config.batch, *declared[1:]]
        return declared
    where = f"--shapes {name}:{'x'.join(map(str, given))}"
    if declared is not None:
        same_rank = len(given) == len(declared)
        if not same_rank or any(isinstance(old, int) and old != new for old, new in zip(declared, given, strict=True)):
            raise UsageError(f"{where} does not fit {name}[{_text(declared)}] of {config.engine}")
        if config.batch is not None and declared and isinstance(declared[0], str) and given[0] != config.batch:
            raise UsageError(f"{where} contradicts --batch {config.batch}: leave one of them out")
    return list(given)


def _declared(value: Any) -> list[Size] | None:
    """Sizes as the model declares them; None where it does not even say how many."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    # Some exporters write -1 for an open size.
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param for dim in tensor.shape.dim
    ]


def _write(value: Any, shape: tuple[int, ...]) -> None:
    dims = value.type.tensor_type.shape
    dims.Clear()
    value.type.tensor_type.shape.SetInParent()  # a scalar's shape has no dims, but is there
    for size in shape:
        dims.dim.add().dim_value = size


def _text(sizes: list[Size] | None) -> str:
    return "..." if sizes is None else ",".join(str(size) or "?" for size in sizes)


def _dtype(value: Any, where: str) -> str:
    from onnx import TensorProto

    if not value.type.HasField("tensor_type"):
        raise EngineError(f"{where} is a {value.type.WhichOneof('value')}, no tensor: loadtrt moves plain tensors only")
    name = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    if name not in _DTYPES:
        raise EngineError(f"{where} is of type {name}, which ONNX Runtime's Python interface does not move")
    return _DTYPES[name]


def _to_fp16(model: Any, folder: Path | None, name: str) -> Any:
    """`model` with FP16 weights and arithmetic between FP32 inputs and outputs, its external data taken in."""
    import onnx.checker
    import onnx.external_data_helper
    from onnxconverter_common import float16

    # The converter warns of every weight that FP16 rounds to zero or cuts off, by the hundred.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            if folder is not None:
                onnx.external_data_helper.load_external_data_for_model(model, str(folder))
            converted = float16.convert_float_to_float16(model, keep_io_types=True)
            onnx.checker.check_model(converted)
        except Exception as error:  # the converter raises whatever it stumbles upon
            reason = " ".join(str(error).split())
            raise EngineError(
                f"cannot convert {name} to FP16: {reason}: convert it beforehand, or leave --fp16 out"
            ) from None
    return converted
