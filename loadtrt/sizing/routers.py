"""Routers that know how many requests each GPU of a fleet has outstanding. The others need no simulation of the whole
fleet: with random and with round-robin routing all GPUs are alike (sizing/demand.py).
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from loadtrt.results.fleet_result import Routing, Ties
    from loadtrt.sizing.station import Gpu, Router

_BLOCK = 1 << 12


def router_of(routing: Routing, ties: Ties, random: np.random.Generator) -> Callable[[Sequence[Gpu]], Router] | None:
    """What makes the router of a fleet; None where each GPU has arrivals of its own. random: for choices."""
    if routing == "two-choices":
        return partial(_TwoChoices, draws=_draws(random))
    if routing == "least-outstanding":
        if ties == "longest-idle":
            return _LongestIdle
        return _LowestIndex if ties == "lowest-index" else partial(_RandomTies, draws=_draws(random))
    return None


def _draws(random: np.random.Generator) -> Iterator[float]:
    while True:
        yield from random.random(_BLOCK).tolist()


class _LongestIdle:
    """The fewest outstanding; among equals the GPU that has had so few for the longest time: round robin among them."""

    def __init__(self, fleet: Sequence[Gpu]) -> None:
        self._levels: list[OrderedDict[Gpu, None]] = [OrderedDict.fromkeys(fleet)]
        self._lowest = 0  # none is below

    def send(self) -> Gpu:
        levels = self._levels
        while not levels[self._lowest]:
            self._lowest += 1
        if self._lowest + 1 == len(levels):
            levels.append(OrderedDict())
        gpu, _ = levels[self._lowest].popitem(last=False)
        gpu.outstanding += 1
        levels[gpu.outstanding][gpu] = None
        return gpu

    def done(self, gpu: Gpu) -> None:
        del self._levels[gpu.outstanding][gpu]
        gpu.outstanding -= 1
        self._levels[gpu.outstanding][gpu] = None
        self._lowest = min(self._lowest, gpu.outstanding)


class _RandomTies:
    """The fewest outstanding; among equals a random one."""

    def __init__(self, fleet: Sequence[Gpu], draws: Iterator[float]) -> None:
        self._levels: list[list[Gpu]] = [[]]
        self._draws = draws
        for gpu in fleet:
            self._enter(gpu)
        self._lowest = 0

    def send(self) -> Gpu:
        levels = self._levels
        while not levels[self._lowest]:
            self._lowest += 1
        if self._lowest + 1 == len(levels):
            levels.append([])
        level = levels[self._lowest]
        gpu = level[int(next(self._draws) * len(level))]
        self._leave(gpu)
        gpu.outstanding += 1
        self._enter(gpu)
        return gpu

    def done(self, gpu: Gpu) -> None:
        self._leave(gpu)
        gpu.outstanding -= 1
        self._enter(gpu)
        self._lowest = min(self._lowest, gpu.outstanding)

    def _enter(self, gpu: Gpu) -> None:
        level = self._levels[gpu.outstanding]
        gpu.place = len(level)
        level.append(gpu)

    def _leave(self, gpu: Gpu) -> None:
        level = self._levels[gpu.outstanding]
        last = level.pop()
        if last is not gpu:
            level[gpu.place] = last
            last.place = gpu.place


class _LowestIndex:
    """The fewest outstanding; among equals the first of the list."""

    def __init__(self, fleet: Sequence[Gpu]) -> None:
        self._fleet = fleet
        self._levels = [[gpu.number for gpu in fleet]]  # heaps, with numbers of GPUs that have left, too
        heapify(self._levels[0])
        self._lowest = 0

    def send(self) -> Gpu:
        while True:
            level = self._levels[self._lowest]
            if not level:
                self._lowest += 1
                continue
            gpu = self._fleet[heappop(level)]
            if gpu.outstanding == self._lowest:
                break
        gpu.outstanding += 1
        self._enter(gpu)
        return gpu

    def done(self, gpu: Gpu) -> None:
        gpu.outstanding -= 1
        self._enter(gpu)
        self._lowest = min(self._lowest, gpu.outstanding)

    def _enter(self, gpu: Gpu) -> None:
        if gpu.outstanding == len(self._levels):
            self._levels.append([])
        heappush(self._levels[gpu.outstanding], gpu.number)


class _TwoChoices:
    """Of two random GPUs, which may be one twice, the one with fewer outstanding, among equals the first (Mitzenmacher,
    The power of two choices in randomized load balancing, 2001)."""

    def __init__(self, fleet: Sequence[Gpu], draws: Iterator[float]) -> None:
        self._fleet, self._draws = fleet, draws

    def send(self) -> Gpu:
        fleet, draws = self._fleet, self._draws
        gpu, other = fleet[int(next(draws) * len(fleet))], fleet[int(next(draws) * len(fleet))]
        if other.outstanding < gpu.outstanding:
            gpu = other
        gpu.outstanding += 1
        return gpu

    def done(self, gpu: Gpu) -> None:
        gpu.outstanding -= 1
