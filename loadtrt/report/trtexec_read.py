"""The files that trtexec exports, read: into records, a profile, layers.

Strict in what must be there, and kind beside it: keys that later versions add are not looked at, and control
characters that trtexec leaves bare in names are taken. Every file that cannot be used is a UsageError of one sentence.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.engines.plan_facts import parse_layers
from loadtrt.errors import UsageError
from loadtrt.measure.profile import LayerTimes, ProfilePass
from loadtrt.records.records import COLUMNS, OK, Records
from loadtrt.report.result_files import Kind, content_of
from loadtrt.report.trtexec import TIMES_KEYS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from loadtrt.measure.layers import Layer
    from loadtrt.report.result_files import ResultFile

_MOST_MS = 1e10  # 115 days: as ns still far from what int64 holds
_LAYER_KEYS = ("timeMs", "averageMs")


def read_times(source: Path | ResultFile) -> Records:
    """--exportTimes as records, one a query in the order of startH2d, all served, on lane 0; ns.

    trtexec stamps Enq by the host's clock and the rest by the GPU's, and nothing ties them together. So all instants
    here are of the GPU's clock: due = submitted = startH2d, completed = endD2h; and of Enq only its duration is kept,
    enqueued = submitted + (endEnq − startEnq). Then h2d, compute, d2h, device and enqueue are trtexec's; latency and
    service are the query's whole time on the GPU, waiting between phases included (8.2's endToEndMs); queue and
    lateness are 0, for nobody knows them. The stamps have six digits: see `stamp_step_ns`; the phases have their own.
    Raises UsageError.
    """
    path, content = content_of(source, Kind.TIMES)
    ms = _numbers(path, content, TIMES_KEYS)
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

    The file tells neither tails nor whether a CUDA graph ran, nor, up to 8.3, medians (but of one
    inference): these are None. Raises UsageError.
    """
    path, content = content_of(source, Kind.LAYER_TIMES)
    match content[0]:
        case {"count": int(count)} if count > 0 and count is not True:
            records = content[1:]
        case _:
            raise UsageError(
                f'{path} does not begin with the count of inferences, such as {{"count": 100}}: it is no whole export'
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
        raise UsageError(f"{path} is no layer information of TensorRT: {error}") from None
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
            return f"record {number} is no object"
        for key in keys:
            if key not in record:
                return f"record {number} has no {key}"
            value: Any = record[key]
            if type(value) not in (int, float) or not 0 <= value < _MOST_MS:
                return f"{key} of record {number} is {json.dumps(value)[:40]}, which is no time in ms"
    raise AssertionError("records without a fault were refused")
