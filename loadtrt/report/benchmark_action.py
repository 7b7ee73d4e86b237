"""Results for github-action-benchmark, which keeps their history and draws it: a list of numbers as JSON.

The action takes one direction a file: times and energy are for its tool customSmallerIsBetter, rates for
customBiggerIsBetter. Names are the same from one commit to the next. No number of an INVALID run is written: it would
stay in the history.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from loadtrt.errors import UsageError
from loadtrt.printing import printable
from loadtrt.report.formatting import between
from loadtrt.report.sections import names_of
from loadtrt.report.tracked import parts_of
from loadtrt.units import MILLISECOND_NS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.report.result_files import Loaded
    from loadtrt.report.tracked import Part, Tracked

# One chart each: the others are parts of these.
_TIMES = {"latency.p50", "latency.p90", "latency.p99", "latency.mean", "compute.p50", "compute.p99"}


def smaller_json(loaded: Sequence[Loaded]) -> str:
    """Numbers that are better when they fall. Raises UsageError where there are none, or a run is INVALID."""
    return _json(loaded, bigger=False)


def bigger_json(loaded: Sequence[Loaded]) -> str:
    """Numbers that are better when they rise. Raises UsageError as `smaller_json` does."""
    return _json(loaded, bigger=True)


def _json(loaded: Sequence[Loaded], *, bigger: bool) -> str:
    entries, names = [], names_of([item.file for item in loaded])
    for item in loaded:
        file = f"{names[item.file]}: " if len(loaded) > 1 else ""
        labels = getattr(getattr(item.result, "config", None), "labels", {})
        for part in parts_of(item):
            if part.doubt is not None:
                whose = f"{item.file}: {part.name}" if part.name else item.file
                raise UsageError(f"{whose} does not belong in a history, as it cannot be trusted: {part.doubt}")
            before = file + (f"{part.name}: " if part.name else "")
            entries += [_entry(before, number, part, labels) for number in _chosen(part, bigger=bigger)]
    if not entries:
        kind = "rates" if bigger else "times"
        more = "measure more requests, or leave this output out"
        raise UsageError(f"{' and '.join(item.file for item in loaded)}: no {kind} are known: {more}")
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"


def _chosen(part: Part, *, bigger: bool) -> Iterator[Tracked]:
    rates = {number.name: number.value for number in part.numbers}
    for number in part.numbers:
        if number.bigger_is_better is not bigger:
            continue
        if number.name == "inferences" and math.isclose(number.value, rates.get("throughput", 0.0)):
            continue  # a request is an inference
        if number.unit != "ns" or number.name in _TIMES:
            yield number


def _entry(before: str, number: Tracked, part: Part, labels: Mapping[str, str]) -> dict[str, Any]:
    size, unit = (MILLISECOND_NS, "ms") if number.unit == "ns" else (1, number.unit)
    entry: dict[str, Any] = {
        "name": printable(before + number.name.replace(".", " ", 1)),
        "unit": unit,
        "value": _rounded(number.value / size),
    }
    if number.low is not None or number.high is not None:
        low, high = (None if end is None else end / size for end in (number.low, number.high))
        entry["range"] = f"95 %: {between(low, high, '{:.6g}'.format)}"
    extra = [f"{part.engine.name} on {part.engine.device}, batch {part.engine.batch}"] if part.engine else []
    extra += [f"{key}={value}" for key, value in labels.items()]
    return {**entry, "extra": printable("; ".join(extra))}


def _rounded(value: float) -> float:
    """To six digits: no chart shows more."""
    return float(f"{value:.6g}")
