"""What FP16 makes of models: how far its answers are from FP32's, what stayed FP32, and whether it is faster here.

    pip download --no-deps silero-vad rapidocr-onnxruntime magika ddddocr nudenet basic-pitch swift-f0 -d wheels
    python -m benchmarks.half_precision wheels --seconds 2 --rounds 3

Models are the .onnx files in the folder, and in the wheels there, which are unpacked for the time being. FP32 and FP16
run in turn, one request at a time, on ONNX Runtime or, with --on auto and a GPU, TensorRT; the ratio is that of
throughputs, with the interval of `loadtrt compare` for several runs of a side. What stands for sizes that a model
leaves open is written below, by its name; the others get batch 1. Inputs are random.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import loadtrt
from benchmarks.machine import machine_line
from loadtrt.errors import LoadtrtError
from loadtrt.report.comparison_sections import measured_of
from loadtrt.report.formatting import between
from loadtrt.stats.regression import ratio_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.results.run_result import RunResult

_SPEECH = {"shapes": {"input": "1x576", "state": "2x1x128"}}
_ECHO = {"shapes": {"input": "1x3x224x160"}}
_OPTIONS: dict[str, dict[str, Any]] = {
    "common": {"shapes": {"input1": "1x1x64x128"}},
    "common_old": {"shapes": {"input1": "1x1x64x128"}},
    "320n": {"shapes": {"images": "1x3x320x320"}},
    "common_det": {},
    "layout_cdla": {},
    "ch_PP-OCRv4_det_infer": {"shapes": {"x": "1x3x320x320"}},
    "ch_PP-OCRv4_rec_infer": {"shapes": {"x": "1x3x48x320"}},
    "ch_ppocr_mobile_v2.0_cls_infer": {"shapes": {"x": "1x3x48x48"}},
    "silero_vad": {**_SPEECH, "input_range": {"sr": "16000..16000"}},
    "silero_vad_16k_op15": {**_SPEECH, "input_range": {"sr": "16000..16000"}},
    "silero_vad_op18_ifless": {**_SPEECH, "input_range": {"sr": "16000..16000"}},
    "encoder": {"shapes": {"src": "1x128", "src_mask": "1x128"}},
    "decoder": {"shapes": {"prefix": "1x128", "memory": "1x128x256", "src_mask": "1x128", "hidden": "1x2x256"}},
    **dict.fromkeys((f"Run_{run}_Stage_0" for run in (1663829550, 1663915512, 1668423760)), _ECHO),
    "plcmos_v2": {"shapes": {"degraded_audio": "1x1x224x257", "rater_embed": "1x64"}},
    "silero_vad_half": _SPEECH,
    "silero_vad_openvino_16k": {"batch": 1},
    "silero_vad_16k_sequence": {"shapes": {"input": "8x576"}},
    "swift_f0": {"shapes": {"audio": "1x16000"}, "input_range": {"fmin": "40..40", "fmax": "1000..1000"}},
}


def main() -> None:
    """Print one row for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--on", default="onnxruntime", help="auto: on TensorRT where there is a GPU")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(machine_line())
    print("$ python -m benchmarks.half_precision " + shlex.join(sys.argv[1:]))
    with tempfile.TemporaryDirectory() as folder:
        for wheel in sorted(given.folder.glob("*.whl")):
            with zipfile.ZipFile(wheel) as held:
                for name in held.namelist():
                    if name.endswith(".onnx"):
                        held.extract(name, Path(folder) / "-".join(wheel.name.split("-")[:2]))
        header = ("model", "FP16 nodes", "weights to 0", "deviation", "tolerance", "cosine", "FP16 / FP32", "95 %")
        roots = (given.folder, Path(folder))
        print("\n| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
        for root in roots:
            for file in sorted(root.rglob("*.onnx")):
                cells = (_name(file, root), *_row(file, given.seconds, given.rounds, given.on))
                print("| " + " | ".join(cells) + " |", flush=True)


def _name(file: Path, root: Path) -> str:
    """Of the package, its version and the file."""
    return f"{file.relative_to(root).parts[0].replace('-', ' ', 1)}: {file.name}"


def _row(file: Path, seconds: float, rounds: int, on: str) -> Iterator[str]:
    key = "swift_f0" if "swift_f0" in str(file) else file.stem
    options = _OPTIONS.get(key, {"batch": 1})
    sides: dict[bool, list[RunResult]] = {False: [], True: []}
    try:
        for _ in range(rounds):
            for fp16, runs in sides.items():
                timing: dict[str, Any] = {"duration": f"{seconds:g}s", "warmup": "0.2s", "buffers": 1}
                runs.append(loadtrt.run(engine=str(file), on=on, fp16=fp16, **timing, **options))
    except LoadtrtError as error:
        yield from ("–", "–", str(error), "", "", "", "")
        return
    half = sides[True][0].model
    became, deviation = half.engine.conversion, half.deviation
    assert deviation is not None  # noqa: S101  # --fp16 always has one
    yield f"{became.converted} of {became.nodes}" if became else "–"
    yield f"{became.zeroed} of {became.weights}" if became else "–"
    yield deviation.unknown or f"{deviation.relative:.2g}"
    yield f"{deviation.tolerance:.2g}"
    yield "–" if deviation.cosine is None else f"{deviation.cosine:.6f}"
    ratio = ratio_of("throughput", *([measured_of("", run) for run in runs] for runs in sides.values()))
    yield "–" if ratio.ratio is None else f"{ratio.ratio:.3f}"
    yield between(ratio.low, ratio.high, "{:.3f}".format)


if __name__ == "__main__":
    main()
