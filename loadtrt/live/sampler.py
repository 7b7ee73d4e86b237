"""Samples a GPU several times a second from a thread of its own, for as long as a run takes.

It runs in the observer process, where calls that take milliseconds make no request late. perf_counter_ns is one clock
for all processes (CLOCK_MONOTONIC), so that the run's instants are valid there.
"""

from __future__ import annotations

import time
from dataclasses import replace
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING, Protocol, Self

from loadtrt.results.gpu_telemetry import GpuFacts, GpuReading, SamplingCost, telemetry_of
from loadtrt.stats.gpu_log import GpuLog
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.live.clients import Clients
    from loadtrt.live.nvml import GpuLimits, GpuSettings
    from loadtrt.results.gpu_telemetry import GpuTelemetry

EVERY_NS = 200 * MILLISECOND_NS
# The PCIe counters wrap at 4 GiB, after 68 ms at the 63 GB/s of PCIe 5.0 x16. Read this often they are exact up to
# 85 GB/s each way; read five times a second, 22 GB/s (which the inputs of an H100 reach) would look like none.
PCIE_EVERY_NS = 50 * MILLISECOND_NS
WRAP_BYTES = 2**32
SILENT_READINGS = 5  # in a row: then the GPU no longer answers

_WORDS = {
    "sm_clock_hertz": "SM clock",
    "power_watts": "power",
    "temperature_celsius": "temperature",
    "memory_used_bytes": "memory used",
    "utilization_ratio": "utilization",
    "memory_utilization_ratio": "memory utilization",
    "energy_joules": "energy",
    "pcie_rx_bytes": "PCIe traffic",
    "pcie_tx_bytes": "PCIe traffic",
    "throttle_reasons": "what holds the clocks",
}
_NOTHING = "NVML gives this user no numbers of this GPU; nvidia-smi must work here"
_SILENCE = "the GPU stopped answering; see nvidia-smi, and 'dmesg | grep -i xid'"


class Watched(Protocol):
    """What a sampler needs of a GPU, such as `loadtrt.live.nvml.Gpu`."""

    name: str | None

    def read(self) -> GpuReading: ...
    def pcie_bytes(self) -> tuple[int | None, int | None]: ...
    def limits(self) -> GpuLimits: ...
    def settings(self) -> GpuSettings: ...


class Sampler:
    """Reads `gpu` every `every_ns`, at deadlines that do not drift; a missed deadline is counted, not made up for.

    `start` and `stop` it, or use it in a `with`, before the GPU is closed. Whatever the GPU does, the thread ends
    quietly and `telemetry` says why.

    every_ns: time between readings.
    latest: the newest reading, None before the first. Its PCIe counters are bytes since sampling began and do not wrap.
    """

    def __init__(
        self,
        gpu: Watched,
        every_ns: int = EVERY_NS,
        clients: Clients | None = None,
        *,
        now_ns: Callable[[], int] = time.perf_counter_ns,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        """clients: who else uses the GPU, looked for each second.

        now_ns, and wait (seconds → whether to end), are for tests, which call `run`.
        """
        self.every_ns = every_ns
        self.latest: GpuReading | None = None
        self._gpu, self._clients = gpu, clients
        self._limits, self._mig = gpu.limits(), gpu.settings().mig
        self._now = now_ns
        self._ended = Event()
        self._wait = wait or self._ended.wait
        self._thread: Thread | None = None
        self._read = Condition()  # guards the log; notified after every reading and at the end
        self._log = GpuLog()
        self._received, self._sent = _Counter(), _Counter()
        self._running = False
        self._last: GpuReading | None = None
        self._silent = 0
        self._asked = False  # for telemetry: the last second, too
        self._failure = ""
        self._began_ns = now_ns()
        self._spent_ns = 0
        self._lost = 0

    def start(self) -> None:
        self._running = True
        self._thread = Thread(target=self.run, name="loadtrt-gpu-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, waiting two seconds at most: a call to a lost GPU may never return. Safe to call twice."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(2)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self) -> None:
        """Read until `stop`, or until the GPU no longer answers. Never raises."""
        self._running = True
        try:
            self._run()
        except Exception as error:
            # A fault here must cost the run its telemetry and nothing more.
            self._failure = f"sampling failed ({type(error).__name__}: {error})"
        finally:
            with self._read:
                self._running = False
                self._read.notify_all()

    def telemetry(self, start_ns: int, end_ns: int, inferences: int, each_ns: int = SECOND_NS) -> GpuTelemetry:
        """The GPU over a run between two instants of perf_counter_ns, in which so many inferences were served, in
        intervals of each_ns.

        Waits for a reading after end_ns, two periods at most: without it the last second's energy is not known.
        """
        self._asked = True
        with self._read:
            self._read.wait_for(lambda: not self._running or self._seen_until(end_ns), 2 * self.every_ns / SECOND_NS)
            intervals = self._log.intervals(start_ns, end_ns, each_ns)
            missing = self._missing(start_ns, end_ns)
            last = self._last or GpuReading(at_ns=0)
            return telemetry_of(
                GpuFacts(
                    name=self._gpu.name,
                    max_sm_clock_hertz=last.max_sm_clock_hertz,
                    power_limit_watts=last.power_limit_watts,
                    most_power_watts=self._limits.most_power_watts,
                    slowdown_celsius=self._limits.slowdown_celsius,
                    memory_total_bytes=last.memory_total_bytes,
                ),
                intervals,
                inferences,
                every_ns=self.every_ns,
                missing=missing,
                cost=self.cost,
            )

    @property
    def cost(self) -> SamplingCost:
        """What sampling has taken so far."""
        sampled_ns = self._now() - self._began_ns
        return SamplingCost(
            readings=len(self._log),
            lost=self._lost,
            seconds=self._spent_ns / SECOND_NS,
            fraction=self._spent_ns / sampled_ns if sampled_ns else 0.0,
        )

    def _run(self) -> None:
        """Deadline i is at began + i·step. Every `parts`-th reads everything, the others the PCIe counters alone."""
        parts = -(-self.every_ns // PCIE_EVERY_NS)
        step, tick = self.every_ns // parts, 0
        self._began_ns = self._now()
        while True:
            before = self._now()
            whole = tick % parts == 0
            if whole:
                if self._clients is not None and (self._clients.due or self._asked):
                    self._asked = False
                    self._clients.look()
                self._take()
            else:
                self._count(*self._gpu.pcie_bytes())
            now = self._now()
            self._spent_ns += now - before
            if self._silent >= SILENT_READINGS:
                return
            stride = 1 if self._received.wraps or self._sent.wraps else parts
            following = max(tick + 1, -(-(now - self._began_ns) // step))
            following = -(-following // stride) * stride
            self._lost += (following - 1) // parts - tick // parts
            tick = following
            if self._wait(max(self._began_ns + tick * step - now, 0) / SECOND_NS):
                return

    def _take(self) -> None:
        reading = self._gpu.read()
        with self._read:
            if reading.answered:
                self._count(reading.pcie_rx_bytes, reading.pcie_tx_bytes)
                reading = replace(reading, pcie_rx_bytes=self._received.total, pcie_tx_bytes=self._sent.total)
                self._log.add(reading)
                self._last, self._silent = reading, 0
            else:
                self._silent += 1
            self.latest = reading
            self._read.notify_all()

    def _count(self, received: int | None, sent: int | None) -> None:
        self._received.see(received)
        self._sent.see(sent)

    def _seen_until(self, end_ns: int) -> bool:
        return self.latest is not None and self.latest.at_ns >= end_ns

    def _missing(self, start_ns: int, end_ns: int) -> tuple[str, ...]:
        if self._last is None:
            return (f"everything: {self._failure or _NOTHING}",)
        words = list(dict.fromkeys(_WORDS[name] for name in self._log.missing()))
        if self._mig:
            words.append("this MIG instance alone: clocks, power and energy are the whole GPU's")
        began_ns = self._log.began_ns or 0
        if began_ns > start_ns:
            words.append(f"everything before {(began_ns - start_ns) / SECOND_NS:.1f} s: sampling began late")
        ended_ns = self._last.at_ns
        if (self._failure or self._silent) and ended_ns + self.every_ns < end_ns:
            after_s = max(ended_ns - start_ns, 0) / SECOND_NS
            words.append(f"everything after {after_s:.1f} s: {self._failure or _SILENCE}")
        return tuple(words)


class _Counter:
    """A counter of bytes that may wrap at 2³², made into one that does not.

    total: bytes since the first value, None before it.
    wraps: whether it must be read often, which is so until it shows more than 32 bits.
    """

    def __init__(self) -> None:
        self.total: int | None = None
        self.wraps = False
        self._last = 0

    def see(self, value: int | None) -> None:
        """The counter's newest value; None changes nothing."""
        if value is None:
            return
        gained = value - self._last
        if gained < 0:  # wrapped, or reset with the driver where the last value has more than 32 bits
            gained = gained + WRAP_BYTES if self._last < WRAP_BYTES else 0
        self.total = 0 if self.total is None else self.total + gained
        self._last = value
        self.wraps = value < WRAP_BYTES
