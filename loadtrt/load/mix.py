"""Mixes: requests of several batch sizes or shapes, drawn at random, as `--mix "1:0.7, 8:0.3"` says."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_PARTS = 64
_MOST_WEIGHT = 1e9  # and 1 over it the least: sums and shares of these are numbers
_DRAWN = 1 << 16  # after so many requests the same order begins again
_SIZES = frozenset({"mix", "batcher", "batch"})  # each says how large requests are
_FORM = "write parts as SIZE:WEIGHT, such as '1:0.7, 8:0.3', or NAME=SHAPE:WEIGHT, such as 'data=1x3x224x224:1'"


@dataclass(frozen=True, slots=True)
class Part:
    """Requests of one kind. name: as it was given. batch: their size, or None where shapes say it. shapes: by input
    name. weight: their share of all, in (0, 1]."""

    name: str
    batch: int | None
    shapes: Mapping[str, tuple[int, ...]]
    weight: float


def parse_mix(text: str) -> tuple[Part, ...]:
    """The parts of "1:0.7, 8:0.3"; several inputs of one part have + between them ("a=1x8+b=1x2:1"). Weights are
    scaled to sum to 1. Raises UsageError."""
    found = [_part(item.strip()) for item in text.split(",")]
    names = [part.name for part in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"mix '{text}' has {twice} twice: add the weights up")
    if len(found) > MOST_PARTS:
        raise UsageError(f"mix '{text}' has {len(found)} parts: no more than {MOST_PARTS}")
    total = math.fsum(part.weight for part in found)
    return tuple(Part(part.name, part.batch, part.shapes, part.weight / total) for part in found)


def draw(weights: Sequence[float], sets: int, seed: int) -> tuple[int, ...]:
    """Numbers of input sets in the order in which requests take them: part p has the sets p·sets to p·sets + sets − 1,
    in turn, and each request is of part p with probability weights[p], whatever the others are."""
    random = np.random.default_rng([seed, *b"mix"])
    parts = random.choice(len(weights), _DRAWN, p=np.asarray(weights) / math.fsum(weights))
    turns = np.empty(_DRAWN, np.int64)
    for part in range(len(weights)):
        chosen = parts == part
        turns[chosen] = np.arange(int(chosen.sum())) % sets
    return tuple((parts * sets + turns).tolist())


def overruled_sizes(before: Mapping[str, object], given: Mapping[str, object]) -> set[str]:
    """Options of `before`, a configuration file, for which what `given`, the command line, says of sizes leaves no
    room."""
    out = {it for it in ("mix", "batcher", "batch") if any(given.get(other) for other in _SIZES - {it})}
    if "=" in str(given.get("mix")):
        out.add("shapes")
    return out | {"mix"} if given.get("shapes") and "=" in str(before.get("mix")) else out


def _part(item: str) -> Part:
    name, colon, weight_text = item.rpartition(":")
    name = name.strip()
    try:
        weight = float(weight_text)
    except ValueError:
        weight = math.nan
    if not colon or not name or math.isnan(weight):
        raise UsageError(f"'{item}' is no part of a mix: {_FORM}")
    if not 1 / _MOST_WEIGHT <= weight <= _MOST_WEIGHT:
        raise UsageError(f"'{item}' is no part of a mix: weights are above 0, from 1e-9 to 1e9")
    if re.fullmatch(r"[1-9]\d{0,8}", name):
        return Part(name, int(name), {}, weight)
    shapes = {}
    for one in name.split("+"):
        tensor, equals, shape = one.strip().rpartition("=")
        if not equals or not tensor or not re.fullmatch(r"\d+(x\d+)*", shape):
            raise UsageError(f"'{item}' is no part of a mix: {_FORM}")
        shapes[tensor] = tuple(int(size) for size in shape.split("x"))
    return Part(name, None, shapes, weight)
