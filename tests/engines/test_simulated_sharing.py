"""Models on one simulated device obey the laws of how it is shared, exactly, on any event loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio
import numpy as np
import pytest

from loadtrt.engines.simulated import SimulatedEngine
from loadtrt.engines.simulated_sharing import share_devices
from loadtrt.engines.simulation import parse_simulation
from loadtrt.errors import CudaError, UsageError
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Driver, Load, Stop
from loadtrt.lanes.together import Drive, drive_all
from loadtrt.load.arrivals import Poisson, due_instants
from loadtrt.units import MILLISECOND_NS as MS
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from loadtrt.records.records import Records

    Floats = npt.NDArray[np.float64]

EXPONENTIAL = "distribution=exponential"


def engine_of(text: str, contexts: int = 1, buffers: int = 2, seed: int = 1) -> SimulatedEngine:
    clock = "" if "clock=" in text else ",clock=virtual"
    return SimulatedEngine(parse_simulation(text + clock, seed), contexts=contexts, buffers=buffers, name=text)


async def drive_beside(engines: Sequence[SimulatedEngine], loads: Sequence[Load]) -> list[Drive]:
    """Each load on its engine, all at once from one instant."""
    share_devices({f"model {number}": engine for number, engine in enumerate(engines)})
    drives = []
    for engine, load in zip(engines, loads, strict=True):
        engine.allocate([{"x": np.zeros((1, 16), np.float32)}])
        drives.append(Drive(Driver(engine, Recorder(engine.contexts, 0), load, Stop()), engine))
    await drive_all(drives, engines[0].now_ns())
    return drives


def beside(engines: Sequence[SimulatedEngine], loads: Sequence[Load]) -> list[Records]:
    drives = anyio.run(drive_beside, engines, loads)
    assert [drive.error for drive in drives] == [None] * len(drives)
    return [drive.driver.recorder.records for drive in drives]


def poisson(rate: float, count: int, seed: int) -> Load:
    return Load(due_instants(Poisson(), rate, 0, count, seed))


def latencies_s(records: Records) -> Floats:
    """Without the first quarter."""
    found: Floats = ((records.completed - records.due) / SECOND_NS)[len(records.due) // 4 :]
    return found


def assert_law(found: Sequence[float], law: float, widest: float = 0.1) -> None:
    """The law lies within the 99.9 % interval of the mean over ten replications (t of 9 degrees: 4.78), and that is
    narrow."""
    values = np.array(found)
    half = 4.78 * float(values.std(ddof=1)) / math.sqrt(len(values))
    assert half < widest * law
    assert abs(float(values.mean()) - law) < half


# --- processor sharing


def test_requests_of_two_models_share_the_processor() -> None:
    """Two of 3 ms from instant 0: each takes 6 ms; a third of another model at 4 ms slows both down to a third.

    By hand: both have 1 ms left at 4 ms, which takes 3 ms beside a third one; that has 2 ms left then, alone."""
    a, b = engine_of("service=3ms,device=gpu0", contexts=2), engine_of("service=3ms,device=gpu0")
    of_a, of_b = beside([a, b], [Load(np.array([0, 0])), Load(np.array([4 * MS]))])
    assert of_a.completed.tolist() == [7 * MS, 7 * MS]
    assert of_b.completed.tolist() == [9 * MS]


def test_weights_divide_the_processor() -> None:
    """A lane of weight 3 beside one of weight 1 has three quarters: 3 ms of work take 4 ms; then the other, which has
    done 1 ms, is alone for 2 ms."""
    a, b = engine_of("service=3ms,device=g,weight=3"), engine_of("service=3ms,device=g")
    of_a, of_b = beside([a, b], [Load(np.array([0])), Load(np.array([0]))])
    assert of_a.completed.tolist() == [4 * MS]
    assert of_b.completed.tolist() == [6 * MS]


def test_the_mean_sojourn_of_two_classes_is_insensitive() -> None:
    """M/M/1-PS: E[T] = s / (1 − ρ) of each class, with ρ of both (Kleinrock 1967), whatever the class."""
    found: list[tuple[float, float]] = []
    for seed in range(1, 11):
        engines = [
            engine_of(f"service=2ms,{EXPONENTIAL},device=g", 40, 1, seed),
            engine_of(f"service=500us,{EXPONENTIAL},device=g", 40, 1, seed + 100),
        ]
        a, b = beside(engines, [poisson(150, 3_000, seed), poisson(400, 8_000, seed + 50)])
        assert not np.any(a.submitted - a.due)  # a lane was free: nobody waited for one
        found.append((float(latencies_s(a).mean()), float(latencies_s(b).mean())))
    rho = 150 * 2e-3 + 400 * 0.5e-3
    assert_law([one for one, _ in found], 2e-3 / (1 - rho))
    assert_law([other for _, other in found], 0.5e-3 / (1 - rho))


# --- priorities


def test_a_request_of_a_higher_priority_goes_first_and_interrupts_none() -> None:
    """The first of the low one computes; then that of the high one, though the low one's second has waited longer."""
    low = engine_of("service=4ms,device=g,sharing=priority")
    high = engine_of("service=1ms,device=g,sharing=priority,priority=-1")
    of_low, of_high = beside([low, high], [Load(np.array([0, MS])), Load(np.array([2 * MS]))])
    assert of_high.completed.tolist() == [5 * MS]
    assert of_low.completed.tolist() == [4 * MS, 9 * MS]


def test_waits_are_those_of_cobham() -> None:
    """M/G/1 without preemption: W_k = W0 / ((1 − σ_{k−1})(1 − σ_k)), W0 = Σ λ_i E[S_i²] / 2 (Cobham 1954)."""
    rates, means = (200.0, 250.0), (1e-3, 2e-3)  # the first has the higher priority
    found: list[tuple[float, float]] = []
    for seed in range(1, 11):
        engines = [
            engine_of(f"service=1ms,{EXPONENTIAL},device=g,sharing=priority,priority=-1", 1, 2, seed),
            engine_of("service=2ms,device=g,sharing=priority", 1, 2, seed),
        ]
        a, b = beside(engines, [poisson(rates[0], 6_000, seed), poisson(rates[1], 7_500, seed + 50)])
        found.append((float(latencies_s(a).mean()) - means[0], float(latencies_s(b).mean()) - means[1]))
    residual = (rates[0] * 2 * means[0] ** 2 + rates[1] * means[1] ** 2) / 2
    high = rates[0] * means[0]
    both = high + rates[1] * means[1]
    assert_law([one for one, _ in found], residual / (1 - high))
    assert_law([other for _, other in found], residual / ((1 - high) * (1 - both)), widest=0.2)


def test_equal_priorities_are_one_queue() -> None:
    """M/G/1: requests of both wait W0 / (1 − ρ) if all that wait are on the device (`buffers`), which orders them by
    when they came to it. With few buffers they wait for a buffer set, and those of the model with fewer wait less."""
    rates, means = (100.0, 300.0), (3e-3, 1e-3)
    found: dict[int, list[tuple[float, float]]] = {1: [], 200: []}
    for seed in range(1, 11):
        for buffers, waits in found.items():
            engines = [
                engine_of("service=3ms,device=g,sharing=priority", 1, buffers, seed),
                engine_of(f"service=1ms,{EXPONENTIAL},device=g,sharing=priority", 1, buffers, seed),
            ]
            a, b = beside(engines, [poisson(rates[0], 3_000, seed), poisson(rates[1], 9_000, seed + 50)])
            waits.append((float(latencies_s(a).mean()) - means[0], float(latencies_s(b).mean()) - means[1]))
    residual = (rates[0] * means[0] ** 2 + rates[1] * 2 * means[1] ** 2) / 2
    theory = residual / (1 - rates[0] * means[0] - rates[1] * means[1])
    assert_law([one for one, _ in found[200]], theory)
    assert_law([other for _, other in found[200]], theory)
    assert all(fewer < more for fewer, more in found[1])


# --- parts


def test_parts_are_devices_of_their_own() -> None:
    """Row by row, as two devices would have it."""
    texts = [f"service=2ms,{EXPONENTIAL},device={{}},part=0.25", f"service=1ms,{EXPONENTIAL},device={{}},part=0.75"]
    loads = [poisson(100, 500, 1), poisson(400, 2_000, 2)]
    same = beside([engine_of(text.format("g"), 3) for text in texts], loads)
    apart = beside([engine_of(text.format(text[8]), 3) for text in texts], loads)
    for one, other in zip(same, apart, strict=True):
        assert np.array_equal(one.rows, other.rows)


@pytest.mark.parametrize(("scales", "took"), [("1", 8), ("0.5", 5), ("0", 2)])
def test_a_part_lengthens_what_is_parallel(scales: str, took: int) -> None:
    """Amdahl's law: 2 ms on a quarter of the device take 2·(1 − f + 4·f) ms."""
    (records,) = beside([engine_of(f"service=2ms,device=g,part=0.25,scales={scales}")], [Load(np.array([0]))])
    assert records.completed.tolist() == [took * MS]


def test_what_parts_leave_is_shared_by_the_others() -> None:
    """Half of the device: 1 ms takes 2 ms alone there, and 4 ms beside another."""
    engines = [engine_of("service=1ms,device=g,part=0.5"), *(engine_of("service=1ms,device=g") for _ in range(2))]
    found = beside(engines, [Load(np.array([0])) for _ in engines])
    assert [records.completed.tolist() for records in found] == [[2 * MS], [4 * MS], [4 * MS]]


# --- engines of other devices, event loops, faults


@pytest.mark.parametrize("closed", [False, True])
def test_a_model_on_another_device_changes_nothing(closed: bool) -> None:
    """The first one's records are equal, row for row."""

    def load() -> Load:
        return Load(None, least_ns=2 * SECOND_NS) if closed else poisson(500, 1_000, 3)

    (alone,) = beside([engine_of(f"service=3ms,{EXPONENTIAL},contention=0.5", 2)], [load()])
    engines = [engine_of(f"service=3ms,{EXPONENTIAL},contention=0.5", 2), engine_of("service=700us,cv=0.4,seed=9", 3)]
    first, _ = beside(engines, [load(), Load(None, least_ns=3 * SECOND_NS)])
    assert np.array_equal(alone.rows, first.rows)


@pytest.mark.anyio
async def test_every_event_loop_has_the_same_rows(anyio_backend: tuple[str, object]) -> None:
    """On trio's mock clock and in virtual time; a request of one model that comes later moves the other's end."""
    if anyio_backend[0] == "asyncio":
        pytest.skip("its time is real")
    texts = [f"service=3ms,{EXPONENTIAL},device=g", f"service=1ms,{EXPONENTIAL},device=g"]
    loads = [poisson(100, 100, 1), poisson(300, 300, 2)]
    mock = await drive_beside([engine_of(f"{text},clock=loop", 2) for text in texts], loads)
    virtual = await drive_beside([engine_of(text, 2) for text in texts], loads)
    for one, other in zip(mock, virtual, strict=True):
        begins = [drive.driver.start_ns for drive in (one, other)]
        rows = [drive.driver.recorder.records for drive in (one, other)]
        for column in ("due", "completed"):
            a, b = (getattr(records, column) - begin for records, begin in zip(rows, begins, strict=True))
            assert np.abs(a - b).max() <= 1_000  # a float of seconds


def test_a_lost_device_ends_the_models_on_it_alone() -> None:
    """Models on other devices go on; the fault may be given by one of those that share the device."""
    engines = [engine_of("service=1ms,device=g,lost=1s"), engine_of("service=1ms,device=g"), engine_of("service=1ms")]
    drives = anyio.run(drive_beside, engines, [Load(None, least_ns=2 * SECOND_NS) for _ in engines])
    assert [type(drive.error) for drive in drives] == [CudaError, CudaError, type(None)]
    whole = drives[2].driver.recorder.records
    assert len(whole.due) == 2_001
    assert all(0 < len(drive.driver.recorder.records.due) < 1_010 for drive in drives[:2])


def test_a_model_that_hangs_is_given_up_by_itself() -> None:
    engines = [engine_of("service=1ms,device=g,hang=100ms"), engine_of("service=1ms,device=g")]
    drives = anyio.run(drive_beside, engines, [Load(None, least_ns=SECOND_NS, pace_ns=0) for _ in engines])
    first, second = (drive.driven for drive in drives)
    assert first is not None
    assert second is not None
    assert first.silent_ns > 0
    assert (second.silent_ns, second.unserved) == (0, 0)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["part=0.5,device=g", "part=0.6,device=g"], "parts of device g are model 0 0.5, model 1 0.6, more than there"),
        (["part=1,device=g", "device=g"], "parts of device g are model 0 1, which leaves nothing for model 1"),
        (["device=g", "device=g,contention=0"], "device g has contention 1.0 in model 0 and 0.0 in model 1"),
        (
            ["device=g,sharing=priority", "device=g"],
            "device g has sharing priority in model 0 and processor in model 1",
        ),
        (["device=g", "service=1ms,clock=loop"], "model 0 is simulated in virtual time and model 1 is not"),
    ],
)
def test_models_that_contradict_each_other_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        share_devices({f"model {number}": engine_of(text) for number, text in enumerate(texts)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weight=2", "weight is for a device that models share: add device=gpu0"),
        ("device=g,priority=1", "priority needs sharing=priority: add that, or leave it out"),
        ("device=g,weight=2,contention=0.5", "weight needs sharing=processor with contention 1"),
        ("device=g,weight=0", "weight is 0: write a number above 0"),
        ("device=g,part=1.5", "part is 1.5: write a number above 0, up to 1"),
        ("device=g,shring=priority", "unknown key 'shring': did you mean 'sharing'"),
        ("device=g,sharing=prio", "'prio' is unknown: did you mean 'priority'"),
    ],
)
def test_parameters_of_sharing_are_checked(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_simulation(text, 1)
