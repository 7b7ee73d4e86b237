"""The load of a model: when requests are due. One type for each source of due instants, parsed once from options.

Each type states the options that it takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from loadtrt.asked.fields import option_name
from loadtrt.errors import UsageError
from loadtrt.load.arrivals import (
    PROCESSES,
    Process,
    bursts,
    due_instants,
    parse_bursts,
    parse_stages,
    require_room,
    steady,
)
from loadtrt.units import SECOND_NS, format_count

if TYPE_CHECKING:
    import numpy.typing as npt

    from loadtrt.load.arrivals import Course

LENGTH = frozenset({"duration", "requests"})
PROCESS = frozenset({"arrivals", *(name for process in PROCESSES.values() for name in process.parameters)})
QUEUE = frozenset({"batcher", "max_queue"})


class Load(ABC):
    """When requests are due.

    takes: the options that go with this type of load, those of its length and of its queue among them.
    refusal: the sentence for an option that does not; {key} and {option} stand for it.
    loop: the option that makes the load begin again at its end; "" where there is none, or it does so already.
    closed: requests follow each other (closed loop) instead of coming at instants of their own.
    steady: requests come at one mean rate throughout.
    steady_rate: served requests leave at one mean rate throughout; true offline, where a backlog always waits.
    cv: coefficient of variation of the gaps between requests at one rate; None where no process draws them.
    own_ns: the length of the load itself in ns, None where the run decides it.
    period_ns: the time after which the load begins again, ns; None where it does not.
    peak_ratio: the highest arrival rate over the mean one.
    """

    takes: ClassVar[frozenset[str]]
    refusal: ClassVar[str]
    loop: ClassVar[str] = ""
    closed: ClassVar[bool] = False

    @property
    def steady(self) -> bool:
        return True

    @property
    def own_ns(self) -> int | None:
        return None

    @property
    def period_ns(self) -> int | None:
        return None

    @property
    def peak_ratio(self) -> float:
        return 1.0

    @property
    def steady_rate(self) -> bool:
        return self.steady

    @property
    def cv(self) -> float | None:
        return None

    @property
    def clustered(self) -> bool:
        """Whether requests come in clusters by chance, which meet all workers of a fleet at the same time."""
        return False

    @property
    def drawn(self) -> bool:
        """Whether the seed decides when requests are due: two runs of one seed have the same due instants."""
        return False

    @property
    @abstractmethod
    def text(self) -> str:
        """The load in a few words, for a report."""

    @classmethod
    def refuses(cls, key: str) -> str | None:
        """Why an option does not go with this type of load, in a sentence; None where it does."""
        if key in cls.takes:
            return None
        if key in QUEUE:
            return f"{option_name(key)} is for an open loop: add --rate, such as 500/s, or leave it out"
        hint = f", or add {option_name(cls.loop)}" if cls.loop and key in LENGTH else ""
        return cls.refusal.format(key=key, option=option_name(key)) + hint

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The options that make this load, as they are written in a configuration: the inverse of `load_of`."""

    @abstractmethod
    def due(self, least_ns: int, least_requests: int, seed: int) -> npt.NDArray[np.int64] | None:
        """Due instants in ns from the start, int64, ascending; None for a closed loop. Raises UsageError where they
        do not fit in memory."""

    def keys(self, name: str) -> npt.NDArray[np.uint64]:
        """Numbers that stand for the key of each request, uint64 [n]; of a load that begins again, of one round.
        Raises UsageError where requests have none."""
        raise UsageError(
            f"sticky routing needs '{name}' of each request, which only a trace has: add --trace FILE, or take "
            "--routing random or round-robin"
        )

    def digest(self, keys: npt.NDArray[np.uint64] | None) -> str:  # noqa: ARG002  # most loads are their options
        """Of what a file holds of this load, in hexadecimal; "" where options say all. keys: by which it is dealt out.
        Raises UsageError."""
        return ""

    def require(self) -> None:  # noqa: B027  # most loads need nothing
        """Raise UsageError where what the load is made of cannot be had, before an engine is loaded."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was decided that the user did not say, a sentence each."""
        return ()

    def mean_rate(self, length_ns: int) -> float | None:  # noqa: ARG002  # for loads whose rate changes
        """Offered load in requests per second over the first `length_ns`; None where there is no arrival rate."""
        return None

    def course(self) -> Course | None:
        """How the arrival rate changes with time; None where there is none, or a trace decides."""
        return None


@dataclass(frozen=True)
class Closed(Load):
    """A closed loop: each request is due when the one before it on its buffer set completed."""

    takes = LENGTH | {"arrivals"}
    refusal = "a closed loop has no {key}: leave {option} out, or add --arrivals poisson or constant"
    closed = True
    text = "closed loop"

    def options(self) -> dict[str, Any]:
        return {"arrivals": "closed"}

    def due(self, least_ns: int, least_requests: int, seed: int) -> None:  # noqa: ARG002
        return None


@dataclass(frozen=True)
class Drawn(Load):
    """A load that a process draws along a course of the arrival rate."""

    process: Process

    @property
    def cv(self) -> float:
        return self.process.cv

    @property
    def clustered(self) -> bool:
        return self.process.cv > 1

    @property
    def drawn(self) -> bool:
        return self.process.cv > 0

    def options(self) -> dict[str, Any]:
        parameters = {name: getattr(self.process, name) for name in self.process.parameters}
        return {"arrivals": self.process.word, **parameters}

    def due(self, least_ns: int, least_requests: int, seed: int) -> npt.NDArray[np.int64]:
        course = self.course()
        assert course is not None  # noqa: S101  # both subclasses have one
        return due_instants(self.process, course, least_ns, least_requests, seed)


@dataclass(frozen=True)
class Rate(Drawn):
    """Requests at one mean arrival rate.

    rate: in requests per second.
    bursts: "ON/OFF": all requests come within the ON of each ON + OFF; None for a steady rate.
    """

    rate: float
    bursts: str | None = None
    takes = LENGTH | PROCESS | QUEUE | {"rate", "bursts"}
    refusal = "a load at a rate has no {key}: leave {option} out"

    @property
    def steady(self) -> bool:
        return self.bursts is None

    @property
    def period_ns(self) -> int | None:
        return None if self.bursts is None else sum(parse_bursts(self.bursts))

    @property
    def peak_ratio(self) -> float:
        if self.bursts is None:
            return 1.0
        on, off = parse_bursts(self.bursts)
        return (on + off) / on

    @property
    def text(self) -> str:
        word, comma, parameters = self.process.text.partition(", ")
        in_bursts = f", bursts {self.bursts}" if self.bursts else ""
        return f"{word} at {format_count(self.rate)}/s{comma}{parameters}{in_bursts}"

    def options(self) -> dict[str, Any]:
        return {**super().options(), "rate": self.rate, **({"bursts": self.bursts} if self.bursts else {})}

    def mean_rate(self, length_ns: int) -> float:  # noqa: ARG002
        return self.rate

    def course(self) -> Course:
        return steady(self.rate) if self.bursts is None else bursts(self.rate, *parse_bursts(self.bursts))


@dataclass(frozen=True)
class Stages(Drawn):
    """Arrival rates one after the other.

    stages: "100/s:10s, ramp 100/s-500/s:1m".
    rate: mean rate, in requests per second, to which all of them are scaled by one factor; None for the rates as they
        are written.
    """

    stages: str
    rate: float | None = None
    takes = PROCESS | QUEUE | {"stages", "stages_loop", "rate"}
    refusal = "stages have rates and durations of their own, and no {key}: leave {option} or --stages out"
    loop = "stages_loop"
    steady = False

    @cached_property
    def _course(self) -> Course:
        written = parse_stages(self.stages)
        return written if self.rate is None else written.scaled(self.rate / written.mean_per_s)

    @property
    def own_ns(self) -> int | None:
        return self._course.duration_ns

    @property
    def peak_ratio(self) -> float:
        return max(max(stage.first, stage.last) for stage in self._course.stages) / self._course.mean_per_s

    @property
    def text(self) -> str:
        word, comma, parameters = self.process.text.partition(", ")
        return f"{word} in stages {self.stages}{self._scaled}{comma}{parameters}"

    @property
    def _scaled(self) -> str:
        if self.rate is None:
            return ""
        peak = f", {format_count(self.rate * self.peak_ratio)}/s at the peak"
        return f", scaled to {format_count(self.rate)}/s on average{peak}"

    def options(self) -> dict[str, Any]:
        scaled = {} if self.rate is None else {"rate": self.rate}
        return {**super().options(), "stages": self.stages, **scaled}

    def mean_rate(self, length_ns: int) -> float:
        return self._course.requests(length_ns) * SECOND_NS / max(length_ns, 1)

    def course(self) -> Course:
        return self._course


class Looped(Load):
    """A load with a length of its own that begins again at its end, until the run's duration and requests are met.

    again: the option that makes it so.
    """

    loop = ""
    again: ClassVar[str]
    own_ns = None

    @property
    def period_ns(self) -> int | None:
        return super().own_ns

    @property
    def text(self) -> str:
        return f"{super().text}, looped"  # type: ignore[safe-super]  # of the load that is looped

    def options(self) -> dict[str, Any]:
        return {**super().options(), self.again: True}  # type: ignore[safe-super]

    def mean_rate(self, length_ns: int) -> float:  # noqa: ARG002
        return super().mean_rate(self.period_ns or 0) or 0.0


@dataclass(frozen=True)
class LoopedStages(Looped, Stages):
    takes = Stages.takes | LENGTH
    again = Stages.loop

    def course(self) -> Course:
        return replace(self._course, repeats=True)


@dataclass(frozen=True)
class Offline(Load):
    """All requests are due at once."""

    takes = QUEUE | {"arrivals", "requests"}
    refusal = "offline arrivals have no {key}, as all requests are due at once: leave {option} out"
    steady, steady_rate = False, True
    text = "offline, all requests at once"

    def options(self) -> dict[str, Any]:
        return {"arrivals": "offline"}

    def due(self, least_ns: int, least_requests: int, seed: int) -> npt.NDArray[np.int64]:  # noqa: ARG002
        require_room(least_requests)
        return np.zeros(least_requests, np.int64)
