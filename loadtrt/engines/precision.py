"""INT8 for builders that take types from the model: Q/DQ nodes with scales from calibration data."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtrt.engines.build_model import inputs_of
from loadtrt.engines.onnx_model import dtype_of
from loadtrt.errors import EngineError, UsageError
from loadtrt.load.inputs import make_inputs
from loadtrt.load.tensors import TensorSpec, bytes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.engines.build_model import Source
    from loadtrt.engines.build_options import BuildOptions
    from loadtrt.load.tensors import Arrays

_RANDOM_SETS = 4
_LEAST_OPSET = 13  # the first whose Q/DQ nodes have a scale for each channel
_FP16_OPSET, _FP16_IR = 19, 9  # the first whose Q/DQ nodes stand between FP16 and INT8

RANDOM_CALIBRATION = (
    "WARNING: INT8 ranges come from RANDOM data: the plan's speed is real, its answers are worthless; "
    "give real inputs with --calibration FILE.npz"
)


def calibration_sets(source: Source, options: BuildOptions) -> tuple[list[Arrays], tuple[str, ...]]:
    """The input sets to calibrate with, each of the batch (with profiles: of the first one's optimum), and notes.

    --calibration is an .npz, or a folder of them, with one array for each input: of the input's shape, of that with the
    number of sets in front, or with another first size: so many items. Without it they are random. Raises UsageError
    for files that do not fit.
    """
    specs = []
    for value in source.model.graph.input:
        if value.name not in inputs_of(source.model):
            continue
        shape = inputs_of(source.model)[value.name]
        if options.profiles and value.name in options.profiles[0]:
            shape = options.profiles[0][value.name][1]
        dtype = dtype_of(value)
        specs.append(TensorSpec(value.name, True, dtype, shape, bytes_of(dtype, shape)))
    if options.calibration is None:
        return make_inputs(specs, ("random",), _RANDOM_SETS, {}, options.seed), (RANDOM_CALIBRATION,)
    files = [str(file) for file in _files(options.calibration)]
    try:
        return make_inputs(specs, files, 1, {}, options.seed), ()
    except UsageError as error:
        sets = _of_items(specs, files)
        if not sets:
            raise UsageError(f"--calibration: {error}") from None
        return sets, ()


def _of_items(specs: Sequence[TensorSpec], files: Sequence[str]) -> list[Arrays]:
    """Sets from files whose arrays hold items, [items, ...] for an input of [batch, ...]: as many batches as hold them
    all, the last filled from the beginning. Empty where the files are not like that."""
    import numpy as np

    batches = {spec.shape[:1] for spec in specs}
    if len(batches) != 1 or not specs[0].shape:
        return []
    single = [TensorSpec(spec.name, True, spec.dtype, spec.shape[1:], 0) for spec in specs]
    try:
        items = make_inputs(single, files, 1, {}, 0)
    except UsageError:
        return []
    batch = specs[0].shape[0]
    return [
        {name: np.stack([items[(first + place) % len(items)][name] for place in range(batch)]) for name in items[0]}
        for first in range(0, len(items), batch)
    ]


def quantize(source: Source, options: BuildOptions) -> tuple[Any, tuple[str, ...]]:
    """`source.model` with Q/DQ around convolutions and matrix products, and notes.

    scale = max |x| / 127 with zero point 0, one for each output channel of weights; biases stay FP32, as TensorRT
    rejects INT32 ones. Raises UsageError for calibration data that do not fit, EngineError where ONNX Runtime cannot.
    """
    import onnx
    import onnx.version_converter

    opset = next((item.version for item in source.model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if opset < _LEAST_OPSET:
        raise UsageError(
            f"{source.name} has opset {opset}, and INT8 needs {_LEAST_OPSET} or newer: export it again with that opset"
        )
    sets, notes = calibration_sets(source, options)
    with tempfile.TemporaryDirectory(prefix="loadtrt-int8-") as folder, _silent():
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        class Reader(CalibrationDataReader):  # type: ignore[misc]  # published without types
            def __init__(self) -> None:
                self.sets = iter(sets)

            def get_next(self) -> Arrays | None:
                return next(self.sets, None)

        try:
            model = source.model
            if source.file is not None:
                onnx.external_data_helper.load_external_data_for_model(model, str(source.file.resolve().parent))
            if options.fp16 and opset < _FP16_OPSET:
                model = onnx.version_converter.convert_version(model, _FP16_OPSET)
                model.ir_version = max(model.ir_version, _FP16_IR)
            output = Path(folder) / "int8.onnx"
            quantize_static(
                model,
                output,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "ConvTranspose", "Gemm", "MatMul"],
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
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


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise UsageError(f"--calibration {path}: there is no such file or folder")
        if path.suffix != ".npz":
            raise UsageError(f"--calibration {path}: name an .npz, or a folder of them (numpy.savez writes one)")
        return [path]
    files = sorted(path.glob("*.npz"))
    if not files:
        raise UsageError(f"--calibration {path}: there is no .npz in this folder (numpy.savez writes one)")
    return files
