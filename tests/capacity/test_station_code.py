"""The simulation of GPUs as machine code: the same lines, and the same numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.load.request_sizes import Batching
from loadtrt.loop.compiled import is_compiled
from loadtrt.results.fleet_result import TIES
from loadtrt.sizing import station as of_station
from loadtrt.sizing.batch_simulation import serve
from loadtrt.sizing.batching import Server
from loadtrt.sizing.routers import router_of
from loadtrt.sizing.station import Station, completions
from loadtrt.units import NEVER, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.results.fleet_result import Routing, Ties
    from loadtrt.sizing.batch_simulation import Instants
    from loadtrt.sizing.routers import Router
    from loadtrt.sizing.station import Floats

ROUTERS: list[tuple[Routing, Ties]] = [("two-choices", "random"), *(("least-outstanding", ties) for ties in TIES)]
GAPS = st.one_of(st.just(0.0), st.just(0.25), st.floats(0, 2), st.floats(0, 1e-9), st.floats(0, 1e6))
WORKS = st.one_of(st.just(1.0), st.just(0.0), st.floats(0, 3), st.floats(0, 1e4))


def identity(ranks: Floats) -> Floats:
    """Work is what is drawn."""
    return ranks


@st.composite
def stations(draw: st.DrawFn, lanes: tuple[int, int] | None = None) -> Station:
    """Any number of contexts and buffer sets, at any speeds: also where more requests are served slower together."""
    contexts, buffers = lanes or (draw(st.integers(1, 5)), draw(st.integers(1, 3)))
    speed = st.one_of(st.just(1.0), st.floats(0.01, 100))
    rows = [[draw(speed) for _ in range(contexts * buffers + 1)] for _ in range(contexts + 1)]
    return Station(contexts, buffers, tuple(map(tuple, rows)), identity)


@st.composite
def servers(draw: st.DrawFn) -> Server:
    """With batches of any sizes and delay, or none; a bounded queue, or not."""
    lanes = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    sizes = draw(st.one_of(st.just((1,)), st.sets(st.integers(1, 9), min_size=1).map(lambda some: tuple(sorted(some)))))
    delay_ns = draw(st.sampled_from((0, 1, SECOND_NS // 2, 4 * SECOND_NS)))
    batching = Batching(sizes, delay_ns) if sizes != (1,) or draw(st.booleans()) else None
    room = draw(st.one_of(st.none(), st.integers(1, 12)))
    return Server({size: draw(stations(lanes)) for size in sizes}, batching, room)


@pytest.mark.skipif(not is_compiled(), reason="without numba nothing is compiled")
@given(
    gpu=stations(),
    gpus=st.integers(1, 9),
    routed=st.sampled_from([None, *ROUTERS]),
    requests=st.lists(st.tuples(GAPS, WORKS), max_size=80),
    scale=st.floats(1e-6, 1e3),
)
def test_machine_code_gives_the_same_numbers(
    gpu: Station,
    gpus: int,
    routed: tuple[Routing, Ties] | None,
    requests: list[tuple[float, float]],
    scale: float,
) -> None:
    """Bit for bit, for one GPU and for fleets with each router; requests may come at one instant, and take no time."""
    due = np.cumsum([gap * scale for gap, _ in requests])
    work = np.array([work for _, work in requests], np.float64)

    def simulated(router: Router | None) -> Floats:
        return completions(due, work, gpu, gpus if routed else 1, router)

    by_python, by_machine = in_both_ways(simulated, routed, len(due))
    assert by_machine.tobytes() == by_python.tobytes()
    assert (by_machine >= due).all()


@pytest.mark.skipif(not is_compiled(), reason="without numba nothing is compiled")
@given(
    server=servers(),
    gpus=st.integers(1, 9),
    routed=st.sampled_from([None, *ROUTERS]),
    requests=st.lists(st.tuples(GAPS, WORKS), max_size=80),
    scale=st.floats(1e-6, 1e3),
)
def test_machine_code_forms_the_same_batches(
    server: Server,
    gpus: int,
    routed: tuple[Routing, Ties] | None,
    requests: list[tuple[float, float]],
    scale: float,
) -> None:
    """Each instant, and which requests are dropped; no other is left out, nor served before it is due."""
    due = np.cumsum([gap * scale * SECOND_NS for gap, _ in requests]).astype(np.int64)
    work = np.array([work for _, work in requests], np.float64)

    def simulated(router: Router | None) -> Instants:
        return serve(due, work, server, gpus if routed else 1, router)

    by_python, by_machine = in_both_ways(simulated, routed, len(due))
    assert by_machine.tobytes() == by_python.tobytes()
    assert (by_machine >= due).all()
    assert server.room is not None or (by_machine < NEVER).all()


def in_both_ways(
    simulated: Callable[[Router | None], Any], routed: tuple[Routing, Ties] | None, requests: int
) -> list[Any]:
    """What Python and what machine code give, each with a router that draws the same."""
    given = []
    for pays in (math.inf, -1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(of_station, "_PAYS", pays)
            given.append(simulated(routed and router_of(*routed, np.random.default_rng(requests))))
    return given


def test_machine_code_is_loaded_once_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing numba takes as long as simulating many requests in Python: few never do."""
    asked: list[int] = []

    def asks() -> bool:
        asked.append(1)
        return False

    monkeypatch.setattr(of_station, "is_compiled", asks)
    monkeypatch.setattr(of_station, "_PAYS", 30)
    monkeypatch.setattr(of_station, "_simulated", [0])
    gpu = Station(1, 1, ((0.0, 0.0), (0.0, 1.0)), identity)
    loads = [len(asked) for _ in range(5) if completions(np.zeros(10), np.ones(10), gpu).any()]
    assert loads == [0, 0, 0, 1, 2]
    server = Server({1: gpu}, None, None)
    loads = [len(asked) for _ in range(2) if serve(np.zeros(10, np.int64), np.ones(10), server).any()]
    assert loads == [3, 4]
