"""Capacities of servers that form batches and bound their queue, and under stages, traces and bursts: on the command
line, against a simulation that shares nothing with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from command_line import loadtrt
from loadtrt.report.result_files import read_result
from loadtrt.results.capacity_result import CapacityResult
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.results.capacity_result import Candidate

DEVICE = "simulated:service=1ms,item=100us,cv=0.2,clock=virtual"
SIZES = np.array([1, 2, 4, 8, 16])


def searched(file: Path, *arguments: str, code: int = 0, engine: str = DEVICE) -> tuple[Candidate, CapacityResult, str]:
    """(the only candidate, the result, what was printed) of a search for the p99 below 20 ms."""
    objective = () if "--objective" in arguments else ("--objective", "latency.p99 < 20ms")
    done = loadtrt(
        "capacity", "--engine", engine, "--warmup", "0", "--buffers", "1", "--json", file, *objective, *arguments
    )
    assert done.returncode == code, done.stderr
    result = read_result(CapacityResult, file)
    (only,) = result.candidates
    return only, result, " ".join(done.stdout.split())


def bad_share(rate: float, most: int, delay: float, room: float, bound: float, requests: int = 150_000) -> float:
    """The share of late or dropped requests of one server that takes batches of up to `most`, each when it is full or
    its first request has waited `delay`. Poisson arrivals, lognormal service of (1 + 0.1·size) ms with CV 0.2."""
    random = np.random.default_rng(5)
    due = np.cumsum(random.exponential(1e3 / rate, requests)).tolist()
    sigma = np.sqrt(np.log(1.04))
    works = np.exp(sigma * random.standard_normal(requests) - sigma**2 / 2).tolist()
    waiting: list[float] = []
    free, bad, at, batches = 0.0, 0, 0, 0
    while at < requests or waiting:
        if not waiting:
            waiting, at = [due[at]], at + 1
        while True:  # until the batch may start: later requests may fill it, or find no room
            start = max(free, waiting[0] + delay if len(waiting) < most else waiting[most - 1])
            if at == requests or due[at] > start:
                break
            if len(waiting) < room:
                waiting.append(due[at])
            else:
                bad += 1
            at += 1
        batch, waiting = waiting[:most], waiting[most:]
        padded = next(size for size in SIZES if size >= len(batch)) if most > 1 else 1
        free = start + works[batches] * (1 + 0.1 * padded)
        batches += 1
        bad += sum(free - came > bound for came in batch)
    return bad / requests


@pytest.mark.parametrize(
    ("most", "delay", "room", "bound"),
    [(16, 2, None, 20), (16, 25, None, 20), (4, 1, 8, 6), (1, 0, 3, 20)],
)
def test_the_capacity_of_a_batching_server_is_that_of_its_queue(
    most: int, delay: float, room: int | None, bound: float, tmp_path: Path
) -> None:
    """In single requests, its delay above the bound or below, dropped requests among the bad ones. By a simulation
    written by itself 1 % is reached within 3 % of the interval, which one search in twenty misses, and not yet at the
    rate that is confirmed; the ladder expects the capacity within 8 %."""
    options = [] if most == 1 else ["--batcher", f"max={most},delay={delay}ms"]
    options += [] if room is None else ["--max-queue", str(room)]
    options += ["--time", "30s"]
    found, _, printed = searched(tmp_path / "c.json", *options, "--objective", f"latency.p99 < {bound}ms")
    full = most * 1e3 / (1 + 0.1 * most)
    rates = 0.97 * (found.low_per_s or 0), found.confirmed_per_s, 1.03 * (found.high_per_s or full)
    low, confirmed, high = (bad_share(rate or 0, most, delay, room or np.inf, bound) for rate in rates)
    assert low <= 0.01 < high
    assert confirmed <= 0.01
    assert (found.confirmed_per_s or 0) > 0.6 * (found.estimate_per_s or 0)
    assert found.predicted_per_s == pytest.approx(found.estimate_per_s, rel=0.08)
    assert found.inferences_per_request == 1
    assert found.scaling is not None
    assert found.scaling.most_per_s == pytest.approx(full, rel=0.05)
    assert ("requests wait the batcher's delay of 25.0 ms for others" in printed) == (delay == 25)
    for text in ("batcher max=", "batch in flight requests/s") if most > 1 else ():
        assert text in printed
    assert (f"at most {room} waiting" in printed) == (room is not None)
    assert {trial.run.model.engine.batch for trial in found.ladder if trial.run} == {n for n in SIZES if n <= most}
    page = loadtrt("report", tmp_path / "c.json", "-o", tmp_path / "c.html")
    assert page.returncode == 0, page.stderr
    assert f"max={most}" in (tmp_path / "c.html").read_text() or most == 1


def test_a_batcher_whose_delay_misses_at_every_rate_is_named(tmp_path: Path) -> None:
    """A batch alone takes 1.1 ms, and full ones come too late: it is the delay that misses at low rates, which is told;
    where a batch of one misses by itself, that is."""
    batcher = ("--batcher", "max=16,delay=25ms", "--time", "10s")
    late, _, _ = searched(tmp_path / "a.json", *batcher, "--objective", "latency.p99 < 5ms", code=99)
    assert late.conclusion.startswith("no rate from ")
    assert (
        "at low rates latency.p99 < 5ms is missed, as requests wait the batcher's delay of 25.0 ms" in late.conclusion
    )
    alone, _, _ = searched(tmp_path / "b.json", *batcher, "--objective", "latency.p99 < 1ms", code=99)
    assert len(alone.trials) == 1
    assert "even with one request in flight at a time" in alone.conclusion
    assert "delay" not in alone.conclusion


@pytest.mark.parametrize(
    ("options", "period_s", "words"),
    [
        (("--stages", "10/s:4s, ramp 10/s-30/s:2s"), 6, "poisson in stages 10/s:4s, ramp 10/s-30/s:2s"),
        (("--stages", "1/s:7s, 3/s:7s", "--burstiness", "2"), 14, "gamma in stages 1/s:7s, 3/s:7s · CV 2"),
    ],
)
def test_trials_last_whole_rounds_of_stages(
    options: tuple[str, ...], period_s: int, words: str, tmp_path: Path
) -> None:
    """A part of a day is not the day: trials, confirming and refuting runs last whole ones, at a mean that is the
    trial's rate; nothing ends them within a round."""
    found, result, printed = searched(tmp_path / "c.json", *options, "--time", "4m")
    assert words in printed
    peak = {6: 30 * 6 / 80, 14: 1.5}[period_s]
    assert result.peak_ratio == pytest.approx(peak)
    assert f"rates are means, the highest is {peak:.3g} times that" in printed
    for trial in found.searched:
        assert trial.run is not None
        assert (trial.run.config.duration or 0) % (period_s * SECOND_NS) == 0
        assert not trial.run.config.abort_on_fail
        assert trial.run.model.throughput.offered_per_s == pytest.approx(trial.rate_per_s)
        assert trial.run.config.options()["stages"] == options[1]
    assert found.searched
    assert found.confirmed_per_s is not None


def test_a_stage_above_the_throughput_counts_in_its_share(tmp_path: Path) -> None:
    """Half of the time at 9 times the rate of the other half: the mean at which the peak is the throughput of 909/s is
    505/s, and about there the capacity is, however much faster it would be at a steady rate."""
    found, _, _ = searched(tmp_path / "c.json", "--stages", "100/s:5s, 900/s:5s", "--time", "3m")
    steady, _, _ = searched(tmp_path / "d.json", "--time", "20s")
    assert (found.estimate_per_s or 0) < 520 < 700 < (steady.estimate_per_s or 0)
    assert found.predicted_per_s == pytest.approx(found.estimate_per_s, rel=0.1)


def test_a_trace_is_scaled_to_each_rate_and_replayed_whole(tmp_path: Path) -> None:
    """Of 50 equal gaps the throughput itself is the capacity; each trial replays the trace a whole number of times."""
    trace = tmp_path / "trace.csv"
    trace.write_text("".join(f"{place / 7}\n" for place in range(50)))
    found, result, printed = searched(tmp_path / "c.json", "--trace", str(trace), "--time", "30s")
    assert f"trace {trace}" in printed
    assert result.peak_ratio is None
    for trial in found.searched:
        assert trial.run is not None
        assert (trial.run.model.submitted + trial.run.model.unserved) % 50 == 0
        assert trial.run.model.throughput.offered_per_s == pytest.approx(trial.rate_per_s, rel=1e-6)
    assert 0.9 * 909 < (found.estimate_per_s or 0) < 1.02 * 909
    gone = loadtrt("capacity", "--engine", DEVICE, "--trace", tmp_path / "none.csv", "--objective", "latency.p99 < 1s")
    assert (gone.returncode, len(gone.stderr.splitlines())) == (2, 1)
    trace.unlink()
    assert loadtrt("report", tmp_path / "c.json").returncode == 0  # a report needs the result alone


def test_an_unfinished_search_of_a_batching_server_goes_on(tmp_path: Path) -> None:
    """From its file, the ladder of all sizes replayed; with another batcher or another queue it is another search."""
    file = tmp_path / "c.json"
    options = ("--batcher", "max=4,delay=2ms", "--max-queue", "64", "--time", "10s")
    whole, result, _ = searched(file, *options)
    for kept in (2, 7, len(whole.trials) - 1):
        cut = whole.model_copy(update={"trials": whole.trials[:kept]})
        part = result.model_copy(update={"outcome": "interrupted", "chosen": None, "candidates": (cut,)})
        file.write_text(part.model_dump_json())
        resumed, _, _ = searched(file, *options, "--resume")
        assert resumed.trials[:kept] == cut.trials
        following, again = whole.trials[kept], resumed.trials[kept]
        assert (again.kind, again.in_flight, again.rate_per_s) == (
            following.kind,
            following.in_flight,
            following.rate_per_s,
        )
    file.write_text(part.model_dump_json())
    for other, sentence in (
        (("--batcher", "max=8,delay=2ms", "--max-queue", "64"), "batcher was max=4,delay=2ms, and is max=8,delay=2ms"),
        (("--batcher", "max=4,delay=2ms", "--max-queue", "32"), "max_queue was 64, and is 32"),
        (("--batcher", "max=4,delay=2ms"), "max_queue was 64, and is none"),
    ):
        refused = loadtrt("capacity", "--engine", DEVICE, "--warmup", "0", "--buffers", "1", "--json", file, "--resume",
                          "--objective", "latency.p99 < 20ms", "--time", "10s", *other)  # fmt: skip
        assert (refused.returncode, sentence in refused.stderr) == (2, True), refused.stderr


def test_how_a_server_batches_is_taken_from_a_file_and_its_load_is_not(tmp_path: Path) -> None:
    """The batcher and the room of the queue belong to the server; rates, stages and durations to the run."""
    config = tmp_path / "run.yaml"
    config.write_text(
        f"engine: {DEVICE}\nbatcher: max=4,delay=1ms\nmax_queue: 32\nrate: 100/s\nbursts: 1s/1s\nduration: 7s\n"
    )
    done = loadtrt("capacity", "--config", config, "--warmup", "0", "--objective", "latency.p99 < 20ms", "--time",
                   "20s", "--json", tmp_path / "c.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = read_result(CapacityResult, tmp_path / "c.json")
    (only,) = result.candidates
    assert (only.batcher, result.config.model.max_queue, result.load.bursts) == ("max=4,delay=1ms", 32, None)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--batcher", "max=4", "--batch", "4"), "--batcher decides how large requests are: leave --batch out"),
        (("--batcher", "max=4", "--mix", "1:1, 4:1"), "--mix and --batcher exclude each other"),
        (("--batcher", "max=16", "--max-queue", "8"), "--max-queue 8 leaves no room for a batch of 16"),
        (("--batcher", "16"), "'16' is not a batcher"),
        (("--stages", "1/s:1s", "--bursts", "1s/1s"), "stages have rates and durations of their own, and no bursts"),
        (("--stages", "1/s:1s", "--trace", "t.csv"), "a trace has instants of its own, and no stages"),
        (("--trace", "t.csv", "--burstiness", "2"), "a trace has instants of its own, and no burstiness"),
        (("--trace", "t.csv", "--arrivals", "constant"), "a load at a rate has no trace"),
        (("--trace-column", "t"), "--trace-column needs a trace"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(options: tuple[str, ...], sentence: str) -> None:
    """Exit 2 before anything is measured."""
    done = loadtrt("capacity", "--engine", DEVICE, "--objective", "latency.p99 < 20ms", *options)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert sentence in done.stderr
