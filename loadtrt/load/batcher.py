"""Dynamic batching: batches of single requests in front of the lanes, as an inference server forms them.

A batch is submitted when a buffer set is free and `most` requests wait, or the first of them has waited for `delay_ns`,
or no more will come. An engine runs it at the least of `sizes` that holds it; the rest is padding.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING

from loadtrt.errors import UsageError
from loadtrt.units import parse_duration

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator

_MOST = 1024
_FORM = "write for example max=16,delay=2ms, with sizes=1/4/16 where the engine runs only these"


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
            raise UsageError(f"'{text}' is not a batcher: {_FORM}")
        given[key] = value
    if "max" not in given or not re.fullmatch(r"[1-9][0-9]{0,4}", given["max"]) or int(given["max"]) > _MOST:
        raise UsageError(f"batcher '{text}' needs max, from 1 to {_MOST}: {_FORM}")
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

    batching: sizes and delay.
    sets: input sets of each size. Those of sizes[k] have the numbers k·sets to k·sets + sets − 1 and are used in turn.
    """

    batching: Batching
    sets: int
    _turns: list[Iterator[int]] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.batching.sizes)
        self._turns = [cycle(range(place * self.sets, (place + 1) * self.sets)) for place in range(count)]

    def next_batch(self, waiting: deque[int], *, all_came: bool) -> tuple[int, int]:
        """(size of the next batch, instant from which on it may be submitted).

        waiting: due instants of the requests that wait, at least one.
        all_came: whether no more requests will come.
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
