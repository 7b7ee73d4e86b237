"""The sampler against a GPU of numbers and a clock that only moves when it waits: no second is slept."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.live.nvml import GpuLimits, GpuSettings
from loadtrt.live.sampler import EVERY_NS, PCIE_EVERY_NS, WRAP_BYTES, Sampler
from loadtrt.results.gpu_telemetry import GpuFacts, GpuReading, GpuTelemetry, SamplingCost, mark_throttled, telemetry_of
from loadtrt.results.run_result import RunResult
from loadtrt.results.steadiness import Interval
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

MHZ = 1_000_000
WATTS = 500
GOOD = GpuReading(
    at_ns=0,
    sm_clock_hertz=1980 * MHZ,
    max_sm_clock_hertz=1980 * MHZ,
    power_watts=float(WATTS),
    power_limit_watts=700.0,
    temperature_celsius=60,
    memory_used_bytes=2**30,
    memory_total_bytes=80 * 2**30,
    utilization_ratio=0.9,
    memory_utilization_ratio=0.4,
    throttle_reasons=(),
)


class FakeGpu:
    """A GPU at a steady 500 W that receives `rate` bytes a second, on a clock that its looks and waits move.

    look_ns: how long a look takes, which may depend on the number of the look. what: changes a reading by its second.
    """

    name: str | None = "Fake H100"

    def __init__(
        self,
        what: Callable[[float, GpuReading], GpuReading] = lambda _, good: good,
        *,
        rate: float | None = 10e9,
        bits: int = 32,
        mig: bool | None = False,
        look_ns: Callable[[int], int] = lambda _: MILLISECOND_NS,
    ) -> None:
        self.now = 10**15
        self.began = self.now
        self._what, self._rate, self._bits, self._mig, self._look_ns = what, rate, bits, mig, look_ns
        self.looks: list[int] = []
        self.counts: list[int] = []

    def pcie_bytes(self) -> tuple[int | None, int | None]:
        self.counts.append(self.now)
        if self._rate is None:
            return None, None
        received = round(self._rate * (self.now - self.began) / SECOND_NS + 2**33 - 1000) % 2**self._bits
        return received, 2**33 % 2**self._bits  # it sends nothing

    def read(self) -> GpuReading:
        at, second = self.now, (self.now - self.began) / SECOND_NS
        self.looks.append(at)
        received, sent = self.pcie_bytes()
        good = replace(GOOD, at_ns=at, energy_joules=WATTS * second, pcie_rx_bytes=received, pcie_tx_bytes=sent)
        self.now += self._look_ns(len(self.looks))
        return self._what(second, good)

    def limits(self) -> GpuLimits:
        return GpuLimits(slowdown_celsius=90, most_power_watts=700.0)

    def settings(self) -> GpuSettings:
        return GpuSettings(persistence=True, ecc=True, mig=self._mig, compute_mode="default")


def sampled(gpu: FakeGpu, seconds: float) -> Sampler:
    """A sampler that has looked at the GPU for so long."""
    end = gpu.now + round(seconds * SECOND_NS)

    def wait(pause: float) -> bool:
        gpu.now += round(pause * SECOND_NS)
        return gpu.now > end

    sampler = Sampler(gpu, now_ns=lambda: gpu.now, wait=wait)
    sampler.run()
    return sampler


def silent(second: float, good: GpuReading) -> GpuReading:
    """The telemetry of a GPU that is lost after 3 s."""
    return good if second < 3 else GpuReading(at_ns=good.at_ns, max_sm_clock_hertz=1980 * MHZ)


def test_deadlines_do_not_drift() -> None:
    """Look i is at began + i · 200 ms, exactly, however long looks take; in a minute that is 301 and none lost."""
    gpu = FakeGpu(look_ns=lambda number: number % 7 * 5 * MILLISECOND_NS)
    sampler = sampled(gpu, 60)
    assert [at - gpu.began for at in gpu.looks] == [place * EVERY_NS for place in range(301)]
    assert (sampler.cost.readings, sampler.cost.lost) == (301, 0)


def test_missed_deadlines_are_lost_and_not_made_up_for() -> None:
    """A look of 0.7 s costs three deadlines, which are counted; the next look is on the grid again."""
    gpu = FakeGpu(look_ns=lambda number: 700 * MILLISECOND_NS if number == 3 else 0)
    sampler = sampled(gpu, 2)
    grid = [(at - gpu.began) / EVERY_NS for at in gpu.looks]
    assert grid == [0, 1, 2, 6, 7, 8, 9, 10]
    assert sampler.cost.lost == 3


def test_cost_is_what_looking_took() -> None:
    """51 looks of 2 ms in 10 s are 102 ms, about 1 % of the time."""
    gpu = FakeGpu(look_ns=lambda _: 2 * MILLISECOND_NS)
    cost = sampled(gpu, 10).cost
    assert cost.seconds == pytest.approx(0.102)
    assert cost.fraction == pytest.approx(0.0102, rel=0.05)


@pytest.mark.parametrize("rate", [1e6, 10e9, 21.8e9, 63e9, 80e9])
def test_wrapping_counters_lose_nothing(rate: float) -> None:
    """A 32-bit counter of bytes shows the true traffic up to 4 GiB in 50 ms, 85 GB/s, far over what five looks a second
    could distinguish (21 GB/s)."""
    gpu = FakeGpu(rate=rate)
    sampler = sampled(gpu, 5)
    found = sampler.telemetry(gpu.began, gpu.began + 5 * SECOND_NS, 1).intervals
    assert [i.pcie_rx_bytes for i in found] == pytest.approx([rate] * 5, rel=1e-6)
    assert {i.pcie_tx_bytes for i in found} == {0}
    assert sampler.latest is not None
    assert sampler.latest.pcie_rx_bytes == pytest.approx(rate * (sampler.latest.at_ns - gpu.began) / SECOND_NS)


@pytest.mark.parametrize(("bits", "rate"), [(64, 10e9), (32, None)])
def test_counters_are_read_often_only_where_they_wrap(bits: int, rate: float | None) -> None:
    """A counter above 32 bits, or none at all, is looked at with the rest and not every 50 ms."""
    gpu = FakeGpu(bits=bits, rate=rate)
    sampled(gpu, 3)
    assert len(gpu.counts) == len(gpu.looks)
    wrapping = FakeGpu()
    sampled(wrapping, 3)
    assert len(wrapping.counts) == 3 * SECOND_NS // PCIE_EVERY_NS + 1


@given(st.lists(st.integers(0, WRAP_BYTES - 1), min_size=2, max_size=30))
def test_unwrapping_is_the_sum_of_what_was_gained(gains: list[int]) -> None:
    """Any gains below 2³² between looks add up to the unwrapped counter."""
    sums = [sum(gains[: place + 1]) for place in range(len(gains))]
    gpu = FakeGpu(lambda second, good: replace(good, pcie_rx_bytes=sums[round(second * 5)] % WRAP_BYTES))
    gpu.pcie_bytes = lambda: (None, None)  # type: ignore[method-assign]  # nothing between the looks
    sampler = sampled(gpu, (len(gains) - 1) / 5)
    assert sampler.latest is not None
    assert sampler.latest.pcie_rx_bytes == sum(gains[1:])


def test_telemetry_of_a_run() -> None:
    """500 W for 4.5 s are 2250 J, exactly, wherever the run began between looks; per inference they are divided."""
    gpu = FakeGpu()
    sampler = sampled(gpu, 10)
    start = gpu.began + 1_234_567_890
    found = sampler.telemetry(start, start + 4_500_000_000, 9000)
    assert found.energy_joules == pytest.approx(2250)
    assert found.joules_per_inference == pytest.approx(0.25)
    assert found.power_mean_watts == pytest.approx(500)
    assert [i.start_ns for i in found.intervals] == [place * SECOND_NS for place in range(5)]
    assert found.throttled_fraction == 0
    assert found.gpu == GpuFacts(
        name="Fake H100",
        max_sm_clock_hertz=1980 * MHZ,
        power_limit_watts=700,
        most_power_watts=700,
        slowdown_celsius=90,
        memory_total_bytes=80 * 2**30,
    )
    assert found.missing == ()
    assert sampler.telemetry(start, start + SECOND_NS, 0).joules_per_inference is None
    assert GpuTelemetry.model_validate_json(found.model_dump_json()) == found


def test_what_is_not_told_is_said_in_words() -> None:
    """Fields that the driver refuses are None and named; on MIG it is said whose power that is."""
    refuse: dict[str, Any] = {"energy_joules": None, "throttle_reasons": None, "utilization_ratio": None}
    gpu = FakeGpu(lambda _, good: replace(good, **refuse), rate=None, mig=True)
    found = sampled(gpu, 3).telemetry(gpu.began, gpu.began + 2 * SECOND_NS, 100)
    assert set(found.missing) == {
        "energy",
        "PCIe traffic",
        "utilization",
        "what holds the clocks",
        "this MIG instance alone: clocks, power and energy are the whole GPU's",
    }
    assert (found.energy_joules, found.joules_per_inference, found.throttled_fraction) == (None, None, None)
    assert found.power_mean_watts == WATTS  # of the looks


def test_a_gpu_that_tells_nothing() -> None:
    """Where everything is refused, the thread ends after five looks and one sentence says it."""
    gpu = FakeGpu(lambda _, good: GpuReading(at_ns=good.at_ns, max_sm_clock_hertz=1), rate=None)
    sampler = sampled(gpu, 60)
    found = sampler.telemetry(gpu.began, gpu.began + SECOND_NS, 1)
    assert len(gpu.looks) == 5
    assert found.missing == ("everything: NVML gives this user no numbers of this GPU; nvidia-smi must work here",)
    assert found.cost.readings == 0


def test_a_gpu_that_is_lost() -> None:
    """A GPU that stops answering ends the sampling; readings stay, the rest is None, and its time is named."""
    gpu = FakeGpu(silent)
    sampler = sampled(gpu, 60)
    assert len(gpu.looks) == 15 + 5
    found = sampler.telemetry(gpu.began, gpu.began + 10 * SECOND_NS, 1000)
    assert [i.energy_joules is None for i in found.intervals] == [False, False] + [True] * 8
    assert found.energy_joules is None  # a part must not pass for the whole
    assert [i.readings for i in found.intervals] == [5, 5, 5] + [0] * 7
    (why,) = found.missing
    assert why.startswith("everything after 2.8 s: the GPU stopped answering")
    assert sampler.latest is not None
    assert sampler.latest.sm_clock_hertz is None  # a gauge must not show what was
    before = sampler.telemetry(gpu.began, gpu.began + 2 * SECOND_NS, 1000)
    assert before.missing == ()
    assert before.energy_joules == pytest.approx(1000)


def test_a_fault_of_the_reader_ends_in_a_sentence() -> None:
    """Nothing that a look raises leaves the thread."""

    def fail(second: float, good: GpuReading) -> GpuReading:
        if second >= 1:
            raise OSError("libnvidia-ml.so.1 went away")
        return good

    gpu = FakeGpu(fail)
    found = sampled(gpu, 60).telemetry(gpu.began, gpu.began + 5 * SECOND_NS, 1)
    assert found.missing == ("everything after 0.8 s: sampling failed (OSError: libnvidia-ml.so.1 went away)",)


def test_a_late_beginning_is_said() -> None:
    """Energy from before the first look is not known, and so is the run's; the reason is named."""
    gpu = FakeGpu()
    found = sampled(gpu, 3).telemetry(gpu.began - 400 * MILLISECOND_NS, gpu.began + 2 * SECOND_NS, 1)
    assert found.energy_joules is None
    assert found.missing == ("everything before 0.4 s: sampling began late",)


def test_a_thread_that_starts_and_stops() -> None:
    """The real thread and clock: looks arrive, telemetry waits for one after the end, nothing is left running."""
    gpu = FakeGpu(look_ns=lambda _: 0)
    clock = threading.Event()

    def wait(pause: float) -> bool:
        gpu.now += round(pause * SECOND_NS)
        return clock.wait(0.0001)

    sampler = Sampler(gpu, now_ns=lambda: gpu.now, wait=wait)
    sampler.start()
    found = sampler.telemetry(gpu.began, gpu.began + 2 * SECOND_NS, 1)
    clock.set()
    sampler.stop()
    sampler.stop()
    assert found.energy_joules == pytest.approx(1000)
    assert "loadtrt-gpu-sampler" not in [thread.name for thread in threading.enumerate()]


def test_seconds_are_marked() -> None:
    """A second of the run is marked where a reading in it shows a slow-down; None without readings or reasons."""
    gpu = FakeGpu(
        lambda second, good: replace(
            good, throttle_reasons=None if second >= 3 else ("sw_power_cap",) if 1 <= second < 1.3 else ("gpu_idle",)
        )
    )
    found = sampled(gpu, 6).telemetry(gpu.began, gpu.began + 4 * SECOND_NS, 1)
    empty = dict.fromkeys(
        set(Interval.model_fields) - {"start_ns", "requests", "failed", "throttled", "latency_counts"}
    )
    run = [Interval(start_ns=place * SECOND_NS, requests=1, failed=0, **empty) for place in range(5)]
    assert [i.throttled for i in mark_throttled(run, found)] == [False, True, False, None, None]
    assert [i.throttled for i in mark_throttled(run, None)] == [None] * 5
    assert found.throttled_fraction == pytest.approx(2 / 15)


def test_older_results_still_load() -> None:
    """A run.json without telemetry and marks is a valid one."""
    assert not RunResult.model_fields["telemetry"].is_required()
    assert not Interval.model_fields["throttled"].is_required()


def test_a_run_without_a_second() -> None:
    """No intervals: nothing is known, and nothing divides by zero."""
    cost = SamplingCost(readings=0, lost=0, seconds=0, fraction=0)
    found = telemetry_of(GpuFacts(name=None), (), 5, every_ns=1, missing=("energy",), cost=cost)
    assert (found.energy_joules, found.power_mean_watts, found.throttled_fraction) == (None, None, None)
