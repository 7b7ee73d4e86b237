"""Workers started as processes, on a Ray cluster, or one by one: they begin together, and one result is made of theirs;
what ends one of them leaves the others' results."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import loadtrt
from command_line import loadtrt as command
from exported import page, values
from listening import listening
from loadtrt.asked.config import RunConfig
from loadtrt.environment import FELLOWS
from loadtrt.errors import EngineError, UsageError
from loadtrt.report.result_files import read_result
from loadtrt.results.capacity_result import SweepResult
from loadtrt.results.run_result import RunResult
from loadtrt.runs import fleet, ray_cluster
from loadtrt.runs.fleet import run_fleet
from loadtrt.runs.shipping import Shipment
from loadtrt.runs.shown import Shown
from loadtrt.runs.started_worker import STEP_S
from loadtrt.runs.watched import Silence
from loadtrt.signals import Signals
from loadtrt.stats.merging import merge
from onnx_files import doubling
from prometheus import PATIENCE_S
from ray_nodes import OTHER_VERSION
from ray_nodes import ray_cluster as started_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exported import Page
    from loadtrt.lanes.model_run import OnTick

HAS_RAY = importlib.util.find_spec("ray") is not None
WORKERS = 4
ALL = frozenset(range(WORKERS))
VIRTUAL: dict[str, Any] = {
    "engine": "simulated:service=1ms,distribution=exponential,clock=virtual",
    "warmup": "0s",
    "rate": 1200,
    "duration": "3s",
}
REAL: dict[str, Any] = {"engine": "simulated:service=5ms", "warmup": "500ms", "rate": 60, "duration": "2s"}
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: pip install 'loadtrt[ray]'")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with started_cluster() as nodes:
        yield nodes


@pytest.fixture(params=["processes", pytest.param("ray", marks=needs_ray)])
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The options that start four workers."""
    if request.param == "processes":
        return {"processes": WORKERS}
    return {"ray": request.getfixturevalue("cluster").address, "workers": WORKERS}


class Acts:
    """Calls each function of `acts` once: "load", when all workers were started; "begun", when all measure; (phase,
    worker), when this worker has come to that phase; a set of workers, when each has completed requests while it
    measured. They get the links of the workers.

    counts: what each worker was last heard to have completed while it measured.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, acts: dict[Any, Callable[[list[Any]], object]]) -> None:
        self.links: list[Any] = []
        self.counts: dict[int, int] = {}
        self._acts = dict(acts)
        self._begun: set[int] = set()
        started = fleet._Fleet._start

        def start(this: Any, *args: Any) -> Any:
            worker = started(this, *args)
            self.links.append(worker.link)
            if len(self.links) == WORKERS:
                self._act("load")
            return worker

        monkeypatch.setattr(fleet._Fleet, "_start", start)
        monkeypatch.setattr(fleet, "tickers", lambda _, models: [self._ticker(number) for number in range(models)])

    def _ticker(self, number: int) -> OnTick:
        def tick(phase: str, elapsed_ns: int, _submitted: int, completed: int) -> None:
            if phase == "measure":
                self.counts[number] = completed
                self._begun |= {number} if elapsed_ns else set()
                if len(self._begun) == WORKERS:
                    self._act("begun")
            self._act((phase, number))
            for when in [key for key in self._acts if isinstance(key, frozenset) and all(map(self.counts.get, key))]:
                self._act(when)

        return tick

    def _act(self, when: Any) -> None:
        if when in self._acts:
            self._acts.pop(when)(self.links)


class Listens(Silence):
    """Keeps what is said, and calls the function of `acts` whose words it has, once."""

    def __init__(self, acts: dict[str, Callable[[], object]] | None = None) -> None:
        self.said: list[str] = []
        self._acts = dict(acts or {})

    def say(self, sentence: str) -> None:
        self.said.append(sentence)
        for words in [words for words in self._acts if words in sentence]:
            self._acts.pop(words)()

    def scrape(self) -> Page:
        """The metrics, where they are said to be."""
        (url,) = (line.removeprefix("metrics at ") for line in self.said if line.startswith("metrics at "))
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310  # http, as the exporter says
            return page(text_string_to_metric_families(answer.read().decode()))


def measured(
    options: dict[str, Any],
    signals: Signals | None = None,
    talks: Silence | None = None,
    deliver: Callable[[RunResult], None] = lambda _: None,
    **more: Any,
) -> RunResult:
    config = RunConfig.of(**{**options, **more})
    return run_fleet(config, talks or Silence(), signals or Signals(), deliver=deliver)


def test_fleets_measure_what_files_do(way: dict[str, Any]) -> None:
    """Of virtual time exactly the same, and what all rows say; the order of workers, their part of the load, and the
    fleet's configuration, which makes the same run again."""
    result = measured(VIRTUAL, **way, routing="round-robin", seed=3)
    apart = [loadtrt.run(**VIRTUAL, worker=f"{number}/4", routing="round-robin", seed=3) for number in range(WORKERS)]
    by_files = merge({f"{number}.json": run for number, run in enumerate(apart)})
    assert result.model.histograms == by_files.model.histograms
    records = [run.records for run in apart]
    latencies = np.concatenate([rows.completed - rows.due for rows in records if rows is not None])
    assert len(latencies) == result.model.ok == sum(run.model.ok for run in result.workers)
    for name, quantile in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        value = result.model.metrics["latency"].percentiles_ns[name]
        assert value == pytest.approx(np.quantile(latencies, quantile, method="inverted_cdf"), rel=0.004)
    rates = [run.model.throughput.requests_per_s or 0 for run in apart]
    assert result.model.throughput.requests_per_s == pytest.approx(sum(rates), rel=1e-12)
    assert [run.config.worker for run in result.workers] == [f"{number}/4" for number in range(WORKERS)]
    assert result.config == RunConfig.of(**VIRTUAL, **way, routing="round-robin", seed=3)
    assert result.start_spread_ns is not None
    assert result.outcome == "completed"


def kill(number: int, links: list[Any]) -> None:
    links[number].kill()


def test_workers_that_are_killed(way: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In any phase: its last count, the others' results, no slower rate, and no verdict. It is told at once, as a run
    of hours may be given up then."""
    talks, told = Listens(), []

    def end(links: list[Any]) -> None:
        told.extend(talks.said)
        kill(3, links)
        links[0].stop()

    heard = Acts(monkeypatch, {"load": partial(kill, 1), ("warm-up", 2): partial(kill, 2), frozenset({0, 3}): end})
    result = measured(REAL, talks=talks, **way, objective="latency.p99 < 1s", duration="600s")
    assert [line.partition(":")[0] for line in told if "lost" in line] == ["worker 1 is lost", "worker 2 is lost"]
    assert sum("worker 3 is lost" in line for line in talks.said) == 1
    assert result.outcome == "failed"
    assert [lost.worker for lost in result.lost] == [1, 2, 3]
    assert [lost.why.endswith("before it measured") for lost in result.lost] == [True, True, False]
    assert all("it was ended" in lost.why for lost in result.lost)
    assert "SIGKILL while it measured" in result.lost[2].why
    assert [lost.completed for lost in result.lost] == [0, 0, heard.counts[3]]
    assert heard.counts[3] > 0
    assert (result.failure or "").startswith("only 1 of 4 workers")
    assert [run.worker for run in result.workers] == ["0"]
    assert result.workers[0].model.ok
    assert result.verdict == "undecided"


def test_workers_that_stand_still(way: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is stopped is named, then lost with its last count, and so is one whose Ray process is; one that goes on
    in time is heard again. The others are not waited for."""
    links: list[Any] = []
    still: set[int] = set()
    wait_for = fleet._Fleet._wait_for

    def wait_longer(this: Any, worker: Any, _: float) -> None:
        """Hours pass for those that stand still, and nothing for others, however slow this host is."""
        if worker.number in still:
            wait_for(this, worker, STEP_S)

    def stop(of_all: list[Any]) -> None:
        links.extend(of_all)
        os.kill(process_of(links[1]), signal.SIGSTOP)
        os.kill(process_of(links[2]), signal.SIGSTOP)
        if "ray" in way:
            os.kill(actor_of(links[3]), signal.SIGSTOP)
        still.update({1, 2, 3} if "ray" in way else {1, 2})

    def go_on() -> None:
        os.kill(process_of(links[2]), signal.SIGCONT)
        still.discard(2)

    def end() -> None:
        for number in ALL.difference(still):
            links[number].stop()

    heard = Acts(monkeypatch, {ALL: stop})
    monkeypatch.setattr(fleet._Fleet, "_wait_for", wait_longer)
    last = 3 if "ray" in way else 1
    talks = Listens({"worker 2 has said nothing": go_on, f"worker {last} is lost": end})
    result = measured(REAL, talks=talks, **way, duration="600s")
    told = " ".join(talks.said)
    for number in still:
        assert re.search(rf"worker {number} has said nothing for 5 s, since \d\d:\d\d:\d\d UTC", told)
    assert "after 60 s it counts as lost" in told
    assert "worker 2 is heard again, after " in told
    assert [lost.worker for lost in result.lost] == sorted(still)
    assert {lost.why for lost in result.lost} == {"it said nothing for 60 s while it measured"}
    assert [lost.completed for lost in result.lost] == [heard.counts[number] for number in sorted(still)]
    assert [run.worker for run in result.workers] == [str(number) for number in sorted(ALL - still)]


def process_of(link: Any) -> int:
    """The process of a worker."""
    if hasattr(link, "_process"):
        return int(link._process.pid)
    import ray

    return int(ray.get(link._actor.__ray_call__.remote(lambda host: host._process._process.pid)))


def actor_of(link: Any) -> int:
    """The process of Ray's that has started a worker."""
    import ray

    return int(ray.get(link._actor.__ray_call__.remote(lambda _: os.getpid())))


def test_workers_are_watched(way: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One observer serves the metrics of all: at the end what the result has, with those of a worker that was killed as
    last heard; and pushes them once."""
    links: list[Any] = []
    pages: list[Page] = []

    def end(of_all: list[Any]) -> None:
        links.extend(of_all)
        if "ray" in way:  # no worker takes the others on its host for strangers on its cores
            fellows = Path(f"/proc/{process_of(links[0])}/environ").read_text().split(f"{FELLOWS}=")[1].split("\0")[0]
            assert set(map(int, fellows.split())) == set(map(actor_of, links))
        kill(3, of_all)

    def stop() -> None:
        for link in links[:3]:
            link.stop()

    Acts(monkeypatch, {ALL: end})
    talks = Listens({"worker 3 is lost": stop})
    with listening(202) as (url, pushed):
        watching = {"metrics": "127.0.0.1:0", "metrics_linger": "0s", "push": [url], "objective": "latency.p50 < 60s"}
        options = {**REAL, **way, **watching, "duration": "600s"}
        result = measured(options, talks=talks, deliver=lambda _: pages.append(talks.scrape()))
    (found,) = pages
    counts = values(found, "loadtrt_latency_seconds_count", "worker")
    assert counts == {(run.worker,): run.model.ok for run in result.workers} | {("3",): counts["3",]}
    assert values(found, "loadtrt_workers_lost") == {(): 1}
    assert values(found, "loadtrt_objective_requests_total") == {(): sum(counts.values())}
    assert {dict(labels)["run"] for _, labels in found} == {result.run}
    assert all(f'worker="{number}"'.encode() in pushed[0][2] for number in range(WORKERS))
    assert len(pushed) == 1


def test_a_sweep_of_fleets_has_one_exporter(
    way: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says its address once, stays once after the last point, and has the numbers of each point under its own name,
    also where one has fewer workers than one before."""
    pages, lingered, linger = [], [], Shown.linger

    def last(this: Any, *given: Any) -> None:
        lingered.append(this)
        with urllib.request.urlopen(this.watch.observer.url, timeout=PATIENCE_S) as answer:  # noqa: S310  # http
            pages.append(page(text_string_to_metric_families(answer.read().decode())))
        linger(this, *given)

    monkeypatch.setattr(Shown, "linger", last)
    options = ["--engine", "simulated:service=5ms,clock=virtual", "--duration", "1s", "--warmup", "0", "--all"]
    watching = ["--metrics", "127.0.0.1:0", "--metrics-linger", "10m", "--json", str(tmp_path / "s.json")]
    monkeypatch.setattr(Signals, "sleep", lambda *_: None)
    numbers = flags({**way, ("workers" if "ray" in way else "processes"): "2,1,3"})
    done = command("sweep", *options, *numbers, *watching)
    assert (done.returncode, done.stderr.count("metrics at http"), done.stderr.count("metrics stay")) == (0, 1, 1)
    assert len(lingered) == 1
    points = read_result(SweepResult, tmp_path / "s.json").points
    runs = [point.run for point in points if point.run is not None]
    assert [len(run.workers) for run in runs] == ([1, 2, 3] if "ray" in way else [2, 1, 3])  # Ray's are in order
    counts = values(pages[0], "loadtrt_latency_seconds_count", "run", "worker")
    assert counts == {
        (run.run, str(number) if len(run.workers) > 1 else ""): worker.model.ok
        for run in runs
        for number, worker in enumerate(run.workers)
    }
    assert values(pages[0], "loadtrt_points", "run", "state")[runs[1].run, "done"] == 1
    told = values(pages[0], "loadtrt_run_info", "run", "point")
    axis = "workers" if "ray" in way else "processes"
    assert set(told) == {(run.run, f"{axis} {len(run.workers)}") for run in runs}


def test_a_fleet_is_drawn_on_a_terminal(way: dict[str, Any], tmp_path: Path) -> None:
    """A row for each worker; Ctrl-C removes it, and the result is kept."""
    leader, follower = pty.openpty()
    options = ("--engine", "simulated:service=5ms", "--rate", "60/s", "--warmup", "0", *flags(way))
    command = [sys.executable, "-m", "loadtrt", "run", *options, "--duration", "10h", "--json", "run.json"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=follower)
    os.close(follower)
    drawn, asked = b"", False
    while select.select([leader], [], [], PATIENCE_S)[0]:
        try:
            drawn += os.read(leader, 1 << 16)
        except OSError:  # it is closed
            break
        if not asked and b"p99, last s" in drawn:
            asked = True
            process.send_signal(signal.SIGINT)
    os.close(leader)
    assert process.wait(PATIENCE_S) == 130
    assert b"4 workers" in drawn
    assert drawn.rindex(b"\x1b[?25h") > drawn.rindex(b"\x1b[?25l")
    assert RunResult.model_validate_json((tmp_path / "run.json").read_text()).outcome == "interrupted"


def flags(options: dict[str, Any]) -> list[str]:
    """The options of a command."""
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def test_all_workers_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no result, and a sentence."""
    Acts(monkeypatch, {("warm-up", 1): lambda links: [link.kill() for link in links]})
    with pytest.raises(EngineError, match=r"^none of 4 workers left a result: worker 0: it was ended by SIGKILL "):
        measured(REAL, processes=WORKERS)


def test_an_interrupted_fleet_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """One signal ends all workers, with what is in flight; on Ray see below."""
    signals = Signals()
    Acts(monkeypatch, {ALL: lambda _: signals.ask()})
    result = measured(REAL, signals, processes=WORKERS, duration="300s")
    assert result.outcome == "interrupted"
    assert len(result.workers) == WORKERS
    assert result.model.ok
    assert not result.model.unserved


def test_a_second_signal_ends_a_fleet_at_once(way: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in flight is given up."""
    signals = Signals()

    def twice(_: list[Any]) -> None:
        signals.ask()
        signals.ask()

    Acts(monkeypatch, {"begun": twice})
    began = time.monotonic()
    result = measured({**REAL, "engine": "simulated:service=3000s", "warmup": "0s"}, signals, **way, duration="3000s")
    assert time.monotonic() - began < 600
    assert result.outcome == "interrupted"
    assert not result.model.ok


def test_an_interrupt_before_measuring(way: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to keep."""
    signals = Signals()
    Acts(monkeypatch, {"load": lambda _: signals.ask()})
    with pytest.raises(KeyboardInterrupt):
        measured({**REAL, "engine": "simulated:service=3000s"}, signals, **way)


def test_workers_that_cannot_begin(way: dict[str, Any]) -> None:
    """The sentence is the one of a single run."""
    given: dict[str, Any] = {"gpus_per_worker": 0} if "ray" in way else {}
    with pytest.raises(UsageError, match=r"none\.plan"):
        measured({**REAL, "engine": "none.plan"}, **way, **given)


def test_a_worker_that_is_late(way: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes the run INVALID; and so do other versions, of which the result says who has which."""

    def delay(links: list[Any]) -> None:
        send, kind = type(links[2]).send, type(links[2])

        def send_late(link: Any, line: str) -> None:
            if link is links[2] and "start" in json.loads(line):
                time.sleep(2)
            send(link, line)

        monkeypatch.setattr(kind, "send", send_late)

    Acts(monkeypatch, {"load": delay})
    result = measured(REAL, **way)
    told = " ".join(problem.evidence for problem in result.model.problems)
    assert "s after the first one (limit 10.0 ms)" in told
    assert not result.valid
    differ = [problem.evidence for problem in result.model.problems if problem.kind == "versions-differ"]
    if "ray" not in way:
        assert not differ
        return
    assert differ[0].startswith("workers differ in loadtrt ")
    assert f"{loadtrt.__version__} (worker " in differ[0]
    assert f"{OTHER_VERSION} (worker " in differ[0]
    for run in result.workers:
        assert abs(run.environment["clock_offset_ns"]) < 10**9
        assert run.environment["clock_offset_error_ns"] > 0
        assert "clock_drift_ns" in run.environment


def test_other_versions_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They make a run INVALID as those of a Ray node do (above), and those of a file (tests/stats/test_merging.py)."""
    is_second = '"loadtrt.runs.worker" in sys.orig_argv and sys.orig_argv[-1].endswith(":1")'
    other = f"import sys\nif {is_second}:\n    import loadtrt\n    loadtrt.__version__ = {OTHER_VERSION!r}\n"
    (tmp_path / "sitecustomize.py").write_text(other)
    monkeypatch.syspath_prepend(tmp_path)
    result = measured(VIRTUAL, processes=3, metrics="127.0.0.1:0", metrics_linger="0s")
    (differ,) = [problem.evidence for problem in result.model.problems if problem.kind == "versions-differ"]
    assert f"loadtrt {loadtrt.__version__} (worker 0, 2), {OTHER_VERSION} (worker 1)" in differ
    assert not result.valid
    assert "worker loadtrt" in " ".join(str(result).split())  # the table


@needs_ray
def test_files_travel_with_the_run(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers read what this host has, wherever they are, and their results name it as it is called here."""
    monkeypatch.chdir(tmp_path)
    model = doubling(tmp_path, 2)
    np.save("in.npy", np.ones((2, 2), np.float32))
    (tmp_path / "t.csv").write_text("".join(f"{i * 0.01}\n" for i in range(40)))
    given = {"engine": os.path.relpath(model), "trace": "t.csv", "warmup": "0s", "on": "onnxruntime"}
    result = measured(given, ray=cluster.address, workers=2)
    assert result.model.ok == 40
    assert [run.config.model.engine for run in result.workers] == [os.path.relpath(model)] * 2
    assert result.workers[0].model.engine.sha256 == result.workers[1].model.engine.sha256 != ""
    kept = Path(tempfile.gettempdir()) / f"loadtrt-files-{os.getuid()}"
    assert kept.is_dir()
    groups = Shipment(RunConfig.of(**given)).groups
    assert len(groups) == 2
    assert not any((kept / group).exists() for group in groups)  # the last worker has deleted them


@needs_ray
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"workers": 9}, "no place for 9 workers with 1 CPU each within 0 s: the cluster has 4 nodes with 4 CPUs"),
        ({"workers": 1, "gpus_per_worker": 1}, "1 CPU and 1 GPU each .* 0 GPUs .*--gpus-per-worker 0 for engines on"),
    ],
)
def test_a_cluster_that_is_too_small(
    options: dict[str, Any], sentence: str, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said what it has, within a stated time."""
    monkeypatch.setattr(ray_cluster, "PLACING_S", 0.0)
    with pytest.raises(EngineError, match=sentence):
        measured(VIRTUAL, ray=cluster.address, **options)


@needs_ray
def test_ctrl_c_ends_the_command_and_its_workers(cluster: Any, tmp_path: Path) -> None:
    """With a result of all that measured; nothing of Ray's is written to the terminal."""
    written, said = tmp_path / "fleet.json", tmp_path / "said"
    options = ["--ray", cluster.address, "--workers", "2", "--rate", "50/s", "--duration", "3000s"]
    command = [sys.executable, "-m", "loadtrt", "run", "simulated:service=5ms", *options, "--json", str(written)]
    with said.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            while not re.search(r"measure .* [1-9]\d* requests", said.read_text()):  # so all have begun
                assert process.poll() is None, said.read_text()
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            assert process.wait(300) == 130
        finally:
            process.kill()
    result = loadtrt.read(written)
    assert isinstance(result, RunResult)
    assert (result.outcome, len(result.workers)) == ("interrupted", 2)
    assert not {"raylet", "ray::", "Ray"} & set(said.read_text().split())


@needs_ray
def test_a_node_that_is_lost(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ran on it is lost, and no more; so is a worker whose Ray process is killed. The last test of the cluster."""
    import ray

    lost: list[int] = []

    def lose(links: list[Any]) -> None:
        places = {node.node_id: node for node in cluster.worker_nodes}  # not the head
        on = {number: places.get(link.host.split()[-1]) for number, link in enumerate(links)}
        of_node, of_process = [number for number, node in on.items() if node is not None][:2]
        os.kill(ray.get(links[of_process]._actor.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
        cluster.remove_node(on[of_node], allow_graceful=False)
        lost.extend([of_node, of_process])
        for number in ALL.difference(lost):
            links[number].stop()

    Acts(monkeypatch, {ALL: lose})
    result = measured(REAL, ray=cluster.address, workers=WORKERS, duration="600s")
    assert [worker.worker for worker in result.lost] == sorted(lost)
    assert {worker.why for worker in result.lost} == {"Ray lost its process or its node while it measured"}
    assert (result.failure or "").startswith("only 2 of 4 workers")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("nonsense", "has no port"),
        ("a b:1", "is not the address of a Ray cluster"),
        ("http://a:1", "is not the address of a Ray cluster"),
        ("127.0.0.1:1", "nobody answers there"),
        ("ray://127.0.0.1:1", "nobody answers there"),
    ],
)
def test_what_is_no_cluster(address: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if HAS_RAY:
        import ray

        monkeypatch.setattr(ray, "is_initialized", lambda: False)
    elif "nobody" in sentence:
        sentence = r"not installed here: pip install 'loadtrt\[ray\]'"
    with pytest.raises(UsageError, match=sentence):
        measured(VIRTUAL, ray=address, workers=2)


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"not installed here: pip install 'loadtrt\[ray\]'"):
        measured(VIRTUAL, ray="auto", workers=2)


@needs_ray
def test_a_node_without_loadtrt() -> None:
    """As Ray tells it of an actor that cannot be imported."""
    error = RuntimeError("creation task\nRuntimeError: failed\nModuleNotFoundError: No module named 'loadtrt'\n")
    assert ray_cluster._reason(error) == (
        "loadtrt is not on its node, or another version (No module named 'loadtrt'): install the same one on all nodes"
    )


@needs_ray
def test_other_versions_of_ray() -> None:
    """One sentence of Ray's own ten lines."""
    from ray._private.utils import check_version_info

    with pytest.raises(RuntimeError) as caught:
        check_version_info({"ray_version": "2.9.0", "python_version": "3.8.1"}, "here")
    assert ray_cluster._why_not(caught.value).startswith("the cluster has Ray 2.9.0 on Python 3.8.1, and here is Ray ")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ray": "auto"}, "say how many, such as --workers 4"),
        ({"workers": 2}, "--workers is for workers on a Ray cluster: add --ray"),
        ({"gpus_per_worker": 0.5}, "--gpus-per-worker is for workers on a Ray cluster"),
        ({"ray": "auto", "workers": 2, "processes": 2}, "--processes is for this host"),
        ({"ray": "auto", "workers": 2, "worker": "0/2"}, "leave --worker out"),
        ({"devices": "0-1", "device": 3}, "give each worker a GPU of its own: leave --device out"),
        ({"ray": "auto", "workers": 2, "device": 3}, "give each worker a GPU of its own: leave --device out"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        RunConfig.of(**VIRTUAL, **options)
