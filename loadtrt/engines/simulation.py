"""The simulated engine: its parameters and their text form, and its random numbers."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from loadtrt.asked.fields import priority_number
from loadtrt.engines.key_values import choose_from, read_keys
from loadtrt.errors import UsageError, nearest
from loadtrt.printing import shortened
from loadtrt.units import MILLISECOND_NS, SECOND_NS, format_duration, parse_duration, parse_share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

Distribution = Literal["constant", "exponential", "lognormal", "gamma", "uniform"]
ClockName = Literal["loop", "virtual"]
Sharing = Literal["processor", "priority"]

# Spawn keys of this engine's random streams, apart from those of arrivals and inputs. The whole run has one seed, and
# streams of one key draw the same numbers, so that long services would follow long gaps.
_STREAMS = 1000
LONGEST_SERVICE_NS = 24 * 3600 * SECOND_NS
_PRIORITIES = 0, -5  # the least and the greatest, as of an H200
_BLOCK = 4096  # numbers drawn at a time, in about 50 µs: one at a time would take longer than a request


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """The parameters of a device and its faults. Durations are ns; docs/simulated.md states the laws.

    service_ns, item_ns: service_ns + item_ns × batch is the mean compute time of a request alone on the device.
    distribution: of compute times; None: lognormal where cv is given, else constant.
    cv: standard deviation / mean of compute times.
    contention: with n lanes computing, each progresses at 1 / (1 + contention·(n − 1)).
    stall: duration of a stall, and when it begins, from the first submit.
    lost: when the device is lost, from the first submit: every call fails then, as after a CUDA launch failure.
    hang: when the device hangs, from the first submit: nothing completes any more.
    slow_lane: a lane, and how many times slower it computes.
    race: probability that a request gets another's outputs.
    run: number of the run, each of which has draws of its own.
    device: name of the device, which models of one run share by it; "" for a device of its own.
    sharing: how requests share the device: all at once, or one after the other by priority.
    weight: the share of each lane in the device, relative to others'.
    priority: requests of a lower number go first, as with CUDA's streams.
    part: the part of the device that the model has for itself; None: what others leave, with those that have no part.
    scales: the share of the compute time that a part of the device lengthens (Amdahl's law).
    clock: real time ("loop") or virtual time.

    Raises UsageError for values outside their ranges.
    """

    service_ns: int = 5 * MILLISECOND_NS
    item_ns: int = 0
    distribution: Distribution | None = None
    cv: float | None = None
    contention: float = 0.0
    h2d_ns: int = 0
    d2h_ns: int = 0
    enqueue_ns: int = 0
    error: float = 0.0
    stall: tuple[int, int] | None = None
    lost: int | None = None
    hang: int | None = None
    slow_lane: tuple[int, float] | None = None
    race: float = 0.0
    seed: int = 1
    run: int = 0
    device: str = ""
    sharing: Sharing = "processor"
    weight: float = 1.0
    priority: int = 0
    part: float | None = None
    scales: float = 1.0
    clock: ClockName = "loop"

    def __post_init__(self) -> None:
        shares = (("contention", self.contention), ("error", self.error), ("race", self.race), ("scales", self.scales))
        for key, value in shares:
            if not 0 <= value <= 1:
                raise UsageError(f"simulated engine: {key} is {value}: write a number from 0 to 1")
        times = [(key, getattr(self, f"{key}_ns")) for key in ("service", "item", "h2d", "d2h", "enqueue")]
        times += [("stall", duration) for duration in sorted(self.stall or ())]
        for key, duration in (*times, ("lost", self.lost or 0), ("hang", self.hang or 0)):
            if not 0 <= duration <= LONGEST_SERVICE_NS:
                raise UsageError(f"simulated engine: {key} is {duration / SECOND_NS:g} s: write 0 to 24 hours")
        if self.seed < 0:
            raise UsageError(f"simulated engine: seed is {shortened(str(self.seed))}: write 0 or more")
        if self.cv is not None and not 0 < self.cv <= 100:
            raise UsageError(f"simulated engine: cv is {self.cv}: write a number above 0 and up to 100")
        if self.cv is not None and self.distribution in ("constant", "exponential"):
            raise UsageError(f"simulated engine: the {self.distribution} distribution takes no cv: leave cv out")
        if self.cv is None and self.distribution in ("lognormal", "gamma", "uniform"):
            raise UsageError(
                f"simulated engine: the {self.distribution} distribution needs cv: write for example cv=0.3"
            )
        if self.cv is not None and self.distribution == "uniform" and self.cv > 1 / math.sqrt(3):
            raise UsageError(f"simulated engine: cv is {self.cv}: a uniform distribution has at most 0.577")
        if self.slow_lane is not None and not (self.slow_lane[0] >= 0 and 0 < self.slow_lane[1] <= 1e6):
            raise UsageError(
                "simulated engine: slow_lane needs a lane from 0 and a factor above 0, up to 1e6: write for example 2:3"
            )

        self._require_sharing()

    def _require_sharing(self) -> None:
        """Refuse parameters of a device that is shared, and is not."""
        fields = type(self).__dataclass_fields__
        for key in ("sharing", "weight", "priority", "part"):
            if getattr(self, key) != fields[key].default and not self.device:
                raise UsageError(f"simulated engine: {key} is for a device that models share: add device=gpu0")
        if not 0 < self.weight <= 1e6:
            raise UsageError(f"simulated engine: weight is {self.weight:g}: write a number above 0, up to 1e6")
        if self.part is not None and not 0 < self.part <= 1:
            raise UsageError(f"simulated engine: part is {self.part:g}: write a number above 0, up to 1")
        if self.priority and self.sharing != "priority":
            raise UsageError("simulated engine: priority needs sharing=priority: add that, or leave it out")
        if self.weight != 1 and (self.sharing != "processor" or self.contention != 1):
            raise UsageError("simulated engine: weight needs sharing=processor with contention 1: leave it out")

    def mean_ns(self, batch: int) -> int:
        """Mean compute time of a request alone on the device."""
        return self.service_ns + self.item_ns * batch

    def service_times(self, batch: int) -> Iterator[int]:
        """Compute times alone on the device, ns, of the first, second, ... request submitted, without end."""
        mean, cv = float(self.mean_ns(batch)), self.cv or 0.0
        draw: Callable[[np.random.Generator], npt.NDArray[np.float64]]
        match self.distribution or ("lognormal" if self.cv is not None else "constant"):
            case _ if mean == 0:
                return itertools.repeat(0)
            case "constant":
                return itertools.repeat(round(mean))
            case "exponential":
                draw = lambda random: random.exponential(mean, _BLOCK)  # noqa: E731  (one law a line, as a table)
            case "lognormal":  # mean = exp(μ + σ²/2), cv² = exp(σ²) − 1
                variance = math.log1p(cv * cv)
                draw = lambda random: random.lognormal(math.log(mean) - variance / 2, math.sqrt(variance), _BLOCK)  # noqa: E731
            case "gamma":  # shape k, scale θ: mean = kθ, cv² = 1/k
                draw = lambda random: random.gamma(1 / cv**2, mean * cv**2, _BLOCK)  # noqa: E731
            case "uniform":  # on mean·(1 ± h): cv = h/√3
                half = mean * cv * math.sqrt(3)
                draw = lambda random: random.uniform(mean - half, mean + half, _BLOCK)  # noqa: E731
        return self._drawn(0, lambda random: np.rint(draw(random)).astype(np.int64))

    def errors(self) -> Iterator[bool]:
        """Whether the first, second, ... request fails, without end."""
        return self._chances(1, self.error)

    def races(self) -> Iterator[bool]:
        """Whether the first, second, ... request gets the outputs of another in flight, without end."""
        return self._chances(2, self.race)

    def _chances(self, number: int, probability: float) -> Iterator[bool]:
        if probability in (0, 1):
            return itertools.repeat(probability == 1)
        return self._drawn(number, lambda random: random.random(_BLOCK) < probability)

    def _drawn(self, number: int, draw: Callable[[np.random.Generator], npt.NDArray[Any]]) -> Iterator[Any]:
        sequence = np.random.SeedSequence((self.seed, self.run), spawn_key=(_STREAMS, number))
        random = np.random.default_rng(sequence)
        return itertools.chain.from_iterable(draw(random).tolist() for _ in itertools.count())

    def words(self, batch: int) -> dict[str, str]:
        """The parameters as text: {"service": "5.00 ms", "contention": "1", ...}, without faults that are off."""
        service = format_duration(self.mean_ns(batch))
        if self.distribution or self.cv is not None:
            service += f" {self.distribution or 'lognormal'}" + (f", cv {self.cv:g}" if self.cv is not None else "")
        words = {"service": service, "contention": f"{self.contention:g}", "clock": self.clock}
        if self.device:
            words |= {"device": self.device, "sharing": self.sharing}
        words |= {"weight": f"{self.weight:g}"} if self.weight != 1 else {}
        words |= {"priority": str(self.priority)} if self.priority else {}
        words |= {"part": f"{self.part:g}"} if self.part is not None else {}
        for key, duration in (("h2d", self.h2d_ns), ("d2h", self.d2h_ns), ("enqueue", self.enqueue_ns)):
            if duration:
                words[key] = format_duration(duration)
        for key, probability in (("error", self.error), ("race", self.race)):
            if probability:
                words[key] = f"{probability:g}"
        if self.stall:
            words["stall"] = f"{format_duration(self.stall[0])} at {format_duration(self.stall[1])}"
        for key, instant in (("lost", self.lost), ("hang", self.hang)):
            if instant is not None:
                words[key] = f"at {format_duration(instant)}"
        if self.slow_lane:
            words["slow lane"] = f"{self.slow_lane[0]}, {self.slow_lane[1]:g} times"
        return words


def parse_simulation(text: str, seed: int) -> Simulation:
    """The Simulation of "key=value,key=value", the text after "simulated:". seed: where the text has none.

    Models that share a device slow each other down: contention is 1 there, where the text has none.

    Raises UsageError for a key that is unknown, a value that is missing or of the wrong kind.
    """
    if "null" in (part.partition("=")[0].strip() for part in text.split(",")):
        raise UsageError("simulated engine: null has no parameters: write simulated:null, or leave null out")
    values = {"seed": seed, **read_keys(text, _KEYS, "simulated engine", ("null",))}
    if "device" in values:
        values.setdefault("contention", 1.0)
    return Simulation(**values)


def with_share(simulation: Simulation, sms: int | str | None, priority: int | str | None) -> Simulation:
    """With the part of the device and the priority that the options --sms and --priority ask for. A device on which one
    model has a priority serves by priority, so that others need one, too. Raises UsageError."""
    changes: dict[str, Any] = {}
    for option, value in (("--sms", sms), ("--priority", priority)):
        if value is not None and not simulation.device:
            raise UsageError(f"simulated engine: {option} is for a device that models share: add device=gpu0")
    if isinstance(sms, int):
        raise UsageError("simulated engine: its device has no SMs to count: write --sms as a share, such as 25%")
    if sms is not None:
        changes["part"] = parse_share(sms)
    if priority is not None:
        least, greatest = _PRIORITIES
        changes["priority"] = number = priority_number(priority, least, greatest)
        if number is None:
            range_ = f"{least}, the least, to {greatest}, the greatest"
            raise UsageError(f"simulated engine: its device has priorities {range_}, and not --priority {priority}")
        changes["sharing"] = "priority"
    for key, option in (("part", "sms"), ("priority", "priority")):
        if key in changes and getattr(simulation, key) != type(simulation).__dataclass_fields__[key].default:
            raise UsageError(f"simulated engine: {key} is given, and --{option} says it again: leave one out")
    return replace(simulation, **changes)


def _one_of(kind: Any) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in get_args(kind):
            words = get_args(kind)
            raise UsageError(f"'{text}' is unknown: {nearest(text, words, choose_from(words))}")
        return text

    return read


def _stall(text: str) -> tuple[int, int]:
    duration, at, after = text.partition("@")
    if not at:
        raise UsageError(f"'{text}' is not a stall: write its duration and begin, such as 1s@5s")
    return parse_duration(duration), parse_duration(after)


def _slow_lane(text: str) -> tuple[int, float]:
    lane, colon, factor = text.partition(":")
    if not (colon and re.fullmatch(r"[0-9]{1,9}", lane)):
        raise UsageError(f"'{text}' is not a slow lane: write a lane and how many times slower it is, such as 2:3")
    return int(lane), float(factor)


_KEYS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "service": ("service_ns", parse_duration),
    "item": ("item_ns", parse_duration),
    "distribution": ("distribution", _one_of(Distribution)),
    "cv": ("cv", float),
    "contention": ("contention", float),
    "h2d": ("h2d_ns", parse_duration),
    "d2h": ("d2h_ns", parse_duration),
    "enqueue": ("enqueue_ns", parse_duration),
    "error": ("error", float),
    "stall": ("stall", _stall),
    "lost": ("lost", parse_duration),
    "hang": ("hang", parse_duration),
    "slow_lane": ("slow_lane", _slow_lane),
    "race": ("race", float),
    "seed": ("seed", int),
    "device": ("device", str),
    "sharing": ("sharing", _one_of(Sharing)),
    "weight": ("weight", float),
    "priority": ("priority", int),
    "part": ("part", float),
    "scales": ("scales", float),
    "clock": ("clock", _one_of(ClockName)),
}
