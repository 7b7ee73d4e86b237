"""`loadtrt capacity` on simulated engines: ladders, candidates, many runs on one engine, resumed, interrupted."""

from __future__ import annotations

import os
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
from loadtrt.capacity.candidate import conclusion, host_bound
from loadtrt.capacity.find import Finder, Wanted
from loadtrt.capacity.rig import Rig
from loadtrt.errors import UsageError
from loadtrt.report.markdown import markdown_text
from loadtrt.report.plain import terminal_text
from loadtrt.report.result_files import Loaded, read_result
from loadtrt.results.capacity_result import CapacityResult
from loadtrt.results.run_result import Problem
from rigs import Heard
from runs_by_hand import changed

if TYPE_CHECKING:
    from pathlib import Path

MS = 1_000_000
RANDOM = "simulated:service=1ms,distribution=exponential,clock=virtual"


def _wanted(engine: str = RANDOM, **changes: Any) -> Wanted:
    options = {"engine": engine, "buffers": 1, "warmup": 0, "objective": ["latency.p99 < 12ms"]}
    values = {
        "load": {"arrivals": "poisson"},
        "contexts": (2,),
        "batches": (None,),
        "precision": 0.1,
        "trial_ns": 3_000 * MS,
        "max_trials": 4,
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
    """Ladder, trials, confirmation: each is kept at once; rates, seeds and lengths are those that were asked for."""
    result, kept = whole
    best = result.best
    assert best is not None
    assert (result.outcome, best.answer) == ("completed", "found")
    assert [trial.in_flight for trial in best.ladder] == [1, 2]
    assert len({trial.seed for trial in best.searched}) == len(best.searched)
    for trial in best.searched:
        assert trial.run is not None
        assert trial.run.config.options()["rate"] == trial.rate_per_s
        assert trial.run.config.options()["seed"] == trial.seed
        assert trial.run.config.options()["duration"] == ("3s" if trial.kind == "search" else "15s")
    sizes = [sum(len(each.trials) for each in one.candidates) for one in kept]
    assert set(range(1, sizes[-1] + 1)) <= set(sizes)
    assert best.confirmed_per_s is not None
    assert best.estimate_per_s is not None
    assert best.confirmed_per_s <= best.estimate_per_s * 1.02
    assert best.feasible_max_per_s is not None
    assert best.feasible_max_per_s >= best.confirmed_per_s
    assert best.infeasible_min_per_s is not None
    assert best.estimate_per_s < best.infeasible_min_per_s < 1.2 * best.estimate_per_s
    assert best.binding == "latency.p99 < 12ms"
    assert "meet latency.p99 < 12ms" in best.conclusion


def test_the_capacity_is_that_of_erlang(whole: tuple[CapacityResult, list[CapacityResult]]) -> None:
    """M/M/2, S = 1 ms: P(T > 12 ms) = 1 % at a rate that Erlang's formula tells. The ladder expects it within 15 %, the
    estimate is within 5 % and its interval holds it, and what is confirmed lies below."""
    low, high = 0.0, 2000.0
    while high - low > 1e-6:
        rate = (low + high) / 2
        tail = markov_tail(0.012, Waiting(erlang_c(2, rate / 1000), 1 / (2000 - rate)), 0.001)
        low, high = (low, rate) if tail > 0.01 else (rate, high)
    best = whole[0].best
    assert best is not None
    assert best.predicted_per_s == pytest.approx(low, rel=0.15)
    assert best.estimate_per_s == pytest.approx(low, rel=0.05)
    assert (best.low_per_s or 0) <= low <= (best.high_per_s or 1e9)
    assert (best.confirmed_per_s or 1e9) <= low


def test_a_search_goes_on_where_it_was_cut(rig: Rig, whole: tuple[CapacityResult, list[CapacityResult]]) -> None:
    """From its file: the runs in it are not made again, and what it asks for next is what came next."""
    result, kept = whole
    halfway = next(one for one in kept if len(one.candidates[0].searched) == 1)
    assert halfway.outcome == "interrupted"
    resumed, _ = _found(_wanted(), rig, CapacityResult.model_validate_json(halfway.model_dump_json()))
    trials = halfway.candidates[0].trials
    assert resumed.candidates[0].trials[: len(trials)] == trials
    following, again = (one.candidates[0].trials[len(trials)] for one in (result, resumed))
    assert (again.kind, again.rate_per_s, again.seed) == (following.kind, following.rate_per_s, following.seed)
    assert (resumed.outcome, resumed.started) == ("completed", result.started)


@pytest.fixture(scope="module")
def both() -> tuple[Wanted, CapacityResult, list[CapacityResult]]:
    """A search over two candidates, and what it was after each run."""
    wanted = _wanted(contexts=(1, 2), trial_ns=1_000 * MS, max_trials=2)
    with Rig(Heard()) as one:
        return wanted, *_found(wanted, one)


@pytest.mark.parametrize("runs", [1, 3, 5, 7])
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


def test_trials_of_few_requests_last_longer_and_it_is_told(rig: Rig) -> None:
    """30 requests a second: the first trial lasts until 3 000 are due or a minute is over, rungs until 200 were served;
    the table says how long each was."""
    engine = "simulated:service=50ms,cv=0.3,clock=virtual"
    result, _ = _found(
        _wanted(engine, objective=["latency.p99 < 400ms"], trial_ns=10_000 * MS, longest_trial_ns=60_000 * MS), rig
    )
    (only,) = result.candidates
    first = only.searched[0].run
    assert first is not None
    assert first.config.options()["duration"] == "1m"
    assert all(trial.run is not None and trial.run.model.ok >= 200 for trial in only.ladder)
    assert only.answer == "found"
    text = terminal_text(result)
    assert "trials of 10.0 s to 60.0 s" in text
    assert "  60.0 s  " in text


def test_a_mix_has_a_capacity(rig: Rig) -> None:
    """M/G/1 of two sizes; inferences are counted by the mean size, and the mix is told."""
    engine = "simulated:service=500us,item=500us,clock=virtual"
    result, _ = _found(_wanted(engine, contexts=(1,), mix="1:0.75, 3:0.25", objective=["latency.p99 < 12ms"]), rig)
    (only,) = result.candidates
    assert only.answer == "found"
    assert only.inferences_per_request == pytest.approx(1.5, rel=0.02)
    assert only.estimate_per_s == pytest.approx(only.predicted_per_s, rel=0.1)
    text = terminal_text(result)
    assert "mix 1:0.75, 3:0.25" in text
    assert "inferences/s) meet" in text
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
        ({"trial_ns": MS}, "trial was 3s, and is 1ms"),
        ({"longest_trial_ns": 9_000 * MS}, "trial was 3s, and is 3s to 9s"),
        ({"buffers": 2}, "buffers was 1, and is 2"),
        ({"contexts": (1, 2)}, "contexts was"),
        ({"load": {"arrivals": "gamma", "burstiness": 4.0}}, "load was"),
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
    assert "% of the requests are bad, and p99 is 3." in only.conclusion


def test_the_candidate_with_the_most_inferences_is_chosen(rig: Rig) -> None:
    """A batch of 8 that takes twice as long carries four times as much, and more of it than any rate of batch 1 could
    serve, so that those are not searched."""
    engine = "simulated:service=1ms,item=150us,clock=virtual"
    result, _ = _found(_wanted(engine, contexts=(1, 2), batches=(1, 8)), rig)
    best = result.best
    assert best is not None
    assert (best.contexts, best.batch, best.items) == (2, 8, 8)
    assert [each.dropped is None for each in result.candidates] == [False, False, False, True]
    assert "its closed loops predict" in (result.candidates[0].dropped or "")
    assert "highest capacity of the candidates confirmed (1 of 4): " in result.reason
    assert "chosen: 2 contexts, batch 8" in terminal_text(result)


def test_a_candidate_that_does_not_open_costs_the_others_nothing(rig: Rig) -> None:
    """It is kept with its sentence. What is wrong with all of them is the command's."""
    result, _ = _found(_wanted(f"{RANDOM},slow_lane=1:1", contexts=(1, 2)), rig)
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


def test_several_objectives_hold_together(rig: Rig) -> None:
    """The one that is met up to the lowest rate binds; all are told."""
    result, _ = _found(_wanted(objective=["latency.p50 < 20ms", "latency.p99 < 12ms"]), rig)
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
    latency, _ = _found(_wanted(engine, load=bursty, objective=["latency.p99 < 2.5ms"], max_trials=6), rig)
    lowest = min(trial.rate_per_s or 0 for trial in latency.candidates[0].searched)
    sentence = f"no rate from {lowest:.3g}/s up meets latency.p99 < 2.5ms: at {lowest:.3g}/s "
    assert sentence in latency.candidates[0].conclusion
    service, _ = _found(_wanted(objective=["service.p99 < 6ms"], max_trials=2, trial_ns=500 * MS), rig)
    assert "expected from the ladder: no rate; trials begin at" in terminal_text(latency)
    assert "expected from the ladder: nothing, as it foretells latency alone; trials begin at" in " ".join(
        terminal_text(service).split()
    )


def test_an_undecided_answer_says_no_more_than_is_known(whole: tuple[CapacityResult, list[CapacityResult]]) -> None:
    """Why, once: a reason says itself how much more would tell. No rate, met or missed, that there is none of."""
    (found,) = whole[0].candidates
    last = found.trials[-1]
    assert last.run is not None
    items = tuple(
        item.model_copy(update={"verdict": "undecided", "reason": "few"}) for item in last.run.model.objectives
    )
    trial = last.model_copy(update={"run": changed(last.run, objectives=items)})
    unknown = {"feasible_max_per_s": None, "infeasible_min_per_s": None, "boundary": None, "joules_per_inference": None}
    found = found.model_copy(update={"answer": "undecided", "trials": (*found.trials[:-1], trial), **unknown})
    assert conclusion(found).endswith("/s few")
    assert "met at" not in terminal_text(whole[0].model_copy(update={"candidates": (found,)}))


def test_what_an_engine_that_takes_no_time_misses_is_the_generators(
    whole: tuple[CapacityResult, list[CapacityResult]],
) -> None:
    """Its requests wait for nothing else, however short the generator's lateness is."""
    run = next(trial.run for trial in whole[0].candidates[0].trials if trial.kind == "refute")
    assert run is not None
    assert (run.verdict, host_bound(run, None)) == ("missed", None)
    instant = {**run.model.metrics, "compute": run.model.metrics["compute"].model_copy(update={"max_ns": 0})}
    assert "compute takes no time" in (host_bound(changed(run, metrics=instant), None) or "")


def test_what_is_met_in_spite_of_a_late_generator_is_met(
    whole: tuple[CapacityResult, list[CapacityResult]],
) -> None:
    """Its lateness only adds to latencies. Not what was missed, nor where the user bounds lateness, nor in the ladder,
    whose throughput it takes away; nor bounds on compute, which is the shorter, the fewer lanes it keeps busy."""
    runs = {trial.kind: trial.run for trial in whole[0].candidates[0].trials if trial.run}  # the last of each kind
    for kind, run in runs.items():
        lateness = run.model.metrics["lateness"].model_copy(update={"percentiles_ns": {"p50": 1e9, "p99": 1e9}})
        metrics = {**run.model.metrics, "lateness": lateness}
        runs[kind] = changed(run, metrics=metrics, starved_fraction=0.1)
    met, missed, rung = runs["confirm"], runs["refute"], runs["ladder"]
    assert (met.verdict, missed.verdict) == ("met", "missed")
    assert host_bound(met, None) is None
    assert "1.00 s late at p99" in (host_bound(met, 1000) or "")
    assert "1.00 s late at p99" in (host_bound(missed, None) or "")
    assert "were idle" in (host_bound(rung, None) or "")
    problem = Problem(kind="late", evidence="the generator was 1.00 s late at p99 (limit 500 µs)", remedy="")
    (found,) = whole[0].candidates
    assert "although" not in found.conclusion
    (confirm,) = (
        trial for trial in found.trials if trial.kind == "confirm" and trial.rate_per_s == found.confirmed_per_s
    )
    spoilt = confirm.model_copy(update={"run": changed(met, valid=False, problems=(problem,))})
    late_one = found.model_copy(update={"trials": (*found.ladder, spoilt)})
    assert f" meet {met.model.objectives[0].objective} although {problem.evidence}; " in conclusion(late_one)
    page = markdown_text([Loaded("x.json", whole[0].model_copy(update={"candidates": (late_one,)}))])
    assert f"counts as met: {problem.evidence}" in page
    for objective in ("compute.p99 < 1s", "service.p99 < 1s"):
        (item,) = met.model.objectives
        other = changed(met, objectives=(item, item.model_copy(update={"objective": parse_objective(objective)})))
        assert "1.00 s late at p99" in (host_bound(other, None) or "")


# --- the command


QUICK = ("capacity", "--engine", RANDOM, "--buffers", "1", "--warmup", "0", "--trial", "3s", "--precision", "10%")


@pytest.mark.parametrize(
    ("objective", "code", "sentence"),
    [
        ("latency.p90 < 6ms", 0, "requests/s meet latency.p90 < 6ms"),
        ("latency.p99 < 2ms", 99, "no rate meets latency.p99 < 2ms"),
        ("latency.p99.9 < 20ms", 98, "no run confirmed it"),
    ],
)
def test_the_exit_code_is_the_answer(objective: str, code: int, sentence: str) -> None:
    """0 confirmed, 99 infeasible, 98 undecided; the table is on stdout, progress on stderr."""
    done = loadtrt(*QUICK, "--objective", objective, "--trial", "1s" if code == 98 else "3s")
    assert done.returncode == code, done.stderr
    assert sentence in " ".join(done.stdout.split())
    assert "in flight" in done.stdout
    assert "ladder, 1 in flight" in done.stderr


def test_a_generator_that_is_the_bottleneck_exits_97() -> None:
    """An engine that answers at once, against 1 ns of lateness: nothing measured is the engine's."""
    done = loadtrt("capacity", "--engine", "simulated:null", "--objective", "latency.p99<1s", "--max-lateness", "1ns",
                   "--warmup", "0", "--trial", "200ms")  # fmt: skip
    assert done.returncode == 97
    assert "host-bound at" in done.stdout


def test_json_on_stdout_is_all_there_is() -> None:
    """`--quiet --json -`: one document of the schema, at the end."""
    done = loadtrt(*QUICK, "--objective", "latency.p90 < 6ms", "--quiet", "--json", "-")
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
        (("--objective", "latency.p99 < 1s", "--trial", "0s"), "--trial 0s measures nothing"),
        (("--objective", "latency.p99 < 1s", "--trial", "long"), "is not a duration"),
        (("--objective", "latency.p99 < 1s", "--max-trials", "1"), "--max-trials 1"),
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
    done = loadtrt("capacity", "--engine", RANDOM, *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert sentence in done.stderr


def test_ctrl_c_ends_the_run_and_keeps_it(tmp_path: Path) -> None:
    """The running rung ends early, exit 130, and the file holds it; without --resume it is not written over."""
    file = tmp_path / "capacity.json"
    options = ("capacity", "--engine", RANDOM, "--objective", "latency.p99<12ms", "--warmup", "0", "--json", str(file))
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtrt", *options, "--trial", "24h"],
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
    assert "in flight: interrupted" in stderr
    assert found.outcome == "interrupted"
    assert [trial.run.outcome for trial in found.candidates[0].trials if trial.run] == ["interrupted"]
    refused = loadtrt(*options, "--trial", "24h")
    assert refused.returncode == 2
    assert "add --resume to continue" in refused.stderr
    assert read_result(CapacityResult, file) == found
