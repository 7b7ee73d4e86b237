"""Layer by layer: what an engine that can tell its layers' times does, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtrt.load.tensors import Arrays
    from loadtrt.results.profile_result import ProfilePass


_STEADY_NS = 10 * SECOND_NS  # clocks that are not steady by then will not be


@dataclass(frozen=True, slots=True)
class ProfileLength:
    """How long each pass is: until both `duration_ns` and `inferences` are met. warmup_ns: before anything is timed."""

    duration_ns: int
    inferences: int
    warmup_ns: int


@dataclass(slots=True)
class Profiled:
    """What a profile has found so far; truthful at any moment. layer_info: the engine inspector's own JSON, None where
    there is none. notes: why a pass is missing, and what its reader should know. stopped: ended early, from outside."""

    passes: list[ProfilePass] = field(default_factory=list)
    layer_info: str | None = None
    notes: list[str] = field(default_factory=list)
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Watch:
    """What stands around a profile. stop: asked between inferences, whether to end now. tell(pass, fraction): progress,
    0 to 1, as often as inferences end. steady: asked during warm-up, whether clocks are."""

    stop: Callable[[], bool]
    tell: Callable[[str, float], None]
    steady: Callable[[], bool] = lambda: True


@runtime_checkable
class TellsLayers(Protocol):
    """An engine that can time its layers: loaded, and no lanes allocated."""

    def profile(self, inputs: Arrays, length: ProfileLength, profiled: Profiled, watch: Watch) -> None:
        """Fill `profiled`, one inference with `inputs` at a time. Raises EngineError; what was found is kept."""
        ...


def warm_up(infer: Callable[[], object], length: ProfileLength, watch: Watch) -> None:
    """Inferences until `warmup_ns` have passed and clocks are steady; not for ever, since some never are."""
    began = perf_counter_ns()
    for _ in turns(ProfileLength(length.warmup_ns, 1, 0), watch, "warm-up"):
        infer()
    while length.warmup_ns and not watch.stop() and not watch.steady() and perf_counter_ns() - began < _STEADY_NS:
        for _ in turns(ProfileLength(SECOND_NS // 5, 1, 0), watch, "warm-up until clocks are steady"):
            infer()


def turns(length: ProfileLength, watch: Watch, name: str, part: float = 1.0) -> Iterator[int]:
    """Count inferences until `part` of the length is through, or `watch.stop()` says so; at least one is made."""
    least, duration = max(1, round(length.inferences * part)), length.duration_ns * part
    began, done = perf_counter_ns(), 0
    while True:
        yield done
        done += 1
        elapsed = perf_counter_ns() - began
        if watch.stop() or (done >= least and elapsed >= duration):
            return
        watch.tell(name, min(done / least, elapsed / duration if duration else 1.0))
