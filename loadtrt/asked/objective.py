"""Objectives (SLOs): a bound on a quantile of a metric, such as "latency.p99 < 10ms"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loadtrt.errors import UsageError
from loadtrt.records.records import METRICS
from loadtrt.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_OBJECTIVES = 8  # of a model: each is a row of the terminal, and four series of metrics
Verdict = Literal["met", "missed", "undecided"]
_FORM = re.compile(r"\s*(\w+)\.(p\d{1,2}(?:\.\d{1,6})?|max)\s*(<=?)\s*([^\s<=>].*?)\s*", re.ASCII)
_BARE = re.compile(r"\d+\.?\d*|\.\d+", re.ASCII)
_NUMBERS = {metric.name: number for number, metric in enumerate(METRICS)}


@dataclass(frozen=True, slots=True)
class Objective:
    """A bound on a quantile of a metric. The objective is met when the share `rank` of all requests is good.

    text: the objective as it is written, "METRIC.pNN < TIME".
    metric: number of the metric in METRICS.
    rank: the quantile, in (0, 1].
    bound_ns: the bound in ns.
    strict: a request that takes exactly the bound is bad ("<"), and not good ("<=").
    """

    text: str
    metric: int
    rank: float
    bound_ns: int
    strict: bool = True

    @property
    def limit_ns(self) -> int:
        """The greatest value of a good request in ns."""
        return self.bound_ns - self.strict

    @property
    def metric_name(self) -> str:
        """Name of the metric, such as "latency"."""
        return METRICS[self.metric].name

    @property
    def quantile(self) -> str:
        """Name of the quantile, such as "p99" or "max"."""
        return self.text.partition(".")[2].partition("<")[0].strip()

    @property
    def name(self) -> str:
        """Metric and quantile, such as "latency.p99"."""
        return f"{self.metric_name}.{self.quantile}"

    def __str__(self) -> str:
        return self.text


def parse_objective(text: str) -> Objective:
    """The objective of "METRIC.pNN < TIME" or "METRIC.pNN <= TIME"; max is the quantile 1. Raises UsageError."""
    matched = _FORM.fullmatch(text)
    if not matched:
        raise UsageError(f"'{text}' is not an objective: write one such as 'latency.p99 < 10ms', or latency.max < 1s")
    name, quantile, relation, bound = matched.groups()
    if name not in _NUMBERS:
        raise UsageError(f"'{text}': there is no metric {name}: the metrics are {', '.join(_NUMBERS)}")
    rank = 1.0 if quantile == "max" else round(float(quantile[1:]) / 100, 8)  # 99.9 / 100 is above 0.999
    if not rank:
        raise UsageError(f"'{text}': p0 bounds nothing: take p50 or a higher one")
    bound_ns = parse_duration(bound)
    if bound_ns <= 0:
        raise UsageError(f"'{text}': every request takes longer than 0: give a bound above 0")
    if _BARE.fullmatch(bound):  # seconds elsewhere; here the author may have meant milliseconds
        raise UsageError(f"'{text}': the bound {bound} has no unit: write {bound}ms or {bound}s")
    written = f"{name}.{quantile} {relation} {' '.join(bound.split())}"
    return Objective(written, _NUMBERS[name], rank, bound_ns, relation == "<")


def overall(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    """The verdict on all objectives together: missed where one is, met where all are; None where there is none."""
    known = set(verdicts)
    order: tuple[Verdict, ...] = ("missed", "undecided", "met")
    return next((verdict for verdict in order if verdict in known), None)
