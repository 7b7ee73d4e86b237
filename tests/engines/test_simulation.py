"""How `simulated:...` is spelled, what it means, and the numbers that it draws."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loadtrt.asked.config import RunConfig
from loadtrt.engines.simulated import NullEngine, load_simulated
from loadtrt.engines.simulation import Simulation, parse_simulation
from loadtrt.errors import UsageError
from loadtrt.load.arrivals import Poisson, due_instants
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from loadtrt.engines.engine import Engine


@pytest.mark.parametrize(
    ("distribution", "cv", "expected_cv"),
    [("exponential", None, 1.0), ("lognormal", 0.7, 0.7), (None, 0.7, 0.7), ("gamma", 0.5, 0.5), ("uniform", 0.5, 0.5)],
)
def test_service_times_have_their_mean_and_cv(distribution: Any, cv: float | None, expected_cv: float) -> None:
    """The mean is `service` + `item` × batch within four standard errors, standard deviation ÷ mean is `cv`."""
    simulation = Simulation(service_ns=600_000, item_ns=100_000, distribution=distribution, cv=cv)
    times = np.fromiter(itertools.islice(simulation.service_times(4), 100_000), np.float64)
    assert times.min() >= 0
    assert abs(times.mean() - MILLISECOND_NS) < 4 * MILLISECOND_NS * expected_cv / math.sqrt(len(times))
    assert times.std() / times.mean() == pytest.approx(expected_cv, rel=0.03)


def test_service_times_are_not_the_gaps_between_arrivals() -> None:
    """Streams of one seed are independent: |correlation| of exponential services and Poisson gaps < 4/√n."""
    due = due_instants(Poisson(), 1000, 0, 10_001, seed=5)
    services = Simulation(service_ns=MILLISECOND_NS, distribution="exponential", seed=5).service_times(1)
    drawn = np.fromiter(itertools.islice(services, 10_000), np.int64)
    for gaps in (np.diff(due), np.diff(due, prepend=0)[:-1]):
        assert abs(np.corrcoef(gaps, drawn)[0, 1]) < 4 / math.sqrt(10_000)


def test_faults_are_independent_of_each_other() -> None:
    """A request that fails is no likelier to race: |correlation| < 4/√n for probabilities of a half."""
    simulation = Simulation(error=0.5, race=0.5)
    errors, races = (list(itertools.islice(each, 10_000)) for each in (simulation.errors(), simulation.races()))
    assert abs(np.corrcoef(errors, races)[0, 1]) < 4 / math.sqrt(10_000)


def config_of(engine: str, **options: Any) -> RunConfig:
    return RunConfig.of(engine=engine, **options)


def test_every_key_is_read() -> None:
    """simulated:key=value,... is the Simulation with these values, and the run's seed where none is given."""
    text = (
        "service=2ms, item=10us,distribution=gamma,cv=0.3,contention=0.5,h2d=5us,d2h=3us,enqueue=1us,error=0.01,"
        "stall=1s@5s,lost=8s,hang=7s,slow_lane=2:3,race=0.001,clock=virtual"
    )
    expected = Simulation(
        service_ns=2_000_000,
        item_ns=10_000,
        distribution="gamma",
        cv=0.3,
        contention=0.5,
        h2d_ns=5_000,
        d2h_ns=3_000,
        enqueue_ns=1_000,
        error=0.01,
        stall=(SECOND_NS, 5 * SECOND_NS),
        lost=8 * SECOND_NS,
        hang=7 * SECOND_NS,
        slow_lane=(2, 3.0),
        race=0.001,
        seed=9,
        clock="virtual",
    )
    assert parse_simulation(text, 9) == expected
    assert parse_simulation("", 1) == Simulation()
    assert parse_simulation("seed=4", 9).seed == 4


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("servce=5ms", "unknown key 'servce': did you mean 'service'"),
        ("nul", "unknown key 'nul': did you mean 'null'"),
        ("zzz=1", "unknown key 'zzz': choose from null, service, "),
        ("service", "'service' needs a value"),
        ("service=5ms,service=6ms", "'service' is given twice"),
        ("service=soon", "service: 'soon' is not a duration"),
        ("contention=much", "contention: 'much' is not a number"),
        ("contention=1.5", "contention is 1.5: write a number from 0 to 1"),
        ("error=nan", "error is nan: write"),
        ("race=-1", "race is -1.0: write"),
        ("cv=0", "cv is 0.0: write a number above 0"),
        ("cv=inf", "cv is inf: write a number above 0"),
        ("h2d=25h", "h2d is 90000 s: write 0 to 24 hours"),
        ("null,service=1ms", "null has no parameters"),
        ("distribution=gama,cv=1", "distribution: 'gama' is unknown: did you mean 'gamma'"),
        ("distribution=gamma", "the gamma distribution needs cv"),
        ("distribution=constant,cv=1", "the constant distribution takes no cv"),
        ("distribution=uniform,cv=0.6", "cv is 0.6: a uniform distribution has at most 0.577"),
        ("stall=1s", "stall: '1s' is not a stall"),
        ("stall=1s@later", "stall: 'later' is not a duration"),
        ("lost=soon", "lost: 'soon' is not a duration"),
        ("hang", "'hang' needs a value"),
        ("hang=25h", "hang is 90000 s: write 0 to 24 hours"),
        ("slow_lane=2", "slow_lane: '2' is not a slow lane"),
        ("slow_lane=2:x", "slow_lane: '2:x' is not a number"),
        ("slow_lane=0:0", "slow_lane needs a lane from 0 and a factor above 0"),
        ("slow_lane=4:2", "slow_lane 4 is not a lane: write one from 0 to 3"),
        ("clock=sun", "clock: 'sun' is unknown: choose from loop, virtual"),
        ("seed=x", "seed: 'x' is not a number"),
        ("seed=-1", "seed is -1: write 0 or more"),
    ],
)
def test_a_faulty_specification_is_one_sentence(text: str, sentence: str) -> None:
    """Every bad input is a UsageError of one line that names the key, and the nearest known word."""
    with pytest.raises(UsageError) as caught:
        load_simulated(config_of(f"simulated:{text}", contexts=4).model)
    assert str(caught.value).startswith("simulated engine: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.anyio
async def test_the_configuration_makes_the_engine(anyio_backend_name: str) -> None:
    """contexts, buffers, batch, seed and copies of the run hold; x and y are fp32[batch,16]; nothing is on a device."""
    clock = "virtual" if anyio_backend_name == "asyncio" else "loop"
    config = config_of(
        f"simulated:service=1ms,item=1ms,h2d=1ms,clock={clock}", contexts=3, buffers=4, batch=8, copies=False
    )
    engine: Engine = load_simulated(config.model)
    assert (engine.contexts, engine.buffers, engine.info.batch) == (3, 4, 8)
    assert [str(tensor) for tensor in engine.info.tensors] == ["x fp32[8,16]", "y fp32[8,16]"]
    assert engine.info.mode == {"service": "9.00 ms", "contention": "0", "clock": clock}
    inputs = [{"x": np.ones((8, 16), np.float32)}]
    assert (engine.memory(inputs).device_bytes, engine.memory(inputs).host_bytes) == (0, 2 * 8 * 16 * 4)
    engine.allocate(inputs)
    start = engine.now_ns()
    engine.submit(2, 0)
    (completion,) = await engine.wait(SECOND_NS)
    assert (completion.completed_ns - start, completion.h2d_ns) == (9 * MILLISECOND_NS, 0)


def test_the_engine_tells_its_faults() -> None:
    """In a report: nobody takes such a run for another."""
    words = parse_simulation("lost=5s,hang=0s", 1).words(1)
    assert (words["lost"], words["hang"]) == ("at 5.00 s", "at 0 ns")
    assert not {"lost", "hang"} & Simulation().words(1).keys()


def test_null_and_shapes() -> None:
    """simulated:null is the null engine; a shape has no meaning here and is refused rather than ignored."""
    assert isinstance(load_simulated(config_of("simulated:null").model), NullEngine)
    with pytest.raises(UsageError, match="leave --shapes out"):
        load_simulated(config_of("simulated:null", shapes={"x": "2x16"}).model)
