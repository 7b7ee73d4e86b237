"""Inputs at random, and good ones that were damaged at random: read, or refused in one short sentence."""

from __future__ import annotations

import gzip
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bad_inputs import DIGITS, npz_of, onnx_of, prototxt_of
from caffe_files import write
from loadtrt.asked.objective import parse_objective
from loadtrt.asked.reading import FIELDS, load_config
from loadtrt.caffe import convert
from loadtrt.engines.onnx_model import decide_sizes, parse_model
from loadtrt.engines.plan import looks_like_onnx, looks_like_plan, read_header
from loadtrt.engines.shapes import FixedSizes
from loadtrt.engines.simulation import parse_simulation
from loadtrt.errors import LoadtrtError, UsageError
from loadtrt.live.view_json import from_json
from loadtrt.load.arrivals import parse_bursts, parse_stages
from loadtrt.load.inputs import make_inputs
from loadtrt.load.request_sizes import parse_batching, parse_mix
from loadtrt.load.tensors import TensorSpec
from loadtrt.load.trace import read_trace
from loadtrt.report.result_files import read_file
from loadtrt.sizing.grid import AXES, parse_axis
from loadtrt.units import parse_address, parse_bytes, parse_duration, parse_rate, parse_share

if TYPE_CHECKING:
    from collections.abc import Callable

_MIB = 1 << 20
_X = TensorSpec("x", True, "fp32", (1, 16), 64)
_NASTY = st.sampled_from(
    [
        "",
        "\0",
        "\ud800",
        DIGITS,
        "-1",
        "nan",
        "inf",
        "1e309",
        "1e-320",
        "²",
        "٣",
        "9" * 5000,
        "x" * 5000,
        "\x1b[31m",
        "~",
    ]
)
_TEXT = st.text(max_size=20) | _NASTY | st.text("0123456789.,:/x=-kMGTiBsmhunp% ", max_size=20)
_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**15, 10**400)
    | st.floats()
    | _TEXT
    | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT | st.integers(), inner, max_size=3),
    max_leaves=6,
)
_YAML = """engine: simulated:null
contexts: 4
rate: 500/s
stages: [100/s:10s, ramp 100/s-500/s:1m]
objective: &o [latency.p99 < 10ms]
shapes: {x: 16x3, y: [1, 2]}
models: {a: &a {engine: x}, b: {<<: *a, objective: *o}}
"""


def _refused(read: Callable[[], object]) -> None:
    """What `read` raises, if anything, is a short sentence."""
    error = None
    try:
        read()
    except LoadtrtError as raised:
        error = raised
    assert len(str(error).encode()) <= 12_000


@st.composite
def _damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """Bytes with a few overwritten, removed, repeated or inserted."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.integers(0, 3)):
            case 0:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=8))
            case 1:
                del data[at : at + draw(st.integers(1, 40))]
            case 2:
                data[at:at] = data[at : at + 40]
            case _:
                data[at:at] = draw(st.sampled_from([b"\xff" * 8, b"\0" * 8, b"[" * 2000, b"9" * 400, b"\x80" * 20]))
    return bytes(data)


def _of_file(read: Callable[[Path], object], data: bytes, name: str = "f") -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name)
        file.write_bytes(data)
        _refused(lambda: read(file))


@given(st.sampled_from(sorted(FIELDS)), _VALUE)
@example("contexts", 10**5000)
@example("batch", 1 << 63)
@settings(max_examples=400)
def test_any_value_of_any_option(key: str, value: object) -> None:
    """As YAML and loadtrt.run may give it; the other options stand."""
    _refused(lambda: load_config(None, {"engine": "simulated:null", key: value}))


@given(st.dictionaries(_TEXT, _VALUE, max_size=3))
def test_any_keys(options: dict[str, Any]) -> None:
    """Known and unknown."""
    _refused(lambda: load_config(None, options))


@given(_damaged(_YAML.encode()) | st.text("[]{}&*!|>-:,?#'\"% \nab1\t\\", max_size=60).map(str.encode))
@settings(max_examples=300)
def test_any_yaml(text: bytes) -> None:
    """Read as a configuration of several models."""
    _of_file(lambda file: load_config(file, {}, several=True), text)


@given(_damaged(json.dumps({"engine": "simulated:null", "shapes": {"x": [1, 2]}, "rate": "5/s"}).encode()))
def test_any_json(text: bytes) -> None:
    """Read as a configuration, and as a result."""
    _of_file(lambda file: load_config(file, {}), text)
    _of_file(read_file, text)


@pytest.mark.parametrize(
    "parse",
    [
        parse_duration, parse_rate, parse_share, parse_bytes, parse_address, parse_stages, parse_bursts, parse_mix,
        parse_batching, parse_objective, lambda text: parse_simulation(text, 1),
        *(lambda text, axis=axis: parse_axis(axis, text) for axis in ("contexts", "rate", "burstiness")),
    ],
)  # fmt: skip
@given(
    _TEXT | st.tuples(_TEXT, st.sampled_from(["/", "..", ":", "=", ",", ":1s", "latency.p99 < "]), _TEXT).map("".join)
)
@settings(max_examples=60)
def test_any_text_of_a_number(parse: Callable[[str], object], text: str) -> None:
    """What is parsed fits into int64 and is finite."""
    _refused(lambda: parse(text))
    assert "burstiness" in AXES


@given(_TEXT, st.sampled_from([parse_duration, parse_bytes]))
def test_times_and_sizes_fit_into_int64(text: str, parse: Callable[[str], int]) -> None:
    """The greatest are ten years and 2^63 − 1 bytes."""
    for unit in ("", "s", "h", "TiB", "B"):
        with suppress(UsageError):
            assert 0 <= parse(text + unit) < 1 << 63


@given(_damaged(npz_of(np.zeros((1, 16), np.float32))) | st.binary(max_size=100))
@settings(max_examples=300)
def test_any_npz(data: bytes) -> None:
    """With a MiB to take."""
    _of_file(lambda file: make_inputs([_X], [str(file)], 1, {}, 1, _MIB), data, "f.npz")


_TRACES = [
    b"time,size\n1.5,2\n2.5,3\n",
    b'{"t": 1.5}\n{"t": 2}\n',
    b'"t","p"\n"2023-11-16T18:17:03.97+01:00","x,\ny"\n"2023-11-16T18:17:04Z","#"\n',
    b"# x\n2023-11-16 18:17:03,970 INFO x\n16/Nov/2023:18:17:04 +0100\n",
    b'[{"t": 1700000000123}, {"t": "1e3"}]',
    gzip.compress(b"10:00:00 a\n10:00:01.5 b\n", mtime=0),
]


@given(st.one_of([_damaged(trace) for trace in _TRACES]) | st.binary(max_size=60))
@settings(max_examples=400)
def test_any_trace(data: bytes) -> None:
    """CSV, JSONL, JSON, logs, gzip, and none of them."""
    _of_file(lambda file: read_trace(str(file)), data)
    _of_file(lambda file: read_trace(str(file), "t", 1e-9), data)


@given(_damaged(onnx_of(1, 2, 3)))
@settings(max_examples=200)
def test_any_onnx_model(data: bytes) -> None:
    """Read, and its sizes decided."""

    def read(file: Path) -> None:
        decide_sizes(parse_model(file)[0], "m", [FixedSizes(batch=4)])

    _of_file(read, data)


@given(_damaged(prototxt_of("1", "InnerProduct", "inner_product_param { num_output: 2 }")))
@settings(max_examples=150)
def test_any_prototxt(data: bytes) -> None:
    """Converted with random weights."""
    _of_file(lambda file: convert(file, None), data)


@given(st.data())
@settings(max_examples=100)
def test_any_caffemodel(data: st.DataObject) -> None:
    """With a good prototxt."""
    text = prototxt_of("1", "InnerProduct", "inner_product_param { num_output: 2 }").decode()
    with tempfile.TemporaryDirectory() as folder:
        deploy, weights = write(Path(folder), text, {"c": [np.ones((2, 512)), np.ones(2)]})
        weights.write_bytes(data.draw(_damaged(weights.read_bytes()[-300:])))
        _refused(lambda: convert(deploy, weights))


@given(_damaged(b"ftrt" + bytes(100)) | _damaged(b"vtrt" + bytes(100)) | st.binary(max_size=80))
def test_any_plan(data: bytes) -> None:
    """Its header alone."""
    for read in (read_header, looks_like_plan, looks_like_onnx):
        _of_file(read, data)


@given(_damaged(b'{"loadtrt": "1", "schema_version": 2, "view": {"now_ns": 1, "phase": "measure", "lanes": []}}'))
def test_any_live_view(data: bytes) -> None:
    """What a host answers to loadtrt watch."""
    _refused(lambda: from_json(data))
