"""The files that trtexec exports, from loadtrt's own results: times, a profile, layer information, outputs.

Keys, their order and their meaning are trtexec's (sampleReporting.cpp, 8.4 to 11.1). Unlike trtexec's, the files are
always JSON: names are escaped, and numbers keep nanoseconds where trtexec's stop at six digits.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from loadtrt.records.records import Records
    from loadtrt.results.profile_result import LayerTimes, ProfilePass

TIMES_KEYS = (
    *("startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs", "startD2hMs", "endD2hMs"),
    *("h2dMs", "computeMs", "d2hMs", "latencyMs"),
)
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
    return _listed([json.dumps({"count": measured.inferences}), *map(_layer_json, measured.layers)])


def _layer_json(times: LayerTimes) -> str:
    found = {
        "name": times.layer.name,
        "timeMs": times.total_ns / 1e6,
        "averageMs": times.average_ns / 1e6,
        **({} if times.median_ns is None else {"medianMs": times.median_ns / 1e6}),
        "percentage": 100 * times.share,
    }
    return json.dumps(found)


def layer_info_json(text: str) -> str:
    """--exportLayerInfo: the engine inspector's own JSON with control characters in its strings escaped, which 8.6
    leaves bare; nothing else is changed. Raises EngineError for text that is no JSON even then."""
    from loadtrt.report.result_files import refuse_constant  # with every kind of result: not on the way to a run

    def escape(string: re.Match[str]) -> str:
        return _CONTROL.sub(lambda sign: f"\\u{ord(sign[0]):04x}", string[0])

    escaped = _STRING.sub(escape, text)
    try:
        json.loads(escaped, parse_constant=refuse_constant)
    except ValueError as error:
        raise EngineError(f"the engine inspector wrote layer information that is no JSON: {error}") from None
    return escaped


def output_json(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """--exportOutput: outputs by name, with their dimensions ("1x1000", "" of a scalar) and values in C order.

    Integers and bools are integers (true is 1). Floats have the fewest digits that give the same value again, as fp64
    or otherwise as fp32. JSON has no NaN and no infinity; where trtexec writes nan and inf, which nothing loads, these
    are the strings "NaN", "Infinity" and "-Infinity", as in Protocol Buffers' JSON: float() takes them. Packed sub-byte
    types are bytes here: unpack them into ml_dtypes' first.
    """
    return _listed([_output_json(name, array) for name, array in arrays.items()])


def _output_json(name: str, array: npt.NDArray[Any]) -> str:
    dimensions = "x".join(map(str, array.shape))
    values = ", ".join(_values(array.reshape(-1)))
    return f'{{ "name" : {json.dumps(name)}\n  , "dimensions" : "{dimensions}"\n  , "values" : [ {values} ]\n  }}'


def _values(flat: npt.NDArray[Any]) -> list[str]:
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
