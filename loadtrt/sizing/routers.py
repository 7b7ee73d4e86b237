"""Routers that know how many requests each GPU of a fleet has outstanding. The others need no simulation of the whole
fleet: with random and with round-robin routing all GPUs are alike (sizing/demand.py).

A router's state is arrays of numbers, and its steps are functions of them, which numba compiles (loop/compiled.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from loadtrt.loop.requests import move

if TYPE_CHECKING:
    from loadtrt.results.fleet_result import Routing, Ties

# How a GPU is chosen: the values of Router.rule.
LONGEST_IDLE, LOWEST_INDEX, RANDOM_TIES, TWO_CHOICES = range(4)

# Cells of Fleet.n.
RULE, DRAWN, FEWEST = range(3)


class Router(NamedTuple):
    """How requests are sent to GPUs. random: for choices."""

    rule: int
    random: np.random.Generator


_ALONE = Router(LONGEST_IDLE, np.random.default_rng(1))


class Fleet(NamedTuple):
    """What a router knows. Each field is a sequence: arrays where they are compiled, else lists.

    LONGEST_IDLE: the fewest outstanding; among equals the GPU that has had so few for the longest time, which is round
        robin among them. after, before: a closed list for each number k of outstanding requests: `gpus + k`, which is
        no GPU, then the GPUs with as many, in the order in which they came to have k.
    LOWEST_INDEX: the fewest outstanding; among equals the first. keys: a binary tree of minima, whose leaves, from
        `gpus` on, are outstanding × gpus + the number of the GPU.
    RANDOM_TIES: the fewest outstanding; among equals a random one. order: GPUs by outstanding requests. place: of each
        GPU in `order`. begins: place in `order` of the first GPU with at least k outstanding.
    TWO_CHOICES: of two random GPUs, which may be one twice, the one with fewer outstanding, among equals the first
        (Mitzenmacher, The power of two choices in randomized load balancing, 2001).

    n: the cells that are named above: the rule; numbers in `draws` that were used; a bound that no GPU's outstanding
        requests are below.
    outstanding: requests that were sent to each GPU and have not completed.
    draws: random numbers in [0, 1).
    """

    n: Any
    outstanding: Any
    after: Any
    before: Any
    keys: Any
    order: Any
    place: Any
    begins: Any
    draws: Any


def router_of(routing: Routing, ties: Ties, random: np.random.Generator) -> Router | None:
    """The router of a fleet; None where each GPU has arrivals of its own. random: for choices."""
    if routing == "two-choices":
        return Router(TWO_CHOICES, random)
    if routing == "least-outstanding":
        return Router({"longest-idle": LONGEST_IDLE, "lowest-index": LOWEST_INDEX, "random": RANDOM_TIES}[ties], random)
    return None


def new_fleet(router: Router | None, gpus: int, requests: int) -> Fleet:
    """Arrays of a Fleet of idle GPUs, to which as many requests are sent. router: None for a single GPU, which takes
    all of them without being asked."""
    if router is None:
        return new_fleet(_ALONE, 1, 0)
    rule, random = router
    levels = requests // gpus + 3  # a GPU takes one more only where all others have as many
    after, before = np.arange(gpus + levels), np.arange(gpus + levels)
    after[: gpus + 1] = np.roll(after[: gpus + 1], -1)
    before[: gpus + 1] = np.roll(before[: gpus + 1], 1)
    keys = np.zeros(2 * gpus, np.int64)
    keys[gpus:] = range(gpus)
    for at in range(gpus - 1, 0, -1):
        keys[at] = keys[2 * at : 2 * at + 2].min()
    begins = np.full(levels, gpus)
    begins[0] = 0
    return Fleet(
        n=np.array((rule, 0, 0)),
        outstanding=np.zeros(gpus, np.int64),
        after=after,
        before=before,
        keys=keys,
        order=np.arange(gpus),
        place=np.arange(gpus),
        begins=begins,
        draws=random.random({RANDOM_TIES: 1, TWO_CHOICES: 2}.get(rule, 0) * requests),
    )


def in_lists(fleet: Fleet) -> Fleet:
    """The same for Python, which reads lists in a third of the time."""
    return Fleet(*(field.tolist() for field in fleet))


def send(f: Fleet) -> int:
    """The GPU that the next request goes to, whose `outstanding` grows."""
    n, outstanding, draws = f.n, f.outstanding, f.draws
    gpus, rule = len(outstanding), n[RULE]
    gpu: int
    if rule == TWO_CHOICES:
        drawn = n[DRAWN]
        n[DRAWN] = drawn + 2
        gpu, other = int(draws[drawn] * gpus), int(draws[drawn + 1] * gpus)
        if outstanding[other] < outstanding[gpu]:
            gpu = other
        outstanding[gpu] += 1
    elif rule == RANDOM_TIES:
        drawn, more = n[DRAWN], outstanding[f.order[0]] + 1
        n[DRAWN] = drawn + 1
        gpu = f.order[int(draws[drawn] * f.begins[more])]
        f.begins[more] -= 1
        exchange(f, gpu, f.begins[more])
        outstanding[gpu] = more
    elif rule == LOWEST_INDEX:
        gpu = f.keys[1] % gpus
        outstanding[gpu] += 1
        rank(f, gpu)
    else:
        level = gpus + n[FEWEST]
        while f.after[level] == level:
            level += 1
        n[FEWEST] = level - gpus
        gpu = f.after[level]
        outstanding[gpu] += 1
        move(f.after, f.before, gpu, level + 1)
    return gpu


def complete(f: Fleet, gpu: int) -> None:
    """A request of this GPU has completed: its `outstanding` falls."""
    n, outstanding = f.n, f.outstanding
    rule, fewer = n[RULE], outstanding[gpu] - 1
    outstanding[gpu] = fewer
    if rule == RANDOM_TIES:
        exchange(f, gpu, f.begins[fewer + 1])
        f.begins[fewer + 1] += 1
    elif rule == LOWEST_INDEX:
        rank(f, gpu)
    elif rule == LONGEST_IDLE:
        n[FEWEST] = min(n[FEWEST], fewer)
        move(f.after, f.before, gpu, len(outstanding) + fewer)


def exchange(f: Fleet, gpu: int, place: int) -> None:
    """Give a GPU this place in `order`, and its own to the GPU that is there."""
    other, its = f.order[place], f.place[gpu]
    f.order[place], f.order[its] = gpu, other
    f.place[gpu], f.place[other] = place, its


def rank(f: Fleet, gpu: int) -> None:
    """Enter the outstanding requests of a GPU into the tree."""
    keys, at = f.keys, len(f.outstanding) + gpu
    keys[at] = f.outstanding[gpu] * len(f.outstanding) + gpu
    while at > 1:
        at //= 2
        least = min(keys[2 * at], keys[2 * at + 1])
        if keys[at] == least:
            break
        keys[at] = least


STEPS = (move, exchange, rank, send, complete)  # what `machine_code` needs of these
