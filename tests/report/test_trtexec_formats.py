"""trtexec's files: what loadtrt writes, what it reads, and what NVIDIA's own reader (trex) finds in them."""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloads import TREX as TREX_WHEEL
from downloads import UnavailableError
from loadtrt.engines.plan_facts import parse_layers
from loadtrt.errors import EngineError, UsageError
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import COLUMNS, FAILED, METRICS, OK, UNSERVED, Records
from loadtrt.report.result_files import Kind, read_file
from loadtrt.report.trtexec import (
    TIMES_KEYS,
    layer_info_json,
    output_json,
    profile_json,
    read_layer_info,
    read_profile,
    read_times,
    stamp_step_ns,
    times_json,
)
from loadtrt.results.engine_info import Layer
from loadtrt.stats.profiles import Samples
from loadtrt.stats.summary import summarize

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from loadtrt.results.profile_result import ProfilePass

DATA = Path(__file__).parents[1] / "data"
START = 1_000_000
TREX = """
import json, sys, types
trex = types.ModuleType("trex")  # in place of trex/__init__.py, which wants all of Jupyter
trex.__path__ = [sys.argv[1] + "/trex"]
sys.modules["trex"] = trex
from trex.engine_plan import EnginePlan
from trex.parser import read_timing_file
plan = EnginePlan(sys.argv[2], sys.argv[3])
columns = ["Name", "latency.time", "latency.avg_time", "latency.median_time", "latency.pct_time"]
found = {"layers": [layer.name for layer in plan.layers], "total_ms": plan.total_runtime}
print(json.dumps(found | {"rows": plan.df[columns].values.tolist(), "latencies": read_timing_file(sys.argv[4])}))
"""

span = st.integers(0, 3_000_000)
row = st.tuples(span, span, span, span, span, span, st.integers(0, 2), st.sampled_from([OK, OK, OK, FAILED, UNSERVED]))


def _records(rows: list[tuple[int, ...]]) -> Records:
    """Of (submitted after start, enqueue, rest of the service, h2d, compute, d2h, lane, status)."""
    table = np.zeros((len(rows), len(COLUMNS)), np.int64)
    for number, (submitted, enqueue, rest, h2d, compute, d2h, lane, status) in enumerate(rows):
        begun = START + submitted
        table[number] = (begun, begun, begun + enqueue, begun + enqueue + rest, h2d, compute, d2h, 0, lane, status, 0)
    return Records(table)


def _usual(count: int) -> Records:
    """A copy of 100 µs, compute of about 1 ms and a copy of 50 µs; sent each ms."""
    return _records(
        [(n * 1_000_000, 20_000, 2_130_000 + n, 100_000, 1_000_000 + n, 50_000, 0, OK) for n in range(count)]
    )


def _stamps_ns(text: str) -> list[dict[str, int]]:
    return [{key: round(value * 1e6) for key, value in record.items()} for record in json.loads(text)]


def _layer_info(name: str) -> str:
    return gzip.decompress((DATA / f"googlenet86_{name}.layers.json.gz").read_bytes()).decode()


def _pass(layers: tuple[Layer, ...], inferences: int = 3) -> ProfilePass:
    """Every layer takes another time in every inference."""
    samples = Samples()
    for inference in range(inferences):
        samples.add((layer.name, 1000.0 * (place + 1) + inference**2) for place, layer in enumerate(layers))
    return samples.to_pass("plain", layers)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """A file with this in it."""

    def save(content: str | bytes) -> Path:
        path = tmp_path / "file.json"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return save


# Times


@given(st.lists(row, max_size=30), st.booleans())
def test_times_are_trtexecs(rows: list[tuple[int, ...]], copies: bool) -> None:
    """trtexec's keys in its order; served requests alone, by startH2d; a copy in starts when it is sent and the one
    before it on its lane is done, L_i = max(submitted_i, L_{i−1}) + h2d_i, and ends by startCompute at the latest; all
    are shifted alike, so that nothing is negative; a phase is the difference of its stamps, and latency the phases'
    sum."""
    ok = _records(rows).ok
    expected, done = [], dict.fromkeys(range(3), 0)
    for place in np.argsort(ok.submitted, kind="stable"):
        end, d2h, compute, h2d = (int(column[place]) for column in (ok.completed, ok.d2h, ok.compute, ok.h2d))
        submitted, lane = int(ok.submitted[place]), int(ok.lane[place])
        compute_end = end - d2h
        compute_start = compute_end - compute
        done[lane] = max(submitted, done[lane]) + h2d
        copied = min(done[lane], compute_start) if copies else compute_start
        stamps = [submitted, int(ok.enqueued[place]), copied - copies * h2d, copied, compute_start, compute_end]
        expected.append([*stamps, compute_end, end if copies else compute_end])
    zero = min([START, *(stamp for stamps in expected for stamp in stamps)])

    found = _stamps_ns(times_json(_records(rows), START, copies))
    assert all(tuple(record) == TIMES_KEYS for record in found)
    stamps_found = [list(record.values())[:8] for record in found]
    assert sorted(stamps_found) == sorted([stamp - zero for stamp in stamps] for stamps in expected)
    starts = [record["startH2dMs"] for record in found]
    assert starts == sorted(starts)
    for record in found:
        for phase in ("H2d", "Compute", "D2h"):
            duration = record[f"{phase[0].lower()}{phase[1:]}Ms"]
            assert duration == record[f"end{phase}Ms"] - record[f"start{phase}Ms"] >= 0
        assert record["latencyMs"] == record["h2dMs"] + record["computeMs"] + record["d2hMs"]


def test_times_read_back_to_the_nanosecond(saved: Callable[[str], Path]) -> None:
    """Phases, enqueue time and the whole time on the GPU come back as they were; all instants are of one clock."""
    written = _usual(1000)
    read = read_times(saved(times_json(written, START, copies=True)))
    for column in ("h2d", "compute", "d2h"):
        assert getattr(read, column).tolist() == getattr(written, column).tolist()
    assert (read.enqueued - read.submitted).tolist() == (written.enqueued - written.submitted).tolist()
    assert (read.completed - read.submitted).tolist() == (written.completed - written.submitted).tolist()
    assert read.due.tolist() == read.submitted.tolist()
    assert len(read.ok) == len(read)
    assert stamp_step_ns(read) == 1


def test_read_times_can_be_summarized(saved: Callable[[str], Path]) -> None:
    """stats.summary takes them; device is trtexec's latency."""
    text = times_json(_usual(1000), START, copies=True)
    read = read_times(saved(text))
    histograms = {metric.name: Histogram() for metric in METRICS}
    for metric in METRICS:
        histograms[metric.name].add(metric.of(read))
    metrics = summarize(read, histograms, complete=True)
    latencies = sorted(record["latencyMs"] for record in json.loads(text))
    assert metrics["device"].percentiles_ns["p99"] == pytest.approx(latencies[989] * 1e6)
    assert metrics["device"].percentiles_ns["p99.9"] is None
    assert metrics["queue"].max_ns == 0


def _as_trtexec_prints(text: str, **more: float) -> str:
    """The same in trtexec's own layout: C++ streams print six significant digits."""
    records = [record | more for record in json.loads(text)]
    lines = ["{ " + ", ".join(f'"{key}" : {value:.6g}' for key, value in record.items()) + " }" for record in records]
    return "[\n  " + "\n, ".join(lines) + "\n]\n"


def test_trtexecs_six_digits_are_noticed(saved: Callable[[str], Path]) -> None:
    """Stamps of 3 s have steps of 10 µs; phases have digits of their own; the mean of the enqueues stays."""
    records = _usual(3000)
    read = read_times(saved(_as_trtexec_prints(times_json(records, START, copies=True), endToEndMs=1.0)))
    assert stamp_step_ns(read) == 10_000
    assert np.abs(read.compute - records.compute).max() <= 5  # of 1 ms
    assert float((read.enqueued - read.submitted).mean()) == pytest.approx(20_000, rel=0.02)


def test_times_in_any_order_are_sorted_by_their_start(saved: Callable[[str], Path]) -> None:
    """Threads of trtexec may have been merged by another tool."""
    records = json.loads(times_json(_usual(50), START, copies=True))
    assert np.diff(read_times(saved(json.dumps(records[::-1]))).submitted).min() >= 0


def _times_with(**changes: Any) -> str:
    records = json.loads(times_json(_usual(3), START, copies=True))
    records[1] |= changes
    return json.dumps(records)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        (b"\xff\xfe\x00", "not text"),
        (times_json(_usual(3), START, copies=True)[:-40], "cut off"),
        ("[]", "nothing was measured"),
        ("{}", "neither"),
        ("3", "neither"),
        ("[1, 2]", "neither"),
        ('{"schema_version": "loadtrt.run/9"}', 'schema "loadtrt.run/9"'),
        (json.dumps({"schema_version": f"loadtrt.{'1' * 99}/9"}), f'loadtrt.{"1" * 11}…{"1" * 16}/9", which this'),
        ('[{"count": 3}]', "profile in trtexec's format"),
        ('[{"latencyMs": 1.0}]', "record 1 has no startEnqMs"),
        (json.dumps([*json.loads(_times_with()), "x"]), "record 4 is not an object"),
        (_times_with(computeMs="1"), 'computeMs of record 2 is "1"'),
        (_times_with(computeMs=None), "computeMs of record 2 is null"),
        (_times_with(computeMs=True), "computeMs of record 2 is true"),
        (_times_with(computeMs="1" * 99 + "2"), f'computeMs of record 2 is "{"1" * 19}…{"1" * 17}2", which'),
        (_times_with(computeMs=[1]), "computeMs of record 2 is [1]"),
        (_times_with(computeMs=-1.5), "computeMs of record 2 is -1.5"),
        (_times_with(computeMs=10**400), "is too large"),
        (_times_with(computeMs=1e11), "computeMs of record 2 is 1000"),
        (_times_with(computeMs=math.nan), "NaN is not a number"),
        (_times_with().replace("0.02", "1e999"), "1e999 is too large"),
        (_times_with(endComputeMs=0.0), "record 2 ends before it starts"),
        (_times_with(endD2hMs=0.5, startD2hMs=0.25), "record 2 ends before it starts"),
    ],
)
def test_times_that_cannot_be_read(content: str | bytes, sentence: str, saved: Callable[[str | bytes], Path]) -> None:
    """One sentence: the file, what is wrong in it, and where."""
    path = saved(content)
    with pytest.raises(UsageError) as raised:
        read_times(path)
    assert str(path) in str(raised.value)
    assert sentence in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("read", [read_times, read_profile, read_layer_info])
def test_files_that_are_not_there(read: Callable[[Path], object], tmp_path: Path) -> None:
    """Missing files and folders are the user's fault."""
    for path, why in ((tmp_path / "none.json", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError, match=why):
            read(path)


# Profiles

names = st.lists(st.text(max_size=20), min_size=1, max_size=8)


@given(names, st.integers(1, 5))
def test_a_profile_reads_back(tmp_path_factory: pytest.TempPathFactory, found: list[str], inferences: int) -> None:
    """Count, layers in their order under any names, total, average, median and shares: read(write(p)) = p."""
    written = _pass(parse_layers(json.dumps({"Layers": found})), inferences)
    text = profile_json(written)
    count, *layers = json.loads(text)
    assert count == {"count": inferences}
    assert sum(layer["percentage"] for layer in layers) == pytest.approx(100)
    assert all(tuple(layer) == ("name", "timeMs", "averageMs", "medianMs", "percentage") for layer in layers)
    path = tmp_path_factory.getbasetemp() / "profile.json"
    path.write_text(text)
    read = read_profile(path)
    assert read.inferences == inferences
    assert read.layers_ns == pytest.approx(written.layers_ns)
    for ours, theirs in zip(written.layers, read.layers, strict=True):
        assert (ours.layer, ours.count) == (theirs.layer, theirs.count)
        for field in ("total_ns", "average_ns", "median_ns", "share"):
            assert getattr(theirs, field) == pytest.approx(getattr(ours, field))


def test_a_profile_is_joined_with_layer_information(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """By name, and by its place among those of one name; what only the profile has keeps its name alone."""
    info = _layer_info("fp16")
    layers = parse_layers(info)
    (tmp_path / "layers.json").write_text(layer_info_json(info))
    twice = (*layers[:3], Layer("only here", nodes=("only here",)), layers[1], *layers[3:])
    read = read_profile(saved(profile_json(_pass(twice))), tmp_path / "layers.json")
    assert [times.layer.name for times in read.layers] == [layer.name for layer in twice]
    assert read.layers[1].layer == layers[1]
    assert read.layers[3].layer.type == ""
    assert read.layers[4].layer.type == ""  # a second layer of this name, which the layer information does not know
    assert {times.layer for times in read.layers} >= set(layers)


@pytest.mark.parametrize(("count", "known"), [(1, True), (5, False)])
def test_a_profile_without_medians(count: int, known: bool, saved: Callable[[str], Path]) -> None:
    """TensorRT up to 8.3 wrote none: one inference is its own median, of several nobody knows it."""
    record = {"name": "conv", "timeMs": 2.0 * count, "averageMs": 2.0, "percentage": 100.0}
    read = read_profile(saved(json.dumps([{"count": count}, record])))
    assert (read.layers[0].median_ns == 2e6) is known
    assert (read.layers[0].median_ns is None) is not known
    assert ("medianMs" in profile_json(read)) is known


def _profile_with(count: Any = None, **changes: Any) -> str:
    records = json.loads(profile_json(_pass((Layer("a"), Layer("b")))))
    records[2] |= changes
    records[2] = {key: value for key, value in records[2].items() if value != "gone"}
    return json.dumps([{"count": 3 if count is None else count}, *records[1:]])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('[{"count": 3}]', "has no layers"),
        (_profile_with(count=0), "count of inferences"),
        (_profile_with(count=True), "count of inferences"),
        (_profile_with(count="3"), "count of inferences"),
        (json.dumps(json.loads(_profile_with())[1:]), "count of inferences"),
        (_profile_with(name="gone"), "no name"),
        (_profile_with(name=3), "no name"),
        (_profile_with(timeMs="gone"), "record 3 has no timeMs"),
        (_profile_with(medianMs="gone"), "record 3 has no medianMs"),
        (_profile_with(averageMs=-1), "averageMs of record 3 is -1"),
        (json.dumps([*json.loads(_profile_with()), None]), "record 4 is not an object"),
        (_profile_with(name="NAME").replace("NAME", 'a "quoted" layer'), "not escaped"),
        (_profile_with().replace('"averageMs": ', '"averageMs": -nan, "b": ', 1), "not JSON"),
        (times_json(_usual(3), START, copies=True), "times in trtexec's format"),
    ],
)
def test_profiles_that_cannot_be_read(content: str, sentence: str, saved: Callable[[str], Path]) -> None:
    """One sentence: the file, what is wrong in it, and where."""
    path = saved(content)
    with pytest.raises(UsageError) as raised:
        read_profile(path)
    assert str(path) in str(raised.value)
    assert sentence in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_layer_information_of_another_engine(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """Where no name is known to both, the files do not belong together."""
    (tmp_path / "layers.json").write_text('{"Layers": ["x", "y"]}')
    with pytest.raises(UsageError, match="same engine"):
        read_profile(saved(_profile_with()), tmp_path / "layers.json")


# Layer information

NEW_FORM = """{"Layers": [{
  "Name": "conv1 + relu1",
  "LayerType": "CaskConvolution",
  "Inputs": [{"Name": "data", "Dimensions": [16,3,224,224], "Format": "Row major linear FP16 format (kLINEAR)",
    "Datatype": "Half", "StrideOrder": [3,2,1,0], "Strides": [150528,50176,224,1]}],
  "Outputs": [{"Name": "relu1", "Dimensions": [16,64,112,112], "Format": "Channel major FP16 format (kHWC8)",
    "Datatype": "Half", "StrideOrder": [2,1,0,3], "Strides": [802816,1,7168,64]}],
  "ParameterType": "Convolution",
  "Constants": [{"Name": "w", "Type": "Half", "Count": 9408}],
  "TacticName": "sm90_xmma_fprop",
  "StreamId": 0,
  "Metadata": "[ONNX Layer: conv1]\\u001e[ONNX Layer: relu1]"
}],
"I/O Tensors": [{"Name": "data", "IOMode": "Input", "DataType": "Half", "Dimensions": [16,3,224,224],
  "Location": "Device", "IsShapeInferenceIO": false, "ProfileInfo": [{"MinShape": [16,3,224,224],
  "OptShape": [16,3,224,224], "MaxShape": [16,3,224,224], "Format": "kLINEAR"}]}]
}"""


@pytest.mark.parametrize("name", ["fp16", "fp32"])
def test_layer_information_becomes_strict_json(name: str, saved: Callable[[str], Path]) -> None:
    """Recorded from TensorRT 8.6.1 on an H100: bare U+001E are escaped, and every other character stays."""
    text = _layer_info(name)
    strict = layer_info_json(text)
    with pytest.raises(ValueError, match="control character"):
        json.loads(text)
    assert json.loads(strict) == json.loads(text, strict=False)
    assert strict.replace("\\u001e", "\x1e") == text
    assert read_layer_info(saved(strict)) == read_layer_info(saved(text)) == parse_layers(text)


def test_layer_information_of_11(saved: Callable[[str], Path]) -> None:
    """The form without "Bindings" and with "Format" and "Datatype" apart; it is strict already."""
    assert layer_info_json(NEW_FORM) == NEW_FORM
    (layer,) = read_layer_info(saved(NEW_FORM))
    assert (layer.name, layer.precision, layer.nodes) == ("conv1 + relu1", "fp16", ("conv1", "relu1"))
    assert layer.inputs[0].shape == (16, 3, 224, 224)


@given(st.dictionaries(st.text(), st.text()))
def test_strict_json_is_left_alone(found: dict[str, str]) -> None:
    """layer_info_json(strict text) = strict text, whatever quotes and backslashes are in it."""
    text = json.dumps(found)
    assert layer_info_json(text) == text


@given(st.text(st.characters(codec="utf-8", exclude_characters='"\\')))
def test_control_characters_are_escaped_in_strings_alone(name: str) -> None:
    """The strings hold what they held before."""
    assert json.loads(layer_info_json(f'{{\n\t"Layers": ["{name}"]\r\n}}')) == {"Layers": [name]}


@pytest.mark.parametrize("text", ["", "not built", '{"Layers": ["a', '{"Layers": [NaN]}'])
def test_an_inspector_that_writes_no_json(text: str) -> None:
    """The engine's fault, in one sentence."""
    with pytest.raises(EngineError, match="not JSON") as raised:
        layer_info_json(text)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"Layers": 3}', "no list 'Layers'"),
        ('{"Layers": []}', "has no layers"),
        ('{"Layers": [{"Name": "a"}, {"LayerType": "b"}]}', "no name for layer 2"),
        ('{"Layers": [{"Name": "a", "Inputs": [{"Dimensions": [null]}]}]}', "not layer information"),
        ('{"Layers": [{"Name": "a", "Inputs": [{"Dimensions": ["x"]}]}]}', "not layer information"),
        (layer_info_json(NEW_FORM)[:-9], "cut off"),
        ("[" * 100_000, "not JSON"),
        ('{"Bindings": []}', "neither"),
    ],
)
def test_layer_information_that_cannot_be_read(content: str, sentence: str, saved: Callable[[str], Path]) -> None:
    """One sentence: the file, and what is wrong in it."""
    path = saved(content)
    with pytest.raises(UsageError) as raised:
        read_layer_info(path)
    assert str(path) in str(raised.value)
    assert sentence in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


# Outputs


@pytest.mark.parametrize(
    "dtype",
    [
        *("bool", "int8", "uint8", "int32", "int64", "uint64", "int4"),
        *("float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float4_e2m1fn", "float8_e8m0fnu"),
    ],
)
def test_outputs_keep_their_values(dtype: str) -> None:
    """Names, dimensions, and values in C order that are the same when read as their own type; integers stay such."""
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    array = np.array([[0.5, 1, 2], [4, 0.25, 1]]).astype(kind)
    (found,) = json.loads(output_json({'a "b"': array}))
    assert (found["name"], found["dimensions"]) == ('a "b"', "2x3")
    assert (np.array(found["values"]).astype(kind).reshape(2, 3) == array).all()
    whole = kind.name.startswith(("int", "uint", "bool"))
    assert {type(value) for value in found["values"]} == {int if whole else float}


@given(st.lists(st.floats(width=32), max_size=20))
def test_every_float_comes_back(values: list[float]) -> None:
    """float(text) is the very value, NaN and the infinities included; the JSON is strict."""
    array = np.array(values, np.float32)

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    (found,) = json.loads(output_json({"y": array}), parse_constant=refuse)
    read = np.array([float(value) for value in found["values"]], np.float32)
    assert found["dimensions"] == str(len(values))
    assert np.array_equal(read, array, equal_nan=True)
    assert np.array_equal(np.signbit(read), np.signbit(array)) or np.isnan(array).any()


def test_outputs_at_the_edges() -> None:
    """Shortest digits as fp32, all as fp64; extreme integers whole; scalars, empty arrays; outputs in their order."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "b": np.array([0.1, -np.inf, np.nan], np.float32),
        "a": np.array([2**64 - 1], np.uint64),
        "scalar": np.array(True),
        "empty": np.zeros((0, 3), np.float16),
        "double": np.array([1 / 3]),
    }
    text = output_json(arrays)
    found = json.loads(text)
    assert [output["name"] for output in found] == list(arrays)
    assert '"values" : [ 0.1, "-Infinity", "NaN" ]' in text
    assert found[1]["values"] == [2**64 - 1]
    assert (found[2]["dimensions"], found[2]["values"]) == ("", [1])
    assert (found[3]["dimensions"], found[3]["values"]) == ("0x3", [])
    assert found[4]["values"] == [1 / 3]


# Kinds


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ('{"schema_version": "loadtrt.run/1"}', Kind.RUN),
        ('{"schema_version": "loadtrt.profile/1"}', Kind.PROFILE),
        (times_json(_usual(1), START, copies=False), Kind.TIMES),
        (_profile_with(), Kind.LAYER_TIMES),
        (NEW_FORM, Kind.LAYERS),
        ('\ufeff{"Layers": ["a\x1eb"]}', Kind.LAYERS),
        ('{"schema_version": "loadtrt.layers/1"}', Kind.COMPARISON),
        ('{"schema_version": 1, "plan_sha256": "ab"}', Kind.SIDECAR),
    ],
)
def test_kinds_are_told_from_the_content(content: str, kind: Kind, saved: Callable[[str], Path]) -> None:
    """One reading gives the kind and the content, whatever the file is called."""
    path = saved(content)
    document = read_file(path.rename(path.with_name("engine.plan")))
    assert document.kind is kind
    assert document.content == json.loads(content.removeprefix("\ufeff"), strict=False)


# NVIDIA's reader


@pytest.mark.parametrize("name", ["fp16", "fp32"])
def test_trex_reads_what_is_written(name: str, tmp_path: Path) -> None:
    """trex 0.1.5 builds its EnginePlan from our three files: the layers of the engine (it leaves NoOps and constants
    out), each with its own times in its row, and trtexec's latencies."""
    try:
        folder = TREX_WHEEL.folder
    except UnavailableError as error:
        pytest.skip(str(error))
    info = _layer_info(name)
    layers = parse_layers(info)
    profile, records = _pass(layers), _usual(5)
    paths = [tmp_path / file for file in ("graph.json", "profile.json", "times.json")]
    texts = (layer_info_json(info), profile_json(profile), times_json(records, START, copies=True))
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", TREX, folder, *paths], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    kept = [times for times in profile.layers if times.layer.type not in ("NoOp", "Constant")]
    assert len(kept) > 60
    assert found["layers"] == [times.layer.name for times in kept]
    expected = [(times.layer.name, times.total_ns, times.average_ns, times.median_ns) for times in kept]
    for (label, total, average, median, percentage), ours in zip(found["rows"], expected, strict=True):
        assert (label, total * 1e6, average * 1e6, median * 1e6) == (ours[0], *map(pytest.approx, ours[1:]))
        assert percentage == pytest.approx(100 * ours[1] / sum(times.total_ns for times in profile.layers))
    assert found["total_ms"] == pytest.approx(sum(times.average_ns for times in kept) / 1e6)
    device = records.h2d + records.compute + records.d2h
    assert found["latencies"] == pytest.approx((device / 1e6).tolist())
