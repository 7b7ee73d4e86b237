"""The load of a trace: the instants of a file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from loadtrt.asked.load import LENGTH, QUEUE, Load, Looped
from loadtrt.load.trace import UNIT_SCALES, read_trace, read_trace_at, trace_keys, trace_remarks
from loadtrt.units import SECOND_NS, format_count

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from loadtrt.load.trace import Trace as Instants


@dataclass(frozen=True)
class Trace(Load):
    """The instants of a file, replayed.

    file: path of a file that `read_trace` reads.
    column: name of the column or key that holds instants, None where the file tells.
    scale: factor on all times; 0.5 is twice as fast.
    rate: mean rate, in requests per second, to which all gaps are scaled by one factor, in place of `scale`; None for
        `scale` as it is.
    """

    file: str
    column: str | None = None
    scale: float = 1.0
    rate: float | None = None
    takes = QUEUE | {"arrivals", "trace", "trace_column", "time_scale", "trace_loop", "rate"}
    refusal = "a trace has instants of its own, and no {key}: leave {option} or --trace out"
    loop = "trace_loop"
    steady = False
    clustered = True  # whether it has clusters is not known

    @cached_property
    def instants(self) -> Instants:
        """The file's content. Raises UsageError."""
        if self.rate is not None:
            return read_trace_at(self.rate, self.file, self.column)
        return read_trace(self.file, self.column, self.scale)

    def require(self) -> None:
        self.instants  # noqa: B018  # read and kept

    @property
    def own_ns(self) -> int | None:
        return self.instants.duration_ns

    @property
    def remarks(self) -> tuple[str, ...]:
        remarks = trace_remarks(self.file, self.column, 1.0 if self.rate is not None else self.scale)
        return (f"trace {self.file}: {'; '.join(remarks)}",) if remarks else ()

    @property
    def peak_ratio(self) -> float:
        # As recorded: of a scale that says the unit alone.
        return read_trace(self.file, self.column, self.scale if self.scale in UNIT_SCALES else 1.0).peak_ratio

    @property
    def text(self) -> str:
        scaled = f" × {self.scale:g}" if self.scale != 1 else ""
        return f"trace {self.file}{scaled}" + (
            f", scaled to {format_count(self.rate)}/s on average" if self.rate else ""
        )

    def options(self) -> dict[str, Any]:
        named = {"trace_column": self.column} if self.column is not None else {}
        scaled = {"time_scale": self.scale} if self.rate is None else {"rate": self.rate}
        return {"arrivals": "trace", "trace": self.file, **named, **scaled}

    def due(self, least_ns: int, least_requests: int, seed: int) -> npt.NDArray[np.int64]:  # noqa: ARG002
        return self.instants.due(least_ns, least_requests, loop=False)

    def keys(self, name: str) -> npt.NDArray[np.uint64]:
        return trace_keys(self.file, name, self.column)

    def digest(self, keys: npt.NDArray[np.uint64] | None) -> str:
        digest = blake2b(self.instants.instants.tobytes(), digest_size=16)
        digest.update(b"" if keys is None else keys.tobytes())
        return digest.hexdigest()

    def mean_rate(self, length_ns: int) -> float:
        return self.instants.requests(length_ns) * SECOND_NS / max(length_ns, 1)


@dataclass(frozen=True)
class LoopedTrace(Looped, Trace):
    takes = Trace.takes | LENGTH
    again = Trace.loop

    def due(self, least_ns: int, least_requests: int, seed: int) -> npt.NDArray[np.int64]:  # noqa: ARG002
        return self.instants.due(least_ns, least_requests, loop=True)
