"""`loadtrt capacity` on simulated engines: ladders, candidates, many runs on one engine, resumed, interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from test_sweep import await_measuring

from benchmarks.queues import Waiting, erlang_c, markov_tail
from command_line import ROOT, loadtrt
from loadtrt.asked.objective import parse_objective
from loadtrt.asked.reading import load_config
from loadtrt.engines.open import open_engine
from loadtrt.errors import UsageError
from loadtrt.live.watching import Watch
from loadtrt.report.plain import terminal_text
from loadtrt.report.result_files import Loaded, read_result
from loadtrt.results.capacity_result import CapacityResult, Trial
from loadtrt.results.gpu_telemetry import GpuClient, GpuSharing
from loadtrt.results.run_result import Problem
from loadtrt.sizing.candidate import Work
from loadtrt.sizing.conclusion import conclusion
from loadtrt.sizing.find import Finder
from loadtrt.sizing.outcomes import host_bound
from loadtrt.sizing.rig import Rig
from loadtrt.sizing.wanted import QUICK_NS, TIME_NS, Wanted
from loadtrt.stats.binomial import share_interval
from loadtrt.stats.verdict import verdict_on
from loadtrt.units import SECOND_NS, exact_duration, format_count
from onnx_files import doubling
from reported import markdown_text
from rigs import Heard
from runs_by_hand import changed

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.results.run_result import RunResult
    from loadtrt.sizing.search import Search

RANDOM = "simulated:service=1ms,distribution=exponential,clock=virtual"


def _wanted(engine: str = RANDOM, **changes: Any) -> Wanted:
    # The seed: of twenty intervals one does not hold the truth.
    options = {"engine": engine, "buffers": 1, "warmup": 0, "objective": ["latency.p99 < 12ms"], "seed": 5}
    values = {
        "load": {"arrivals": "poisson"},
        "contexts": (2,),
        "batches": (None,),
        "precision": 0.1,
        "time_ns": 60 * SECOND_NS,
        **{key: changes.pop(key) for key in list(changes) if key in Wanted.__slots__},
    }
    return Wanted(config=load_config(None, {**options, **changes}), **values)


def _found(
    wanted: Wanted, rig: Rig, before: CapacityResult | None = None
) -> tuple[CapacityResult, list[CapacityResult]]:
    kept: list[CapacityResult] = []
    finder = Finder(wanted, rig, Heard(), kept.append)
    if before is not None:
        finder.resume(before)
    finder.make()
    return finder.result, kept


# --- searches


@pytest.fixture(scope="module")
def whole() -> tuple[CapacityResult, list[CapacityResult]]:
    """A search on M/M/2, and what it was after each run."""
    with Rig(Heard()) as one:
        return _found(_wanted(), one)


def test_a_search_keeps_every_run_and_ends_confirmed(whole: tuple[CapacityResult, list[CapacityResult]]) -> None:
    """Ladder, trials, confirmation: each is kept at once; rates and seeds are those that were asked for, and all runs
    together take the time that was given at most."""
    result, kept = whole
    best = result.best
    assert best is not None
    assert (result.outcome, best.answer) == ("completed", "found")
    assert [trial.in_flight for trial in best.ladder] == [1, 2]
    assert [trial.kind for trial in best.searched] == sorted(
        (trial.kind for trial in best.searched), key=("search", "confirm", "refute").index
    )
    assert len({trial.seed for trial in best.searched}) == len(best.searched)
    for trial in best.searched:
        assert trial.run is not None
        assert trial.run.config.options()["rate"] == trial.rate_per_s
        assert trial.run.config.options()["seed"] == trial.seed
    assert load_ns(result) <= 60 * SECOND_NS
    sizes = [sum(len(each.trials) for each in one.candidates) for one in kept]
    assert set(range(1, sizes[-1] + 1)) <= set(sizes)
    assert best.confirmed_per_s is not None
    assert best.estimate_per_s is not None
    assert best.confirmed_per_s <= best.estimate_per_s * 1.02
    assert best.feasible_max_per_s == best.confirmed_per_s
    assert best.infeasible_min_per_s is not None
    assert best.confirmed_per_s < best.infeasible_min_per_s < 3 * best.confirmed_per_s
    assert best.binding == "latency.p99 < 12ms"
    assert "meet latency.p99 < 12ms" in best.conclusion
    assert "requests/s are confirmed" in best.conclusion


def load_ns(result: CapacityResult) -> int:
    """Time under load of the only candidate."""
    (only,) = result.candidates
    return sum(trial.run.config.duration or 0 for trial in only.searched if trial.run) + sum(
        trial.run.phases.measure_ns for trial in only.trials if trial.kind == "ladder" and trial.run
    )


def test_shares_are_averaged_over_arrivals(whole: tuple[CapacityResult, list[CapacityResult]]) -> None:
    """Those of open loops, which the verdicts are on; a ladder has no arrivals to average over."""
    (only,) = whole[0].candidates
    assert only.searched
    for trial in only.trials:
        assert trial.run is not None
        (item,) = trial.run.model.objectives
        assert (item.averaged is None) == (trial.kind == "ladder")
        if item.averaged is not None:
            assert item.bad == item.averaged
            assert (item.bad_low or 0) <= item.averaged <= (item.bad_high or 1)
            assert item.effective


def test_the_capacity_is_that_of_erlang(whole: tuple[CapacityResult, list[CapacityResult]]) -> None:
    """M/M/2, S = 1 ms: P(T > 12 ms) = 1 % at a rate that Erlang's formula tells. The ladder expects it within 15 %, the
    estimate estimate is within 8 % and its interval holds it, and what is confirmed lies below."""
    low, high = 0.0, 2000.0
    while high - low > 1e-6:
        rate = (low + high) / 2
        tail = markov_tail(0.012, Waiting(erlang_c(2, rate / 1000), 1 / (2000 - rate)), 0.001)
        low, high = (low, rate) if tail > 0.01 else (rate, high)
    best = whole[0].best
    assert best is not None
    assert best.predicted_per_s == pytest.approx(low, rel=0.15)
    assert best.estimate_per_s == pytest.approx(low, rel=0.08)
    assert (best.low_per_s or 0) <= low <= (best.high_per_s or 1e9)
    assert (best.confirmed_per_s or 1e9) <= low


def test_a_search_goes_on_where_it_was_cut(rig: Rig, whole: tuple[CapacityResult, list[CapacityResult]]) -> None:
    """From its file: the runs in it are not made again, and the others measure what they would have measured, as the
    draws of a simulated engine are those of the run's number."""
    result, kept = whole
    halfway = next(one for one in kept if len(one.candidates[0].searched) == 1)
    assert halfway.outcome == "interrupted"
    resumed, _ = _found(_wanted(), rig, CapacityResult.model_validate_json(halfway.model_dump_json()))
    trials = halfway.candidates[0].trials
    assert resumed.candidates[0].trials[: len(trials)] == trials
    assert [measured(trial) for trial in resumed.candidates[0].trials] == [
        measured(trial) for trial in result.candidates[0].trials
    ]
    assert (resumed.outcome, resumed.started) == ("completed", result.started)


def measured(trial: Trial) -> object:
    """What was asked and what came of it, on a clock of its own."""
    assert trial.run is not None
    return trial.kind, trial.rate_per_s, trial.seed, trial.run.model.histograms, trial.run.model.ok


@pytest.fixture(scope="module")
def both() -> tuple[Wanted, CapacityResult, list[CapacityResult]]:
    """A search over two candidates, and what it was after each run."""
    wanted = _wanted(contexts=(1, 2), time_ns=6 * SECOND_NS, quick=True)
    with Rig(Heard()) as one:
        return wanted, *_found(wanted, one)


@pytest.mark.parametrize("runs", [1, 3, 4])
def test_going_on_loses_no_run_at_any_moment(
    runs: int, rig: Rig, both: tuple[Wanted, CapacityResult, list[CapacityResult]]
) -> None:
    """Two candidates, cut after so many runs: whatever is written from then on begins with these, and the same
    candidates are searched."""
    wanted, whole, kept = both
    cut = next(one for one in kept if sum(len(each.trials) for each in one.candidates) == runs)
    resumed, written = _found(wanted, rig, CapacityResult.model_validate_json(cut.model_dump_json()))
    for one in (*written, resumed):
        for then, now in zip(cut.candidates, one.candidates, strict=True):
            assert now.trials[: len(then.trials)] == then.trials
    assert resumed.outcome == "completed"
    assert [each.dropped is None for each in resumed.candidates] == [each.dropped is None for each in whole.candidates]


def test_runs_of_another_engine_are_not_gone_on_with(
    rig: Rig, whole: tuple[CapacityResult, list[CapacityResult]]
) -> None:
    """A plan that was built anew is another engine; so is another machine's."""
    halfway = next(one for one in whole[1] if len(one.candidates[0].searched) == 1)
    (candidate,) = halfway.candidates
    trials = [
        trial.model_copy(update={"run": changed(trial.run, engine=replace(trial.run.model.engine, sha256="ab"))})
        for trial in candidate.trials
        if trial.run is not None
    ]
    built = halfway.model_copy(update={"candidates": (candidate.model_copy(update={"trials": tuple(trials)}),)})
    with pytest.raises(UsageError, match="whose sha256 was ab"):
        _found(_wanted(), rig, built)
    moved = halfway.model_copy(update={"environment": {**halfway.environment, "cpu": "Z80"}})
    with pytest.raises(UsageError, match="cpu was Z80"):
        _found(_wanted(), rig, moved)


def test_few_requests_take_no_longer_than_the_time(rig: Rig) -> None:
    """20 requests a second: the ladder leaves time for trials, all runs together take no more than was given, and
    nothing is claimed that so few cannot show."""
    engine = "simulated:service=50ms,cv=0.3,clock=virtual"
    result, _ = _found(_wanted(engine, contexts=(1,), objective=["latency.p99 < 400ms"]), rig)
    (only,) = result.candidates
    assert only.searched
    assert load_ns(result) <= 60 * SECOND_NS
    assert only.answer in ("found", "undecided")
    assert (only.low_per_s or 0) <= (only.estimate_per_s or 0) <= (only.high_per_s or 100)


def test_a_quick_search_estimates(rig: Rig) -> None:
    """Within its time, and with an interval; it confirms nothing, and says so."""
    result, _ = _found(_wanted(time_ns=20 * SECOND_NS, quick=True), rig)
    best = result.best
    assert best is not None
    assert (best.answer, best.confirmed_per_s) == ("estimated", None)
    assert {trial.kind for trial in best.searched} == {"search"}
    assert load_ns(result) <= 20 * SECOND_NS
    assert (best.low_per_s or 0) < (best.estimate_per_s or 0) < (best.high_per_s or 1e9)
    assert "of load and not confirmed" in terminal_text(result)


def test_a_mix_has_a_capacity(rig: Rig) -> None:
    """M/G/1 of two sizes; inferences are counted by the mean size, and the mix is told."""
    engine = "simulated:service=500us,item=500us,clock=virtual"
    result, _ = _found(_wanted(engine, contexts=(1,), mix="1:0.75, 3:0.25", time_ns=30 * SECOND_NS), rig)
    (only,) = result.candidates
    assert only.answer == "found"
    assert only.inferences_per_request == pytest.approx(1.5, rel=0.02)
    assert only.estimate_per_s == pytest.approx(only.predicted_per_s, rel=0.1)
    text = terminal_text(result)
    assert "mix 1:0.75, 3:0.25" in text
    assert "inferences/s) meet latency.p99 < 12ms" in text
    assert {len(trial.run.model.mix) for trial in only.trials if trial.run} == {2}


def test_a_finished_search_is_not_made_again(
    rig: Rig, opened: list[Any], whole: tuple[CapacityResult, list[CapacityResult]]
) -> None:
    """Resumed, it opens no engine and says the same."""
    again, _ = _found(_wanted(), rig, CapacityResult.model_validate_json(whole[0].model_dump_json()))
    assert opened == []
    assert again.model_dump() == whole[0].model_dump()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"time_ns": 5 * SECOND_NS}, "time was 1m, and is 5s"),
        ({"quick": True}, "quick was off, and is on"),
        ({"precision": 0.05}, "precision was 10%, and is 5%"),
        ({"buffers": 2}, "buffers was 1, and is 2"),
        ({"contexts": (1, 2)}, "contexts was"),
        ({"load": {"arrivals": "gamma", "burstiness": 4.0}}, "arrivals was poisson, and is gamma"),
        ({"load": {"arrivals": "poisson", "bursts": "1s/4s"}}, "bursts was none, and is 1s/4s"),
    ],
)
def test_another_search_is_not_gone_on_with(changes: dict[str, Any], sentence: str, rig: Rig) -> None:
    """What differs is told."""
    before = Finder(_wanted(), rig, Heard(), lambda _: None).result
    with pytest.raises(UsageError, match=sentence):
        Finder(_wanted(**changes), rig, Heard(), lambda _: None).resume(before)


def test_an_objective_that_one_request_alone_misses_is_infeasible(rig: Rig) -> None:
    """No queue is needed to miss it: after one rung it is said, with the numbers."""
    result, _ = _found(_wanted(objective=["latency.p99 < 2ms"]), rig)
    (only,) = result.candidates
    assert (only.answer, len(only.trials), result.chosen) == ("infeasible", 1, None)
    assert "no rate meets latency.p99 < 2ms: even with one request in flight at a time" in only.conclusion
    assert "% of the requests are bad, and p99 is " in only.conclusion


def of_rung(run: RunResult, bad: int) -> Trial:
    """The ladder's first rung: this run, of which so many requests were bad."""
    (item,) = run.model.objectives
    share, size = bad / run.model.ok, float(run.model.ok)
    low, high = share_interval(share, size)
    told: dict[str, Any] = {"bad_low": low, "bad_high": high, "effective": size, "good": run.model.ok - bad}
    told |= {"requests": run.model.ok, "verdict": verdict_on(item.objective, share, size, low, high)}
    return Trial(kind="ladder", in_flight=1, seed=1, run=changed(run, objectives=(item.model_copy(update=told),)))


def unsearched(*_: object) -> Search:
    raise AssertionError("a search began within the ladder")


@pytest.fixture(scope="module")
def rung() -> RunResult:
    """A closed loop of 389 requests, whose throughput is known well."""
    with Rig(Heard()) as one:
        config = _wanted("simulated:service=1ms,clock=virtual", requests=389).config
        one.open(config)
        return one.run(config, "", (1, 1))


@pytest.mark.parametrize("bad", [8, 9, 11])
def test_a_rung_that_may_have_missed_by_chance_is_repeated_first(bad: int, rung: RunResult) -> None:
    """A few bad ones of 389, where 1 % may be bad: nothing is said, and where that is a miss, more requests are
    measured first. With none bad in ten times as many, the ladder goes on; with as many, it is infeasible."""
    for many, answer in ((0, None), (10 * bad, "infeasible")):
        (config,) = _wanted().configs()
        work = Work(config, config.model.objectives, 60.0, unsearched)
        first = work.next_rung
        assert first is not None
        trial = of_rung(rung, bad)
        work.record(trial)
        assert (work.answer, work.stops) == (None, False)
        again = work.next_rung
        assert again is not None
        assert trial.run is not None
        missed = trial.run.verdict == "missed"
        assert (again.part == first.part) == missed
        if missed:
            assert again.seconds > first.seconds
            more = changed(rung, ok=3890)
            work.record(of_rung(more, many))
            assert work.answer == answer
            assert (work.next_rung is None) == (answer is not None)


def test_an_engine_that_became_faster_in_its_ladder_is_unsteady(rig: Rig) -> None:
    """Two lanes of which the first is three times as slow: two requests in flight are faster than one, which no engine
    in one state is. It is said after the ladder, and nothing is searched."""
    result, _ = _found(_wanted(f"{RANDOM},slow_lane=0:3", time_ns=20 * SECOND_NS), rig)
    (only,) = result.candidates
    assert only.answer == "unsteady"
    assert {trial.kind for trial in only.trials} == {"ladder"}
    assert only.conclusion.startswith("unsteady: 2 requests in flight took ")
    assert "lock the GPU's clocks, or warm up longer" in " ".join(terminal_text(result).split())


BUSY = "the cores are used by others: other processes took 1.9 of 2 cores, and 0.0 were idle"


@pytest.mark.parametrize("shared", [False, True])
def test_a_busy_host_ends_a_search_after_its_first_rung(
    shared: bool,
    tmp_path: Path,
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would measure the others, too; unless that is what was asked for."""
    monkeypatch.setattr("loadtrt.sizing.rig.busy_host", lambda _: BUSY)
    engine = doubling(tmp_path, 1, 8)  # ONNX Runtime: an engine that is not simulated
    wanted = _wanted(engine, objective=["latency.p99 < 10s"], time_ns=2 * SECOND_NS, quick=True, shared=shared)
    result = _found(wanted, rig)[0]
    (only,) = result.candidates
    assert only.failure is None
    assert ("on a shared host" in " ".join(terminal_text(result).split())) == result.shared == shared
    if shared:
        assert len(only.trials) > 1
        assert BUSY not in only.conclusion
    else:
        assert (only.answer, len(only.trials)) == ("unsteady", 1)
        assert only.conclusion == (
            f"unsteady: {BUSY}; end them, or add --shared-host to find the capacity of what they leave"
        )


@pytest.fixture
def other_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process computes on the GPU, for half the time of each run, and simulated engines count as real ones."""
    Machine(monkeypatch)

    def end(watch: Watch, *_: object) -> None:
        watch.sharing = GpuSharing((GpuClient(77, sm_ratio=0.5),))

    monkeypatch.setattr(Watch, "end", end)


@pytest.mark.parametrize("accepted", [{}, {"shared_gpu": True}])
def test_a_shared_gpu_ends_a_search(other_run: None, accepted: dict[str, Any], rig: Rig) -> None:
    """After the first run: it measured the other process, too, and is evidence of nothing. Unless that is accepted."""
    result, _ = _found(_wanted(contexts=(1,), time_ns=5 * SECOND_NS, quick=True, **accepted), rig)
    (only,) = result.candidates
    runs = [trial.run for trial in only.trials if trial.run is not None]
    assert all(run.sharing and run.sharing.clients for run in runs)
    if accepted:
        assert (only.answer, [run.model.problems for run in runs]) == ("estimated", [()] * len(runs))
    else:
        assert (only.answer, len(runs)) == ("unsteady", 1)
        assert only.conclusion == (
            "unsteady: others computed on this GPU meanwhile: process 77 (kernels for 50 % of the time); end them, or "
            "add --shared-host to find the capacity of what they leave"
        )


def test_a_shared_host_has_a_shared_gpu(other_run: None) -> None:
    """`--shared-host` accepts others on either; `--shared-gpu` those on the GPU alone."""
    options = ("--engine", RANDOM, "--objective", "latency.p99 < 12ms", "--time", "4s", "--quick", "--warmup", "0s")
    for accepted, code in (((), 97), (("--shared-host",), 0), (("--shared-gpu",), 0)):
        done = loadtrt("capacity", *options, *accepted)
        assert done.returncode == code, done.stderr
        assert ("process 77" in done.stderr + done.stdout) == (not accepted)
    done = loadtrt("capacity", *options, "--shared-host", "--no-shared-gpu")
    sentence = "--shared-host accepts others on the GPU, too: leave --no-shared-gpu out\n"
    assert (done.returncode, done.stderr) == (2, f"loadtrt: {sentence}")


class Machine:
    """A machine without /proc/stat whose load average is `load`, and on which simulated engines count as real ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.load = 0.0
        monkeypatch.setattr("loadtrt.environment.core_times", lambda *_: None)
        monkeypatch.setattr("loadtrt.environment.load_average", lambda *_: self.load)

        def opening(*arguments: Any) -> Any:
            engine = open_engine(*arguments)
            vars(engine)["info"] = replace(engine.info, kind="onnxruntime")
            return engine

        monkeypatch.setattr("loadtrt.runs.opened.open_engine", opening)


def test_a_busy_host_ends_a_long_rung_by_the_tenth_second(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first closed loop would last a minute: the load average is looked at meanwhile."""
    machine = Machine(monkeypatch)
    machine.load = 99.5
    engine = "simulated:service=500ms,cv=1,distribution=lognormal,clock=virtual"
    result, _ = _found(_wanted(engine, contexts=(1,), objective=["latency.p90 < 9s"], time_ns=600 * SECOND_NS), rig)
    (only,) = result.candidates
    (rung,) = only.trials
    assert rung.run is not None
    assert rung.run.phases.measure_ns < 10 * SECOND_NS
    assert only.answer == "unsteady"
    assert only.conclusion.startswith("unsteady: the cores are used by others: load average 99.5 on ")


def test_a_host_that_becomes_busy_ends_the_search(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the trial in which that began, which does not count; the search can be continued when it is over."""
    machine = Machine(monkeypatch)
    kept: list[CapacityResult] = []

    def keep(result: CapacityResult) -> None:
        kept.append(result)
        if len(result.candidates[0].searched) == 2:
            machine.load = 99.5

    finder = Finder(_wanted(), rig, Heard(), keep)
    finder.make()
    (only,) = finder.result.candidates
    assert (only.answer, len(only.searched), only.estimate_per_s) == ("unsteady", 2, None)
    assert "load average 99.5" in " ".join(terminal_text(finder.result).split())
    machine.load = 0.0
    resumed, _ = _found(_wanted(), rig, finder.result)
    assert resumed.candidates[0].trials[: len(only.trials)] == only.trials
    assert resumed.candidates[0].answer == "found"


def test_a_simulated_engine_needs_no_quiet_host(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked: its times are its own."""

    def asked(_: object) -> str:
        raise AssertionError("asked for a simulated engine")

    monkeypatch.setattr("loadtrt.sizing.rig.busy_host", asked)
    result, _ = _found(_wanted(contexts=(1,), time_ns=5 * SECOND_NS, quick=True), rig)
    assert result.candidates[0].answer == "estimated"


def test_the_candidate_with_the_most_inferences_is_chosen(rig: Rig) -> None:
    """A batch of 8 that takes twice as long carries four times as much, and more of it than any rate of batch 1 could
    serve, so that those are not searched."""
    engine = "simulated:service=1ms,item=150us,clock=virtual"
    result, _ = _found(_wanted(engine, contexts=(1, 2), batches=(1, 8), time_ns=20 * SECOND_NS), rig)
    best = result.best
    assert best is not None
    assert (best.contexts, best.batch, best.items) == (2, 8, 8)
    assert [each.dropped is None for each in result.candidates] == [False, False, False, True]
    assert "its closed loops predict" in (result.candidates[0].dropped or "")
    assert "highest capacity of the candidates confirmed (1 of 4): " in result.reason
    assert "chosen: 2 contexts, batch 8" in terminal_text(result)


def test_a_candidate_that_does_not_open_costs_the_others_nothing(rig: Rig) -> None:
    """It is kept with its sentence. What is wrong with all of them is the command's."""
    result, _ = _found(_wanted(f"{RANDOM},slow_lane=1:1", contexts=(1, 2), time_ns=10 * SECOND_NS), rig)
    assert "slow_lane 1 is not a lane" in (result.candidates[0].failure or "")
    assert result.best is result.candidates[1]
    with pytest.raises(UsageError, match=r"cannot read plan nowhere\.plan"), Rig(Heard()) as another:
        _found(_wanted("nowhere.plan", contexts=(1, 2)), another)


def test_outputs_that_are_wrong_under_load_end_a_candidate(rig: Rig) -> None:
    """With --verify: an engine whose requests overwrite each other has no capacity."""
    result, _ = _found(_wanted(f"{RANDOM},race=1", verify=True), rig)
    (only,) = result.candidates
    assert "outputs under load differ" in (only.failure or "")
    assert (only.answer, result.best) == (None, None)
    assert len(only.searched) == 1


def test_failing_requests_are_bad_ones(rig: Rig) -> None:
    """2 % that fail miss a p99 at any rate, however fast the others are."""
    result, _ = _found(_wanted(f"{RANDOM},error=0.02", objective=["latency.p99 < 1s"]), rig)
    assert result.candidates[0].answer == "infeasible"


@pytest.mark.parametrize(
    ("objectives", "error", "sentence"),
    [
        (["latency.p99 < 1s", "errors < 1%"], "0.03", "no rate meets latency.p99 < 1s or errors < 1%: even with one "
         r"request in flight at a time [0-9.]+ % of the requests are late or failed, and [0-9.]+ % of the requests are "
         "failed or not served"),
        (["errors < 1%", "latency.p50 < 500us"], "0.03", "no rate meets errors < 1% or latency.p50 < 500us: .* are "
         r"failed or not served, and [0-9.]+ % of the requests are bad, and p50 is [0-9]+ µs"),
        (["errors < 1%", "latency.p50 < 1s"], "0.03", r"no rate meets errors < 1%: even with one request in flight at "
         r"a time [0-9.]+ % of the requests are failed or not served"),
    ],
)  # fmt: skip
def test_every_objective_that_is_missed_is_named(objectives: list[str], error: str, sentence: str, rig: Rig) -> None:
    """Failed requests are bad ones for every objective: the quantile alone would be blamed for what errors cause."""
    result, _ = _found(_wanted(f"{RANDOM},error={error}", contexts=(1,), objective=objectives), rig)
    (only,) = result.candidates
    assert only.answer == "infeasible"
    assert re.fullmatch(sentence, only.conclusion), only.conclusion


@pytest.mark.parametrize("slow", [1, 2])
def test_a_host_that_limits_another_candidate_is_not_the_limit_of_the_chosen_one(
    slow: int, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator is too late for one or two contexts above 300/s. What has met the highest rate is chosen, the
    reason says which other candidate the generator limited, and the rate in a sentence is that of its evidence."""
    late = "the generator was {:.0f} µs late at p99 (limit 1 µs)"

    def bound(run: RunResult, _: int | None) -> str | None:
        rate = float(run.config.model.load.options().get("rate", 0))
        return late.format(rate) if run.config.model.contexts == slow and rate > 300 else None

    monkeypatch.setattr("loadtrt.sizing.find.host_bound", bound)
    monkeypatch.setattr("loadtrt.sizing.find.CLOSE", 0.1)
    monkeypatch.setattr(Work, "most", 1e9)  # so that both are searched
    result, _ = _found(_wanted(contexts=(1, 2), time_ns=20 * SECOND_NS), rig)
    limited, other = result.candidates if slow == 1 else reversed(result.candidates)
    assert (limited.answer, other.answer, result.best) == ("host-bound", "found", other)
    lowest = min(trial.rate_per_s or 0.0 for trial in limited.searched if trial.host_bound)
    assert f"host-bound at {format_count(lowest)}/s: {late.format(lowest)}" in limited.conclusion
    text = " ".join(terminal_text(result).split())
    assert f"the load generator, not the engine, limited {limited.name}, which may reach more" in text


def test_several_objectives_hold_together(rig: Rig) -> None:
    """The one that is met up to the lowest rate binds; all are told."""
    result, _ = _found(_wanted(objective=["latency.p50 < 20ms", "latency.p99 < 12ms"], time_ns=20 * SECOND_NS), rig)
    best = result.best
    assert best is not None
    assert best.binding == "latency.p99 < 12ms"
    assert [item.objective.text for item in best.objectives] == ["latency.p50 < 20ms", "latency.p99 < 12ms"]
    assert all(len(trial.run.model.objectives) == 2 for trial in best.searched if trial.run)
    for text in terminal_text(result).partition("latency.p50 < 20ms:")[2].split("latency.p99 < 12ms:"):
        rows = [line for line in text.splitlines() if line.startswith(("search ", "confirm ", "refute "))]
        assert len(rows) == len(best.searched)


def test_a_ladder_that_foretells_nothing_says_so(rig: Rig) -> None:
    """Of latency no rate; of another metric it knows nothing."""
    bursty, engine = {"arrivals": "gamma", "burstiness": 4.0}, "simulated:service=1ms,cv=0.3,clock=virtual"
    latency, _ = _found(_wanted(engine, load=bursty, objective=["latency.p99 < 2.5ms"]), rig)
    lowest = min(trial.rate_per_s or 0 for trial in latency.candidates[0].searched)
    sentence = f"no rate from {lowest:.3g}/s up meets latency.p99 < 2.5ms: at {lowest:.3g}/s "
    assert sentence in latency.candidates[0].conclusion
    service, _ = _found(_wanted(objective=["service.p99 < 6ms"], time_ns=5 * SECOND_NS), rig)
    assert "expected from the ladder: no rate; trials begin at" in terminal_text(latency)
    assert "expected from the ladder: nothing, as it predicts only latency; trials begin at" in " ".join(
        terminal_text(service).split()
    )


def test_the_conclusion_says_no_more_than_is_known(whole: tuple[CapacityResult, list[CapacityResult]]) -> None:
    """The estimate with its interval comes first, then the confirmed rate beside it; no rate, met or missed, that there
    is none of. Where little of the estimate is confirmed, it says what confirms more."""
    (found,) = whole[0].candidates
    rate = format_count(found.confirmed_per_s or 0)
    assert found.conclusion.startswith(f"about {format_count(found.estimate_per_s or 0)} requests/s meet ")
    assert f"; {rate} requests/s are confirmed" in found.conclusion
    half = found.model_copy(update={"confirmed_per_s": 0.5 * (found.estimate_per_s or 0)})
    assert conclusion(half).endswith("are confirmed; a longer --time confirms a higher rate")
    trials = [
        trial.model_copy(update={"run": judged(trial.run, "undecided")})
        if trial.kind == "confirm" and trial.run is not None
        else trial
        for trial in found.trials
    ]
    assert " together" not in found.conclusion
    pooled = found.model_copy(update={"trials": tuple(trials)})
    assert "are confirmed, by the confirming runs at that rate and above together" in conclusion(pooled)
    unknown = {"feasible_max_per_s": None, "infeasible_min_per_s": None, "boundary": None, "confirmed_per_s": None}
    undecided = found.model_copy(update={"answer": "undecided", **unknown})
    assert conclusion(undecided).endswith("and no rate is confirmed; a longer --time decides more")
    assert "met at" not in terminal_text(whole[0].model_copy(update={"candidates": (undecided,)}))
    open_ended = undecided.model_copy(update={"low_per_s": None, "high_per_s": None})
    assert "95 %" not in conclusion(open_ended)
    assert "(the runs bound it neither from below nor from above)" in conclusion(open_ended)
    apart = found.model_copy(update={"answer": "undecided", "confirmed_per_s": 10.0, "infeasible_min_per_s": 31.0})
    assert "no rate is confirmed" not in conclusion(apart)
    assert "and only 10.0 requests/s are confirmed, less than a third of the 31.0/s that missed" in conclusion(apart)


def test_a_table_of_averaged_shares_says_so(whole: tuple[CapacityResult, list[CapacityResult]]) -> None:
    """The share is averaged over arrivals, and the quantile is that of the run: of the same row one may meet the
    objective and the other miss it."""
    note = "bad, 95 %, worth: averaged over other draws of the arrivals"
    assert note in terminal_text(whole[0])
    candidates = []
    for candidate in whole[0].candidates:
        runs = [
            trial.run.with_model(
                objectives=tuple(item.model_copy(update={"averaged": None}) for item in trial.run.model.objectives)
            )
            for trial in candidate.trials
            if trial.run is not None
        ]
        trials = [trial.model_copy(update={"run": run}) for trial, run in zip(candidate.trials, runs, strict=True)]
        candidates.append(candidate.model_copy(update={"trials": tuple(trials)}))
    assert note not in terminal_text(whole[0].model_copy(update={"candidates": tuple(candidates)}))


def judged(run: RunResult, verdict: str) -> RunResult:
    """A run whose objectives have that verdict."""
    items = tuple(item.model_copy(update={"verdict": verdict}) for item in run.model.objectives)
    return changed(run, objectives=items)


def last_runs(result: CapacityResult) -> dict[str, RunResult]:
    """The last run of each kind, the confirming one met and the trial missed."""
    (only,) = result.candidates
    runs = {str(trial.kind): trial.run for trial in only.trials if trial.run}
    return {**runs, "search": judged(runs["search"], "missed"), "confirm": judged(runs["confirm"], "met")}


def test_what_an_engine_that_takes_no_time_misses_is_the_generators(
    whole: tuple[CapacityResult, list[CapacityResult]],
) -> None:
    """Its requests wait for nothing else, however short the generator's lateness is."""
    run = last_runs(whole[0])["search"]
    assert (run.verdict, host_bound(run, None)) == ("missed", None)
    instant = {**run.model.metrics, "compute": run.model.metrics["compute"].model_copy(update={"max_ns": 0})}
    assert "compute takes no time" in (host_bound(changed(run, metrics=instant), None) or "")


def test_what_is_met_in_spite_of_a_late_generator_is_met(
    whole: tuple[CapacityResult, list[CapacityResult]],
) -> None:
    """Its lateness only adds to latencies. Not what was missed, nor where the user bounds lateness, nor in the ladder,
    whose throughput it takes away; nor bounds on compute, which is the shorter, the fewer lanes it keeps busy."""
    runs = last_runs(whole[0])
    for kind, run in runs.items():
        lateness = run.model.metrics["lateness"].model_copy(update={"percentiles_ns": {"p50": 1e9, "p99": 1e9}})
        metrics = {**run.model.metrics, "lateness": lateness}
        runs[kind] = changed(run, metrics=metrics, starved_fraction=0.1)
    met, missed, rung = runs["confirm"], runs["search"], runs["ladder"]
    assert (met.verdict, missed.verdict) == ("met", "missed")
    assert host_bound(met, None) is None
    assert "1.00 s late at p99" in (host_bound(met, 1000) or "")
    assert "1.00 s late at p99" in (host_bound(missed, None) or "")
    assert "were idle" in (host_bound(rung, None) or "")
    problem = Problem(kind="late", evidence="the generator was 1.00 s late at p99 (limit 500 µs)", remedy="")
    (found,) = whole[0].candidates
    assert "although" not in found.conclusion
    *_, confirm = (
        trial for trial in found.trials if trial.kind == "confirm" and trial.rate_per_s == found.confirmed_per_s
    )
    spoilt = confirm.model_copy(update={"run": changed(met, valid=False, problems=(problem,))})
    late_one = found.model_copy(update={"trials": (*found.ladder, spoilt)})
    assert f" are confirmed although {problem.evidence}" in conclusion(late_one)
    page = markdown_text([Loaded("x.json", whole[0].model_copy(update={"candidates": (late_one,)}))])
    assert f"counts as met: {problem.evidence}" in page
    for objective in ("compute.p99 < 1s", "service.p99 < 1s"):
        (item,) = met.model.objectives
        other = changed(met, objectives=(item, item.model_copy(update={"objective": parse_objective(objective)})))
        assert "1.00 s late at p99" in (host_bound(other, None) or "")


# --- the command


QUICK = {"--engine": RANDOM, "--buffers": "1", "--warmup": "0", "--time": "20s", "--precision": "10%"}


def _quick(*options: str) -> list[str]:
    """A quick search, of which these options overrule."""
    usual = [word for name, value in QUICK.items() if name not in options for word in (name, value)]
    return ["capacity", *usual, *options]


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("--objective", "latency.p90 < 6ms"), 0, "requests/s are confirmed"),
        (("--objective", "latency.p90 < 6ms", "--quick"), 0, "of load and not confirmed"),
        (("--objective", "latency.p99 < 2ms"), 99, "no rate meets latency.p99 < 2ms"),
        (("--objective", "latency.p99.9 < 20ms", "--time", "2s"), 98, "too short for this engine: a request takes"),
        (("--objective", "latency.p99.9 < 20ms", "--time", "12s"), 98, "and no rate is confirmed; a longer --time"),
        (("--objective", "latency.p99 < 12ms", "--engine", f"{RANDOM},slow_lane=0:3", "--contexts", "2"), 97,
         "unsteady: 2 requests in flight took"),
    ],
)  # fmt: skip
def test_the_exit_code_is_the_answer(options: tuple[str, ...], code: int, sentence: str) -> None:
    """0 confirmed or estimated, 99 infeasible, 98 undecided, 97 unsteady; tables are on stdout, progress on stderr."""
    done = loadtrt(*_quick(*options))
    assert done.returncode == code, done.stderr
    assert sentence in " ".join(done.stdout.split())
    assert "in flight" in done.stdout
    assert "ladder, 1 in flight" in done.stderr


def test_help_tells_the_defaults() -> None:
    """The time of a search, and of a quick one, as they are."""
    text = " ".join(loadtrt("capacity", "--help").stdout.split())
    assert f"[default: {exact_duration(TIME_NS)}]" in text.partition("--time ")[2].partition("--quick")[0]
    assert f"within {QUICK_NS // SECOND_NS} s of load" in text


def test_a_generator_that_is_the_bottleneck_exits_97() -> None:
    """An engine that answers at once, against 1 ns of lateness: nothing measured is the engine's."""
    done = loadtrt("capacity", "--engine", "simulated:null", "--objective", "latency.p99<1s", "--max-lateness", "1ns",
                   "--warmup", "0", "--time", "2s")  # fmt: skip
    assert done.returncode == 97
    assert "host-bound at" in done.stdout


def test_json_on_stdout_is_all_there_is() -> None:
    """`--quiet --json -`: one document of the schema, at the end."""
    done = loadtrt(*_quick("--objective", "latency.p90 < 6ms", "--quiet", "--json", "-"))
    assert (done.returncode, done.stderr) == (0, "")
    assert CapacityResult.model_validate_json(done.stdout).outcome == "completed"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "add --objective"),
        (("--objective", "latency.max < 1s"), "bound a quantile"),
        (("--objective", "latncy.p99 < 1s"), "latncy"),
        (("--objective", "latency.p99 < 1s", "--contexts", "0"), "begin at 1"),
        (("--objective", "latency.p99 < 1s", "--batch", "some"), "is not a count"),
        (("--objective", "latency.p99 < 1s", "--precision", "0%"), "--precision 0%"),
        (("--objective", "latency.p99 < 1s", "--precision", "fine"), "--precision fine"),
        (("--objective", "latency.p99 < 1s", "--time", "0s"), "--time 0ns is too short for a search"),
        (("--objective", "latency.p99 < 1s", "--time", "1s"), "--time 1s is too short for a search"),
        (("--objective", "latency.p99 < 1s", "--time", "long"), "--time: 'long' is not a duration"),
        (
            ("--objective", "latency.p99 < 1s", "--max-trials", "6"),
            "--max-trials is perf_analyzer's: that is --precision here",
        ),
        (("--objective", "latency.p99 < 1s", "--arrivals", "gamma"), "need a burstiness"),
        (("--objective", "latency.p99 < 1s", "--bursts", "1s"), "bursts"),
        (("--objective", "latency.p99 < 1s", "--resume"), "name one"),
        (("--objective", "latency.p99 < 1s", "--json", "docs"), "is a folder"),
        (("--objective", "latency.p99 < 1s", "--engine", "nowhere.plan"), "cannot read plan nowhere.plan"),
        (("--objective", "latency.p99 < 1s", "--engine", "nowhere.plan", "--contexts", "1,2"), "cannot read plan"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    """Exit 2, stdout stays empty, stderr holds one line."""
    engine = () if "--engine" in arguments else ("--engine", RANDOM)
    done = loadtrt("capacity", *engine, *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert sentence in done.stderr


def test_ctrl_c_ends_the_run_and_keeps_it(tmp_path: Path) -> None:
    """The running rung ends early, exit 130, and the file holds what was measured; without --resume it is not written
    over."""
    file = tmp_path / "capacity.json"
    options = ("capacity", "--engine", RANDOM, "--objective", "latency.p99<12ms", "--warmup", "0", "--json", str(file))
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtrt", *options, "--time", "24h"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ,
    )  # fmt: skip
    await_measuring(process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    found = read_result(CapacityResult, file)
    assert process.returncode == 130, stderr
    assert f"interrupted: what was measured until then is shown → --resume continues with {file}" in " ".join(
        stdout.split()
    )
    assert found.outcome == "interrupted"
    outcomes = [trial.run.outcome for trial in found.candidates[0].trials if trial.run]
    assert outcomes
    assert set(outcomes[:-1]) <= {"completed"}
    refused = loadtrt(*options, "--time", "24h")
    assert refused.returncode == 2
    assert "add --resume to continue" in refused.stderr
    assert read_result(CapacityResult, file) == found
