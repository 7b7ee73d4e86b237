"""The law of one GPU, X(n) and the distribution of work, pooled over all runs of it; and how wrong it may be.

Runs are samples: X and work would come out a little different from others of the same length. A fleet planned from the
point estimate alone has too few GPUs in half of all cases. So each replication of a simulation draws a law of its own
(nested bootstrap; Barton, Nelson and Xie, Quantifying input uncertainty via simulation confidence intervals, 2014):

- work: each bucket's count is a Poisson number with the measured count as mean (the Poisson bootstrap);
- rarer and longer services than were measured: no draw has any, and a variance of its own stands for them;
- X: the equations of stats/flow_law.py, each with an error of the variance N_a·CV²·φ; the sum of the errors agrees
  with the mean of the work that was drawn, as both come from the same requests. φ is the dispersion of the runs: that
  of parts of a run, and that of whole runs about the pooled law, as when a GPU's clock drifts.

Draws come in pairs, with errors of opposite sign (antithetic variates).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from loadtrt.records.histogram import Histogram, bounds_of
from loadtrt.results.flow import Flow
from loadtrt.sizing.station import Station, interpolated, station, work_of
from loadtrt.stats.flow_law import throughputs
from loadtrt.stats.sample_size import kish_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from loadtrt.sizing.batching import Server

    Floats = npt.NDArray[np.float64]

_DRAWS = 2003  # stream of random numbers, apart from all others of a seed
_SIGNIFICANT = 3.0  # standard deviations from which whole runs differ by more than chance
_RAREST, _HEAVY = 0.001, 0.12  # lognormal services of CV 1 and 2 have 0.05 to 0.10 and 0.12 to 0.35 in 5000 requests
_UNSEEN = 20.0  # times the squared error of the second moment of work: the deviation by rarer services. With 10, p99 of
# log-normal services of CV 2 is above 8 % of intervals of the last look, with 20 above 3 %
_SPREAD = 40  # pairs that tell how well the throughput is known


class Law(Protocol):
    """The model of one GPU, and how wrong it may be."""

    @property
    def station(self) -> Station | Server:
        """By the point estimates."""

    def pair(self, seed: int, number: int) -> tuple[Station | Server, Station | Server] | None:
        """Two draws of what it may be, with errors of opposite sign; None where it is known."""

    def most_per_s(self, seed: int) -> tuple[float, float]:
        """95 % interval of the throughput with an endless backlog."""

    @property
    def unseen(self) -> float:
        """Variance of the logarithm of a quantile of latency by services that were too rare to be measured, of which no
        draw knows."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A law that is known."""

    station: Station
    unseen: float = 0.0

    def pair(self, seed: int, number: int) -> None:
        """Nothing to draw."""

    def most_per_s(self, seed: int) -> tuple[float, float]:  # noqa: ARG002  # of Law
        """The throughput itself, twice."""
        return self.station.most_per_s, self.station.most_per_s


@dataclass(frozen=True, eq=False)
class MeasuredLaw:
    """Pooled equations of X, and work.

    levels, starts, seconds: sums over runs, as in Flow.
    work: histogram of work.
    worked: levels whose requests the histogram has, bool [levels].
    requests: number of requests.
    dispersion: φ.
    alone_s: as of `station`.
    """

    contexts: int
    buffers: int
    levels: npt.NDArray[np.int64]
    starts: Floats
    seconds: Floats
    work: Histogram
    worked: npt.NDArray[np.bool_]
    requests: int
    dispersion: float = 1.0
    alone_s: float | None = None
    _pairs: dict[tuple[int, int], tuple[Station, Station]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def cv(self) -> float:
        """Coefficient of variation of work."""
        return work_of(self.work)[2]

    @cached_property
    def station(self) -> Station:
        """By the point estimates."""
        return self._station(None, 0.0)

    def throughput(self, level: int) -> float:
        """X, requests per second."""
        return interpolated(dict(zip(self.levels.tolist(), self._solved(0.0).tolist(), strict=True)))(level)

    def pair(self, seed: int, number: int) -> tuple[Station, Station]:
        """Two draws with errors of opposite sign, the same for the same numbers."""
        key = (seed, number)
        if key not in self._pairs:
            random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DRAWS, number)))
            counts = self.work.counts[np.flatnonzero(self.work.counts)].astype(np.float64)
            drawn = random.poisson(counts).astype(np.float64)
            scale = self.cv * self.dispersion**0.5
            errors = random.standard_normal(len(self.levels)) * np.sqrt(self.starts) * scale
            left = random.standard_normal() * self.cv * max(self.dispersion - 1, 0.0) ** 0.5
            up = self._drawn(drawn, errors, left)
            down = self._drawn(np.maximum(2 * counts - drawn, 0.0), -errors, -left)
            self._pairs[key] = (up, down)
        return self._pairs[key]

    def most_per_s(self, seed: int) -> tuple[float, float]:
        """95 % interval of the throughput with an endless backlog."""
        drawn = [each.most_per_s for number in range(_SPREAD) for each in self.pair(seed, number)]
        spread = 1.96 * float(np.std(np.log(drawn)))
        most = self.station.most_per_s
        return most * float(np.exp(-spread)), most * float(np.exp(spread))

    @cached_property
    def unseen(self) -> float:
        """By the error of the second moment of work, on which queues depend: its relative variance is 1 / k − 1 / n, k
        the number of services that make it up."""
        used = np.flatnonzero(self.work.counts)
        counts = self.work.counts[used]
        size = kish_size(bounds_of(used)[0].astype(np.float64) ** 2, counts)
        return float(_UNSEEN * (1 / size - 1 / counts.sum())) ** 2 if self.cv else 0.0

    def _drawn(self, counts: Floats, errors: Floats, left: float) -> Station:
        if not counts.any():
            counts = np.ones_like(counts)
        mean = work_of(self.work, counts)[1] / work_of(self.work)[1]
        tied = np.where(self.worked, self.starts, 0.0)
        total = tied.sum() * (1 / mean - 1) + left * tied.sum() ** 0.5
        return self._station(counts, errors + tied / tied.sum() * (total - errors[self.worked].sum()), mean)

    def _station(self, counts: Floats | None, errors: Floats | float, mean: float = 1.0) -> Station:
        solved = dict(zip(self.levels.tolist(), self._solved(errors).tolist(), strict=True))
        alone_s = None if self.alone_s is None else self.alone_s * mean
        return station(self.contexts, self.buffers, interpolated(solved), work_of(self.work, counts)[0], alone_s)

    def _solved(self, errors: Floats | float) -> Floats:
        return throughputs(self.levels, self.starts, self.seconds, self.contexts, self.cv**2, errors)


def pooled(
    contexts: int, buffers: int, flows: Sequence[Flow], works: Sequence[Flow], alone_s: float | None = None
) -> MeasuredLaw:
    """The law of several runs of one engine. works: those of `flows` whose work counts."""
    levels = sorted({level for flow in flows for level in flow.levels})
    starts, seconds = np.zeros(len(levels)), np.zeros((len(levels), len(levels)))
    work = Histogram()
    for flow in flows:
        at = np.searchsorted(levels, flow.levels)
        starts[at] += flow.starts
        seconds[np.ix_(at, at)] += np.array(flow.seconds)
    for flow in works:
        work.merge(Histogram.from_dict(flow.work))
    worked = np.isin(levels, [level for flow in works for level in flow.levels])
    requests = sum(flow.requests for flow in flows)
    law = MeasuredLaw(contexts, buffers, np.array(levels), starts, seconds, work, worked, requests, 1.0, alone_s)
    within = sum(flow.dispersion * flow.requests for flow in flows) / requests
    dispersion = max(within, _between(law, flows))
    return replace(law, dispersion=dispersion)


def _between(law: MeasuredLaw, flows: Sequence[Flow]) -> float:
    """The variance of the mean work of whole runs over that of independent requests, where it is significant."""
    if len(flows) < 2 or not law.cv:
        return 1.0
    solved = dict(zip(law.levels.tolist(), law._solved(0.0).tolist(), strict=True))
    deviations = [
        (float(np.sum(np.array(flow.seconds) @ [solved[level] for level in flow.levels])) - sum(flow.starts))
        / (flow.requests**0.5 * law.cv)
        for flow in flows
    ]
    square = float(np.mean(np.square(deviations)))
    return square if square > 1 + _SIGNIFICANT * (2 / len(flows)) ** 0.5 else 1.0


def closed_flow(in_flight: int, requests: int, per_s: float, latency: Histogram) -> Flow:
    """The flow of a closed loop of which no better is known: X(n) is its throughput, latencies are work in their own
    unit."""
    return Flow(
        levels=(in_flight,),
        starts=(float(requests),),
        seconds=((requests / per_s,),),
        requests=requests,
        work=latency.to_dict(),
    )


def heavy_tail(law: Law) -> str | None:
    """A note if a few requests make up much of E[W²], on which queues depend: samples of such a law vary more than any
    resampling of one shows; None otherwise."""
    squares = np.sort(np.square(law.station.works))
    largest = squares[-max(round(len(squares) * _RAREST), 1) :]
    share = float(largest.sum() / squares.sum())
    if share < _HEAVY:
        return None
    return (
        f"service times have a heavy tail: the slowest {100 * _RAREST:g} % of requests make up {100 * share:.0f} % of "
        "their second moment, on which queues depend, and rarer ones may be slower still: the intervals may be too "
        "narrow. Measure for longer, and plan with headroom"
    )


def alone_above(law: Law, limit_s: float, seed: int) -> tuple[float, float]:
    """95 % interval of the share of requests that take longer than that even alone on a GPU."""
    pairs = [law.pair(seed, number) or (law.station,) for number in range(_SPREAD)]
    drawn = [float(np.mean(each.works * each.alone_s > limit_s)) for pair in pairs for each in pair]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)
