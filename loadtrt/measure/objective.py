"""Objectives: a bound on a quantile of a metric, such as "latency.p99 < 10ms"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loadtrt.errors import UsageError
from loadtrt.measure.records import METRICS
from loadtrt.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

Verdict = Literal["met", "missed", "undecided"]
_FORM = re.compile(r"\s*(\w+)\.(p\d{1,2}(?:\.\d{1,6})?|max)\s*<=?\s*(\S.*?)\s*", re.ASCII)
_BARE = re.compile(r"\d+\.?\d*|\.\d+", re.ASCII)
_NUMBERS = {metric.name: number for number, metric in enumerate(METRICS)}


@dataclass(frozen=True, slots=True)
class Objective:
    """text: as it was given. metric: its number in METRICS. rank: the quantile, in (0, 1]. bound_ns: the most it may
    be. A request is good when its metric is within the bound: the objective is met when `rank` of all requests are."""

    text: str
    metric: int
    rank: float
    bound_ns: int


def parse_objective(text: str) -> Objective:
    """An objective of "METRIC.pNN < TIME"; max is the quantile 1. Raises UsageError."""
    found = _FORM.fullmatch(text)
    if not found:
        raise UsageError(f"'{text}' is no objective: write one such as 'latency.p99 < 10ms', or latency.max < 1s")
    name, quantile, bound = found.groups()
    if name not in _NUMBERS:
        raise UsageError(f"'{text}': there is no metric {name}: the metrics are {', '.join(_NUMBERS)}")
    rank = 1.0 if quantile == "max" else round(float(quantile[1:]) / 100, 8)  # 99.9 / 100 is above 0.999
    if not rank:
        raise UsageError(f"'{text}': p0 says nothing: take p50 or a higher one")
    if _BARE.fullmatch(bound):  # seconds elsewhere; here who wrote it may have meant milliseconds, and would never know
        raise UsageError(f"'{text}': the bound {bound} has no unit: write {bound}ms or {bound}s")
    bound_ns = parse_duration(bound)
    if bound_ns <= 0:
        raise UsageError(f"'{text}': no request takes less than no time: give a bound above 0")
    return Objective(f"{name}.{quantile} < {' '.join(bound.split())}", _NUMBERS[name], rank, bound_ns)


def quantile_of(text: str) -> str:
    """The one that an objective binds, which may be of another time: "p99"."""
    return text.partition(".")[2].partition("<")[0].strip()


def overall(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    """On all objectives together: missed where one is, met where all are; None where there is no verdict on any."""
    known = set(verdicts)
    order: tuple[Verdict, ...] = ("missed", "undecided", "met")
    return next((verdict for verdict in order if verdict in known), None)
