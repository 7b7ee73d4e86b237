"""Ranges of NVTX around what a run does, which Nsight Systems shows beside kernels and copies (--nvtx).

The domain "loadtrt" has a range for each phase. Where Python submits, each request has one, "lane N", from submission
until its completion is seen. Where `loop.device.spin` submits, it has one for each of its turns, "turn", of up to
150 ms: the launches in there are those that the profiler sees by itself. Without --nvtx nothing of this is loaded.
"""

from __future__ import annotations

import importlib
from collections import deque
from typing import TYPE_CHECKING, Any

from loadtrt.errors import UsageError
from loadtrt.runs.narrowed import Narrowed, Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.engines.engine import Completion, Engine
    from loadtrt.lanes.model_run import OnTick, Phase
    from loadtrt.load.tensors import Arrays


class Marks:
    """The domain, and the ranges of the phase and of the turn that go on."""

    def __init__(self) -> None:
        """Raises UsageError where nvtx is not installed."""
        try:
            nvtx: Any = importlib.import_module("nvtx")
        except ImportError:
            raise UsageError("--nvtx needs the package nvtx: pip install 'loadtrt[nvtx]'") from None
        self._domain = nvtx.get_domain("loadtrt")
        self._phase: Any = None
        self._turn: Any = None
        self._turns = self.attributes("turn")

    def attributes(self, message: str) -> Any:
        """What `start` takes, made once for many ranges."""
        return self._domain.get_event_attributes(message=message)

    def start(self, attributes: Any) -> Any:
        """Begin a range, and return what `end` takes."""
        return self._domain.start_range(attributes)

    def end(self, begun: Any) -> None:
        self._domain.end_range(begun)

    def begin(self, phase: str) -> None:
        """A phase begins, which ends the one before."""
        self.close()
        self._phase = self.start(self.attributes(phase))

    def close(self) -> None:
        """The last phase is over."""
        self.end_turn()
        if self._phase is not None:
            self.end(self._phase)
            self._phase = None

    def begin_turn(self) -> None:
        """`spin` goes on from now on, until `end_turn`."""
        self._turn = self.start(self._turns)

    def end_turn(self) -> None:
        if self._turn is not None:
            self.end(self._turn)
            self._turn = None

    def ticking(self, on_tick: OnTick | None) -> OnTick:
        """A function for the session to call, which marks the phases that begin."""

        def tick(phase: Phase, elapsed_ns: int, submitted: int, completed: int) -> None:
            if not elapsed_ns:
                self.begin(phase)
            if on_tick is not None:
                on_tick(phase, elapsed_ns, submitted, completed)

        return tick


class Marked(Narrowed):
    """An engine with a range around each request that Python submits, and around each turn of `spin`."""

    def __init__(self, whole: Engine, inputs: Sequence[Arrays], marks: Marks) -> None:
        super().__init__(whole, Part(whole.contexts, whole.buffers), inputs)
        self._marks = marks
        self._lanes = [marks.attributes(f"lane {lane}") for lane in range(whole.contexts)]
        self._open: list[deque[Any]] = [deque() for _ in self._lanes]

    def submit(self, lane: int, inputs: int) -> None:
        """See Engine. The range of a launch of several requests ends with the last."""
        begun = self._marks.start(self._lanes[lane])
        self._open[lane].extend([None] * (self._whole.per_launch - 1) + [begun])
        self._whole.submit(lane, inputs)

    async def wait(self, until_ns: int, *, soon: bool = True) -> Sequence[Completion]:
        """See Engine."""
        completions: Sequence[Completion] = await self._whole.wait(until_ns, soon=soon)
        for completion in completions:
            if (begun := self._open[completion[0]].popleft()) is not None:
                self._marks.end(begun)
        return completions

    async def turn(self) -> int:
        """See Spins: `spin` goes on between two calls."""
        self._marks.end_turn()
        until = await super().turn()
        self._marks.begin_turn()
        return until
