"""Inputs that want too much or are damaged, kind by kind: what is asked, the files that it names, and the sentence.

`python tests/support/bad_inputs.py` prints the kinds with the number of inputs of each.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Mapping

DIGITS = "9" * 310
LONG = "n" * 300
_SIMULATED = "run --engine simulated:service=1ms,clock=virtual"
_CONFIG = f"{_SIMULATED} --config c.yaml"


@dataclass(frozen=True)
class Bad:
    """A command that is refused.

    command: its arguments, with spaces between.
    sentence: what the sentence holds.
    files: content by name.
    code: exit code.
    """

    command: str
    sentence: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    code: int = 2


def _yaml(text: str | bytes, sentence: str, command: str = _CONFIG) -> Bad:
    return Bad(command, sentence, {"c.yaml": text if isinstance(text, bytes) else text.encode()})


def _laughs(key: str, levels: int = 9) -> str:
    """Nine values in each of nine levels: 387 million, as 500 bytes."""
    lines = ["models: {}", "a: &a0 [l, l, l, l, l, l, l, l, l]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"{key}: *a{levels - 1}"])


def onnx_of(kind: int, *shape: int, **more: int) -> bytes:
    """y = x + x."""
    values = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y")]
    for value in values if more else ():
        value.type.tensor_type.elem_type = more["number"]
    node = helper.make_node("Add", ["x", "x"], ["y"])
    graph = helper.make_graph([node], "sum", values[:1], values[1:])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    return model.SerializeToString()


def _model(data: bytes, sentence: str, command: str = "run --engine m.onnx --on onnxruntime") -> Bad:
    return Bad(command, sentence, {"m.onnx": data}, 3)


def _npy(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header.encode("latin-1") + data


def _npz(data: bytes, name: str = "x.npy", compression: int = zipfile.ZIP_STORED) -> bytes:
    """An .npz with one member."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", compression) as archive:
        archive.writestr(name, data)
    return whole.getvalue()


def _good_npy() -> bytes:
    whole = io.BytesIO()
    np.save(whole, np.zeros((1, 16), np.float32))
    return whole.getvalue()


def npz_of(array: np.ndarray[Any, Any]) -> bytes:
    """An .npz with x."""
    whole = io.BytesIO()
    np.savez(whole, x=array)
    return whole.getvalue()


def _patched(at: bytes, offset: int, number: int) -> bytes:
    """A good .npz with two bytes of each header that begins so changed."""
    data = bytearray(_npz(_good_npy()))
    place = -1
    while (place := data.find(at, place + 1)) >= 0:
        struct.pack_into("<H", data, place + offset, number)
    return bytes(data)


def _inputs(data: bytes, sentence: str, code: int = 2) -> Bad:
    return Bad(f"{_SIMULATED} --inputs in.npz", sentence, {"in.npz": data}, code)


def _claims(shape: str, sentence: str, kind: str = "<f4") -> Bad:
    return _inputs(_npz(_npy(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n")), sentence)


def _trace(text: bytes, sentence: str) -> Bad:
    return Bad(f"{_SIMULATED} --trace t.jsonl", sentence, {"t.jsonl": text})


_INPUT = 'input: "data" input_shape { dim: DIM dim: 8 dim: 8 dim: 8 }\n'
_LAYER = 'layer { name: "c" type: "KIND" bottom: "data" top: "c" FIELDS }\n'
_WIDE = "convolution_param { num_output: 8 kernel_size: 1 stride: 4000000000 group: 8 bias_term: false }"
_LARGE = "convolution_param { num_output: 64 kernel_size: 4000000000 pad: 4000000000 }"


def prototxt_of(dim: str, kind: str, fields: str) -> bytes:
    """A network of one layer."""
    return (_INPUT.replace("DIM", dim) + _LAYER.replace("KIND", kind).replace("FIELDS", fields)).encode()


def _caffe(sentence: str, dim: str = "1", kind: str = "InnerProduct", fields: str = "") -> Bad:
    text = prototxt_of(dim, kind, fields)
    return Bad("build --deploy d.prototxt -o d.plan", sentence, {"d.prototxt": text})


def _times() -> list[Bad]:
    """Every option that takes a time, with 310 digits."""
    options = {
        "--duration": "", "--warmup": "", "--drain": "", "--max-duration": "", "--max-lateness": "",
        "--abort-delay": "--abort-on-fail --objective latency.p99<1s", "--metrics-linger": "--metrics :0",
    }  # fmt: skip
    sentence = "is longer than 10 years"
    simple = [Bad(f"{_SIMULATED} {option} {DIGITS} {more}", sentence) for option, more in options.items()]
    others = [
        f"{_SIMULATED} --stages 5/s:{DIGITS}", f"{_SIMULATED} --rate 5/s --bursts {DIGITS}/1s",
        f"{_SIMULATED} --rate 5/s --batcher max=4,delay={DIGITS}ms", f"{_SIMULATED} --objective latency.p99<{DIGITS}ms",
        f"run --engine simulated:service={DIGITS}", f"run --engine simulated:stall=1s@{DIGITS}",
        f"watch :1 --every {DIGITS}", f"capacity --engine simulated:null --objective latency.p99<1s --time {DIGITS}",
        f"{_SIMULATED} --duration 87661h", f"{_SIMULATED} --duration {'0' * 5000}{'9' * 5000}h",
    ]  # fmt: skip
    return [*simple, *(Bad(command, sentence) for command in others)]


def _numbers() -> list[Bad]:
    most = ", the most"
    counts = [
        "contexts", "buffers", "batch", "input-sets", "requests", "seed", "device", "optimization-profile",
        "threads-per-context", "requests-per-launch",
    ]  # fmt: skip
    found = [Bad(f"{_SIMULATED} --{name} {DIGITS}", most) for name in counts]
    found += [Bad(f"{_SIMULATED} --{name} {'9' * 5000}", "is not a valid integer") for name in counts]
    return [
        *found,
        Bad(f"{_SIMULATED} --rate 5/s --max-queue {DIGITS}", most),
        Bad(f"{_SIMULATED} --rate {DIGITS}", "is not a rate"),
        Bad(f"{_SIMULATED} --rate 9999999999999", "is not between"),
        Bad(f"{_SIMULATED} --rate 0.{'0' * 300}1", "is not between"),
        Bad(f"{_SIMULATED} --arrivals gamma --rate 5 --burstiness 1e300", most),
        Bad(f"{_SIMULATED} --precision {DIGITS}%", "is not a precision"),
        Bad(f"{_SIMULATED} --shapes x:{DIGITS}", "is not a shape"),
        Bad(f"{_SIMULATED} --shape-values x:{DIGITS}", most),
        Bad(f"{_SIMULATED} --input-range x:0..{DIGITS}", "write the lower limit first, both finite", code=2),
        Bad(f"{_SIMULATED} --mix x={DIGITS}:1", "is not a part of a mix"),
        Bad(f"{_SIMULATED} --mix {DIGITS}:1", "is not a part of a mix"),
        Bad(f"{_SIMULATED} --rate 5/s --batcher max={DIGITS}", "needs max, from 1 to 1024"),
        Bad(f"{_SIMULATED} --metrics :{DIGITS}", "is not an address"),
        Bad(f"run --engine simulated:slow_lane=0:{DIGITS}", "slow_lane needs a lane from 0 and a factor"),
        Bad(f"run --engine simulated:slow_lane={DIGITS}:2", "is not a slow lane"),
        Bad(f"run --engine simulated:cv={DIGITS}", "cv is"),
        Bad(f"run --engine simulated:seed={'9' * 5000}", "is not a number"),
        Bad("run --engine simulated:item=24h --batch 2000000000", "24 hours are the most"),
        Bad(f"sweep --engine simulated:null --contexts 1..{DIGITS}", "is not a count"),
        Bad(f"sweep --engine simulated:null --rate 1/s..9/s:{DIGITS}", "has no number of rates"),
        Bad(f"capacity --engine simulated:null --objective latency.p99<1s --precision {DIGITS}", "--precision"),
        Bad(f"build zoo:googlenet -o m.plan --workspace {DIGITS}TiB", "2^63 bytes or more"),
        Bad("build zoo:googlenet -o m.plan --workspace 9999999999TiB", "2^63 bytes or more"),
        Bad(f"build zoo:googlenet -o m.plan --shapes data:{DIGITS}", "is not NAME:SIZES"),
        Bad(f"build zoo:googlenet -o m.plan --batch {DIGITS}", "is not in the range"),
        Bad(f"build zoo:googlenet -o m.plan --max-aux-streams {DIGITS}", "is not in the range"),
        Bad(f"zoo googlenet --batch {DIGITS}", "is not in the range"),
    ]


_DEEP = "rate: " + "[" * 1500 + "]" * 1500
_SPARSE = "more than 50000 values"
_CUT = "is damaged or not an .npz"

KINDS: dict[str, list[Bad]] = {
    "YAML that grows by its aliases": [
        *(
            _yaml(_laughs(key), _SPARSE)
            for key in ("rate", "duration", "contexts", "engine", "stages", "shapes", "zzz")
        ),
        _yaml("rate: &a [*a]", "a value that contains itself"),
        _yaml("models: &a {m: *a}", "a value that contains itself"),
        _yaml(_laughs("rate", 4).replace("[l", "[{<<: [{a: b}]}", 1), "unknown key"),
    ],
    "YAML that is deep or long": [
        _yaml(_DEEP, "more than 32 levels"),
        _yaml("rate: " + "{a: " * 1500 + "}" * 1500, "more than 32 levels"),
        _yaml("? " * 1500 + "x", "more than 32 levels"),
        _yaml("- " * 1500 + "x", "more than 32 levels"),
        _yaml('{"rate": ' + "[" * 5000 + "]" * 5000 + "}", "more than 32 levels"),
        _yaml('{"engine": "x", "rate": ' + "[" * 200 + "]" * 200 + "}", "is not a rate"),
        _yaml("".join(f"k{n}: 1\n" for n in range(3000)), "and 2992 more"),
        _yaml("rate: [" + "1," * 60_000 + "1]", _SPARSE),
        _yaml("? " + "k" * 5000 + "\n: 1", "unknown key"),
        _yaml("# " + "x" * (1 << 20), "more than 1048576 characters"),
        _yaml("engine: simulated:null\nrate: " + "x" * 100_000, "is not a rate"),
    ],
    "YAML whose values cannot be read": [
        _yaml(f"contexts: {'1' * 5000}", "cannot be read as int in line 1, column 11"),
        _yaml('{"engine": "simulated:null", "contexts": ' + "1" * 5000 + "}", "cannot be read as int"),
        _yaml("rate: 2001-99-99", "cannot be read as timestamp"),
        *(_yaml(f"rate: !!{kind} zzz", f"cannot be read as {kind}") for kind in ("int", "float", "bool", "timestamp")),
        _yaml("rate: !!int ''", "cannot be read as int"),
        _yaml("rate: !!python/object:os.system x", "could not determine a constructor"),
        _yaml("? [a]\n: 1", "unhashable key"),
        _yaml("a: *nowhere", "undefined alias"),
        _yaml(b"rate: \xff", "is not YAML: it has bytes that are not text"),
        _yaml(b"rate: \x00", "is not YAML"),
        _yaml("rate: !!binary /w==", "is not a rate"),
        *(
            _yaml(text, "has half of a character")
            for text in (
                'rate: "\\ud800"',
                'module: "x\\udfffx"',
                '"\\ud800": 1',
                'models: {"\\ud800": {engine: x}}',
                'shapes: {"\\ud800": 1}',
                'inputs: ["\\udcff"]',
                '{"json": "\\ud800"}',
            )
        ),
    ],
    "Names that no file has": [
        *(
            _yaml(f'{key}: "a\\0b"', "NUL byte", "run --config c.yaml" if key == "engine" else _CONFIG)
            for key in (
                "engine", "trace", "plugins", "inputs", "json", "junit", "export_times", "export_output",
                "export_profile", "export_layer_info",
            )
        ),
        *(
            Bad(f"{_SIMULATED} {more}--{name} {LONG}", "is longer than 255 bytes")
            for name, more in {
                "json": "", "junit": "", "export-times": "", "export-output": "", "trace": "",
                "export-profile": "--profile ", "export-layer-info": "--profile ",
            }.items()
        ),
        Bad(f"{_SIMULATED} --config {LONG}", "File name too long"),
        Bad(f"{_SIMULATED} --inputs {LONG}.npz", "File name too long"),
        Bad(f"{_SIMULATED} --inputs x:{LONG}", "File name too long"),
        Bad(f"run --engine {LONG}", "File name too long"),
        Bad(f"report {LONG}", "File name too long"),
        Bad(f"compare {LONG} {LONG}", "File name too long"),
        Bad(f"plan-capacity {LONG} --demand 5/s", "File name too long"),
        Bad(f"build --deploy {LONG} -o d.plan", "File name too long"),
    ],
    "Numbers of 310 digits: times": _times(),
    "Numbers of 310 digits: counts, rates and sizes": _numbers(),
    "Tensors larger than memory": [
        Bad("run --engine simulated:null --batch 200000000", "GiB of memory and 1.00 GiB is free", code=3),
        Bad("run --engine simulated:null --batch 200000000 --inputs zeros", "and 1.00 GiB is free", code=3),
        Bad("run --engine simulated:null --mix 1:1,200000000:1", "and 1.00 GiB is free", code=3),
        Bad("run --engine simulated:null --batch 3000000 --input-sets 20", "and 1.00 GiB is free", code=3),
        Bad("run --engine simulated:null --input-sets 100000000", "is above 100000, the most"),
        Bad("run --engine simulated:null --batch 200000000 --inputs x:raw", "is free", {"raw": b""}, 3),
        *(
            _model(onnx_of(TensorProto.FLOAT, *shape), sentence)
            for shape, sentence in {
                (100_000, 4, 1000, 1000): "TiB of memory and 1.00 GiB is free",
                (1 << 62, 4): "more bytes than any memory",
                (1 << 31, 1 << 31, 1 << 31): "more bytes than any memory",
                (1 << 62,) * 190: "more bytes than any memory",
                ((1 << 63) - 1,): "more bytes than any memory",
            }.items()
        ),
        _model(onnx_of(TensorProto.FLOAT, 100_000, 100_000), "is free", "profile --engine m.onnx --on onnxruntime"),
    ],
    "ONNX element types that nobody knows": [
        _model(onnx_of(TensorProto.FLOAT, 2, number=number), f"element type {number}", command)
        for number in (999, -3, 2**31 - 1)
        for command in (
            "run --engine m.onnx --on onnxruntime",
            "profile --engine m.onnx --on onnxruntime",
            "sweep --engine m.onnx --on onnxruntime --contexts 1",
            "inspect m.onnx",
        )
    ],
    "Damaged .npz": [
        _inputs(_npz(b"no numpy"), _CUT),
        _inputs(_npz(b""), _CUT),
        _inputs(_npz(b"\x93NUMPY\x01\x00\xff\xff{"), _CUT),
        _inputs(_npz(_npy("{'descr': (", version=(1, 0))), _CUT),
        _inputs(_npz(_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 16), }\n")), _CUT),
        _inputs(_npz(_npy("{'descr': '<f4', 'fortran_order': False, 'shape': ('a',), }\n")), _CUT),
        _inputs(_npz(_npy("{'descr': [[[", version=(2, 0))), _CUT),
        _inputs(_npz(_npy("{" * 9000)), _CUT),
        _inputs(_npz(_npy("x", version=(3, 0))), "3.0 of the .npy format"),
        _inputs(_npz(_npy("x", version=(9, 9))), _CUT),
        _inputs(_npz(_good_npy()[:-20]), _CUT),
        _inputs(_npz(_good_npy())[:-10], "is not an .npz"),
        _inputs(_patched(b"PK\x01\x02", 8, 1), "is encrypted"),
        _inputs(_patched(b"PK\x01\x02", 10, 77), "compression method is not supported"),
        _inputs(_patched(b"PK\x01\x02", 10, zipfile.ZIP_LZMA), _CUT),
        _inputs(_patched(b"PK\x01\x02", 10, zipfile.ZIP_BZIP2), _CUT),
        _inputs(_patched(b"PK\x01\x02", 10, zipfile.ZIP_DEFLATED), _CUT),
        _inputs(_patched(b"PK\x01\x02", 16, 12345), _CUT),
        _inputs(_patched(b"PK\x03\x04", 26, 9), _CUT),
        _inputs(_npz(_good_npy(), LONG + ".npy"), "has no input"),
        _inputs(_npz(_good_npy(), "../x.npy"), "has no input"),
    ],
    "Headers of .npz that claim terabytes": [
        _claims("(16000000000000,)", "with shape"),
        _claims("(50000, 1, 16)", _CUT),
        _claims("(10000000000, 1, 16)", "at most 100000"),
        _claims("(-1, 1, 16)", "with shape"),
        _claims("(" + "1," * 3000 + ")", "with shape"),
        _claims("(1, 16)", "as object", "|O"),
        _inputs(_npz(b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * (1 << 22), compression=zipfile.ZIP_DEFLATED), _CUT),
        replace(
            _claims("(9000, 3000, 16)", "and 1.00 GiB is free"),
            command="run --engine simulated:null --batch 3000 --inputs in.npz",
            code=3,
        ),
    ],
    "Traces": [
        _trace(b'{"a": 1, "\\ud800": 2}\n', "has the columns"),
        _trace(b'{"t": "\\ud800"}\n{"t": 1}\n', "is not an instant"),
        _trace(b'{"\\ud800": 1}\n{"t": 2}\n', "has no"),
        _trace(b'{"t": ' + b"9" * 5000 + b"}\n", "centuries away"),
        _trace(b"9" * 5000 + b"\n1\n", "centuries away"),
        _trace(b"1e999999999999999999\n1\n", "centuries away"),
        _trace(b"\xc2\xb2\n1\n", "needs two instants that differ"),
        _trace(b"1\n\xc2\xb2\n", "is not an instant"),
        _trace(b"1\n" + b"x" * 200_000, "is not an instant"),
        _trace(b"\x00\n\x00\n", "it is binary data"),
        _trace(b"1\n\x00\n", "is not an instant"),
        _trace(b"\xff\xfe\n", "neither CSV nor JSONL"),
        _trace(b"[" * 100_000, "is not JSON"),
        _trace((",".join(f"c{n}" for n in range(5000)) + "\n1\n").encode(), "has the columns"),
        _trace(json.dumps({"k" * 5000: 1, "b": 2}).encode(), "has the columns"),
    ],
    "Caffe networks": [
        _caffe("brings the weights to", fields="inner_product_param { num_output: 2000000000 }"),
        _caffe("brings the weights to", kind="Convolution", fields=_LARGE),
        _caffe("fewer than 2^61 numbers", dim="9223372036854775807", kind="ReLU"),
        _caffe("puts out more numbers", dim="1000000", kind="Deconvolution", fields=_WIDE),
        _caffe("is not a Caffe prototxt", dim="9" * 5000, kind="ReLU"),
        _caffe("is not a Caffe prototxt", fields="inner_product_param { num_output: -1 }"),
        Bad("build --deploy d.prototxt -o d.plan", "nested too deep", {"d.prototxt": b"layer { " * 3000}),
        Bad("build --deploy d.prototxt -o d.plan", "is a binary file", {"d.prototxt": b"\xff\xfe"}),
    ],
    "Devices, folders and long files in place of files": [
        *(
            Bad(command.format(file), sentence)
            for file, sentence in {"/dev/zero": "it is not a regular file", "/proc": "Is a directory"}.items()
            for command in (
                "run --engine simulated:null --config {}", "run --engine {}", "report {}", "compare {0} {0}",
                "run --engine simulated:null --trace {}", "inspect {}",
                "plan-capacity {} --demand 5/s", "build --deploy {} -o d.plan", "export openmetrics {} -o x",
            )
        ),
        Bad("run --engine simulated:null --inputs x:/dev/zero", "it is not a regular file"),
        Bad("run --engine simulated:null --inputs x:/proc", "is a folder without inputs"),
        Bad(
            "build --deploy d.prototxt --model /dev/zero -o d.plan",
            "it is not a regular file",
            _caffe("", kind="ReLU").files,
        ),
    ],
}  # fmt: skip

if __name__ == "__main__":
    for kind, inputs in KINDS.items():
        print(f"{kind}: {len(inputs)}")
