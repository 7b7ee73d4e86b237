"""Engines without a device: `simulated:null` completes requests at once, `simulated:...` obeys a queueing law exactly.

They are public: tests of code that uses loadtrt's scheduler can use them on any machine, and the null engine shows what
the load generator itself can do. See docs/simulated.md.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from heapq import heappop
from typing import TYPE_CHECKING

import anyio.lowlevel
import numpy as np

from loadtrt import __version__
from loadtrt.engines.clock import LoopClock, VirtualClock, poll_until
from loadtrt.engines.engine import Completion
from loadtrt.engines.simulated_device import DeviceTime, IndependentLanes, Tenant, shared_device
from loadtrt.engines.simulation import LONGEST_SERVICE_NS, Simulation, parse_simulation, with_share
from loadtrt.errors import EngineError, UsageError
from loadtrt.load.tensors import TensorSpec, bytes_of
from loadtrt.results.engine_info import EngineInfo, MemoryBill
from loadtrt.units import MILLISECOND_NS, NEVER, SECOND_NS, plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.asked.model import Model
    from loadtrt.engines.clock import Clock
    from loadtrt.engines.simulated_device import SharedDevice
    from loadtrt.load.tensors import Arrays
    from loadtrt.results.engine_info import ClockMapping

_PREFIX = "simulated:"
_ITEM = 16  # numbers in x, and in y, for each item of the batch


def load_simulated(config: Model) -> SimulatedEngine | NullEngine:
    """The engine of "simulated:null" or "simulated:key=value,...", with the run's contexts, buffers, batch and seed.

    Without `copies`, h2d and d2h take no time. Raises UsageError for a specification that is not valid, and for shapes.
    """
    if any(part.shapes for part in config.parts):
        sizes = "write the parts of --mix as sizes, such as '1:0.7, 8:0.3'"
        remedy = "give --batch and leave --shapes out" if config.shapes else sizes
        raise UsageError(f"simulated engine: its input is always x fp32[batch,{_ITEM}]: {remedy}")
    text = config.engine.removeprefix(_PREFIX).strip()
    batches = tuple(part.batch or 1 for part in config.parts)
    engine: SimulatedEngine | NullEngine
    shares = [option for option in ("sms", "priority") if getattr(config, option) is not None]
    if text == "null" and shares:
        raise UsageError(f"simulated:null has no device to share: leave --{shares[0]} out")
    if text == "null" and config.device_times == "off":
        raise UsageError("simulated:null has no device whose times are measured: leave --device-times off out")
    if text == "null":
        engine = NullEngine(contexts=config.contexts, buffers=config.buffers, batches=batches, name=config.engine)
    else:
        simulation = with_share(parse_simulation(text, config.seed), config.sms, config.priority)
        times = (simulation.service_ns, simulation.item_ns, simulation.enqueue_ns, simulation.h2d_ns, simulation.d2h_ns)
        if simulation.clock == "virtual" and not any(times):
            raise UsageError("simulated engine: in virtual time a request that takes none would never let it pass")
        if not config.copies:
            simulation = replace(simulation, h2d_ns=0, d2h_ns=0)
        engine = SimulatedEngine(
            simulation,
            contexts=config.contexts,
            buffers=config.buffers,
            batches=batches,
            name=config.engine,
            times=config.device_times == "on",
        )
    if config.inferences_per_request is not None:
        batch, reason = config.inferences_per_request, "--inferences-per-request"
        engine.info = replace(engine.info, batch=batch, batch_from=reason)
    return engine


class _Doubler:
    """The common part of both engines: y = 2x, of x fp32[batch, 16]."""

    per_launch = 1
    wakeup = None

    def __init__(
        self, contexts: int, buffers: int, batches: Sequence[int], name: str, mode: Mapping[str, str], note: str
    ) -> None:
        self.contexts, self.buffers = contexts, buffers
        self.parts = tuple(
            tuple(TensorSpec(n, n == "x", "fp32", (batch, _ITEM), bytes_of("fp32", (batch, _ITEM))) for n in ("x", "y"))
            for batch in batches
        )
        self.batches = tuple(batches)
        batch = max(batches)
        self.info = EngineInfo(
            kind="simulated",
            name=name,
            flavour="simulated",
            version=__version__,
            device="simulated",
            sha256="",
            batch=batch,
            larger_batch=True,
            tensors=self.parts[batches.index(batch)],
            mode=mode,
            notes=(note,),
        )
        self._answers: list[Arrays] = []  # the outputs of each input set
        self._shown: list[list[int]] = []  # [lane][buffer]: the input set whose outputs are there
        self._next: list[int] = []  # [lane]: the buffer set of the next request

    def memory(self, inputs: Sequence[Arrays]) -> MemoryBill:
        """Host memory of the input sets and their outputs."""
        nbytes = sum(array.nbytes for arrays in inputs for array in arrays.values())
        return MemoryBill(self.contexts, self.buffers, 0, 0, 0, 0, inputs_bytes=2 * nbytes, free_bytes=None)

    def allocate(self, inputs: Sequence[Arrays]) -> None:
        """Compute the outputs of all input sets, and make the lanes."""
        self._answers = [{"y": np.multiply(arrays["x"], 2)} for arrays in inputs]
        self._shown = [[0] * self.buffers for _ in range(self.contexts)]
        self._next = [0] * self.contexts

    def outputs(self, lane: int, buffer: int) -> Arrays:
        """{"y": fp32[batch, 16]} of the request that has this buffer set."""
        return self._answers[self._shown[lane][buffer]]

    def clock_mapping(self) -> ClockMapping | None:
        return None

    def close(self) -> None:
        self._answers, self._shown, self._next = [], [], []


class NullEngine(_Doubler):
    """Completes every request at the instant of its submission, so that all time is the load generator's own.

    Its clock is time.perf_counter_ns. It does not count requests in flight, for speed.
    """

    now_ns = staticmethod(time.perf_counter_ns)
    clock = None

    def __init__(
        self, *, contexts: int = 1, buffers: int = 2, batches: Sequence[int] = (1,), name: str = "simulated:null"
    ) -> None:
        note = "the null engine does nothing: these numbers are the load generator's own limit"
        super().__init__(contexts, buffers, batches, name, {"service": "none"}, note)
        self._done: list[Completion] = []
        self._turn_ns = 0

    def submit(self, lane: int, inputs: int) -> None:
        buffer = self._next[lane]
        self._next[lane] = buffer + 1 if buffer + 1 < self.buffers else 0
        self._shown[lane][buffer] = inputs
        self._done.append(Completion(lane, buffer, time.perf_counter_ns(), 0, 0, 0))

    async def wait(self, until_ns: int, *, soon: bool = True) -> Sequence[Completion]:  # noqa: ARG002  # it never sleeps too long
        if not self._done:
            await poll_until(until_ns)
        elif self._done[-1].completed_ns - self._turn_ns > MILLISECOND_NS:
            await anyio.lowlevel.checkpoint()
            self._turn_ns = time.perf_counter_ns()
        done, self._done = self._done, []
        return done

    def next_look(self, *, soon: bool) -> int:  # noqa: ARG002  # as of Shares
        return 0 if self._done else NEVER

    def close(self) -> None:
        super().close()
        self._done = []


class SimulatedEngine(_Doubler):
    """Lanes of a device that is simulated exactly: instants are those of the law, however late the host looks.

    Each lane is first in, first out. Its j-th request, whose submit call ended at a_j, has

        ready_j = a_j + h2d    start_j = max(ready_j, end_{j−1})    completed_j = end_j + d2h

    in int ns. The time from start to end follows IndependentLanes (contention 0), ProcessorSharing or Priorities.

    simulation: what is simulated.
    clock: the engine's clock, for tests in which the host is busy.
    """

    def __init__(
        self,
        simulation: Simulation | None = None,
        *,
        contexts: int = 1,
        buffers: int = 2,
        batches: Sequence[int] = (1,),
        name: str = "simulated",
        times: bool = True,
    ) -> None:
        """Raises UsageError where slow_lane is not a lane.

        buffers: requests in flight on each lane at most.
        times: whether completions say what took how long.
        batches: items of a request of each part. Service times of all are one sequence of draws, scaled by their means.
        """
        self.simulation = simulation = simulation or Simulation()
        slow_lane, slowness = simulation.slow_lane or (0, 1.0)
        if slow_lane >= contexts:
            raise UsageError(
                f"simulated engine: slow_lane {slow_lane} is not a lane: write one from 0 to {contexts - 1}"
            )
        longest_ns = simulation.mean_ns(max(batches)) * max(slowness, 1)
        if longest_ns > LONGEST_SERVICE_NS:
            raise UsageError(
                f"simulated engine: a request of {plural(max(batches), 'item')} would take {longest_ns / SECOND_NS:g} "
                "s: lower item, the batch or the factor of slow_lane, as 24 hours are the most"
            )
        note = "simulated device: these numbers say nothing about a GPU"
        mode = simulation.words(max(batches)) | ({} if times else {"device times": "off"})
        super().__init__(contexts, buffers, batches, name, mode, note)
        self._times = times
        self.clock: Clock = VirtualClock() if simulation.clock == "virtual" else LoopClock()
        self._slowness = [slowness if lane == slow_lane else 1 for lane in range(contexts)]
        self._hang_at = NEVER if simulation.hang is None else simulation.hang
        self._h2d_ns, self._d2h_ns = simulation.h2d_ns, simulation.d2h_ns
        self._means = [simulation.mean_ns(batch) for batch in batches]
        self._scale: list[float] = []  # of each input set
        self._error_text = f"simulated fault: error={simulation.error:g}"
        self._part = simulation.part or 1.0
        self._shared: SharedDevice | None = None  # with engines of other models
        self._time = DeviceTime(simulation.stall, simulation.lost)
        self.restart(0)
        self._take_lanes(0)

    def restart(self, number: int) -> None:
        """Draw from now on the numbers of the run with this number, whatever was drawn before."""
        simulation = replace(self.simulation, run=number)
        self._service, self._errors = simulation.service_times(max(self.batches)), simulation.errors()
        self._races = simulation.races()

    def share(self, device: SharedDevice | None, time_: DeviceTime, part: float) -> None:
        """Be on a device with engines of other models from now on. Before lanes are allocated; one task drives all of
        them (lanes/together.py), as a request of one changes when those of others end.

        device: how its lanes share it; None for lanes that nobody shares.
        part: the part of the device that this is.
        """
        self._shared, self._time, self._part = device, time_, part

    def _take_lanes(self, lanes: int) -> None:
        simulation = self.simulation
        shared = self._shared or shared_device(simulation.sharing, simulation.contention)
        self._device: IndependentLanes | Tenant = IndependentLanes(lanes)
        if shared is not None:
            self._device = Tenant(shared, lanes, simulation.weight, simulation.priority)
        # [lane]: (ready, buffer, error) of the requests that `wait` has not returned
        self._in_flight: list[deque[tuple[int, int, str | None]]] = [deque() for _ in range(lanes)]

    def allocate(self, inputs: Sequence[Arrays]) -> None:
        super().allocate(inputs)
        longest = max(self._means)
        sets, scales = len(inputs) // len(self.parts), self.simulation.scales
        lengthened = 1 - scales + scales / self._part  # by a part of the device (Amdahl's law)
        self._scale = [lengthened * mean / longest if longest else 1.0 for mean in self._means for _ in range(sets)]
        self._time.origin_ns = None
        self._take_lanes(self.contexts)

    def close(self) -> None:
        super().close()
        self._take_lanes(0)

    def now_ns(self) -> int:
        return self.clock.now_ns()

    def submit(self, lane: int, inputs: int) -> None:
        if not 0 <= lane < len(self._in_flight):
            raise EngineError(f"there is no lane {lane}: {len(self._in_flight)} are allocated")
        in_flight = self._in_flight[lane]
        if len(in_flight) == self.buffers:
            raise EngineError(
                f"lane {lane} has {self.buffers} requests in flight, one for each buffer set: wait for one first"
            )
        if self._time.origin_ns is None:
            self._time.origin_ns = self.clock.now_ns()
        self._require_device("submit")
        if self.simulation.enqueue_ns:
            self.clock.spend(self.simulation.enqueue_ns)
        buffer = self._next[lane]
        self._next[lane] = (buffer + 1) % self.buffers
        raced = next(self._races) and any(self._in_flight)  # a race needs another request to race with
        self._shown[lane][buffer] = (inputs + 1) % len(self._answers) if raced else inputs
        at = self._time.of_clock(self.clock.now_ns())
        ready = at + self._h2d_ns
        in_flight.append((ready, buffer, self._error_text if next(self._errors) else None))
        self._device.add(lane, at, ready, round(next(self._service) * self._slowness[lane] * self._scale[inputs]))

    async def wait(self, until_ns: int, *, soon: bool = True) -> Sequence[Completion]:  # noqa: ARG002  # it never sleeps too long
        device, clock, d2h, time_ = self._device, self.clock, self._d2h_ns, self._time
        ends, origin = device.ends, time_.origin_ns or 0
        answers_until = origin + min(time_.lost_at, self._hang_at)  # what completes later is never seen
        while True:
            await clock.sleep_until(min(self.next_look(), until_ns))
            now = clock.now_ns()
            device.advance(time_.of_clock(now))
            finished = []
            while ends and (completed := time_.on_clock(ends[0][0] + d2h)) <= now and completed < answers_until:
                end, lane, start = heappop(ends)
                ready, buffer, error = self._in_flight[lane].popleft()
                h2d, compute = time_.lasted(ready - self._h2d_ns, ready), time_.lasted(start, end)
                d2h_took = time_.lasted(end, end + d2h)
                done = Completion(lane, buffer, completed, h2d, compute, d2h_took, error)
                finished.append(done if self._times else done._replace(h2d_ns=0, compute_ns=0, d2h_ns=0))
            if not finished:
                self._require_device("wait")
            if finished or now >= until_ns:
                return finished

    def next_look(self, *, soon: bool = True) -> int:  # noqa: ARG002  # as of Shares
        time_ = self._time
        origin, next_ns = time_.origin_ns or 0, time_.on_clock(self._device.next_at() + self._d2h_ns)
        return next_ns if next_ns < origin + min(time_.lost_at, self._hang_at) else origin + time_.lost_at

    def outputs(self, lane: int, buffer: int) -> Arrays:
        self._require_device("outputs")
        return super().outputs(lane, buffer)

    def _require_device(self, call: str) -> None:
        self._time.require_device(call, self.clock.now_ns)
