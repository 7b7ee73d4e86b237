"""Mixes: requests of several batch sizes or shapes, drawn at random, such as `--mix "1:0.7, 8:0.3"`."""

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
_MOST_WEIGHT = 1e9  # the least is 1 / _MOST_WEIGHT: sums and shares of such weights are finite
_DRAWN = 1 << 16  # requests after which the order repeats
_SIZES = frozenset({"mix", "batcher", "batch"})  # each says how large requests are
_FORM = "write parts as SIZE:WEIGHT, such as '1:0.7, 8:0.3', or NAME=SHAPE:WEIGHT, such as 'data=1x3x224x224:1'"


@dataclass(frozen=True, slots=True)
class Part:
    """Requests of one kind.

    name: text of the part.
    batch: batch size; None where shapes decide it.
    shapes: shapes by input name.
    weight: share of all requests, in (0, 1].
    """

    name: str
    batch: int | None
    shapes: Mapping[str, tuple[int, ...]]
    weight: float


def parse_mix(text: str) -> tuple[Part, ...]:
    """The parts of "1:0.7, 8:0.3"; several inputs of one part have + between them ("a=1x8+b=1x2:1"). Weights are
    scaled to sum to 1. Raises UsageError."""
    parts = [_part(item.strip()) for item in text.split(",")]
    names = [part.name for part in parts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"mix '{text}' has {twice} twice: add the weights up")
    if len(parts) > MOST_PARTS:
        raise UsageError(f"mix '{text}' has {len(parts)} parts: write at most {MOST_PARTS}")
    total = math.fsum(part.weight for part in parts)
    return tuple(Part(part.name, part.batch, part.shapes, part.weight / total) for part in parts)


def draw(weights: Sequence[float], sets: int, seed: int) -> tuple[int, ...]:
    """Numbers of input sets in the order in which requests use them. Each request is of part p with probability
    weights[p], independently; part p uses the sets p·sets to p·sets + sets − 1 in turn."""
    random = np.random.default_rng([seed, *b"mix"])
    parts = random.choice(len(weights), _DRAWN, p=np.asarray(weights) / math.fsum(weights))
    turns = np.empty(_DRAWN, np.int64)
    for part in range(len(weights)):
        chosen = parts == part
        turns[chosen] = np.arange(int(chosen.sum())) % sets
    return tuple((parts * sets + turns).tolist())


def overruled_sizes(before: Mapping[str, object], given: Mapping[str, object]) -> set[str]:
    """Options of `before`, a configuration file, that the sizes in `given`, the command line, overrule."""
    overruled = {option for option in _SIZES if any(given.get(other) for other in _SIZES - {option})}
    if "=" in str(given.get("mix")):
        overruled.add("shapes")
    return overruled | {"mix"} if given.get("shapes") and "=" in str(before.get("mix")) else overruled


def _part(item: str) -> Part:
    name, colon, weight_text = item.rpartition(":")
    name = name.strip()
    try:
        weight = float(weight_text)
    except ValueError:
        weight = math.nan
    if not colon or not name or math.isnan(weight):
        raise UsageError(f"'{item}' is not a part of a mix: {_FORM}")
    if not 1 / _MOST_WEIGHT <= weight <= _MOST_WEIGHT:
        raise UsageError(f"'{item}' is not a part of a mix: write a weight from 1e-9 to 1e9")
    if re.fullmatch(r"[1-9][0-9]{0,8}", name):
        return Part(name, int(name), {}, weight)
    shapes = {}
    for one in name.split("+"):
        tensor, equals, shape = one.strip().rpartition("=")
        if not equals or not tensor or not re.fullmatch(r"[0-9]{1,18}(x[0-9]{1,18})*", shape):
            raise UsageError(f"'{item}' is not a part of a mix: {_FORM}")
        shapes[tensor] = tuple(int(size) for size in shape.split("x"))
    return Part(name, None, shapes, weight)
