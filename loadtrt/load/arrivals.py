"""When requests are due: drawn before the run, in int nanoseconds from its start. Closed loops have no schedule."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Literal

import numpy as np

from loadtrt.errors import UsageError
from loadtrt.load.stages import Course, steady
from loadtrt.units import format_count

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import numpy.typing as npt

# Streams of random numbers have a number each, so that one can change without the others.
_ARRIVALS_STREAM = 0
_BLOCK = 1 << 14  # numbers drawn at a time: fixed, so that a schedule's length changes none of them
_NO_DEVIATION = 1e-9  # of gaps, where 1 / CV² is still a number
MOST_REQUESTS = 50_000_000  # 400 MB of due instants, twice that while they are drawn

# A load has one source, and these options say more of it; one of another source contradicts them.
_LENGTH = ("duration", "requests")
_OF_TRACES = ("trace", "trace_column", "time_scale", "trace_loop")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "closed": _LENGTH,
    "offline": ("requests",),
    "trace": _OF_TRACES,  # with trace_loop, _LENGTH too
    "stages": ("stages", "burstiness"),
    "rate": ("rate", "bursts", "burstiness", *_LENGTH),
}
LOAD_OPTIONS = tuple(dict.fromkeys(["arrivals", *(key for keys in _OPTIONS.values() for key in keys)]))
OF_ARRIVALS = ("batcher", "max_queue")  # no source of load, but for requests that come by themselves
_WITH_A_RATE = ("constant", "poisson", "gamma")


def due_instants(
    kind: Literal["constant", "poisson", "gamma"],
    rate: float | Course,
    least_ns: int,
    least_requests: int,
    seed: int,
    burstiness: float = 1.0,
) -> npt.NDArray[np.int64]:
    """Due instants in ns from the start, int64 [n], ascending: all within `least_ns`, and at least `least_requests`.

    t_k = Λ⁻¹(u_k), Λ(t) = ∫₀ᵗ λ(s) ds, λ: `rate` in requests a second, steady or as its Course says; u: a stationary
    process of mean rate 1 (Cinlar, Introduction to stochastic processes, 1975: with a Poisson u this is exactly the
    Poisson process of rate λ(t)). So Λ(t) requests are expected before t, for every process and every t.

    constant: u_k = k. poisson: gaps of u are independent exponentials. gamma: they are gamma distributed with mean 1
    and standard deviation `burstiness` (CV; shape 1/CV²): 0 is constant, 1 Poisson. The first gap is what a process
    that has always been going on leaves of one, U·X with U uniform and X drawn by length (gamma of shape 1/CV² + 1):
    without that, (CV² − 1)/2 requests too many would come.

    The same seed gives the same instants, and a longer schedule begins with the shorter one. A Course that ends takes
    least_requests = 0. Raises UsageError where the schedule would not fit in memory.
    """
    course = rate if isinstance(rate, Course) else steady(rate)
    limit = course.requests(least_ns)
    require_room(max(limit, least_requests))
    cv = {"constant": 0.0, "poisson": 1.0}.get(kind, burstiness)
    blocks, count = [], 0
    for block in _unit_process(cv, seed):
        # 0.3 · 10 s must not become 3.0000000000000004 and let a fourth request in.
        part = block[: max(int(np.searchsorted(block, limit * (1 - 1e-12))), least_requests - count)]
        blocks.append(course.instants(part))
        count += len(part)
        if len(part) < len(block):
            break
    due = np.concatenate(blocks)
    return np.maximum.accumulate(due, out=due)  # neighbours nearer than a float can tell


def _unit_process(cv: float, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """u_0, u_1, ..., ascending, in blocks without an end."""
    if cv < _NO_DEVIATION:
        for start in itertools.count(0, _BLOCK):
            yield np.arange(start, start + _BLOCK, dtype=np.float64)
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_ARRIVALS_STREAM,)))
    shape = cv**-2
    reached = 0.0 if cv == 1 else random.random() * random.standard_gamma(shape + 1) / shape
    head = [] if cv == 1 else [reached]  # what is left of an exponential is an exponential
    while True:
        gaps = random.standard_gamma(shape, _BLOCK) / shape
        block = reached + np.cumsum(gaps)
        reached = float(block[-1])
        yield np.concatenate([head, block])
        head = []


def offline_instants(requests: int) -> npt.NDArray[np.int64]:
    """All due at 0: int64 [requests]. Raises UsageError where they would not fit in memory."""
    require_room(requests)
    return np.zeros(requests, np.int64)


def require_room(requests: float) -> None:
    """Raises UsageError for more than MOST_REQUESTS."""
    if not requests <= MOST_REQUESTS:  # nor nan, of a rate beyond a float
        wanted = format_count(requests) if requests < 1e12 else f"{requests:.2g}"
        raise UsageError(
            f"{wanted} requests are too many to draw (the most is {format_count(MOST_REQUESTS)}): "
            "ask for a lower rate, a shorter time or fewer requests"
        )


def steady_load(arrivals: str, stages: object = None, bursts: object = None) -> bool:
    """Whether requests come alike at all times, by options of `loadtrt run`: not all at once, in stages or in bursts,
    nor as a trace has them, of which nobody knows. Gamma arrivals do: they clump, at one rate."""
    return arrivals not in ("offline", "trace") and not stages and not bursts


def steady_rate(arrivals: str, stages: object = None, bursts: object = None) -> bool:
    """Whether served requests leave alike at all times: under a steady load, and offline, where work never lacks."""
    return arrivals == "offline" or steady_load(arrivals, stages, bursts)


def drawn_load(arrivals: str, mix: object = None) -> bool:
    """Whether the seed says when requests come, or in a mix which ones: runs of one seed have the same load."""
    return arrivals in ("poisson", "gamma") or bool(mix)


def implied_arrivals(given: Collection[str]) -> str | None:
    """What --arrivals means where these options are given and it is not: Poisson, as independent users come."""
    if "trace" in given:
        return "trace"
    if "burstiness" in given:
        return "gamma"
    return "poisson" if {"rate", "stages", "bursts"}.intersection(given) else None


def contradiction(arrivals: str, given: Collection[str]) -> str | None:
    """Why these do not make one load, in a sentence; None where they do. given: LOAD_OPTIONS that say something."""
    source = arrivals if arrivals not in _WITH_A_RATE else "stages" if "stages" in given else "rate"
    name = "stages" if source == "stages" else "a trace" if source == "trace" else f"{arrivals} arrivals"
    loops = source == "trace" and "trace_loop" in given
    for key in LOAD_OPTIONS:
        option = f"--{key.replace('_', '-')}"
        if key == "arrivals" or key not in given or key in _OPTIONS[source] or (loops and key in _LENGTH):
            continue
        if key in _OF_TRACES[1:] and "trace" not in given:
            return f"{option} is of a trace: add --trace, or leave it out"
        own = {
            "closed": f"closed arrivals have no {key}: leave {option} out, or take --arrivals poisson or constant",
            "offline": f"offline arrivals have no {key}, as all are due at once: leave {option} out",
            "stages": f"stages have rates and durations of their own, and no {key}: leave {option} or --stages out",
            "trace": f"a trace has instants of its own, and no {key}: leave {option} or --trace out",
        }.get(source, f"{name} have no {key}: leave {option} out")
        return f"{own}, or add --trace-loop" if source == "trace" and key in _LENGTH else own
    if "burstiness" in given and arrivals != "gamma":
        return f"{arrivals} arrivals have no burstiness: leave --burstiness out, or take --arrivals gamma"
    for key, wanted, example in (
        ("trace", source == "trace", "--trace FILE"),
        ("requests", source == "offline", "--requests, such as --requests 1000"),
        ("rate", source == "rate", "--rate, such as --rate 500/s"),
        ("burstiness", arrivals == "gamma", "--burstiness, such as --burstiness 4"),
    ):
        if wanted and key not in given:
            article = "" if key == "requests" else "a "
            return f"{arrivals} arrivals need {article}{key}: add {example}"
    return None


def overruled(before: Mapping[str, object], given: Mapping[str, object]) -> set[str]:
    """Options of `before`, a configuration file, which `given`, the command line, leaves no room for."""
    arrivals = given.get("arrivals")
    asked = arrivals or implied_arrivals(given)
    if asked is None:
        return set()
    source = str(asked)
    if asked in _WITH_A_RATE:
        keeps = before.get("stages") is not None and not {"rate", "bursts"}.intersection(given)
        source = "stages" if "stages" in given or keeps else "rate"
    out = set(LOAD_OPTIONS).difference(_OPTIONS[source])
    if source == "trace" and given.get("trace_loop", before.get("trace_loop")):
        out -= set(_LENGTH)
    if arrivals is None and before.get("arrivals") in _WITH_A_RATE and asked == "poisson":
        out.discard("arrivals")  # a rate alone changes no process
    if arrivals in ("constant", "poisson"):
        out.add("burstiness")
    if source == "closed":
        out.update(OF_ARRIVALS)
    return out
