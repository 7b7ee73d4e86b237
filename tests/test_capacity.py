"""`loadtrt capacity` on simulated engines: ladders, candidates, many runs on one engine, resumed, interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loadtrt.capacity.evaluate import host_bound
from loadtrt.capacity.find import Finder, Wanted
from loadtrt.capacity.rig import Rig, varied
from loadtrt.capacity.scaling import fit, rungs
from loadtrt.config import load_config
from loadtrt.engines.open import open_engine
from loadtrt.errors import UsageError
from loadtrt.measure.capacity_result import CapacityResult, Trial
from loadtrt.report.capacity_tables import capacity_text
from loadtrt.report.documents import read_capacity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.engines.engine import Engine
    from loadtrt.measure.result import RunResult

ROOT = Path(__file__).parent.parent
MS = 1_000_000
RANDOM = "simulated:service=1ms,distribution=exponential,clock=virtual"


class Heard:
    """Keeps what was said."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def status(self, line: str) -> None: ...


def _close(engine: Engine, hangs: bool) -> None:
    engine.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig(Heard(), _close) as one:
        yield one


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every engine that was opened."""
    found: list[Any] = []

    def opening(*arguments: Any) -> Any:
        engine = open_engine(*arguments)
        found.append(engine)
        return engine

    monkeypatch.setattr("loadtrt.capacity.rig.open_engine", opening)
    return found


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
    finder.find()
    return finder.result, kept


# --- ladders


@pytest.mark.parametrize(
    ("contexts", "buffers", "in_flight"),
    [
        (1, 1, [1]),
        (1, 2, [1, 2]),
        (2, 2, [1, 2, 4]),
        (3, 2, [1, 2, 3, 6]),
        (4, 3, [1, 2, 4, 8, 12]),
        (8, 1, [1, 2, 4, 8]),
    ],
)
def test_rungs_double_up_to_all_buffer_sets(contexts: int, buffers: int, in_flight: list[int]) -> None:
    """Lanes first, one request each, then more on every lane."""
    assert [lanes * depth for lanes, depth in rungs(contexts, buffers)] == in_flight
    assert all(depth == 1 or lanes == contexts for lanes, depth in rungs(contexts, buffers))


@pytest.fixture(scope="module")
def a_run() -> RunResult:
    """Any closed loop, to make rungs of."""
    with Rig(Heard(), _close) as one:
        config = load_config(None, {"engine": "simulated:service=1ms,clock=virtual", "warmup": 0, "requests": 10})
        one.open(config)
        return one.run(config, "")


def _rung(a_run: RunResult, in_flight: int, rate: float) -> Trial:
    throughput = a_run.throughput.model_copy(update={"requests_per_s": rate})
    run = a_run.model_copy(update={"throughput": throughput})
    return Trial(kind="ladder", in_flight=in_flight, seed=1, run=run)


@pytest.mark.parametrize(("sigma", "kappa"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.01), (0.05, 0.02), (1.0, 0.0)])
def test_the_scalability_law_is_found_again(sigma: float, kappa: float, a_run: RunResult) -> None:
    """From its own values: α, σ and κ to nine digits, and √((1−σ)/κ) as the peak."""
    counts = (1, 2, 4, 8, 16)
    ladder = [_rung(a_run, n, 100 * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))) for n in counts]
    found = fit(ladder)
    assert found is not None
    assert (found.alpha_per_s, found.sigma, found.kappa) == pytest.approx((100, sigma, kappa), abs=1e-9)
    assert found.error_ratio < 1e-9
    assert found.peak_in_flight == (pytest.approx(((1 - sigma) / kappa) ** 0.5) if kappa else None)


def test_a_law_has_no_negative_parts(a_run: RunResult) -> None:
    """Throughput that grows faster than N (caches, clocks) is no contention below zero; one rung is α alone; none is
    no law."""
    found = fit([_rung(a_run, n, rate) for n, rate in ((1, 100), (2, 230), (4, 500))])
    assert found is not None
    assert (found.sigma, found.kappa) == (0, 0)
    assert found.error_ratio > 0.05
    one = fit([_rung(a_run, 1, 80)])
    assert one is not None
    assert (one.alpha_per_s, one.most_per_s, one.knee_in_flight) == pytest.approx((80, 80, 1))
    assert fit([]) is None


# --- many runs on one engine


def test_an_engine_stays_open_while_the_load_changes(rig: Rig, opened: list[Any]) -> None:
    """Rate, seed, arrivals, duration and objectives open nothing; another number of contexts does, and closes the one
    before."""
    config = load_config(None, {"engine": RANDOM, "warmup": 0, "requests": 20})
    loads: list[dict[str, Any]] = [
        {},
        {"rate": "50/s", "arrivals": "poisson"},
        {"seed": 7},
        {"objective": ["latency.p99<1s"]},
    ]
    for load in loads:
        one = varied(config, **load)
        rig.open(one)
        assert rig.run(one, "").ok == 20
    assert len(opened) == 1
    rig.open(varied(config, contexts=2))
    assert len(opened) == 2
    with pytest.raises(Exception, match="no lane 0"):
        opened[0].submit(0, 0)


def test_a_narrow_loop_has_as_many_in_flight_as_it_says(rig: Rig) -> None:
    """X = N/S and R = S with N of 4 independent lanes, one request each; N/2 lanes' worth of queue with two."""
    options = {"engine": "simulated:service=1ms,clock=virtual", "contexts": 4, "warmup": 0}
    config = load_config(None, {**options, "duration": "1s"})
    rig.open(config)
    for part, rate, latency in (((1, 1), 1000, MS), ((3, 1), 3000, MS), ((4, 1), 4000, MS), ((4, 2), 4000, 2 * MS)):
        run = rig.run(config, "", part)
        assert run.throughput.requests_per_s == pytest.approx(rate, rel=0.01)
        assert run.metrics["latency"].percentiles_ns["p50"] == latency
        assert (run.config["contexts"], run.config["buffers"]) == part
        assert len(run.lanes) == part[0]


def test_what_a_run_left_behind_is_not_the_next_ones(rig: Rig) -> None:
    """Above capacity and without a drain, requests are given up in flight; the next run counts its own alone."""
    config = load_config(None, {"engine": "simulated:service=10ms,clock=virtual", "contexts": 2, "warmup": 0})
    rig.open(config)
    over = rig.run(varied(config, arrivals="poisson", rate="1000/s", duration="1s", drain=0), "")
    assert over.unserved > 0
    after = rig.run(varied(config, rate="1/s", arrivals="constant", requests=5), "")
    assert (after.ok, after.unserved, after.submitted) == (5, 0, 5)
    assert after.metrics["latency"].max_ns == 10 * MS


def test_only_the_first_run_warms_up_for_long(rig: Rig) -> None:
    """An engine that ran a moment ago is warm: 200 ms instead of all of --warmup."""
    config = load_config(None, {"engine": "simulated:service=1ms,clock=virtual", "warmup": "3s", "requests": 5})
    rig.open(config)
    warmups = [rig.run(config, "").phases.warmup_ns for _ in range(2)]
    assert warmups[0] >= 3000 * MS
    assert 200 * MS <= warmups[1] < 300 * MS


def test_outputs_are_verified_once_an_engine(rig: Rig) -> None:
    """On all lanes, before its first whole run."""
    options = {"engine": "simulated:service=1ms,clock=virtual", "contexts": 2, "warmup": 0, "requests": 5}
    config = load_config(None, {**options, "verify": True})
    rig.open(config)
    runs = [rig.run(config, "", part) for part in ((1, 1), None, None)]
    assert [run.verification is None for run in runs] == [True, False, True]


def test_a_late_generator_is_told_by_a_percentile(a_run: RunResult) -> None:
    """Beyond the bound of VALID at the highest percentile that the run supports, p99 at most: one late request among
    twenty is no rule."""
    late = a_run.metrics["lateness"]
    bounds = {"p50": 0.0, "p90": 1e9, "p95": None, "p99": None, "p99.9": None}
    metrics = {**a_run.metrics, "lateness": late.model_copy(update={"percentiles_ns": bounds, "max_ns": 10**9})}
    spoiled = a_run.model_copy(update={"metrics": metrics})
    assert "late at p90" in (host_bound(spoiled, MS) or "")
    fewer = {**metrics, "lateness": late.model_copy(update={"percentiles_ns": {"p50": 0.0}, "max_ns": 10**9})}
    assert host_bound(a_run.model_copy(update={"metrics": fewer}), MS) is None


# --- searches


@pytest.fixture(scope="module")
def whole() -> tuple[CapacityResult, list[CapacityResult]]:
    """A search on M/M/2, and what it was after each run."""
    with Rig(Heard(), _close) as one:
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
        assert trial.run.config["rate"] == trial.rate_per_s
        assert trial.run.config["seed"] == trial.seed
        assert trial.run.config["duration"] == ("3s" if trial.kind == "search" else "15s")
    sizes = [sum(len(each.trials) for each in one.candidates) for one in kept]
    assert set(range(1, sizes[-1] + 1)) <= set(sizes)
    assert best.confirmed_per_s is not None
    assert best.estimate_per_s is not None
    assert best.confirmed_per_s <= best.estimate_per_s * 1.02
    assert best.feasible_max_per_s is not None
    assert best.feasible_max_per_s >= best.confirmed_per_s
    assert best.binding == "latency.p99 < 12ms"
    assert "meet latency.p99 < 12ms" in best.conclusion


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
        ({"trial_ns": MS}, "trial_ns was 3000000000"),
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
    assert "its ladder lets expect" in (result.candidates[0].dropped or "")
    assert "inferences a second of 4 candidates" in result.reason
    assert "chosen: 2 contexts, batch 8" in capacity_text(result)


def test_a_candidate_that_does_not_open_costs_the_others_nothing(rig: Rig) -> None:
    """It is kept with its sentence. What is wrong with all of them is the command's."""
    result, _ = _found(_wanted(f"{RANDOM},slow_lane=1:1", contexts=(1, 2)), rig)
    assert "there is no lane 1 to be slow" in (result.candidates[0].failure or "")
    assert result.best is result.candidates[1]
    with pytest.raises(UsageError, match=r"there is no plan nowhere\.plan"), Rig(Heard(), _close) as another:
        _found(_wanted("nowhere.plan", contexts=(1, 2)), another)


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
    assert [item.objective for item in best.objectives] == ["latency.p50 < 20ms", "latency.p99 < 12ms"]
    assert all(len(trial.run.objectives) == 2 for trial in best.searched if trial.run)


# --- the command


def _loadtrt(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadtrt", *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT
    )


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
    done = _loadtrt(*QUICK, "--objective", objective, "--trial", "1s" if code == 98 else "3s")
    assert done.returncode == code, done.stderr
    assert sentence in " ".join(done.stdout.split())
    assert "in flight" in done.stdout
    assert "ladder, 1 in flight" in done.stderr


def test_a_generator_that_is_the_bottleneck_exits_97() -> None:
    """An engine that answers at once, against 1 ns of lateness: nothing measured is the engine's."""
    done = _loadtrt("capacity", "--engine", "simulated:null", "--objective", "latency.p99<1s", "--max-lateness", "1ns",
                    "--warmup", "0", "--trial", "200ms")  # fmt: skip
    assert done.returncode == 97
    assert "host-bound at" in done.stdout


def test_json_on_stdout_is_all_there_is() -> None:
    """`--quiet --json -`: one document of the schema, at the end."""
    done = _loadtrt(*QUICK, "--objective", "latency.p90 < 6ms", "--quiet", "--json", "-")
    assert (done.returncode, done.stderr) == (0, "")
    assert CapacityResult.model_validate_json(done.stdout).outcome == "completed"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "add --objective"),
        (("--objective", "latency.max < 1s"), "bind a quantile"),
        (("--objective", "latncy.p99 < 1s"), "latncy"),
        (("--objective", "latency.p99 < 1s", "--contexts", "0"), "begin at 1"),
        (("--objective", "latency.p99 < 1s", "--batch", "some"), "is no count"),
        (("--objective", "latency.p99 < 1s", "--precision", "0%"), "--precision 0%"),
        (("--objective", "latency.p99 < 1s", "--precision", "fine"), "--precision fine"),
        (("--objective", "latency.p99 < 1s", "--trial", "0s"), "without time"),
        (("--objective", "latency.p99 < 1s", "--trial", "long"), "is not a duration"),
        (("--objective", "latency.p99 < 1s", "--max-trials", "1"), "--max-trials 1"),
        (("--objective", "latency.p99 < 1s", "--arrivals", "gamma"), "need a burstiness"),
        (("--objective", "latency.p99 < 1s", "--bursts", "1s"), "bursts"),
        (("--objective", "latency.p99 < 1s", "--resume"), "name one"),
        (("--objective", "latency.p99 < 1s", "--json", "docs"), "is a folder"),
        (("--objective", "latency.p99 < 1s", "--engine", "nowhere.plan"), "there is no plan nowhere.plan"),
        (("--objective", "latency.p99 < 1s", "--engine", "nowhere.plan", "--contexts", "1,2"), "there is no plan"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    """Exit 2, stdout stays empty, stderr holds one line."""
    done = _loadtrt("capacity", "--engine", RANDOM, *arguments)
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
    while process.poll() is None:  # SIGTERM is caught while it measures, and not before
        status = Path(f"/proc/{process.pid}/status").read_text()
        if int(status.partition("SigCgt:")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1:
            break
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    found = read_capacity(file)
    assert process.returncode == 130, stderr
    assert "INTERRUPTED" in stdout
    assert found.outcome == "interrupted"
    assert [trial.run.outcome for trial in found.candidates[0].trials if trial.run] == ["interrupted"]
    refused = _loadtrt(*options, "--trial", "24h")
    assert refused.returncode == 2
    assert "add --resume to go on with it" in refused.stderr
    assert read_capacity(file) == found
