"""Stalls: times in which a lane, or all of them, did nothing though requests were in flight.

A stall lengthens whatever is in flight, and a long service is long by itself. The *span* of a request is the time in
which its lane served it: from its submission, or from the completion before it on that lane, to its own. v is a span
over the median span of its kind (the part of a mix, the size of a formed batch), so that parts of a mix that differ are
all 1. Only spans of LEAST_SPANS medians and more, and of twice the mean time between completions of busy lanes times
the lanes (a device that lanes share serves them in turn), are looked at. Three laws, each with a share of ALARM:

**All lanes at once.** In a *silence* no lane completes anything. Where lanes are independent, one of length g in which
requests of the ages a_j are in flight, or are submitted, happens with a probability of

    p = Π_j S(a_j + g) / S(a_j)        S: the run's own share of spans that are as long

(ages at its start, in medians of the request's kind; 0 for those submitted in it). Silences with two lanes and more are
stalls where Benjamini and Hochberg reject them at ALARM (Controlling the false discovery rate, 1995): where nothing
stalls, that names any in a share of ALARM of runs. Lanes of one device are not independent, so the law below must hold
of silences, too, each counted by the age at its end of the youngest request that was in flight at its start. A silence
is no stall where one of these is not long for its kind: that one was being computed.

**Apart from all others.** For the k-th longest of n values x₁ ≥ x₂ ≥ …, i·ln(xᵢ/xᵢ₊₁) are independent and exponential
with a mean ξ where the tail is a power law (Rényi, 1953; Hill, 1975), and become smaller towards the longest in lighter
tails, the lognormal's too. ξ is the mean of the next NEIGHBOURS, so that

    P(j · ln(x_j/x_{j+1}) ≥ y) ≤ (1 + y/(m·ξ))^−m,    m = NEIGHBOURS, j = 1, 2, …, each with ALARM / (j(j + 1))

where j counts those of the lane that has most of them: a stall of all lanes counts once. Rare services that are as long
by themselves look the same: a bimodal law has them. So the spans apart must be too few for a part of one in a hundred
of a lane's (binomial, by 99 %: one in 662, two in 838, …), and from RARE on a thousandth. What a request spent outside
of its device time (copies and computation) is no service, and needs to be no rarer than a tenth.

**At equal distances** (steady loads): the phases of the ends of the N longest spans, N = 16, 32, … LONGEST. With
R = |Σ exp(2πi·f·t)| over the N, less N times the mean over all spans, R²/N exceeds z with a probability of e^−z at any
f where long services come at random (Rayleigh, 1880), divided by the spectrum of a renewal process whose events take
the time of those spans; z must be beyond ln(frequencies · N's / ALARM).

A *stall* lasts for the silence within the span, where that is half of it: then no lane completed anything. Otherwise
one lane stood still. Stalls are reported where they delayed LEAST_LATE of all requests, or took LEAST_TIME of the run.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.records import FAILED, Records
from loadtrt.results.steadiness import Stall
from loadtrt.stats.blocks import spans_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from loadtrt.stats.blocks import Places, Series, Spans

    Interval = tuple[int, int, int]  # start and end, ns; the lane that stood still, -1: all

LEAST_SPANS = 5
LEAST_LATE = 0.001  # of the requests: what p99.9 shows
LEAST_TIME = 0.001  # of the run
ALARM = 0.0025  # for each law, and for the time outside of the device: together 1 %
NEIGHBOURS = 100
RARE = 3_000
LONGEST = 2_048
MOST_TIME = 0.3  # of the run, for stalls at equal distances: longer services in several lanes leave no other places
_LEAST = 50
_LEAST_SPREAD = 0.01  # of spans: nearly constant ones differ by the clock alone
_ALIKE = 0.001  # of a span: less is the clock's
_EXPLAINED = 0.05  # of the spans are as long: nothing out of the ordinary
_FEW = (459, 662, 838, 1001)  # requests of which none, one, two … are of a part of one in a hundred: n_min of LoadGen
_FOLLOWED = 1000  # the most stalls whose delayed requests are counted: the longest ones
_BLOCK = 1 << 12
_CELLS = 1 << 22  # silences × lanes that are looked at: 32 MiB for each array of them


def stall_of(records: Records, start_ns: int, places: int, sets: int = 0, steady: bool = True) -> Stall | None:
    """The stalls of a run; None without any, or where they mattered little.

    records: all or the first, in any order.
    start_ns: when measuring began.
    places: requests that the engine holds, lanes × buffers.
    sets: input sets of a kind of request; 0: all are of one kind.
    steady: whether the load is steady; otherwise what comes at equal distances may be the load's.
    """
    records = Records(records.rows[(records.status <= FAILED) & (records.lane >= 0)])
    if len(records) < _LEAST:
        return None
    spans = spans_of(records, sets)
    if len(spans.end) < _LEAST:
        return None
    return _told(records, _intervals(spans, steady), start_ns, places)


def _intervals(spans: Spans, steady: bool) -> list[Interval]:
    """All stalls in order, none within another."""
    lanes = np.unique(spans.lane)
    reached = np.maximum.accumulate(spans.end[np.argsort(spans.start, kind="stable")])
    begun = np.sort(spans.start)
    busy = reached[-1] - begun[0] - int(np.maximum(begun[1:] - reached[:-1], 0).sum())
    least_ns = 2 * len(lanes) * busy / len(spans.end)
    long = (spans.value >= LEAST_SPANS) & (spans.end - spans.start >= least_ns)
    found = _silences(spans, lanes, least_ns) if len(lanes) > 1 else []
    chosen = set(_rare(spans, spans.value, long, None))
    chosen |= set(_rare(spans, spans.outside, long & (spans.outside >= LEAST_SPANS), len(long) // 10))
    if steady:
        chosen |= set(_regular(spans, long))
    found += [_stood(spans, place, len(lanes)) for place in chosen]
    kept: list[Interval] = []
    for interval in sorted(found, key=lambda it: (it[2] >= 0, it[0] - it[1])):  # those of all lanes first, the longest
        kept += [interval] if all(interval[1] <= other[0] or interval[0] >= other[1] for other in kept) else []
    return sorted(kept)


def _apart(values: Series, counts: Places) -> Places:
    """The numbers j for which the j largest are apart from the others.

    values: descending.
    counts: of the j largest, those that count.
    """
    values = np.maximum(values, _LEAST_SPREAD)
    ranks = np.arange(1, len(values))
    logs = ranks * np.log(values[:-1] / values[1:])
    total = np.concatenate(([0.0], np.cumsum(logs)))
    j = np.arange(1, min(len(counts), len(values) - _LEAST // 2) + 1)
    next_ones = np.minimum(NEIGHBOURS, (len(values) - 1 - j) // 2 + 1)
    spread = np.maximum((total[np.minimum(j + next_ones, len(logs))] - total[j]) / next_ones, _LEAST_SPREAD)
    own = counts[: len(j)] * logs[j - 1] / ranks[j - 1]
    chance = -next_ones * np.log1p(own / (next_ones * spread))
    far: Places = j[chance <= np.log(ALARM / (counts[: len(j)] * (counts[: len(j)] + 1.0)))]
    return far


def _most_of_a_lane(lanes: Places) -> Places:
    """Of the first, the first two, … of these lanes: how often the one occurs that occurs most. Stalls of all lanes
    count once so."""
    counts: Places = np.cumsum(lanes[:, None] == np.unique(lanes), axis=0).max(axis=1)
    return counts


def _rare(spans: Spans, values: Series, long: npt.NDArray[np.bool_], most: int | None) -> list[int]:
    """Places of spans whose values are apart from all others. most: how many may be; None: by the law of rare ones."""
    count = len(values) // len(np.unique(spans.lane))
    if most is None:
        most = count // 1000 if count >= RARE else sum(count >= least for least in _FEW) - 1
    if most < 1 or not long.any():
        return []
    by_value = np.argsort(-values, kind="stable")
    counts = _most_of_a_lane(spans.lane[by_value[:LONGEST]])
    apart = _apart(values[by_value], counts)
    apart = apart[(counts[apart - 1] <= most) & long[by_value[apart - 1]]]
    return [int(place) for place in by_value[: apart[-1]] if long[place]] if len(apart) else []


def _silences(spans: Spans, lanes: Places, least_ns: float) -> list[Interval]:
    """Stalls of all lanes, by the silences in which two lanes and more were in flight."""
    end, count = spans.end, len(spans.end)
    most = min(10 * LONGEST, _CELLS // len(lanes))
    last = 1 + np.argsort(-np.diff(end), kind="stable")[:most]  # completions that end the longest silences
    until, begun = end[last], end[last - 1]
    starts = np.full((len(lanes), len(last)), np.iinfo(np.int64).max)
    scales = np.ones(starts.shape)
    for row, lane in enumerate(lanes):
        own = np.flatnonzero(spans.lane == lane)
        at = np.searchsorted(end[own], until)
        here = at < len(own)
        place = own[at[here]]
        starts[row, here] = spans.start[place]
        scales[row, here] = (end[place] - spans.start[place]) / np.maximum(spans.value[place], 1e-9)
    flies = starts < until
    begun = np.maximum(begun, np.where(flies, starts, np.iinfo(np.int64).max).min(axis=0))
    ages = np.where(flies, (until - starts) / scales, 0.0)
    ages_before = np.where(flies, np.maximum(begun - starts, 0) / scales, 0.0)
    ordered = np.sort(spans.value)

    def share(values: Series) -> Series:
        """Of the spans that are as long, at least one."""
        as_long: Series = np.maximum(count - np.searchsorted(ordered, values * (1 - _ALIKE)), 1) / count
        return as_long

    chance = np.prod(share(ages) / share(ages_before), axis=0)
    from_the_start = flies & (starts - begun <= (until - begun) / 2)
    youngest = np.where(from_the_start, ages, np.inf).min(axis=0)
    together = from_the_start.sum(axis=0) > 1
    ordinary = (youngest < LEAST_SPANS) | (share(youngest) >= _EXPLAINED) | (until - begun < least_ns) | ~together
    ranked = np.sort(np.where(ordinary, 1.0, chance))
    passed = np.flatnonzero(ranked <= ALARM * np.arange(1, len(ranked) + 1) / count)
    if not len(passed):
        return []
    body = np.flatnonzero(together)
    body = body[np.argsort(-youngest[body], kind="stable")]
    apart = _apart(youngest[body], np.arange(1, min(len(body), LONGEST) + 1))
    if not len(apart):
        return []
    far = youngest[body[apart[-1] - 1]]
    stalls = np.flatnonzero(~ordinary & (chance <= ranked[passed[-1]]) & (youngest >= far))
    return [(int(begun[stall]), int(until[stall]), -1) for stall in stalls]


def _regular(spans: Spans, long: npt.NDArray[np.bool_]) -> list[int]:
    """Places of long spans that end at equal distances."""
    if 10 * np.count_nonzero(long) > len(long):
        return []
    mixed = np.random.default_rng(0).permutation(np.flatnonzero(long))  # of equal ones none is before the others
    by_value = mixed[np.argsort(-spans.value[mixed], kind="stable")][:LONGEST]
    sizes = [16 << power for power in range(8) if 16 << power < 2 * len(by_value)]
    lasted, best, chosen = float(spans.end[-1] - spans.end[0]), 0.0, np.empty(0, np.int64)
    if not sizes:
        return []
    start, end = spans.start[by_value], spans.end[by_value]
    alone = ~np.tril((start[:, None] < end) & (start < end[:, None]), -1).any(axis=1)  # overlaps none before it
    for size in sizes:
        some = by_value[:size][alone[:size]]
        number = len(some)
        if number < 8 or (spans.end - spans.start)[some].sum() > MOST_TIME * lasted:
            continue
        bins = 128 * _smooth(number) - 1
        place = np.arange(8, 16 * number)  # of the frequencies, in quarters of one over the run
        at, everywhere, taken = (
            np.fft.rfft(np.bincount(np.minimum((times * (bins / lasted)).astype(np.int64), bins)), 4 * (bins + 1))[
                place
            ]
            for times in (
                (spans.end[some] - spans.end[0]).astype(np.float64),
                (spans.end - spans.end[0]).astype(np.float64),
                (spans.end - spans.start)[some].astype(np.float64),
            )
        )
        everywhere /= len(spans.end)
        ends = at - number * everywhere
        power = np.abs(ends) ** 2 / number / np.maximum(1 - np.abs(everywhere) ** 2, 0.01)
        turn = 2 * np.pi * place / (4 * (bins + 1)) * bins / lasted
        pause = max(lasted - float((spans.end - spans.start)[some].sum()), 0.0) / number
        renewal = taken / number / (1 + 1j * turn * pause)
        power /= np.maximum((1 - np.abs(renewal) ** 2) / np.abs(1 - renewal) ** 2, 1.0)
        beyond = float(power.max()) - math.log(12 * number * len(sizes) / ALARM)
        if beyond > best:
            which = np.flatnonzero(power >= 0.8 * power.max())[0]
            phase = turn[which] * (spans.end[some] - spans.end[0]) + np.angle(at[which])
            best, chosen = beyond, some[np.cos(phase) >= math.cos(0.2 * math.pi)]
    return [int(place) for place in chosen]


def _smooth(number: int) -> int:
    """The least number from this one on without a prime factor above 5: of others a Fourier transform takes several
    times as long."""
    rest = number
    for factor in (2, 3, 5):
        while not rest % factor:
            rest //= factor
    return number if rest == 1 else _smooth(number + 1)


def _stood(spans: Spans, place: int, lanes: int) -> Interval:
    """What stood still during a span: all lanes in a silence of half its length and more, or its own lane."""
    start, end = int(spans.start[place]), int(spans.end[place])
    if lanes == 1:
        return start, end, -1
    first, last = np.searchsorted(spans.end, start, side="right"), np.searchsorted(spans.end, end)
    instants = np.concatenate(([start], spans.end[first:last], [end]))
    longest = int(np.argmax(np.diff(instants)))
    if 2 * (instants[longest + 1] - instants[longest]) >= end - start:
        return int(instants[longest]), int(instants[longest + 1]), -1
    return start, end, int(spans.lane[place])


def _told(records: Records, stalls: list[Interval], start_ns: int, places: int) -> Stall | None:
    """What they delayed: of all lanes, those that waited during a part of it, or completed before its queue was gone:
    before no more requests waited than when it began, than wait typically (the median), or than the engine holds. Of
    one lane, the one that it computed."""
    if not stalls:
        return None
    order = np.argsort(records.completed, kind="stable")
    due, answered = np.sort(records.due), records.completed[order]
    waiting = np.searchsorted(due, answered, side="right") - np.arange(1, len(due) + 1)
    usual = max(places, int(np.median(waiting)))
    late = np.zeros(len(due), np.bool_)
    by_length = sorted(stalls, key=lambda it: it[0] - it[1])
    for _, end, lane in by_length[:_FOLLOWED]:
        at = int(np.searchsorted(answered, end))
        late[at] = True
        if lane < 0:
            gone = _first_at_most(waiting, at, max(int(waiting[at - 1]) if at else 0, usual))
            late[at : max(gone + 1, int(np.searchsorted(due, end)))] = True
    total_ns, count = sum(end - start for start, end, _ in stalls), int(late.sum())
    if count < LEAST_LATE * len(due) and total_ns < LEAST_TIME * (answered[-1] - due[0]):
        return None
    start, end, lane = by_length[0]
    at = int(np.searchsorted(answered, end))
    held_ns = records.lateness[order][at : at + places + 1].max()
    stood = {lane for _, _, lane in stalls}
    return Stall(
        start_ns=start - start_ns,
        longest_ns=end - start,
        times=len(stalls),
        total_ns=total_ns,
        late=count,
        host=bool(held_ns >= (end - start) / 2),
        lane=lane if len(stood) == 1 and lane >= 0 else None,
        period_ns=_period(np.array([end for _, end, _ in stalls], np.float64)),
    )


def _period(ends: Series) -> int | None:
    """The distance of stalls that end at equal distances, of which some may be missing, and a fifth be others; None
    otherwise."""
    between = np.diff(ends)
    for missing in range(1, 1 + min(len(ends) // 4, 4)):
        each = float(np.median(between)) / missing
        numbers = np.concatenate(([0], np.cumsum(np.rint(between / each))))
        near = np.full(len(ends), fill_value=True)
        for _ in range(2):
            slope, first = np.polyfit(numbers[near], ends[near], 1)
            near = np.abs(ends - first - slope * numbers) <= each / 10
            if near.mean() < 0.8 or len(np.unique(numbers[near])) < 4:
                break
        else:
            return round(float(slope))
    return None


def _first_at_most(values: Places, start: int, most: int) -> int:
    """The first index from `start` on whose value is at most `most`; the last index where there is none."""
    for block in range(start, len(values), _BLOCK):
        found = np.flatnonzero(values[block : block + _BLOCK] <= most)
        if len(found):
            return block + int(found[0])
    return len(values) - 1
