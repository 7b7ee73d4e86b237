"""The files that trtexec exports, written and read: times, a profile, layer information; outputs are only written.

Keys, their order and their meaning are trtexec's (sampleReporting.cpp, 8.4 to 11.1). Unlike trtexec's, the files that
are written are always JSON: names are escaped, and numbers keep nanoseconds where trtexec's stop at six digits.
Reading is strict in what must be there and lenient beside it: keys that later versions add are not looked at, and
control characters that trtexec leaves bare in names are accepted. A file that cannot be used is a UsageError.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.engines.plan_facts import parse_layers
from loadtrt.errors import EngineError, UsageError
from loadtrt.printing import shortened
from loadtrt.reading_files import parse_json
from loadtrt.records.records import COLUMNS, OK, Records
from loadtrt.report.result_files import Kind, content_of
from loadtrt.results.profile_result import LayerTimes, ProfilePass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from loadtrt.report.result_files import ResultFile
    from loadtrt.results.engine_info import Layer

_MOST_MS = 1e10  # 115 days: as ns still far from what int64 holds
_LAYER_KEYS = ("timeMs", "averageMs")
TIMES_KEYS = (
    *("startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs", "startD2hMs", "endD2hMs"),
    *("h2dMs", "computeMs", "d2hMs", "latencyMs"),
)
# TensorRT 7's: copies in are called In, copies out Out, and 7.0 has no times of enqueuing.
_COPIES_7 = {key: key.replace("H2d", "In").replace("D2h", "Out") for key in TIMES_KEYS}
_COPIES_7 |= {"h2dMs": "inMs", "d2hMs": "outMs"}
_TIMES = "{ " + ", ".join(f'"{key}" : %.6f' for key in TIMES_KEYS) + " }"
_BLOCK = 1 << 14  # rows that become Python floats at a time
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f]")
_NOT_FINITE = {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}


def times_json(records: Records, start_ns: int, copies: bool) -> str:
    """--exportTimes: the served requests in the order in which their inputs started to be copied; floats in ms.

    Enq is submitted to enqueued, compute ends at completed − d2h, D2h is from there to completed; latencyMs = h2dMs +
    computeMs + d2hMs, which has no waiting in it. When a copy in began is not recorded, only how long it took, so that
    pair is derived: a lane has one stream for it, which starts a copy when it is submitted and the one before is done:

        L_i = max(submitted_i, L_{i−1}) + h2d_i,  endH2d_i = min(L_i, startCompute_i),  startH2d_i = endH2d_i − h2d_i

    Without `copies` H2d is at the start of compute and D2h at its end. Zero is `start_ns`, or the first stamp where the
    GPU clock's mapping puts one a little before it. All stamps are of one clock, unlike trtexec's.
    """
    served = records.ok
    compute_end = served.completed - served.d2h
    compute_start = compute_end - served.compute
    if copies:
        copied = copied_in(served, compute_start)
        copies_in, copies_out = (copied - served.h2d, copied), (compute_end, served.completed)
    else:
        copies_in, copies_out = (compute_start, compute_start), (compute_end, compute_end)
    stamps = (served.submitted, served.enqueued, *copies_in, compute_start, compute_end, *copies_out)
    rows = np.stack(stamps, axis=1)[np.argsort(copies_in[0], kind="stable")]
    rows -= min(start_ns, int(rows.min(initial=start_ns)))
    phases = rows[:, 3::2] - rows[:, 2::2]
    table = np.hstack((rows, phases, phases.sum(axis=1, keepdims=True)))
    lines = []
    for first in range(0, len(table), _BLOCK):
        lines += [_TIMES % tuple(row) for row in (table[first : first + _BLOCK] / 1e6).tolist()]
    return _listed(lines)


def copied_in(records: Records, compute_start: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """endH2d of each record, ns [n]: the law in `times_json`, whose recursion is a running maximum over sums."""
    end = np.empty_like(compute_start)
    order = np.lexsort((records.submitted, records.lane))
    for lane in np.split(order, np.flatnonzero(np.diff(records.lane[order])) + 1):
        h2d = records.h2d[lane]
        copied = np.cumsum(h2d)
        end[lane] = np.maximum.accumulate(records.submitted[lane] - (copied - h2d)) + copied
    return np.minimum(end, compute_start)


def profile_json(measured: ProfilePass) -> str:
    """--exportProfile: the count of inferences, then the layers in the order they ran in; ms, percentage of 0 to 100.

    A median that is not known is left out, as trtexec did up to 8.3."""
    records: list[dict[str, Any]] = [{"count": measured.inferences}]
    for times in measured.layers:
        median = {} if times.median_ns is None else {"medianMs": times.median_ns / 1e6}
        means = {"timeMs": times.total_ns / 1e6, "averageMs": times.average_ns / 1e6, **median}
        records.append({"name": times.layer.name, **means, "percentage": 100 * times.share})
    return _listed([json.dumps(record) for record in records])


def layer_info_json(text: str) -> str:
    """--exportLayerInfo: the engine inspector's own JSON with control characters in its strings escaped, which 8.6
    leaves bare; nothing else is changed. Raises EngineError for text that is not JSON even then."""

    def escape(string: re.Match[str]) -> str:
        return _CONTROL.sub(lambda sign: f"\\u{ord(sign[0]):04x}", string[0])

    escaped = _STRING.sub(escape, text)
    try:
        parse_json(escaped)
    except ValueError as error:
        raise EngineError(f"the engine inspector wrote layer information that is not JSON: {error}") from None
    return escaped


def output_json(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """--exportOutput: outputs by name, with their dimensions ("1x1000", "" of a scalar) and values in C order.

    Integers and bools are integers (true is 1). Floats have the fewest digits that give the same value again, as fp64
    or otherwise as fp32. JSON has no NaN and no infinity; where trtexec writes nan and inf, which nothing loads, these
    are the strings "NaN", "Infinity" and "-Infinity", as in Protocol Buffers' JSON: float() takes them. Packed sub-byte
    types are bytes here: unpack them into ml_dtypes' first.
    """
    outputs = []
    for name, array in arrays.items():
        dimensions = "x".join(map(str, array.shape))
        head = f'{{ "name" : {json.dumps(name)}\n  , "dimensions" : "{dimensions}"\n  , '
        outputs.append(f'{head}"values" : [ {", ".join(_values(array.reshape(-1)))} ]\n  }}')
    return _listed(outputs)


def _values(flat: npt.NDArray[Any]) -> list[str]:
    if flat.dtype.kind == "O":  # ONNX Runtime's strings
        return [json.dumps(str(value)) for value in flat]
    if flat.dtype.kind in "iu":
        return [str(value) for value in flat.tolist()]
    if flat.dtype == bool or "int" in flat.dtype.name:  # ml_dtypes' int4 is of numpy's kind "V", as its floats are
        return _values(flat.astype(np.int8))
    exact = flat if flat.dtype == np.float64 else flat.astype(np.float32)
    texts: list[str] = exact.astype("U").tolist()
    return [_NOT_FINITE.get(text, text) for text in texts]


def _listed(items: Sequence[str]) -> str:
    """A list as trtexec breaks it into lines."""
    return "[\n  " + "\n, ".join(items) + "\n]\n"


def read_times(source: Path | ResultFile) -> Records:
    """--exportTimes as records, one a query in the order of startH2d, all served, on lane 0; ns.

    trtexec stamps Enq by the host's clock and the rest by the GPU's, and nothing ties them together. So all instants
    here are of the GPU's clock: due = submitted = startH2d, completed = endD2h; and of Enq only its duration is kept,
    enqueued = submitted + (endEnq − startEnq). Then h2d, compute, d2h, device and enqueue are trtexec's; latency and
    service are the query's whole time on the GPU, waiting between phases included (endToEndMs, up to 8.2); queue and
    lateness are 0, for nobody knows them, as enqueue is in files of 7.0. The stamps have six digits: see
    `stamp_step_ns`; the phases have their own. Raises UsageError.
    """
    path, content = content_of(source, Kind.TIMES)
    old = isinstance(content[0], dict) and "startInMs" in content[0]
    ms = _numbers_of_7(path, content) if old else _numbers(path, content, TIMES_KEYS)
    backwards = np.flatnonzero((ms[:, 1:8:2] < ms[:, 0:8:2]).any(axis=1) | (ms[:, 7] < ms[:, 2]))
    if len(backwards):
        raise UsageError(f"{path}: record {backwards[0] + 1} ends before it starts; export it again")
    start_enq, end_enq, start, _, _, _, _, end, h2d, compute, d2h, _ = np.rint(ms * 1e6).astype(np.int64).T
    rows = np.zeros((len(ms), len(COLUMNS)), np.int64)
    instants = {"due": start, "submitted": start, "enqueued": start + (end_enq - start_enq), "completed": end}
    for name, values in (instants | {"h2d": h2d, "compute": compute, "d2h": d2h}).items():
        rows[:, COLUMNS.index(name)] = values
    rows[:, COLUMNS.index("status")] = OK
    return Records(rows[np.argsort(start, kind="stable")])


def _numbers_of_7(path: Path, content: Sequence[Any]) -> npt.NDArray[np.float64]:
    """The numbers of a file that trtexec of TensorRT 7 wrote, in the order of TIMES_KEYS. In 7.1 and 7.2 it has the
    stamps of enqueuing and of copies in under each other's names: of the two, those of the copies are inMs apart."""
    if "startEnqMs" not in content[0]:
        known = _numbers(path, content, [_COPIES_7[key] for key in TIMES_KEYS[2:]])
        return np.hstack((np.zeros((len(known), 2)), known))
    ms = _numbers(path, content, [_COPIES_7[key] for key in TIMES_KEYS])
    h2d = ms[:, TIMES_KEYS.index("h2dMs")]
    if np.abs(ms[:, 1] - ms[:, 0] - h2d).sum() < np.abs(ms[:, 3] - ms[:, 2] - h2d).sum():
        ms[:, :4] = ms[:, [2, 3, 0, 1]]
    return ms


def stamp_step_ns(times: Records) -> int:
    """The step of the last stamps in a file of times, ns; 1 where they are finer than trtexec writes them.

    trtexec prints six significant digits: beyond 1 s of running its stamps have steps of 10 µs, beyond 10 s of 100 µs.
    A difference of two stamps, as the time of enqueuing, is off by up to one step; its mean over many is not.
    """
    stamps = np.concatenate((times.submitted, times.completed))
    steps = 10 ** np.clip(np.floor(np.log10(np.maximum(stamps, 1))).astype(np.int64) - 5, 0, None)
    return int(steps.max()) if not (stamps % steps).any() else 1


def read_profile(source: Path | ResultFile, layer_info: Path | None = None) -> ProfilePass:
    """--exportProfile as a pass, its layers joined by name with `layer_info` where that is given.

    The file has neither tails nor whether a CUDA graph ran, nor, up to 8.3, medians (except of one
    inference): these are None. Raises UsageError.
    """
    path, content = content_of(source, Kind.LAYER_TIMES)
    match content[0]:
        case {"count": int(count)} if count > 0 and count is not True:
            records = content[1:]
        case _:
            raise UsageError(
                f'{path} does not begin with the count of inferences, such as {{"count": 100}}: export it again'
            )
    if not records:
        raise UsageError(f"{path} has no layers: profile an engine whose profiling verbosity is not NONE")
    medians = isinstance(records[0], dict) and "medianMs" in records[0]
    times_ns = _numbers(path, records, (*_LAYER_KEYS, "medianMs") if medians else _LAYER_KEYS, first=2) * 1e6
    if not all(isinstance(record.get("name"), str) for record in records):
        raise UsageError(f"{path}: a record has no name; export it again")
    layers = _join([record["name"] for record in records], path, layer_info)
    whole = math.fsum(times_ns[:, 0])
    return ProfilePass(
        mode=None,
        inferences=count,
        layers=tuple(
            LayerTimes(
                layer=layer,
                count=count,
                total_ns=total,
                average_ns=average,
                median_ns=median[0] if median else average if count == 1 else None,
                p99_ns=None,
                share=total / whole if whole else 0.0,
            )
            for layer, (total, average, *median) in zip(layers, times_ns.tolist(), strict=True)
        ),
        layers_ns=whole / count,
        inference_ns=None,
    )


def read_layer_info(source: Path | ResultFile) -> tuple[Layer, ...]:
    """--exportLayerInfo, in the inspector's form up to 10 or from 11 on. Raises UsageError."""
    path, content = content_of(source, Kind.LAYERS)
    try:
        layers = parse_layers(json.dumps(content))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is not layer information of TensorRT: {error}") from None
    nameless = next((number for number, layer in enumerate(layers, 1) if not layer.name), None)
    if nameless is not None or not layers:
        what = "has no layers" if nameless is None else f"has no name for layer {nameless}"
        raise UsageError(f"{path} {what}: build the engine with the profiling verbosity DETAILED and export it again")
    return layers


def _join(names: Sequence[str], path: Path, layer_info: Path | None) -> list[Layer]:
    """What is known of each layer; of a name that comes twice, the first is the first there too."""
    alone = _by_place(parse_layers(json.dumps({"Layers": names})))
    if layer_info is None:
        return list(alone.values())
    known = _by_place(read_layer_info(layer_info))
    if not known.keys() & alone.keys():
        raise UsageError(f"{layer_info} knows no layer of {path}: give the layer information of the same engine")
    return [known.get(place, layer) for place, layer in alone.items()]


def _by_place(layers: Sequence[Layer]) -> dict[tuple[str, int], Layer]:
    places: dict[tuple[str, int], Layer] = {}
    seen: dict[str, int] = {}
    for layer in layers:
        seen[layer.name] = place = seen.get(layer.name, -1) + 1
        places[layer.name, place] = layer
    return places


def _numbers(path: Path, records: Sequence[Any], keys: Sequence[str], first: int = 1) -> npt.NDArray[np.float64]:
    """The numbers under these keys, ms [records, keys], all of 0 or more. first: the number of the first record in its
    file. Raises UsageError."""
    pick = itemgetter(*keys)
    with suppress(KeyError, TypeError, OverflowError):
        values = [pick(record) for record in records]
        if {type(value) for row in values for value in row} <= {int, float}:
            numbers = np.array(values, np.float64)
            if ((numbers >= 0) & (numbers < _MOST_MS)).all():
                return numbers
    raise UsageError(f"{path}: {_fault(records, keys, first)}; export it again")


def _fault(records: Sequence[Any], keys: Sequence[str], first: int) -> str:
    for number, record in enumerate(records, first):
        if not isinstance(record, dict):
            return f"record {number} is not an object"
        for key in keys:
            if key not in record:
                return f"record {number} has no {key}"
            value: Any = record[key]
            if type(value) not in (int, float) or not 0 <= value < _MOST_MS:
                return f"{key} of record {number} is {shortened(json.dumps(value), 40)}, which is not a time in ms"
    raise AssertionError("records without a fault were refused")
