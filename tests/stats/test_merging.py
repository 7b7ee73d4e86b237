"""The results of workers as one: exactly what one process would have counted, whatever is merged first."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import loadtrt
from command_line import loadtrt as command
from loadtrt.asked.config import RunConfig
from loadtrt.errors import UsageError
from loadtrt.records.histogram import QUANTILE_ERROR, Histogram
from loadtrt.records.records import METRICS
from loadtrt.report.plain import terminal_text
from loadtrt.report.result_files import Loaded
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.run_result import Finding, LostWorker, RunResult
from loadtrt.stats.adding import Adding
from loadtrt.stats.merging import SPREAD_NS, merge
from loadtrt.stats.verdict import effective_of, trusted
from reported import html_text

if TYPE_CHECKING:
    from pathlib import Path

MS = 1_000_000
OPTIONS: dict[str, Any] = {
    "engine": "simulated:service=1ms,distribution=exponential,clock=virtual",
    "contexts": 1,
    "buffers": 1,
    "warmup": "0s",
}
OBJECTIVES = ("latency.p99 < 20ms", "throughput > 900/s", "goodput(latency < 5ms) > 500/s", "errors < 1%")


@cache
def fleet(workers: int, **options: Any) -> tuple[RunResult, ...]:
    """The results of the workers of a load, begun at one instant of virtual time."""
    start_at = time.time_ns() + 3600 * 1000 * MS  # which a virtual clock reaches at once
    asked = {**OPTIONS, **options, **({"objective": OBJECTIVES} if options.get("judged") else {})}
    asked.pop("judged", None)
    return tuple(loadtrt.run(start_at=start_at, worker=f"{place}/{workers}", **asked) for place in range(workers))


def merged(runs: Any, lost: tuple[LostWorker, ...] = ()) -> RunResult:
    return merge({f"{place}.json": run for place, run in enumerate(runs)}, lost)


def without_command(result: RunResult) -> str:
    return result.model_copy(update={"command": ()}).to_json()


def test_counts_and_histograms_are_those_of_all_requests() -> None:
    """Exactly; percentiles within the histogram's error of those of all rows."""
    runs = fleet(4, rate=1600, duration="30s", judged=True)
    result, rows = merged(runs), [run.records for run in runs]
    assert all(records is not None for records in rows)
    assert result.outcome == "completed"
    for metric in METRICS:
        values = np.concatenate([metric.values(records) for records in rows if records is not None])
        everything = Histogram()
        everything.add(values)
        assert result.model.histograms[metric.name] == everything.to_dict()
        ordered, summary = np.sort(values), result.model.metrics[metric.name]
        assert (summary.count, summary.max_ns) == (len(values), values.max())
        assert summary.mean_ns == pytest.approx(values.mean())
        for name, rank in PERCENTILES.items():
            exact = ordered[int(np.ceil(rank * len(ordered))) - 1]
            assert summary.percentiles_ns[name] == pytest.approx(exact, rel=QUANTILE_ERROR, abs=1)
    assert result.model.ok == sum(run.model.ok for run in runs)
    assert result.model.throughput.requests_per_s == pytest.approx(
        sum(run.model.throughput.requests_per_s or 0 for run in runs), rel=1e-12
    )
    assert result.model.throughput.offered_per_s == 1600
    assert sum(interval.requests for interval in result.model.intervals) == result.model.ok
    bad = result.model.objectives[0]
    latencies = np.concatenate([records.completed - records.due for records in rows if records is not None])
    assert bad.good == np.count_nonzero(latencies < 20 * MS)


@pytest.mark.parametrize(("order", "cut"), [((0, 1, 2, 3), 2), ((3, 1, 0, 2), 1), ((2, 3, 1, 0), 3)])
def test_whichever_are_merged_first(order: tuple[int, ...], cut: int) -> None:
    """Merging is associative and commutative, and a merged result can be read and merged again."""
    runs = fleet(4, rate=1600, duration="2s", judged=True)
    left, right = (merged([runs[place] for place in part]) for part in (order[:cut], order[cut:]))
    right = RunResult.model_validate_json(right.to_json())
    assert without_command(merged([left, right])) == without_command(merged(runs))


@pytest.mark.parametrize(
    ("load", "independent"),
    [
        ({"routing": "random"}, True),
        ({"routing": "round-robin"}, False),
        ({"routing": "random", "burstiness": 4}, False),
        ({"routing": "round-robin", "burstiness": 4}, False),
    ],
)
def test_errors_of_workers_go_together(load: dict[str, Any], independent: bool) -> None:
    """Clusters of arrivals meet all workers at once, and round-robin gives all of them the same arrivals, a moment
    apart: intervals are as wide then as if all workers had one error."""
    runs = fleet(4, rate=1600, duration="30s", judged=True, **load)
    result = merged(runs).model
    shares = [run.model.objectives[0] for run in runs]
    sizes, parts = [share.effective or 0.0 for share in shares], [share.requests for share in shares]
    whole = result.objectives[0].effective or 0.0
    if independent:
        assert trusted(whole) == pytest.approx(sum(map(trusted, sizes)))
    else:  # the deviations add up, each of its worker's part of the requests
        deviation = sum(part / sum(parts) * size**-0.5 for part, size in zip(parts, sizes, strict=True))
        assert whole == pytest.approx(deviation**-2)
        assert min(sizes) <= whole <= max(sizes)
    rates = [run.model.throughput for run in runs]
    lows = [(rate.requests_per_s or 0.0) - (rate.confidence.low or 0.0) for rate in rates if rate.confidence]
    width = math.hypot(*lows) if independent else math.fsum(lows)
    assert result.throughput.confidence is not None
    lowest = (result.throughput.requests_per_s or 0.0) - (result.throughput.confidence.low or 0.0)
    assert lowest == pytest.approx(width)


def test_many_short_workers_are_worth_no_more_than_they_are() -> None:
    """The share of late requests varies from fleet to fleet as that of so many independent requests as the effective
    size says, or less: 16 M/M/1 workers at a load of 0.8, each of 3200 requests, which alone are taken for some 70."""
    load, count, workers, fleets = 0.8, 3200, 16, 100
    bound = -math.log(0.01) / (1 - load)  # p99 of the law, in mean services
    random, squares = np.random.default_rng(4), []
    for _ in range(fleets):
        late, sizes = [], list[tuple[int, float]]()
        for _ in range(workers):
            services = random.exponential(1.0, count)
            walk = np.cumsum(np.append(0.0, services[:-1] - random.exponential(1 / load, count - 1)))
            latency = walk - np.minimum.accumulate(walk) + services  # Lindley's recursion, solved
            late.append(np.mean(latency > bound))
            sizes.append((count, effective_of(latency > bound, np.minimum(latency / bound, 1.0))))
        squares.append((np.mean(late) - 0.01) ** 2 * Adding(together=False).size(sizes) / (0.01 * 0.99))
    assert np.mean(squares) < 1 + 2 * math.sqrt(2 / fleets)


def test_effective_sample_sizes_add_up() -> None:
    """So that objectives are decided which no worker decides, and rates are judged where all are known."""
    runs = fleet(4, rate=1600, duration="30s", judged=True)
    result = merged(runs)
    latency, rate, goodput, _ = result.model.objectives
    sizes = [run.model.objectives[0].effective or 0.0 for run in runs]
    assert trusted(latency.effective or 0.0) == pytest.approx(sum(map(trusted, sizes)))
    assert max(sizes) < (latency.effective or 0.0) < sum(sizes)
    assert [share.verdict for run in runs for share in run.model.objectives[1:3]] == [None] * 8
    assert rate.verdict == "met"
    assert rate.value == pytest.approx(result.model.throughput.requests_per_s or 0)
    assert goodput.value is not None
    assert goodput.value < (rate.value or 0)
    assert result.verdict == latency.verdict
    ends = result.model.metrics["latency"].confidence["p99"]
    single = runs[0].model.metrics["latency"].confidence["p99"]
    assert ends.low is not None
    assert ends.low > (single.low or 0) * 0.9


def test_a_worker_that_is_lost_is_no_slower_rate() -> None:
    """The others' numbers are kept and marked, nothing is decided, and the command exits with 3."""
    runs = fleet(4, rate=1600, duration="2s", judged=True)
    result = merged(runs[:3], (LostWorker(worker=3, why="it was ended by SIGKILL", completed=12),))
    assert result.outcome == "failed"
    assert result.failure == (
        "only 3 of 4 workers: nothing is known of the requests of worker 3; worker 3: it was ended by SIGKILL, after "
        "12 requests at the last count"
    )
    assert result.model.ok == sum(run.model.ok for run in runs[:3])
    assert {share.verdict for share in result.model.objectives} == {"undecided"}
    text = " ".join(terminal_text(result).split())
    assert "3 of 4 workers" in text
    assert "FAILED · 3 of 4 workers" in text
    again = merged([result, runs[3]])
    assert (again.outcome, again.lost) == ("completed", ())
    assert without_command(again) == without_command(merged(runs))


def _changed(run: RunResult, **engine: Any) -> RunResult:
    return run.with_model(engine=replace(run.model.engine, **engine))


def test_versions_that_differ() -> None:
    """Make a result INVALID, with a table of what differs and who has which."""
    runs = fleet(3, rate=600, duration="2s")
    environment = runs[2].environment
    others = [
        (runs[2].model_copy(update={"environment": {**environment, "driver": "580.1"}}), "driver"),
        (runs[2].model_copy(update={"environment": {**environment, "packages": {"cuda-bindings": "13.1"}}}), "CUDA"),
        (runs[2].model_copy(update={"loadtrt": "0.0.9"}), "loadtrt"),
        (_changed(runs[2], version="9.9"), "runtime"),
        (_changed(runs[2], sha256="ab" * 32), "plan"),
        (runs[2].model_copy(update={"environment": {**environment, "gpu": {"driver": "580.1"}}}), "driver"),
    ]
    for other, name in others:
        result = merged([*runs[:2], other])
        (problem,) = [item for item in result.model.problems if item.kind == "versions-differ"]
        assert f"workers differ in {name} " in problem.evidence
        assert "(worker 0, 1)" in problem.evidence
        assert not result.valid
        assert f"worker {name}" in " ".join(terminal_text(result).split())
    assert "versions-differ" not in {item.kind for item in merged(runs).model.problems}


def in_real_time(run: RunResult) -> RunResult:
    """The same numbers, by a clock that passes by itself."""
    engine = run.model.engine
    return run.with_model(engine=replace(engine, mode={**engine.mode, "clock": "loop"}))


def test_workers_that_began_apart() -> None:
    """Beyond the stated bound the fleet was smaller than its load was made for."""
    runs = [in_real_time(run) for run in fleet(3, rate=600, duration="2s")]
    second = runs[0].began[:19]
    for apart, late in ((SPREAD_NS, False), (SPREAD_NS + 1, True)):
        other = runs[2].model_copy(update={"began": f"{second}.{apart:09d}+00:00"})
        begun = [run.model_copy(update={"began": f"{second}.000000000+00:00"}) for run in runs[:2]]
        result = merged([*begun, other])
        assert result.start_spread_ns == apart
        assert ("late-start" in {item.kind for item in result.model.problems}) is late
    for instant, remedy in ((None, "give all the same --start-at"), (0, "leave each worker a core")):
        told = merged([run.model_copy(update={"late_start_ns": instant}) for run in (*begun, other)])
        (problem,) = (item for item in told.model.problems if item.kind == "late-start")
        assert problem.remedy.startswith(remedy)


def test_virtual_clocks_begin_together() -> None:
    """Whenever the processes did, on whichever host, and whether or not an instant was asked for: of the clock on which
    they measure, all begin at one instant."""
    runs = fleet(3, rate=600, duration="2s")
    hours = [
        run.model_copy(update={"began": f"2026-11-30T{place:02d}:00:00+00:00", "environment": {"host": str(place)}})
        for place, run in enumerate(runs)
    ]
    real = merged([in_real_time(run) for run in hours])
    assert {"late-start"} == {item.kind for item in real.model.problems}
    assert "clocks-apart" in {item.kind for item in real.model.findings}
    assert "7200 s" in html_text([Loaded("fleet.json", real)])
    for instant in (None, 0):
        result = merged([run.model_copy(update={"late_start_ns": instant}) for run in hours])
        assert result.valid
        assert result.start_spread_ns == 0
        assert "clocks-apart" not in {item.kind for item in result.model.findings}
        assert "7200 s" not in html_text([Loaded("fleet.json", result)])


def test_validity_is_the_worst_workers() -> None:
    """Each kind of problem once, with who has it."""
    from loadtrt.results.run_result import Problem

    runs = list(fleet(3, rate=600, duration="2s"))
    late = Problem(kind="late", evidence="the generator was late", remedy="free a core")
    runs[1] = runs[1].with_model(problems=(late,), valid=False).model_copy(update={"valid": False})
    result = merged(runs)
    assert not result.valid
    assert "the generator was late (worker 1)" in {item.evidence for item in result.model.problems}


def test_few_requests_of_each_may_be_enough_together() -> None:
    """For a percentile that no worker supports."""
    runs = fleet(3, rate=600, duration="1s")
    assert all("few-samples" in {item.kind for item in run.model.findings} for run in runs)
    result = merged(runs)
    assert result.model.metrics["latency"].percentiles_ns["p99"] is not None
    assert "few-samples" not in {item.kind for item in result.model.findings}
    assert "few-samples" not in {
        item.kind for item in merged(runs[:1]).model.findings
    }  # of a lost worker nothing is known


def test_too_few_requests_are_those_of_all() -> None:
    """Of each model: how many all had together, once, and what all would need."""
    runs = fleet(3, rate=100, duration="1s")
    result = merged(runs)
    (few,) = [item for item in result.model.findings if item.kind == "few-samples"]
    assert few.evidence.startswith(f"{result.model.ok} requests support no percentile above p9")
    assert "worker" not in few.evidence
    (option, seconds) = few.remedy.split()
    assert option == "--duration"
    assert 3 <= int(seconds.removesuffix("s")) < min(int(_few(run).remedy.split()[1].removesuffix("s")) for run in runs)


def _few(run: RunResult) -> Finding:
    (few,) = [item for item in run.model.findings if item.kind == "few-samples"]
    return few


def test_clocks_of_several_hosts() -> None:
    """That are not known to be right are told; one host has one clock."""
    runs = [in_real_time(run) for run in fleet(2, rate=600, duration="1s")]
    other = runs[1].model_copy(update={"environment": {**runs[1].environment, "host": "b", "clock_error_ns": None}})
    kinds = {item.kind for item in merged([runs[0], other]).model.findings}
    assert "clocks-apart" in kinds
    assert "clocks-apart" not in {item.kind for item in merged(runs).model.findings}


def test_power_is_of_gpus_and_not_of_workers() -> None:
    """Two workers on one GPU have both measured its power."""
    from loadtrt.asked.objective import parse_objective

    runs = fleet(4, rate=600, duration="1s")
    watts = parse_objective("power < 500W")

    def measured(run: RunResult, gpu: str) -> RunResult:
        from loadtrt.results.run_result import ObjectiveShare

        share = ObjectiveShare(
            objective=watts, good=1, requests=1, value_ns=None, value=200.0, value_low=190.0, value_high=210.0
        )
        asked = run.config.with_model(objectives=(watts,))
        environment = {**run.environment, "gpu": {"uuid": gpu, "driver": "580"}}
        return run.with_model(objectives=(share,)).model_copy(update={"config": asked, "environment": environment})

    one = merged([measured(run, f"GPU-{place // 2}") for place, run in enumerate(runs)]).model.objectives[0]
    assert (one.value, one.verdict) == (400, "met")
    four = merged([measured(run, f"GPU-{place}") for place, run in enumerate(runs)]).model.objectives[0]
    assert (four.value, four.verdict) == (800, "missed")


def test_several_models_are_merged_each() -> None:
    """By their names, and shown together."""
    models = {name: {"rate": 200} for name in ("a", "b")}
    start_at = time.time_ns() + 50 * MS
    asked = {**OPTIONS, "duration": "1s"}
    runs = [loadtrt.run(start_at=start_at, worker=f"{place}/2", models=models, **asked) for place in range(2)]
    result = merged(runs)
    for name in models:
        assert result.models[name].ok == sum(run.models[name].ok for run in runs)
    assert html_text([Loaded("fleet.json", result)])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rate": 800}, "1.json is of another load than 0.json: its rate is 800.0, and not 600.0"),
        ({"seed": 2}, "its seed is 2, and not 1"),
        ({"worker": "0/2"}, "0.json and 1.json are both of worker 0"),
        ({"worker": "1/3"}, "its number of workers is 3, and not 2"),
        ({"worker": None}, "1.json is not of a worker"),
    ],
)
def test_what_is_not_of_one_fleet(change: dict[str, Any], sentence: str) -> None:
    one, other = fleet(2, rate=600, duration="1s")
    asked: dict[str, Any] = {**OPTIONS, "rate": 600, "duration": "1s", "worker": "1/2", **change}
    config = RunConfig.of(**{key: value for key, value in asked.items() if value is not None})
    with pytest.raises(UsageError, match=sentence):
        merged([one, other.model_copy(update={"config": config})])


def test_the_command(tmp_path: Path) -> None:
    """Merges files, writes the result, and exits as a run does; a page has a chart of each worker."""
    files = []
    for place, run in enumerate(fleet(3, rate=600, duration="2s")):
        files.append(tmp_path / f"{place}.json")
        files[-1].write_text(run.to_json())
    target = tmp_path / "fleet.json"
    assert command("merge", *files, "--json", target).returncode == 0
    assert RunResult.model_validate_json(target.read_text()).model.ok
    assert command("report", target, "-o", tmp_path / "fleet.html").returncode == 0
    page = (tmp_path / "fleet.html").read_text()
    assert all(f"worker {place}" in page for place in range(3))
    lost = command("merge", *files[:2])
    assert (lost.returncode, "only 2 of 3 workers" in lost.stderr) == (3, True)
    assert command("merge", files[0], files[0]).returncode == 2
    over = command("merge", *files, "--json", files[0])
    assert (over.returncode, "would be overwritten" in over.stderr) == (2, True)


def _mm1(rate: float, rank: float) -> float:
    """Sojourn time of M/M/1 with service rate 1000/s, s."""
    return float(-np.log(1 - rank) / (1000 - rate))


def _gm1(rate: float, gaps: int, rank: float) -> float:
    """Sojourn time of E_k/M/1, service rate 1000/s: exponential with rate μ(1 − σ), σ = (kλ / (kλ + μ(1 − σ)))^k."""
    sigma = 0.5
    for _ in range(10_000):
        sigma = (gaps * rate / (gaps * rate + 1000 * (1 - sigma))) ** gaps
    return float(-np.log(1 - rank) / (1000 * (1 - sigma)))


@pytest.mark.parametrize(("workers", "routing"), [(2, "random"), (4, "round-robin")])
def test_fleets_of_exponential_services_obey_their_laws(workers: int, routing: str) -> None:
    """M/M/1 at each worker with random routing; with round-robin Erlang-N arrivals, G/M/1. Percentiles of the law lie
    within the merged intervals, and so does the throughput."""
    runs = fleet(workers, rate=700 * workers, duration="60s", routing=routing, seed=5)
    result = merged(runs)
    for name, rank in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        law = 1e9 * (_mm1(700, rank) if routing == "random" else _gm1(700, workers, rank))
        interval = result.model.metrics["latency"].confidence[name]
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low <= law <= interval.high
    confidence = result.model.throughput.confidence
    assert confidence is not None
    assert (confidence.low or 0) <= 700 * workers <= (confidence.high or np.inf)


def _queue_of(gaps: Any, services: float) -> Any:
    """Sojourn times by Lindley's recursion, s."""
    waits = itertools.accumulate(gaps, lambda wait, gap: max(wait + services - gap, 0.0), initial=0.0)
    return np.fromiter(waits, float) + services


@pytest.mark.parametrize(("workers", "routing"), [(2, "random"), (4, "round-robin")])
def test_fleets_of_constant_services_obey_their_laws(workers: int, routing: str) -> None:
    """M/D/1's mean by Pollaczek and Khinchine; Erlang-N arrivals by a long simulation of Lindley's recursion."""
    engine = "simulated:service=1ms,clock=virtual"
    result = merged(fleet(workers, rate=700 * workers, duration="30s", routing=routing, seed=7, engine=engine))
    if routing == "random":
        law = 1e6 + 1e6 * 0.7 / (2 * 0.3)
    else:
        gaps = np.random.default_rng(1).standard_gamma(workers, 2_000_000) / workers / 700
        law = 1e9 * float(_queue_of(gaps, 1e-3).mean())
    interval = result.model.metrics["latency"].confidence["mean"]
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low <= law <= interval.high


def test_the_slowest_and_the_fastest_worker_are_named() -> None:
    """With their clocks, where they differ; of workers that are alike none is."""
    from loadtrt.results.gpu_telemetry import GpuFacts, GpuInterval, GpuTelemetry

    start_at = time.time_ns() + 3600 * 1000 * MS
    runs = []
    for place, service in enumerate(("1ms", "1ms", "2ms")):
        engine = f"simulated:service={service},clock=virtual"
        run = loadtrt.run(
            start_at=start_at, worker=f"{place}/3", engine=engine, rate=300, duration="2s", warmup="0s", contexts=1
        )
        made: tuple[Any, Any, Any] = GpuTelemetry, GpuFacts, GpuInterval
        names = GpuInterval.model_fields
        second = dict.fromkeys(names) | {"start_ns": 0, "duration_ns": 10**9, "readings": 2, "throttled": place == 2}
        second |= {"sm_clock_mean_hertz": 1e6 * (1980 - 500 * (place == 2)), "slowdowns": ()}
        telemetry = made[0].model_construct(
            gpu=made[1].model_construct(),
            intervals=(made[2].model_construct(**second),),
            throttled_fraction=0.25 * (place == 2),
            power_mean_watts=None,
            energy_joules=None,
            joules_per_inference=None,
            missing=(),
        )
        like = run.with_model(engine=replace(run.model.engine, name="simulated"))
        config = like.config.with_model(engine="simulated:service=1ms,clock=virtual")
        runs.append(like.model_copy(update={"config": config, "telemetry": telemetry}))
    text = " ".join(terminal_text(merged(runs)).split())
    assert "slowest: worker 2 (service p50 2.00 ms, " in text  # they have arrivals: it is not the rate that differs
    assert "/s, SM clock 1480 MHz, slowed down 25 % of the time); fastest: worker 0 (" in text
    assert "slowest: worker" not in " ".join(terminal_text(merged([runs[0], runs[1]])).split())


@pytest.mark.parametrize(
    ("place", "content", "sentence"),
    [
        ("elsewhere/t.csv", "0\n0.5\n1\n1.5\n", ""),
        ("elsewhere/t.csv", "0\n0.5\n1\n1.25\n", "its trace is one with the digest "),
        ("t.csv", "0\n0.5\n1\n1.25\n", "its trace is one with the digest "),
    ],
    ids=["the same elsewhere", "another elsewhere", "another of the same name"],
)
def test_a_trace_is_known_by_its_content(
    place: str, content: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As hosts have files where they have them, and may have others of the same name."""
    (tmp_path / "elsewhere").mkdir()
    runs = []
    for worker, name, instants in (("0/2", "t.csv", "0\n0.5\n1\n1.5\n"), ("1/2", place, content)):
        (tmp_path / name).write_text(instants)
        runs.append(loadtrt.run(**OPTIONS, trace=str(tmp_path / name), worker=worker))
    if not sentence:
        assert merged(runs).model.ok == 4
        return
    with pytest.raises(UsageError, match=f"1.json is of another load than 0.json: {sentence}"):
        merged(runs)


def test_keys_that_requests_are_dealt_by_are_of_the_trace(tmp_path: Path) -> None:
    runs = []
    for place, users in enumerate(("abab", "abba")):
        trace = tmp_path / f"{place}.csv"
        trace.write_text("timestamp,user\n" + "".join(f"{i / 2},{user}\n" for i, user in enumerate(users)))
        asked = {**OPTIONS, "trace": str(trace), "worker": f"{place}/2"}
        runs.append([loadtrt.run(**asked, routing=routing) for routing in ("sticky:user", "random")])
    sticky, random = zip(*runs, strict=True)
    with pytest.raises(UsageError, match="its trace is one with the digest"):
        merged(sticky)
    assert merged(random).model.ok == 4
