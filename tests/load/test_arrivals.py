"""Due instants: what the processes promise, and which options make a load."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtrt.asked.config import RunConfig
from loadtrt.asked.load import Closed, Load, LoopedStages, Offline, Rate, Stages
from loadtrt.asked.reading import keys_of, load_config
from loadtrt.asked.trace_load import LoopedTrace, Trace
from loadtrt.engines.open import open_engine
from loadtrt.errors import UsageError
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.load.arrivals import Constant, Gamma, Poisson, Process, due_instants, require_room
from loadtrt.load.inputs import make_inputs
from loadtrt.report.settings import load_text

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.records.records import Records

SECOND = 1_000_000_000
MS = 1_000_000


def test_constant_arrivals_never_drift() -> None:
    """t_k = k / rate, also for the millionth."""
    due = due_instants(Constant(), 300.0, 3600 * SECOND, 0, seed=1)
    assert len(due) == 300 * 3600
    assert due[-1] == round((len(due) - 1) * SECOND / 300)


@given(rate=st.integers(1, 2000), tenths=st.integers(1, 100))
def test_constant_arrivals_are_as_many_as_the_rate_says(rate: int, tenths: int) -> None:
    """n = ⌈rate · T⌉, T in tenths of a second: rounding adds none."""
    due = due_instants(Constant(), float(rate), tenths * SECOND // 10, 0, seed=1)
    assert len(due) == -(-rate * tenths // 10)
    assert due[-1] < tenths * SECOND // 10


def test_poisson_counts_have_the_mean_and_variance_of_poisson() -> None:
    """Counts in disjoint windows have mean = variance = rate · window; gaps are exponential (CV 1)."""
    due = due_instants(Poisson(), 1000.0, 400 * SECOND, 0, seed=3)
    counts = np.bincount(due // SECOND, minlength=400)
    assert abs(counts.mean() - 1000) < 4 * math.sqrt(1000 / 400)
    assert 0.75 < counts.var() / 1000 < 1.3
    gaps = np.diff(due)
    assert abs(gaps.std() / gaps.mean() - 1) < 0.01


@pytest.mark.parametrize("cv", [0.2, 0.5, 2.0, 4.0])
def test_gamma_gaps_have_their_mean_and_deviation(cv: float) -> None:
    """Mean gap 1 / rate within 4 standard errors CV / √n; deviation / mean = CV.

    The standard error of a gamma's CV: its variance's is σ²·√((κ − 1) / n), κ = 3 + 6·CV², so CV's is half as large.
    """
    n = 400_000
    gaps = np.diff(due_instants(Gamma(cv), 1000.0, 0, n, 7)) / MS
    assert abs(gaps.mean() - 1) < 4 * cv / math.sqrt(n)
    error = cv * math.sqrt((2 + 6 * cv**2) / n) / 2 + cv**2 / math.sqrt(n)
    assert abs(gaps.std() / gaps.mean() - cv) < 4 * error


@pytest.mark.parametrize("process", [Poisson(), Gamma(0.3), Gamma(4.0), Gamma(20.0)])
def test_as_many_come_in_any_time_as_the_rate_says(process: Process) -> None:
    """E N(t) = rate · t from the first moment, for every burstiness: over 1000 seeds within 4 standard errors.

    A process whose first gap is as long as any other would bring (CV² − 1) / 2 too many: 200 of 600 at CV 20.
    """
    counts = np.array([len(due_instants(process, 200.0, 2 * SECOND, 0, seed)) for seed in range(1000)])
    assert abs(counts.mean() - 400) < 4 * counts.std() / math.sqrt(len(counts))


def test_burstiness_0_is_constant_and_1_is_poisson() -> None:
    """The two ends that have names of their own, instant by instant."""
    processes: tuple[tuple[Process, float], ...] = ((Constant(), 0.0), (Poisson(), 1.0))
    for process, cv in processes:
        named = due_instants(process, 300.0, 10 * SECOND, 0, 5)
        assert np.array_equal(named, due_instants(Gamma(cv), 300.0, 10 * SECOND, 0, 5))


def test_more_burstiness_makes_counts_vary_more() -> None:
    """Var N(t) / E N(t) tends to CV² (Cox, Renewal theory, 1962)."""
    due = due_instants(Gamma(3.0), 1000.0, 1000 * SECOND, 0, 3)
    counts = np.bincount(due // SECOND, minlength=1000)
    assert counts.var() / counts.mean() == pytest.approx(9, rel=0.2)


@given(seed=st.integers(0, 2**32), cv=st.floats(0, 100), requests=st.integers(1, 70_000))
@settings(max_examples=30)
def test_instants_ascend_and_depend_on_the_seed_alone(seed: int, cv: float, requests: int) -> None:
    """Same seed, same instants; a longer schedule begins with the shorter one; ascending, int64, from 0 on."""
    due = due_instants(Gamma(cv), 700.0, 0, requests, seed)
    assert due.dtype == np.int64
    assert len(due) == requests
    assert due[0] >= 0
    assert (np.diff(due) >= 0).all()
    assert np.array_equal(due_instants(Gamma(cv), 700.0, 0, requests + 70_000, seed)[:requests], due)


def test_the_same_seed_draws_the_same_instants() -> None:
    """Seeds decide; another seed draws others; a longer schedule begins with the shorter."""
    first = due_instants(Poisson(), 700.0, 2 * SECOND, 0, seed=5)
    assert np.array_equal(first, due_instants(Poisson(), 700.0, 2 * SECOND, 0, seed=5))
    assert not np.array_equal(first[:100], due_instants(Poisson(), 700.0, 2 * SECOND, 0, seed=6)[:100])


def test_both_time_and_number_are_met() -> None:
    """Whichever is later: all instants within the duration, and at least so many requests."""
    assert len(due_instants(Constant(), 100.0, SECOND, 250, seed=1)) == 250
    assert len(due_instants(Constant(), 100.0, 5 * SECOND, 250, seed=1)) == 500
    assert len(due_instants(Poisson(), 100.0, SECOND, 250, seed=1)) == 250
    assert due_instants(Poisson(), 100.0, 5 * SECOND, 1, seed=1)[-1] < 5 * SECOND


def test_what_does_not_fit_in_memory_is_refused() -> None:
    """One sentence instead of a frozen machine, also of a rate that no float holds."""
    for rate in (1e6, math.inf):
        with pytest.raises(UsageError, match="too many to draw"):
            due_instants(Poisson(), rate, 3600 * SECOND, 0, seed=1)
    with pytest.raises(UsageError, match="50 000 001 requests are too many to draw"):
        require_room(50_000_001)


# --- offline, through the scheduler


async def _records(options: dict[str, object]) -> Records:
    config = RunConfig.of(**{"engine": "simulated:service=5ms,clock=virtual", "warmup": "100ms", **options})
    engine, session = open_engine(config.model), Session()
    try:
        inputs = make_inputs(
            engine.info.tensors,
            config.model.inputs,
            config.model.input_sets,
            config.model.input_range,
            config.model.seed,
        )
        await run_session(engine, config, inputs, Stop(), session)
    finally:
        engine.close()
    assert session.recorder is not None
    assert session.recorder.by_status[1:].tolist() == [0, 0, 0]
    rows = session.recorder.records.rows
    rows[:, :4] -= session.recorder.start_ns
    return session.recorder.records


@pytest.mark.anyio
@pytest.mark.parametrize("contexts", [1, 3])
async def test_offline_latency_grows_as_the_queue_is_served(contexts: int) -> None:
    """All due at 0 and served S each by c lanes: latency of the k-th is (⌊k / c⌋ + 1)·S, to the ns, however long."""
    records = await _records({"arrivals": "offline", "requests": 6000, "contexts": contexts, "buffers": 1})
    assert not records.due.any()
    expected = (np.arange(6000) // contexts + 1) * 5 * MS  # 30 s on one lane: longer than a drain
    assert np.sort(records.completed).tolist() == expected.tolist()
    assert not records.lateness.any()


@pytest.mark.anyio
async def test_bursts_come_in_their_part_of_the_cycle() -> None:
    """1 s of each 5 s, and as many as the mean rate says."""
    records = await _records({"rate": "20/s", "arrivals": "constant", "bursts": "1s/4s", "contexts": 4})
    assert len(records) == 200
    assert (records.due % (5 * SECOND) < SECOND).all()
    assert np.bincount(records.due // (5 * SECOND)).tolist() == [100, 100]


@pytest.mark.anyio
async def test_a_trace_goes_through_the_scheduler(tmp_path: Path) -> None:
    """Records are due when the trace says, × the scale, round after round."""
    trace = tmp_path / "trace.csv"
    trace.write_text("at\n5.5\n5.600000001\n7.5\n")
    options = {"trace": str(trace), "time_scale": 0.5, "trace_loop": True, "requests": 7}
    records = await _records({**options, "contexts": 2})
    rounds = [round_ns + t for round_ns in (0, 3 * SECOND // 2, 3 * SECOND) for t in (0, 50_000_000, SECOND)]
    assert records.due.tolist() == rounds[:7]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "2 in flight: 1 context × 2 buffers · closed loop"),
        (
            {"contexts": 4, "requests_per_launch": 3, "buffers": 1},
            "12 in flight: 4 contexts × 1 buffer × 3 requests a launch · closed loop",
        ),
        ({"rate": "500/s"}, "poisson at 500/s"),
        ({"rate": "500/s", "burstiness": 4}, "gamma at 500/s, CV 4"),
        ({"rate": "500/s", "burstiness": 0.5, "bursts": "1s/4s"}, "gamma at 500/s, CV 0.5, bursts 1s/4s"),
        ({"stages": "5/s:1s, 9/s:1s", "arrivals": "constant"}, "constant in stages 5/s:1s, 9/s:1s"),
        (
            {"stages": "10/s:1s, 30/s:1s", "stages_loop": True, "rate": "200/s", "burstiness": 4},
            "gamma in stages 10/s:1s, 30/s:1s, scaled to 200/s on average, 300/s at the peak, CV 4, looped",
        ),
        ({"trace": "TRACE"}, "trace TRACE"),
        ({"trace": "TRACE", "rate": "7/s"}, "trace TRACE, scaled to 7.00/s on average"),
        ({"trace": "TRACE", "time_scale": 0.5, "trace_loop": True}, "trace TRACE × 0.5, looped"),
        ({"arrivals": "offline", "requests": 1000}, "offline, 1 000 requests at once"),
    ],
)
def test_the_summary_names_the_load(
    options: dict[str, object], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First of the line on how the engine was driven: how many requests are in flight, or how they arrive."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "TRACE").write_text("0\n1\n")
    config = load_config(None, {"engine": "x", **options})
    result: Any = SimpleNamespace(
        config=config, fleet="", model=SimpleNamespace(engine=SimpleNamespace(batch=1, batch_from=None, mode={}))
    )
    lanes = "" if config.model.load.closed else " · 1 context × 2 buffers"
    assert load_text(result) == f"{words}{lanes} · batch 1"


# --- which options make a load


@pytest.mark.parametrize(
    ("options", "arrivals"),
    [
        ({}, "closed"),
        ({"rate": "5/s"}, "poisson"),
        ({"rate": "5/s", "burstiness": 4}, "gamma"),
        ({"rate": "5/s", "bursts": "1s/4s"}, "poisson"),
        ({"stages": "5/s:1s"}, "poisson"),
        ({"stages": "5/s:1s", "burstiness": 4}, "gamma"),
        ({"stages": ["5/s:1s", "9/s:1s"], "arrivals": "constant"}, "constant"),
    ],
)
def test_options_imply_the_arrivals(options: dict[str, object], arrivals: str) -> None:
    """Who names a rate has Poisson arrivals, who names a burstiness gamma."""
    assert load_config(None, {"engine": "x", **options}).model.load.options()["arrivals"] == arrivals


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"arrivals": "closed", "stages": "5/s:1s"}, "a closed loop has no stages: leave --stages out"),
        ({"stages": "5/s:1s", "duration": "5s"}, "no duration: leave --duration or --stages out, or add --stages-loop"),
        ({"stages": "5/s:1s", "requests": 5}, "no requests: leave --requests or --stages out, or add --stages-loop"),
        ({"stages": "5/s:1s", "bursts": "1s/1s"}, "and no bursts: leave --bursts or --stages out"),
        ({"stages": "5/s:1s", "trace": "t"}, "a trace has instants of its own, and no stages"),
        ({"stages": "5/s"}, "--stages: '5/s' is not a stage: write RATE:TIME"),
        ({"trace": "t", "rate": "5", "time_scale": 2}, "--rate and --time-scale both scale a trace: leave one out"),
        ({"trace": "t", "duration": "5s"}, "no duration: leave --duration or --trace out, or add --trace-loop"),
        ({"trace": "t", "burstiness": 2}, "and no burstiness"),
        ({"trace": "t", "arrivals": "poisson"}, "a load at a rate has no trace: leave --trace out"),
        ({"trace": "/nowhere/t"}, "cannot read trace /nowhere/t: No such file or directory"),
        ({"arrivals": "trace"}, "trace arrivals need a trace: add --trace, such as --trace FILE"),
        ({"rate": "5", "time_scale": 0.5}, "--time-scale needs a trace: add --trace FILE, or leave it out"),
        ({"rate": "5", "stages_loop": True}, "--stages-loop needs stages: add --stages '100/s:10s, 200/s:10s', or"),
        ({"trace_loop": True}, "--trace-loop needs a trace: add --trace FILE, or leave it out"),
        ({"burstiness": 4}, "gamma arrivals need a rate: add --rate, such as --rate 500/s"),
        ({"rate": "5", "arrivals": "gamma"}, "gamma arrivals need a burstiness: add --burstiness"),
        ({"rate": "5", "arrivals": "poisson", "burstiness": 2}, "poisson arrivals have no burstiness"),
        ({"rate": "5", "burstiness": -1}, "--burstiness: -1 is below 0, the least"),
        ({"rate": "5", "burstiness": math.nan}, "--burstiness: nan is not a finite number"),
        ({"bursts": "1s/1s"}, "poisson arrivals need a rate"),
        ({"rate": "5", "bursts": "1s"}, "--bursts: '1s' is not a burst and a pause: write ON/OFF"),
        ({"rate": "5", "bursts": 5}, "--bursts: '5' is not a burst and a pause"),
        ({"arrivals": "offline"}, "offline arrivals need requests: add --requests"),
        (
            {"arrivals": "offline", "requests": 5, "rate": "5"},
            "offline arrivals have no rate, as all requests are due at once",
        ),
        ({"arrivals": "offline", "requests": 5, "duration": "5s"}, "offline arrivals have no duration"),
    ],
)
def test_a_contradiction_is_one_sentence(options: dict[str, object], sentence: str) -> None:
    """What contradicts what, and which option to leave out or to add."""
    with pytest.raises(UsageError) as caught:
        load_config(None, {"engine": "x", **options})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def _file(tmp_path: Path, **options: object) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps({"engine": "x", **options}))
    return file


def test_the_command_lines_load_wins_over_the_files(tmp_path: Path) -> None:
    """Another source of load replaces the file's with all that belongs to it; what still fits stays."""
    trace = tmp_path / "trace.csv"
    trace.write_text("0\n1\n2\n")
    stages = _file(tmp_path, stages="5/s:1s, 9/s:1s", burstiness=4)

    def load(file: Path, **options: object) -> Load:
        return load_config(file, options).model.load

    assert load(stages, rate="7/s") == Rate(Gamma(4), 7)
    assert load(stages, arrivals="poisson") == Stages(Poisson(), "5/s:1s, 9/s:1s")
    assert load(stages, arrivals="closed") == Closed()
    assert load(stages, trace=str(trace)) == Trace(str(trace))
    assert load(stages, arrivals="offline", requests=3) == Offline()
    replay = _file(tmp_path, arrivals="trace", trace=str(trace), time_scale=0.5)
    assert load(replay, time_scale=0.25) == Trace(str(trace), scale=0.25)
    assert load(replay, stages="5/s:1s") == Stages(Poisson(), "5/s:1s")
    assert load(replay, rate="7/s") == Rate(Poisson(), 7)  # as of stages: who names a rate alone wants that rate
    scaled = _file(tmp_path, trace=str(trace), rate="5/s")
    assert load(scaled, rate="7/s") == Trace(str(trace), rate=7)  # and where there was a rate, another one
    assert load(scaled, rate="7/s", burstiness=2) == Rate(Gamma(2), 7)
    assert load(scaled, stages="5/s:1s") == Stages(Poisson(), "5/s:1s")
    scaled = _file(tmp_path, stages="5/s:1s, 9/s:1s", rate="5/s", stages_loop=True, duration="9s")
    assert load(scaled, rate="7/s", burstiness=2) == LoopedStages(Gamma(2), "5/s:1s, 9/s:1s", 7)
    assert load(scaled, stages="1/s:1s") == LoopedStages(Poisson(), "1/s:1s")
    assert load(scaled, stages_loop=False, duration=None) == Stages(Poisson(), "5/s:1s, 9/s:1s", 5)
    replay = _file(tmp_path, arrivals="trace", trace=str(trace), time_scale=0.5)
    looped = load_config(replay, {"trace_loop": True, "duration": "9s"})
    assert (looped.model.load, looped.least_ns(looped.model)) == (LoopedTrace(str(trace), scale=0.5), 9 * SECOND)
    steady = _file(tmp_path, arrivals="poisson", rate="5/s", duration="5s")
    assert load(steady, burstiness=2) == Rate(Gamma(2), 5)
    staged = load_config(steady, {"stages": "5/s:1s"})
    assert staged.least_ns(staged.model) == SECOND
    assert load_config(steady, {"trace": str(trace)}).duration is None
    assert load_config(steady, {"arrivals": "constant"}).duration == 5 * SECOND
    assert load(steady, bursts="1s/1s") == Rate(Poisson(), 5, "1s/1s")


def test_a_command_may_take_no_load_from_a_file(tmp_path: Path) -> None:
    """`loadtrt profile --config` of a run with stages or offline arrivals: its own length contradicts none of them."""
    for options in ({"stages": "5/s:1s"}, {"arrivals": "offline", "requests": 5}, {"trace": "gone.csv"}):
        config = load_config(_file(tmp_path, **options), {"duration": "3s"}, without=keys_of("Load", "Ending"))
        assert (config.model.load.options()["arrivals"], config.duration) == ("closed", 3 * SECOND)


def test_every_load_can_be_run_again(tmp_path: Path) -> None:
    """load(run.json) = config: a mean rate that follows from stages or a trace is not written, and comes out again."""
    trace = tmp_path / "trace.csv"
    trace.write_text("0\n1\n4\n")
    for options in (
        {"rate": "500/s", "burstiness": 4},
        {"rate": "500/s", "bursts": "1s/4s"},
        {"stages": "5/s:1s, ramp 5-9/s:2s", "max_duration": "2s"},
        {"stages": "5/s:1s, ramp 5-9/s:2s", "rate": "70/s", "stages_loop": True, "duration": "5s"},
        {"trace": str(trace), "time_scale": 0.5, "trace_loop": True, "duration": "5s"},
        {"trace": str(trace), "rate": 12.5},
        {"arrivals": "offline", "requests": 9},
    ):
        config = load_config(None, {"engine": "x", **options})
        written = config.model_dump(mode="json", by_alias=True)
        file = tmp_path / "run.json"
        file.write_text(json.dumps({"schema_version": "loadtrt.run/1", "config": written}))
        assert load_config(file, {}) == config
        assert load_config(file, {}).offered_per_s(load_config(file, {}).model) == config.offered_per_s(config.model)
        assert RunConfig.model_validate(written) == config
