"""What a plan is built from: an ONNX model, its sizes decided or covered by profiles, its types converted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtrt.engines.onnx_model import decide_sizes, external_files, parse_model, to_fp16
from loadtrt.engines.shapes import FixedSizes, require_known
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from loadtrt.engines.build_options import BuildOptions, Ranges

_FP16_OPSET = 19  # the first whose Q/DQ nodes take FP16
_QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}


@dataclass(frozen=True, slots=True)
class Source:
    """A model to build from. `model`: an onnx.ModelProto, which building may change. `sha256`: of the file, or of the
    model's bytes where it was made here. `file`: where its external data is looked for, None where it has none.
    `precision`: what was converted, in words."""

    name: str
    model: Any
    sha256: str
    file: Path | None = None
    precision: str = ""
    notes: tuple[str, ...] = ()


def read_source(name: str, options: BuildOptions) -> Source:
    """The model called `name`: an ONNX file, or zoo:NAME. Raises UsageError for what cannot be read or is no model."""
    if not name.startswith("zoo:"):
        path = Path(name)
        if path.suffix.lower() == ".uff":
            raise UsageError(uff_is_gone(name))
        if path.suffix.lower() in (".prototxt", ".caffemodel"):
            raise UsageError(f"{name} is a Caffe file: name it with --deploy FILE.prototxt [--model FILE.caffemodel]")
        model, digest = parse_model(path)
        return Source(name, model, digest, path if external_files(model, path) else None)
    from loadtrt import zoo

    first = None if options.shapes or options.profiles else options.batch or 1
    notes = (f"{name} is made with batch 1, since no --batch was given",) if first and not options.batch else ()
    return made_source(name, zoo.make(name.removeprefix("zoo:"), first, seed=0), notes)


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
        f"{name} is UFF, which TensorRT gave up after 8.6: "
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
        _require_decided(source, options)
        decide_sizes(model, name, (FixedSizes(options.batch, options.shapes),))
    if weak_typing and not options.strongly_typed:
        return _by_flags(source, options)
    done = []
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if options.fp16 and is_quantized(model) and opset < _FP16_OPSET:
        raise UsageError(
            f"{name} has Q/DQ nodes of opset {opset}, which take FP32 alone: export it with opset {_FP16_OPSET} or "
            "newer, or leave --fp16 out"
        )
    if options.int8 and is_quantized(model):
        done.append("INT8 as the model's own Q/DQ nodes say")
    elif options.int8:
        from loadtrt.engines.precision import quantize

        model, notes = quantize(source, options)
        done.append("quantized to INT8 by Q/DQ nodes (symmetric, per channel)")
        source = replace(source, model=model, file=None, notes=(*source.notes, *notes))
    if options.fp16:
        folder = source.file.resolve().parent if source.file else None
        model = to_fp16(model, folder, name, keep_io=options.io == "fp32")
        kept = "FP32 inputs and outputs kept" if options.io == "fp32" else "inputs and outputs too"
        done.append(f"converted to FP16 ({kept})")
        source = replace(source, model=model, file=None)
    return replace(source, precision=", then ".join(done))


def _by_flags(source: Source, options: BuildOptions) -> Source:
    """What the builder's flags will do, told: nothing of the model changes."""
    flags = [item.upper() for item in ("fp16", "bf16", "int8", "fp8") if getattr(options, item)]
    notes = source.notes
    cached = options.calibration_cache is not None and options.calibration_cache.is_file()
    if options.int8 and options.calibration is None and not cached and not is_quantized(source.model):
        from loadtrt.engines.precision import RANDOM_CALIBRATION

        notes = (*notes, RANDOM_CALIBRATION)
    return replace(source, precision=f"the builder may use {' and '.join(flags)}" if flags else "", notes=notes)


def is_quantized(model: Any) -> bool:
    """Whether the model says itself where it is quantized."""
    return any(node.op_type in _QUANTIZERS for node in model.graph.node)


def inputs_of(model: Any) -> dict[str, tuple[int, ...]]:
    """Shape by input, -1 where it is open; initializers that are listed as inputs are none."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else -1
            for dim in value.type.tensor_type.shape.dim
        )
        for value in model.graph.input
        if value.name not in weights
    }


def _require_decided(source: Source, options: BuildOptions) -> None:
    """An open size that neither --batch nor --shapes can decide is told with all the ways to decide it."""
    for name, shape in inputs_of(source.model).items():
        if -1 in shape and options.batch is None and not options.shapes:
            sizes = ",".join("?" if size < 0 else str(size) for size in shape)
            like = "x".join(
                str(16 if place == 0 else 224) if size < 0 else str(size) for place, size in enumerate(shape)
            )
            raise UsageError(
                f"input {name}[{sizes}] of {source.name} leaves sizes open: fix them with "
                f"{'--batch N' if -1 not in shape[1:] else f'--shapes {name}:{like}'}, or give their range, "
                f"with --min-shapes, --opt-shapes and --max-shapes {name}:{like}"
            )


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
