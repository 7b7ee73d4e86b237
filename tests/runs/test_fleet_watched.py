"""Fleets of real processes that one observer watches: their metrics, their view on a terminal, and a worker's death."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from command_line import loadtrt
from exported import FACTS, page, values
from listening import listening
from loadtrt.asked.config import RunConfig
from loadtrt.errors import UsageError
from loadtrt.results.run_result import RunResult
from loadtrt.runs.fleet import run_fleet
from loadtrt.runs.fleet_watch import FleetWatch, fleets_shown
from loadtrt.runs.watched import Silence
from loadtrt.signals import Signals
from prometheus import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from exported import Page

REAL: dict[str, Any] = {
    "engine": "simulated:service=5ms",
    "warmup": "0s",
    "rate": 60,
    "duration": "1s",
    "objective": "latency.p50 < 60s",
    "max_lateness": "60s",
}


class Listens(Silence):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    def insist(self, sentence: str) -> None:
        self.said.append(sentence)

    def scrape(self) -> Page:
        """The metrics, where they are said to be."""
        (url,) = (line.removeprefix("metrics at ") for line in self.said if line.startswith("metrics at "))
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310  # http, as the exporter says
            return page(text_string_to_metric_families(answer.read().decode()))


def watched(
    act: Callable[[str, int, Listens], None] = lambda *_: None, signals: Signals | None = None, **options: Any
) -> tuple[RunResult, list[tuple[RunResult, Page]], list[str]]:
    """A run of two processes with metrics: its result, what was delivered and scraped then, and what was said.

    act: called with the phase, the requests that have completed in it, and what was said.
    """
    talks, seen = Listens(), list[tuple[RunResult, "Page"]]()
    config = RunConfig.of(**{**REAL, "processes": 2, "metrics": "127.0.0.1:0", "metrics_linger": "0s", **options})
    result = run_fleet(
        config,
        talks,
        signals or Signals(),
        lambda phase, _, __, completed: act(phase, completed, talks),
        deliver=lambda result: seen.append((result, talks.scrape())),
    )
    return result, seen, talks.said


def test_the_last_scrape_has_what_the_result_has() -> None:
    """Of each worker and of all, under the result's name; and one push has all of it."""
    with listening(202) as (url, pushed):
        result, ((delivered, found),), said = watched(push=[url], label={"team": "a"})
    assert delivered is result
    each = {str(number): worker.model for number, worker in enumerate(result.workers)}
    assert values(found, "loadtrt_latency_seconds_count", "worker") == {(n,): it.ok for n, it in each.items()}
    assert values(found, "loadtrt_phase", "phase", "worker")["done", "1"] == 1
    (objective,) = result.model.objectives
    assert values(found, "loadtrt_objective_requests_total") == {(): objective.requests} == {(): result.model.ok}
    assert {dict(labels)["run"] for _, labels in found} == {result.run}
    assert result.run.startswith(f"{result.started[:10].replace('-', '')}-")
    assert [method for method, _, _ in pushed] == ["PUT /metrics/job/loadtrt/team/a"]
    assert all(f'worker="{number}"'.encode() in pushed[0][2] for number in each)
    assert [line.partition(" http")[0] for line in said] == ["metrics at"]


def test_a_worker_that_is_killed_is_told_by_metrics() -> None:
    """What it has counted stays, and the others go on; it is said at once, and once."""
    signals = Signals()

    def act(phase: str, completed: int, talks: Listens) -> None:
        if any(line.startswith("worker 1 is lost") for line in talks.said):
            signals.ask()
        elif phase == "measure" and completed and of_worker(talks.scrape()).get(("1",)):
            for child in workers_of(os.getpid()):
                if command_of(child).endswith(":1\0"):
                    os.kill(child, signal.SIGKILL)

    result, ((_, found),), said = watched(act, signals, duration="10m")
    assert said.count("worker 1 is lost: it was ended by SIGKILL while it measured") == 1
    assert result.workers[0].outcome == "interrupted"
    assert [lost.worker for lost in result.lost] == [1]
    assert values(found, "loadtrt_workers_lost") == {(): 1}
    counts = of_worker(found)
    assert counts["0",] == result.workers[0].model.ok
    assert counts.keys() == {("0",), ("1",)}


def test_a_port_in_use_ends_a_sweep_of_fleets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = loadtrt("sweep", "simulated:service=5ms", "--processes", "1,2", "--metrics", address)
    assert (done.returncode, done.stderr.count("the port is in use")) == (2, 1)
    assert workers_of(os.getpid()) == []


def test_a_port_in_use_is_told_before_workers_are_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match="the port is in use"):
            watched(metrics=address)
    assert workers_of(os.getpid()) == []


@pytest.mark.parametrize(("workers", "told"), [(1, ("", "")), (2, ("1", "7"))])
def test_workers_have_labels_where_there_are_several(workers: int, told: tuple[str, str]) -> None:
    """And what all are called is the fleet's name, whatever each calls its own run."""
    config = RunConfig.of(**REAL, metrics="127.0.0.1:0")
    shown, described = fleets_shown(config, workers, Silence()), list[Any]()
    watch = FleetWatch(config, workers, shown)
    shown.describe = lambda *facts: described.extend(facts)  # type: ignore[method-assign]
    for number in range(workers):
        watch.hear(number, 6 + number, {"pids": [number], "facts": [replace(FACTS, run="another").to_json()]})
    assert [facts.run for facts in described] == [watch.run] * workers
    assert (described[-1].worker, described[-1].device) == told
    shown.close()


def test_gpus_of_ray_nodes_are_not_looked_for_here() -> None:
    """Their readings come from the nodes, under a name that no GPU of this host has, until their worker is lost."""
    config, sent = RunConfig.of(**REAL, ray="auto", workers=2, metrics="127.0.0.1:0"), list[Any]()
    shown = fleets_shown(config, 2, Silence())
    observer = shown.watch.observer
    assert observer is not None
    observer.send = lambda **message: sent.append(message)  # type: ignore[method-assign]
    watch = FleetWatch(config, 2, shown)
    for number in range(2):
        facts = replace(FACTS, bus="0000:65:00.0", host=f"node-{number}")
        watch.read(number, {"power_watts": 1.0})  # before all have loaded their engines
        watch.hear(number, 0, {"pids": [number], "facts": [facts.to_json()]})
    watch.read(1, {"power_watts": 2.0})
    watch.over(1, 0, "it was ended by SIGKILL")
    watch.over(0, 0, None)
    assert [message["reading"] for message in sent if "reading" in message] == [
        ["node-1 0000:65:00.0", {"power_watts": 2.0}],
        ["node-1 0000:65:00.0", None],
    ]
    assert not any("gpu" in message for message in sent)
    shown.close()


def test_a_worker_that_is_lost_before_it_has_its_engine_is_counted() -> None:
    """As one that would have measured what the others do."""
    config, talks = RunConfig.of(**REAL, metrics="127.0.0.1:0"), Listens()
    shown = fleets_shown(config, 3, talks)
    watch = FleetWatch(config, 3, shown)
    watch.hear(0, 5, {"pids": [1], "facts": [replace(FACTS, uuid="GPU-5", bus="b", lanes=2).to_json()]})
    watch.over(2, 6, "it ended with code 3 before it measured")
    watch.over(1, 5, "it ended with code 3 before it measured")
    assert shown.watch.observer is not None
    shown.watch.observer.telemetry(0, 1, 1)  # an answer: it has read all before it, too
    found = talks.scrape()
    assert values(found, "loadtrt_workers_lost") == {(): 2}
    assert values(found, "loadtrt_lanes", "worker", "device") == {("0", "5"): 2, ("1", "5"): 2, ("2", "6"): 2}
    assert list(values(found, "loadtrt_run_info", "UUID")) == [("GPU-5",)]
    assert not any(value for (name, _), value in found.items() if name == "loadtrt_problem_active")
    shown.close()


def of_worker(found: Page) -> dict[tuple[str, ...], float]:
    """Requests that each worker has served."""
    return values(found, "loadtrt_latency_seconds_count", "worker")


def workers_of(pid: int) -> list[int]:
    """The processes of workers that this one has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [
        int(child) for task in tasks for child in task.read_text().split() if "runs.worker" in command_of(int(child))
    ]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # it has just ended
        return ""
