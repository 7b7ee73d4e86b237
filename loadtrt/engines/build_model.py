"""The ONNX model that a plan is built from: its sizes decided or covered by profiles, its types converted."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtrt.engines.external_data import load_external_data
from loadtrt.engines.old_opsets import opset_of
from loadtrt.engines.onnx_model import decide_sizes, dtype_of, read_onnx, shape_of, to_fp16
from loadtrt.engines.shapes import FixedSizes, OpenSizesError, require_known
from loadtrt.engines.value_types import given_inputs
from loadtrt.environment import available_bytes, import_onnxruntime
from loadtrt.errors import EngineError, UsageError
from loadtrt.files import temporary_folder
from loadtrt.load.inputs import make_input_sets, make_inputs
from loadtrt.load.tensors import TensorSpec, bytes_of

if TYPE_CHECKING:
    from loadtrt.engines.build_config import BuildOptions, Ranges
    from loadtrt.engines.external_data import ExternalData
    from loadtrt.engines.flavour import Flavour
    from loadtrt.load.tensors import Arrays
    from loadtrt.results.precisions import HalfPrecision

_FP16_OPSET, _FP16_IR = 19, 9  # the first whose Q/DQ nodes take FP16
_NOT_IN_TENSORRT = {"STRING", "UINT16", "INT16", "UINT32", "UINT64", "COMPLEX64", "COMPLEX128"}
_QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}


@dataclass(frozen=True, slots=True)
class Source:
    """A model to build from.

    name: the file, or zoo:NAME.
    model: an onnx.ModelProto, which building may change.
    sha256: of the file, or of the model's bytes where it was made here.
    precision: what was converted, in words.
    conversion: what became of it in FP16; None where it was not converted.
    """

    name: str
    model: Any
    sha256: str
    external: ExternalData | None = None
    precision: str = ""
    conversion: HalfPrecision | None = None
    notes: tuple[str, ...] = ()


def read_source(name: str, options: BuildOptions) -> Source:
    """The model `name`: an ONNX file, or zoo:NAME. Raises UsageError for what cannot be read or is not a model."""
    zoo, suffix = name.startswith("zoo:"), Path(name).suffix.lower()
    if suffix == ".uff" and not zoo:
        raise UsageError(uff_is_gone(name))
    if suffix in (".prototxt", ".caffemodel") and not zoo:
        raise UsageError(f"{name} is a Caffe file: name it with --deploy FILE.prototxt [--model FILE.caffemodel]")
    first = None if options.shapes or options.profiles else options.batch or 1
    model, digest, external, notes = read_onnx(name, first)
    if zoo and first and not options.batch:
        notes = (f"{name} has batch 1, since --batch is not given",)
    return Source(name, model, digest, external, notes=notes)


def made_source(name: str, model: Any, notes: tuple[str, ...] = ()) -> Source:
    """A model that was made or converted here."""
    return Source(name, model, sha256(model.SerializeToString()).hexdigest(), notes=notes)


def open_batch(model: Any) -> None:
    """Leave the first size of all inputs and outputs open, for --batch, --shapes or profiles to decide."""
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].dim_param = "N"
    del model.graph.value_info[:]  # they say the old sizes


def uff_is_gone(name: str) -> str:
    """The sentence about TensorFlow's old exchange format."""
    return (
        f"{name} is UFF, which TensorRT has not supported since 8.6: "
        "convert the TensorFlow model to ONNX, with python -m tf2onnx.convert --saved-model DIR --output model.onnx, "
        "and build that"
    )


def prepare(source: Source, options: BuildOptions, *, weak_typing: bool) -> Source:
    """`source` with its sizes decided and, where the builder does not choose types, its types converted.

    Raises UsageError for sizes left open, shapes and calibration data that do not fit; EngineError where the model
    cannot be converted.
    """
    model, name = source.model, source.name
    if options.profiles:
        for ranges in options.profiles:
            _require_covered(source, ranges)
    else:
        try:
            sizes = (FixedSizes(options.batch, options.shapes),)
            notes = decide_sizes(model, name, sizes, source.external, runtime="TensorRT").notes
            source = replace(source, notes=(*source.notes, *notes))
        except OpenSizesError as error:
            options_of_ranges = "--min-shapes, --opt-shapes and --max-shapes"
            raise UsageError(f"{error}; or give ranges of sizes, with {options_of_ranges}") from None
    if weak_typing and not options.strongly_typed:
        return _by_flags(source, options)
    done = []
    if options.int8 and is_quantized(model):
        done.append("INT8 as the model's own Q/DQ nodes say")
    elif options.int8:
        model, notes = quantize(source, options)
        done.append("quantized to INT8 by Q/DQ nodes (symmetric, per channel)")
        source = replace(source, model=model, external=None, notes=(*source.notes, *notes))
    if options.fp16 and is_quantized(model):
        model, source = _lifted_for_fp16(model, source)
    if options.fp16:
        model, conversion = to_fp16(model, source.external, name, keep_io=options.io == "fp32")
        done.append(conversion.text)
        source = replace(source, model=model, external=None, conversion=conversion)
    return replace(source, precision=", then ".join(done))


def _lifted_for_fp16(model: Any, source: Source) -> tuple[Any, Source]:
    """A model with Q/DQ nodes at an opset whose Q/DQ nodes take FP16, and its source with that noted: those of older
    ones stay FP32. Where the opset cannot be changed they do, too."""
    import onnx.checker

    opset = opset_of(model)
    if opset >= _FP16_OPSET:
        return model, source
    try:
        load_external_data(model, source.external)
        lifted = _at_fp16_opset(model)
        onnx.checker.check_model(lifted)  # older converters leave branches and loops as they are
    except Exception:  # it raises whatever it stumbles upon
        note = f"{source.name} has Q/DQ nodes of opset {opset}, which take only FP32: they stay FP32"
        return model, replace(source, model=model, external=None, notes=(*source.notes, note))
    note = f"opset {opset} became {_FP16_OPSET}, the first whose Q/DQ nodes take FP16"
    return lifted, replace(source, model=lifted, external=None, notes=(*source.notes, note))


def _at_fp16_opset(model: Any) -> Any:
    """The model at the first opset whose Q/DQ nodes take FP16."""
    import onnx.version_converter

    converted = onnx.version_converter.convert_version(model, _FP16_OPSET)
    converted.ir_version = max(converted.ir_version, _FP16_IR)
    return converted


def _by_flags(source: Source, options: BuildOptions) -> Source:
    """The source with a description of what the builder's flags allow; the model stays as it is."""
    flags = [item.upper() for item in ("fp16", "bf16", "int8", "fp8") if getattr(options, item)]
    notes = source.notes
    cached = options.calibration_cache is not None and options.calibration_cache.is_file()
    if options.int8 and options.calibration is None and not cached and not is_quantized(source.model):
        notes = (*notes, RANDOM_CALIBRATION)
    return replace(source, precision=f"the builder may use {' and '.join(flags)}" if flags else "", notes=notes)


def is_quantized(model: Any) -> bool:
    """Whether the model says itself where it is quantized."""
    return any(node.op_type in _QUANTIZERS for node in model.graph.node)


def require_types(flavour: Flavour, source: Source) -> None:
    """Raise EngineError for types of tensors that TensorRT does not have: its parser would write to stderr itself, and
    say neither which tensor it is nor what to do."""
    from onnx import TensorProto

    graph = source.model.graph
    found = [
        *((f"input {item.name}", item.type.tensor_type.elem_type) for item in graph.input),
        *((f"output {item.name}", item.type.tensor_type.elem_type) for item in graph.output),
        *((f"weight {item.name}", item.data_type) for item in graph.initializer),
        *(
            (f"node '{node.name or node.output[0]}' (operator Cast)", int(item.i))
            for node in graph.node
            for item in node.attribute
            if node.op_type == "Cast" and item.name == "to"
        ),
    ]
    for where, number in found:
        if number in TensorProto.DataType.values() and TensorProto.DataType.Name(number) in _NOT_IN_TENSORRT:
            kind = TensorProto.DataType.Name(number)
            raise EngineError(
                f"{flavour} cannot build {source.name}: {where} is of type {kind}, which TensorRT does "
                "not have: export the model with INT32 or FP32 there, or run it on ONNX Runtime (run --on onnxruntime)"
            )


def inputs_of(model: Any) -> dict[str, tuple[int, ...]]:
    """Shape by input, -1 where it is open; initializers that are listed as inputs are none."""
    return {value.name: shape_of(value) for value in given_inputs(model.graph)}


def _require_covered(source: Source, ranges: Ranges) -> None:
    """A profile names every open input, with the model's rank and fixed sizes."""
    shapes = inputs_of(source.model)
    require_known("--min-shapes, --opt-shapes or --max-shapes", ranges, list(shapes))
    for name, shape in shapes.items():
        sizes = ",".join("?" if size < 0 else str(size) for size in shape)
        if name not in ranges:
            if -1 in shape:
                raise UsageError(
                    f"input {name}[{sizes}] of {source.name} leaves sizes open, and a profile does not cover it: "
                    f"add it to --min-shapes, --opt-shapes and --max-shapes"
                )
            continue
        for given in ranges[name]:
            # A one-dimensional input of fixed length may carry a shape: then these are its values, not its shape.
            fits = len(given) == len(shape) and all(
                fixed in (-1, size) for fixed, size in zip(shape, given, strict=True)
            )
            if not fits and not (len(shape) == 1 and shape[0] == len(given)):
                raise UsageError(
                    f"shape {name}:{'x'.join(map(str, given))} does not fit input {name}[{sizes}] of {source.name}: "
                    "give as many sizes, and the fixed ones as they are"
                )


_RANDOM_SETS = 4
_LEAST_OPSET = 13  # the first whose Q/DQ nodes have a scale for each channel

RANDOM_CALIBRATION = (
    "WARNING: INT8 ranges come from RANDOM data: the plan's speed is real, its outputs are worthless; "
    "give real inputs with --calibration FILE.npz"
)


def calibration_sets(source: Source, options: BuildOptions) -> tuple[list[Arrays], tuple[str, ...]]:
    """The input sets to calibrate with, each of the batch (with profiles: of the first one's optimum), and notes.

    --calibration is a file or a folder as --inputs takes them, with arrays of the inputs' shapes, of those with the
    number of sets in front, or of items that make batches. Without it they are random. Raises UsageError for files that
    do not fit.
    """
    specs = []
    for value in given_inputs(source.model.graph):
        shape = shape_of(value)
        if options.profiles and value.name in options.profiles[0]:
            shape = options.profiles[0][value.name][1]
        dtype = dtype_of(value)
        specs.append(TensorSpec(value.name, True, dtype, shape, bytes_of(dtype, shape)))
    if options.calibration is None:
        return make_inputs(specs, ("random",), _RANDOM_SETS, {}, options.seed, available_bytes()), (RANDOM_CALIBRATION,)
    firsts = {spec.shape[:1] for spec in specs}
    batch = next(iter(firsts))[0] if len(firsts) == 1 and () not in firsts else None
    files = [str(options.calibration)]
    try:
        made = make_input_sets(specs, files, 1, {}, options.seed, available_bytes(), batch)
    except UsageError as error:
        raise UsageError(f"--calibration: {error}") from None
    return list(made.sets), made.notes


def quantize(source: Source, options: BuildOptions) -> tuple[Any, tuple[str, ...]]:
    """`source.model` with Q/DQ around convolutions and matrix products, and notes.

    scale = max |x| / 127 with zero point 0, one for each output channel of weights; biases stay FP32, as TensorRT
    rejects INT32 ones. Raises UsageError for calibration data that do not fit, EngineError where ONNX Runtime cannot.
    """
    import onnx

    opset = opset_of(source.model)
    if opset < _LEAST_OPSET:
        raise UsageError(
            f"{source.name} has opset {opset}, and INT8 needs {_LEAST_OPSET} or newer: export it again with that opset"
        )
    sets, notes = calibration_sets(source, options)
    with temporary_folder("loadtrt-int8-") as folder, _silent():
        quantization = import_onnxruntime("onnxruntime.quantization")

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]  # published without types
            def __init__(self) -> None:
                self.sets = iter(sets)

            def get_next(self) -> Arrays | None:
                return next(self.sets, None)

        try:
            model = source.model
            load_external_data(model, source.external)
            if options.fp16 and opset < _FP16_OPSET:
                model = _at_fp16_opset(model)
            output = folder / "int8.onnx"
            quantization.quantize_static(
                model,
                output,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "ConvTranspose", "Gemm", "MatMul"],
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
            )
            return onnx.load(str(output)), notes
        except Exception as error:  # ONNX Runtime and its quantizer raise all kinds
            reason = " ".join(str(error).split())
            raise EngineError(
                f"cannot quantize {source.name} to INT8: {reason}: bring a model with Q/DQ nodes (NVIDIA ModelOpt "
                "makes one), or leave --int8 out"
            ) from None


@contextlib.contextmanager
def _silent() -> Any:
    """Without the advice that ONNX Runtime's quantizer gives through warnings, prints and the root logger."""
    before, handlers = logging.root.manager.disable, logging.root.handlers.copy()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        logging.root.handlers[:] = handlers  # logging.warning() adds one where there is none
