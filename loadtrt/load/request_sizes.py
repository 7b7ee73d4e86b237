"""How large requests are: mixes of several sizes, and batches that are formed of single requests."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.errors import UsageError
from loadtrt.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MOST_PARTS = 64
_MOST_WEIGHT = 1e9  # the least is 1 / _MOST_WEIGHT: sums and shares of such weights are finite
_DRAWN = 1 << 16  # requests after which the order repeats
_SIZES = frozenset({"mix", "batcher", "batch"})  # each says how large requests are
_MIX_FORM = "write parts as SIZE:WEIGHT, such as '1:0.7, 8:0.3', or NAME=SHAPE:WEIGHT, such as 'data=1x3x224x224:1'"
_MOST_BATCH = 1024
_BATCHER_FORM = "write for example max=16,delay=2ms, with sizes=1/4/16 where the engine runs only these"


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
    items = text.split(",")
    if len(items) > MOST_PARTS:
        raise UsageError(f"mix '{text}' has {len(items)} parts: write at most {MOST_PARTS}")
    parts = [_part(item.strip()) for item in items]
    names = [part.name for part in parts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"mix '{text}' has {twice} twice: add the weights up")
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
        raise UsageError(f"'{item}' is not a part of a mix: {_MIX_FORM}")
    if not 1 / _MOST_WEIGHT <= weight <= _MOST_WEIGHT:
        raise UsageError(f"'{item}' is not a part of a mix: write a weight from 1e-9 to 1e9")
    if re.fullmatch(r"[1-9][0-9]{0,8}", name):
        return Part(name, int(name), {}, weight)
    shapes = {}
    for one in name.split("+"):
        tensor, equals, shape = one.strip().rpartition("=")
        if not equals or not tensor or not re.fullmatch(r"[0-9]{1,18}(x[0-9]{1,18})*", shape):
            raise UsageError(f"'{item}' is not a part of a mix: {_MIX_FORM}")
        shapes[tensor] = tuple(int(size) for size in shape.split("x"))
    return Part(name, None, shapes, weight)


@dataclass(frozen=True, slots=True)
class Batching:
    """Options of the batcher.

    sizes: batch sizes that the engine runs, ascending; the last is the largest batch.
    delay_ns: longest time that the first request of a batch waits for others.
    """

    sizes: tuple[int, ...]
    delay_ns: int


def parse_batching(text: str) -> Batching:
    """Of "max=16,delay=2ms[,sizes=1/4/16]". Without sizes: the powers of two below max, and max. Raises UsageError."""
    given: dict[str, str] = {}
    for item in text.split(","):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or key not in ("max", "delay", "sizes") or key in given:
            raise UsageError(f"'{text}' is not a batcher: {_BATCHER_FORM}")
        given[key] = value
    if "max" not in given or not re.fullmatch(r"[1-9][0-9]{0,4}", given["max"]) or int(given["max"]) > _MOST_BATCH:
        raise UsageError(f"batcher '{text}' needs max, from 1 to {_MOST_BATCH}: {_BATCHER_FORM}")
    most = int(given["max"])
    delay_ns = parse_duration(given.get("delay", "0s"))
    if delay_ns < 0:
        raise UsageError(f"batcher '{text}': the delay is below 0: write for example delay=2ms")
    if "sizes" not in given:
        sizes = [1 << power for power in range(most.bit_length()) if 1 << power < most]
        return Batching((*sizes, most), delay_ns)
    texts = given["sizes"].split("/")
    if not all(re.fullmatch(r"[1-9][0-9]{0,4}", size) for size in texts):
        raise UsageError(f"batcher '{text}': sizes are not numbers separated by /: write for example sizes=1/4/16")
    chosen = tuple(sorted({int(size) for size in texts}))
    if chosen[-1] != most:
        raise UsageError(f"batcher '{text}': the largest of its sizes must be max, {most}")
    return Batching(chosen, delay_ns)


@dataclass(slots=True)
class Batcher:
    """Forms the batches of a run.

    sets: input sets of each size. Those of sizes[k] have the numbers k·sets to k·sets + sets − 1 and are used in turn.
    """

    batching: Batching
    sets: int
    _turns: list[Iterator[int]] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.batching.sizes)
        self._turns = [cycle(range(place * self.sets, (place + 1) * self.sets)) for place in range(count)]

    def next_batch(self, waiting: Sequence[int], *, all_came: bool) -> tuple[int, int]:
        """(size of the next batch, instant from which on it may be submitted).

        waiting: due instants of the requests that wait, at least one.
        all_came: whether no more will come.
        """
        most = self.batching.sizes[-1]
        if len(waiting) >= most:
            return most, min(waiting[most - 1], waiting[0] + self.batching.delay_ns)
        if all_came:
            return len(waiting), min(waiting[-1], waiting[0] + self.batching.delay_ns)
        return len(waiting), waiting[0] + self.batching.delay_ns

    def inputs(self, count: int) -> int:
        """Number of the input set for a batch of `count` requests."""
        return next(self._turns[bisect_left(self.batching.sizes, count)])
