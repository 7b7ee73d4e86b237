"""Rates, power and energy of the workers of a fleet, as one.

Rates add up. Of a load whose rate changes a worker may get requests for a short part of the run, as under sticky
routing, and counts its rate from its first completion to its last. There the fleet counts as one process would: n
requests, n₁ of them at the first completion t₁ of all, over the time until the last one,

    (n − n₁) / (tₙ − t₁)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtrt.results.breakdown import ConfidenceInterval, Throughput
from loadtrt.results.run_result import ObjectiveShare
from loadtrt.stats.idle_workers import got_none
from loadtrt.stats.whole_run import RATE_CHANGES, more_needed, verdict_on_number
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.asked.model import Model
    from loadtrt.asked.objective import Objective
    from loadtrt.results.run_result import ModelResult
    from loadtrt.stats.adding import Adding, Ends


def throughput_of(asked: Model, parts: Sequence[ModelResult], adding: Adding) -> Throughput:
    """Of all workers, as far as the rate of each is known: one that served nothing adds none."""
    known = [(part.ok, part.throughput, rate) for part in parts if (rate := part.throughput.requests_per_s) is not None]
    bounded = [(ok, rate, ends) for ok, throughput, rate in known if (ends := throughput.confidence) is not None]
    confidence = None
    if known and len(bounded) == len(known):
        low, high = adding.ends([(rate, ends.low, ends.high) for _, rate, ends in bounded])
        size = adding.size((ok, ends.effective) for ok, _, ends in bounded)
        confidence = ConfidenceInterval(low=low, high=high, effective=size)
    requests = math.fsum(rate for _, _, rate in known) if known else None
    inferences = math.fsum(of_worker.inferences_per_s or 0.0 for _, of_worker, _ in known) if known else None
    span = _span(parts)
    if span is not None and not asked.load.steady_rate:
        ok = sum(part.ok for part in parts)
        first = sum(_at_first(part) for part in parts if (part.throughput.span_ns or (None,))[0] == span[0])
        requests = (ok - first) * SECOND_NS / (span[1] - span[0]) if span[1] > span[0] else None
        inferences = None if requests is None else requests * sum(part.inferences for part in parts) / ok
    offered = [rate for part in parts if (rate := part.throughput.offered_per_s) is not None]
    return Throughput(
        requests_per_s=requests,
        inferences_per_s=inferences,
        offered_per_s=math.fsum(offered) if offered else None,
        confidence=confidence,
        span_ns=span,
    )


def _span(parts: Sequence[ModelResult]) -> tuple[int, int] | None:
    spans = [part.throughput.span_ns for part in parts if part.throughput.span_ns is not None]
    return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None


def _at_first(part: ModelResult) -> int:
    """How many of a worker's requests were served at its first completion."""
    first, last = part.throughput.span_ns or (0, 0)
    return part.ok - round((part.throughput.requests_per_s or 0.0) * (last - first) / SECOND_NS)


def share_of_number(
    asked: Model,
    objective: Objective,
    shares: Sequence[ObjectiveShare],
    parts: Sequence[ModelResult],
    per_gpu: Sequence[int],
    throughput: Throughput,
    adding: Adding,
) -> ObjectiveShare:
    """The verdict on a number of the whole run.

    shares, parts: of each worker.
    per_gpu: places of the workers whose GPUs are different ones: two on one GPU share its power and its energy, which
        each has measured.
    throughput: of all workers.
    """
    good, requests = sum(share.good for share in shares), sum(share.requests for share in shares)
    if objective.kind in ("power", "energy"):
        value, (low, high) = _of_gpus(objective, shares, parts, per_gpu, adding)
        reason = next((share.reason for share in shares if share.value is None), None)
    else:
        value, (low, high), reason = _of_rate(asked, objective, shares, parts, throughput, adding)
    verdict = verdict_on_number(objective, low, high)
    return ObjectiveShare(
        objective=objective,
        good=good,
        requests=requests,
        value_ns=None,
        verdict=verdict,
        reason=reason or more_needed(objective, value, low, high) if verdict == "undecided" else None,
        value=value,
        value_low=low,
        value_high=high,
    )


def _of_gpus(
    objective: Objective,
    shares: Sequence[ObjectiveShare],
    parts: Sequence[ModelResult],
    per_gpu: Sequence[int],
    adding: Adding,
) -> tuple[float | None, Ends]:
    """The sum over all GPUs; None where one is not known."""
    whole = max(sum(part.inferences for part in parts), 1) if objective.kind == "energy" else 1
    weights = [parts[place].inferences / whole if objective.kind == "energy" else 1.0 for place in per_gpu]
    counted = [(shares[place], weight) for place, weight in zip(per_gpu, weights, strict=True) if weight]
    known = [
        (share.value * weight, _times(share.value_low, weight), _times(share.value_high, weight))
        for share, weight in counted
        if share.value is not None
    ]
    if not known or len(known) < len(counted):
        return None, (None, None)
    return math.fsum(value for value, _, _ in known), adding.ends(known)


def _of_rate(
    asked: Model,
    objective: Objective,
    shares: Sequence[ObjectiveShare],
    parts: Sequence[ModelResult],
    throughput: Throughput,
    adding: Adding,
) -> tuple[float | None, Ends, str | None]:
    """A rate of all workers with its interval, and why that is not known; a worker that was due none adds none."""
    if throughput.requests_per_s is None:
        return None, (None, None), "too few requests were served for a rate"
    if not asked.load.steady_rate:
        ok, rate = sum(part.ok for part in parts), throughput.requests_per_s
        goodput = rate * sum(share.good for share in shares) / max(ok, 1)
        values = {"goodput": goodput, "inferences": throughput.inferences_per_s}
        return values.get(objective.kind, rate), (None, None), RATE_CHANGES
    served = [share for share, part in zip(shares, parts, strict=True) if not got_none(part)]
    known = [(share.value, share.value_low, share.value_high) for share in served if share.value is not None]
    ends = adding.ends(known) if len(known) == len(served) else (None, None)
    return math.fsum(value for value, _, _ in known), ends, None


def _times(end: float | None, weight: float) -> float | None:
    return None if end is None else end * weight
