"""Objectives (SLOs): a bound on a percentile of a metric, a share of the requests, or a number of the whole run."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from loadtrt.errors import UsageError
from loadtrt.records.records import DROPPED, FAILED, METRICS, OK, UNSERVED
from loadtrt.units import NEVER, exact_duration, format_count, parse_duration, parse_rate, parse_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    import numpy.typing as npt

    from loadtrt.records.records import Records

MOST_OBJECTIVES = 8  # of a model: each is a row of the terminal, and four series of metrics
Verdict = Literal["met", "missed", "undecided"]
Kind = Literal["quantile", "errors", "drops", "throughput", "inferences", "goodput", "power", "energy"]
_EXAMPLES: dict[Kind, str] = {  # of all kinds but "quantile"
    "errors": "errors < 1%",
    "drops": "drops < 0.1%",
    "throughput": "throughput > 90/s",
    "inferences": "inferences > 1000/s",
    "goodput": "goodput > 80/s",
    "power": "power < 300W",
    "energy": "energy < 30mJ/inference",
}
UNITS: dict[Kind, str] = {
    "throughput": "requests/s",
    "inferences": "inferences/s",
    "goodput": "requests/s",
    "power": "W",
    "energy": "J/inference",
}
_SHARES = ("errors", "drops")
_LEAST = ("throughput", "inferences", "goodput")  # bounded from below
_FORM = re.compile(r"\s*(\w+)\.(p\d{1,2}(?:\.\d{1,6})?|max)\s*([<>]=?)\s*([^\s<=>].*?)\s*", re.ASCII)
_WITHIN = r"\(\s*latency\s*(<=?)\s*([^\s<=>()][^<=>()]*?)\s*\)"
_NUMBER_FORM = re.compile(rf"\s*({'|'.join(_EXAMPLES)})\s*(?:{_WITHIN})?\s*([<>]=?)\s*([^\s<=>].*?)\s*")
_BARE = re.compile(r"\d+\.?\d*|\.\d+", re.ASCII)
_PHYSICAL: dict[Kind, str] = {"power": "W", "energy": r"J\s*/\s*inference"}
_SCALES = {"u": 1e-6, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3}
_NUMBERS = {metric.name: number for number, metric in enumerate(METRICS)}
_LATENCY, _QUEUE = _NUMBERS["latency"], _NUMBERS["queue"]


@dataclass(frozen=True, slots=True)
class Objective:
    """A bound. Of the kinds "quantile", "errors" and "drops" it is met when the share `rank` of all requests is good;
    of the other kinds, when a number of the whole run is on the right side of `limit`.

    text: the objective as it is written, such as "METRIC.pNN < TIME".
    metric: number of the metric in METRICS; for drops, the one that grows before there are any.
    rank: the quantile, or the share of requests that must be good, in (0, 1].
    bound_ns: the metric's bound in ns, above which a request is bad; NEVER where time does not matter, and 0 for a
        goodput of which `with_bounds` has not yet been asked.
    strict: a request that takes exactly the bound is bad ("<"), and not good ("<=").
    kind: what is bounded.
    limit: the bound of a number, in its unit (UNITS).
    exclusive: the number must not be exactly the limit.
    """

    text: str
    metric: int
    rank: float
    bound_ns: int
    strict: bool = True
    kind: Kind = "quantile"
    limit: float = 0.0
    exclusive: bool = True

    @property
    def limit_ns(self) -> int:
        """The greatest value of a good request in ns."""
        return self.bound_ns - self.strict

    @property
    def of_requests(self) -> bool:
        """Whether a share of the requests must be good, and no number of the whole run is bounded."""
        return self.kind not in UNITS

    @property
    def least(self) -> bool:
        """Whether the number is bounded from below."""
        return self.kind in _LEAST

    @property
    def metric_name(self) -> str:
        """Name of the metric, such as "latency", or the kind of an objective that bounds no metric's quantile."""
        return METRICS[self.metric].name if self.kind == "quantile" else self.kind

    @property
    def quantile(self) -> str:
        """Name of the quantile, such as "p99", "p99.95" or "max"."""
        return quantile_name(self.rank)

    @property
    def name(self) -> str:
        """Metric and quantile, such as "latency.p99", or the kind."""
        return f"{self.metric_name}.{self.quantile}" if self.kind == "quantile" else self.kind

    @property
    def judges_overload(self) -> bool:
        """Whether a load above capacity shows in the verdict."""
        return self.least or (self.kind == "quantile" and METRICS[self.metric].of_unserved)

    @property
    def forgiven(self) -> tuple[int, ...]:
        """Statuses besides OK that are not bad."""
        return (DROPPED,) if self.kind == "errors" else (FAILED, UNSERVED) if self.kind == "drops" else ()

    @property
    def bad_word(self) -> str:
        return {"errors": "failed or not served", "drops": "dropped"}.get(self.kind, "bad")

    @property
    def counted(self) -> tuple[int, int, tuple[int, ...]]:
        """What makes a request good, for a Tally: number of the metric, its greatest value, forgiven statuses."""
        return self.metric, self.limit_ns, self.forgiven

    def bad(self, records: Records) -> npt.NDArray[np.bool_]:
        """Which requests are bad, bool [n]."""
        bad: npt.NDArray[np.bool_] = (records.status != OK) | (METRICS[self.metric].of(records) > self.limit_ns)
        for status in self.forgiven:
            bad &= records.status != status
        return bad

    def holds(self, value: float) -> bool:
        """Whether a value of the bounded number is on the right side of the limit."""
        return not self.exclusive if value == self.limit else (value > self.limit) is self.least

    def attained(self, value: float) -> float:
        """The number over its limit, or for an upper limit the inverse: below 1 the limit is broken."""
        return value / self.limit if self.least else self.limit / value if value else math.inf

    def written(self, value: float) -> str:
        """A value of the bounded number, with its unit: "98.2/s", "251 W", "28.4 mJ/inference"."""
        if self.kind == "power":
            return f"{format_count(value)} W"
        if self.kind == "energy":
            scale, prefix = (1e6, "µ") if value < 1e-3 else (1e3, "m") if value < 1 else (1.0, "")
            return f"{format_count(scale * value)} {prefix}J/inference"
        return f"{format_count(value)}/s"

    def __str__(self) -> str:
        return self.text


def quantile_name(rank: float) -> str:
    """ "p99", "p99.95"; "max" for 1."""
    return "max" if rank == 1 else f"p{100 * rank:.6f}".rstrip("0").rstrip(".")


def parse_objective(text: str) -> Objective:
    """The objective of "METRIC.pNN < TIME", "errors < SHARE", "throughput > RATE" and the like, with <= and >= as well;
    max is the quantile 1. Raises UsageError."""
    if matched := _FORM.fullmatch(text):
        return _of_quantile(text, *matched.groups())
    if matched := _NUMBER_FORM.fullmatch(text):
        kind, within, bound, relation, limit = matched.groups()
        (known,) = (name for name in _EXAMPLES if name == kind)
        return _of_number(text, known, within, bound, relation, " ".join(limit.split()))
    raise UsageError(
        f"'{text}' is not an objective: write one such as 'latency.p99 < 10ms', latency.max < 1s, "
        f"{', '.join(example for example in _EXAMPLES.values())}"
    )


def with_bounds(objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """The objectives, each once; a goodput without a bound of its own has that of the tightest objective on latency.
    Raises UsageError where there is none."""
    bounds = [objective for objective in objectives if objective.metric_name == "latency"]
    tightest = min(bounds, key=lambda objective: objective.limit_ns, default=None)
    return tuple(dict.fromkeys(_within(objective, tightest) for objective in objectives))


def overall(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    """The verdict on all objectives together: missed where one is, met where all are; None where there is none."""
    known = set(verdicts)
    order: tuple[Verdict, ...] = ("missed", "undecided", "met")
    return next((verdict for verdict in order if verdict in known), None)


def _of_quantile(text: str, name: str, quantile: str, relation: str, bound: str) -> Objective:
    if name not in _NUMBERS:
        raise UsageError(f"'{text}': there is no metric {name}: the metrics are {', '.join(_NUMBERS)}")
    _require_direction(text, relation, "<")
    rank = 1.0 if quantile == "max" else round(float(quantile[1:]) / 100, 8)  # 99.9 / 100 is above 0.999
    if not rank:
        raise UsageError(f"'{text}': p0 bounds nothing: take p50 or a higher one")
    written = f"{name}.{quantile} {relation} {' '.join(bound.split())}"
    return Objective(written, _NUMBERS[name], rank, _time(text, bound), relation == "<")


def _of_number(text: str, kind: Kind, within: str | None, bound: str | None, relation: str, limit: str) -> Objective:
    """within, bound: goodput's own bound on latency."""
    _require_direction(text, relation, ">" if kind in _LEAST else "<")
    if _BARE.fullmatch(limit):
        raise UsageError(f"'{text}': the bound {limit} has no unit: write one such as '{_EXAMPLES[kind]}'")
    if within and kind != "goodput":
        raise UsageError(f"'{text}': only goodput has a bound on latency: write '{kind} {relation} {limit}'")
    bound_ns = _time(text, bound) if bound else 0 if kind == "goodput" else NEVER
    metric = _QUEUE if kind == "drops" else _LATENCY
    made = Objective(f"{kind} {relation} {limit}", metric, 1.0, bound_ns, within != "<=", kind, 0, relation in "<>")
    if kind in _SHARES or (kind == "goodput" and limit.endswith("%")):
        made = replace(made, rank=_rank(made, limit))
    else:
        made = replace(made, limit=_physical(text, kind, limit) if kind in _PHYSICAL else parse_rate(limit))
    return _within(made, made) if bound else made


def _rank(objective: Objective, limit: str) -> float:
    """The share of requests that must be good."""
    share, none = parse_share(limit), "goodput >= 100%" if objective.least else f"{objective.kind} <= 0%"
    rank = round(share if objective.least else 1 - share, 10)
    if 0 < rank < 1 or (rank == 1 and not objective.exclusive):
        return rank
    raise UsageError(f"'{objective}' is met by every run or by none: take a share between 0% and 100%, or '{none}'")


def _physical(text: str, kind: Kind, limit: str) -> float:
    """Watts, or joules for each inference."""
    matched = re.fullmatch(rf"(\d+\.?\d*|\.\d+)\s*([uµmk]?){_PHYSICAL[kind]}", limit, re.ASCII)
    value = float(matched[1]) * _SCALES[matched[2]] if matched else 0.0
    if not 0 < value < math.inf:
        raise UsageError(f"'{text}': {limit} is not a bound above 0: write one such as '{_EXAMPLES[kind]}'")
    return value


def _within(objective: Objective, bound: Objective | None) -> Objective:
    """A goodput with the bound of another objective written into it; a share of the requests is a quantile then."""
    if objective.kind != "goodput" or (objective.bound_ns and objective is not bound):
        return objective
    if bound is None:
        raise UsageError(
            f"'{objective}' counts requests within a bound, and there is none: add an objective such as "
            f"'latency.p99 < 10ms', or write '{objective.text.replace('goodput', 'goodput(latency < 10ms)')}'"
        )
    within = f"goodput(latency {'<' if bound.strict else '<='} {exact_duration(bound.bound_ns)})"
    text = objective.text.replace("goodput", within)
    kind: Kind = "goodput" if objective.limit else "quantile"
    return replace(objective, text=text, bound_ns=bound.bound_ns, strict=bound.strict, kind=kind)


def _time(text: str, bound: str) -> int:
    bound_ns = parse_duration(bound)
    if bound_ns <= 0:
        raise UsageError(f"'{text}': every request takes longer than 0: give a bound above 0")
    if _BARE.fullmatch(bound):  # seconds elsewhere; here the author may have meant milliseconds
        raise UsageError(f"'{text}': the bound {bound} has no unit: write {bound}ms or {bound}s")
    return bound_ns


def _require_direction(text: str, relation: str, wanted: str) -> None:
    if relation[0] != wanted:
        better, side = ("more", "below") if wanted == ">" else ("less", "above")
        raise UsageError(f"'{text}': {better} is better: bound it from {side}, with {wanted}")
