"""Plans of fleets of batching servers, against simulations that share nothing with them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from test_batching import server_with
from test_capacity_of_loads import DEVICE, bad_share

from command_line import loadtrt
from loadtrt.load.arrivals import Poisson, due_instants
from loadtrt.report.result_files import read_result
from loadtrt.results.capacity_result import CapacityResult
from loadtrt.results.fleet_result import FleetResult
from loadtrt.sizing import fleet_check, fleet_plan, fleet_prediction
from loadtrt.sizing.batch_simulation import serve
from loadtrt.sizing.routers import router_of
from loadtrt.sizing.station import completions
from loadtrt.units import NEVER

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.results.fleet_result import Routing, Ties

BATCHING = ("--batcher", "max=16,delay=2ms")
BOUNDED = ("--batcher", "max=4,delay=1ms", "--max-queue", "16")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer requests of a replication: verdicts are the same, but near the boundary. Of the runs of a search, those
    near saturation are not simulated."""
    monkeypatch.setattr(fleet_check, "_LONGEST", 4000)
    monkeypatch.setattr(fleet_prediction, "_COUNTED", 5000)
    monkeypatch.setattr(fleet_prediction, "_BEYOND", 30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """capacity.json of a batching server, and of one that bounds its queue."""
    made = tmp_path_factory.mktemp("searches")
    for name, options in (("batching", BATCHING), ("bounded", BOUNDED)):
        common = ("--engine", DEVICE, "--warmup", "0", "--buffers", "1", "--time", "45s", "--quiet")
        target = made / f"{name}.json"
        done = loadtrt("capacity", *common, "--objective", "latency.p99 < 20ms", *options, "--json", target)
        assert done.returncode == 0, done.stderr
    return made


def planned(file: Path, *arguments: str, checks: bool = False) -> tuple[FleetResult, str]:
    """A plan, without predictions for one GPU unless the test is about them."""
    target = file.with_name("plan.json")
    with pytest.MonkeyPatch.context() as patch:
        if not checks:
            patch.setattr(fleet_plan, "compare", lambda *_: ())
        done = loadtrt("plan-capacity", file, "--max-utilisation", "97%", "--json", target, "--force", *arguments)
    assert done.returncode == 0, done.stderr
    return read_result(FleetResult, target), " ".join(done.stdout.split())


# --- the simulation


@pytest.mark.parametrize(
    ("routing", "ties"),
    [
        ("least-outstanding", "longest-idle"),
        ("least-outstanding", "lowest-index"),
        ("least-outstanding", "random"),
        ("two-choices", "random"),
    ],
)
@pytest.mark.parametrize(("gpus", "contexts", "buffers", "contention"), [(3, 2, 2, 0.5), (5, 1, 1, 0.0)])
def test_without_a_batcher_it_is_the_simulation_of_stations(
    routing: Routing, ties: Ties, gpus: int, contexts: int, buffers: int, contention: float
) -> None:
    """Another simulation of the same fleet, with the same router: every completion, but for rounding."""
    server = server_with(None, None, contexts, buffers, contention)
    station = server.stations[1]
    due = due_instants(Poisson(), 0.9 * gpus * station.most_per_s, 0, 3000, 3)
    routers = [router_of(routing, ties, np.random.default_rng(4)) for _ in range(2)]
    found = serve(due, np.full(len(due), 0.5), server, gpus, routers[0])
    expected = completions(due / 1e9, np.ones(len(due)), station, gpus, routers[1])
    assert np.abs(found - expected * 1e9).max() < 200


@pytest.mark.parametrize("room", [None, 6])
def test_a_fleet_of_batching_servers_routes_each_request(room: int | None) -> None:
    """The fewest outstanding, waiting ones and those in flight: against a simulation that looks at all instants. With
    a bounded queue some are dropped, and the others complete as they do there. All instants are multiples of 0.1 ms,
    so that several things happen at once."""
    server = server_with("max=4,delay=3ms", room, 1, 1)
    due = due_instants(Poisson(), 6000.0, 0, 4000, 9) // 100_000 * 100_000
    found = serve(
        due, np.full(len(due), 0.5), server, 3, router_of("least-outstanding", "lowest-index", np.random.default_rng(4))
    )
    expected = by_hand(due.tolist(), 3, most=4, delay=3_000_000, room=room or NEVER)
    assert found[:-100].tolist() == expected[:-100]  # at the end batches are not filled any more
    assert (found == NEVER).any() == (room is not None)


def by_hand(due: list[int], gpus: int, most: int, delay: int, room: int) -> list[int]:
    """The same with one lane and buffer set a GPU, padded batches of 1, 2 and 4 that take 1 ms + 0.1 ms a place."""
    waiting: list[list[int]] = [[] for _ in range(gpus)]
    served: list[list[int]] = [[] for _ in range(gpus)]
    free = [0] * gpus
    done, place = [NEVER] * len(due), 0
    while True:
        starts = []
        for gpu, queue in enumerate(waiting):
            if queue:
                ready = due[queue[0]] + delay if len(queue) < most else min(due[queue[most - 1]], due[queue[0]] + delay)
                starts.append((max(ready, free[gpu]), gpu))
        start, chosen = min(starts, default=(NEVER, 0))
        if place < len(due) and due[place] <= start:
            now = due[place]
            for gpu in range(gpus):
                served[gpu] = [number for number in served[gpu] if done[number] >= now]
            sizes = [len(waiting[gpu]) + len(served[gpu]) for gpu in range(gpus)]
            gpu = sizes.index(min(sizes))
            if len(waiting[gpu]) < room:
                waiting[gpu].append(place)
            place += 1
        elif starts:
            batch, waiting[chosen] = waiting[chosen][:most], waiting[chosen][most:]
            padded = next(size for size in (1, 2, 4) if size >= len(batch))
            free[chosen] = start + 1_000_000 + 100_000 * padded
            served[chosen] = batch
            for number in batch:
                done[number] = free[chosen]
        else:
            return done


# --- plans


@pytest.mark.parametrize(
    ("name", "most", "delay", "room", "bound"),
    [("batching", 16, 2, np.inf, 8), ("batching", 16, 2, np.inf, 12), ("bounded", 4, 1, 16, 20)],
)
def test_random_routing_needs_what_one_gpu_with_its_share_needs(
    name: str, most: int, delay: float, room: float, bound: float, folder: Path
) -> None:
    """As many GPUs as a simulation written by itself has bad requests of 1 % at, or one more, and never fewer; late
    ones and, where the queue is bounded, dropped ones."""
    result, _ = planned(
        folder / f"{name}.json", "--demand", "30000/s", "--routing", "random", "--objective", f"latency.p99 < {bound}ms"
    )
    (choice,) = result.choices
    share = partial(bad_share, most=most, delay=delay, room=room, bound=bound, requests=75_000)
    assert choice.gpus is not None
    assert share(30_000 / choice.gpus) <= 0.01
    assert share(30_000 / (choice.gpus - 2)) > 0.01
    assert result.gpu.most_per_s == pytest.approx(most * 1e3 / (1 + 0.1 * most), rel=0.03)
    assert result.doubt is None


def test_a_plan_of_a_batching_server_says_what_it_is(folder: Path) -> None:
    """In single requests, with the batcher in words; predictions for one GPU hold at the rates of the search."""
    result, printed = planned(folder / "batching.json", "--demand", "20000/s", "--spares", "1", checks=True)
    assert (result.gpu.batcher, result.gpu.batch, result.gpu.max_queue) == ("max=16,delay=2ms", 1, None)
    for words in (
        "1 context × 1 buffer · batcher max=16,delay=2ms",
        "the smallest batch alone takes 1.",
        "measured batches",
        "requests/s of full batches with 1 in flight: ",
    ):
        assert words in printed
    lowest = min(result.checks, key=lambda check: check.rate_per_s or 0)  # the others are near saturation
    assert lowest.within
    needed = {choice.routing: choice.needed or 0 for choice in result.choices}
    assert needed["least-outstanding"] <= needed["random"]
    bounded, printed = planned(folder / "bounded.json", "--demand", "5000/s", "--routing", "random", checks=True)
    lowest = min(bounded.checks, key=lambda check: check.rate_per_s or 0)
    assert lowest.within is not False
    assert abs(lowest.error or 1) < 0.1
    assert "batcher max=4,delay=1ms · at most 16 waiting" in printed
    page = loadtrt("report", folder / "plan.json", "-o", folder / "plan.html", "--force")
    assert page.returncode == 0, page.stderr


def test_a_trace_and_stages_are_demands_on_batching_servers(folder: Path) -> None:
    """As on others."""
    trace = folder / "trace.csv"
    instants = np.cumsum(np.random.default_rng(3).exponential(1 / 3000, 6000))
    trace.write_text("".join(f"{at:.9f}\n" for at in instants))
    for demand in (("--trace", str(trace)), ("--stages", "1000/s:1h, 3000/s:1h")):
        result, _ = planned(folder / "batching.json", *demand, "--routing", "least-outstanding")
        assert [choice.gpus for choice in result.choices] == [1]
        grown, _ = planned(folder / "batching.json", *demand, "--growth", "250%", "--routing", "random")
        assert grown.choices[0].gpus == 2


def test_dropped_requests_are_bad_ones(folder: Path) -> None:
    """At 1.3 times what one GPU serves, few wait long and many are dropped: no quantile is a time."""
    result, _ = planned(folder / "bounded.json", "--demand", "3700/s", "--routing", "random")
    (choice,) = result.choices
    assert (choice.gpus or 0) > 1
    lone = [tried for tried in choice.tried if tried.gpus == 1]
    assert [item.value_ns for tried in lone for item in tried.objectives] in ([], [None])


@pytest.mark.parametrize(
    ("objective", "sentence"),
    [
        ("latency.p99 < 3ms", "requests wait the batcher's delay of 2.00 ms for others"),
        ("latency.p99 < 1ms", "requests wait the batcher's delay of 2.00 ms for others"),
    ],
)
def test_a_delay_that_leaves_no_room_is_told(objective: str, sentence: str, folder: Path) -> None:
    """More GPUs would have fewer requests each, which wait longer."""
    done = loadtrt("plan-capacity", folder / "batching.json", "--demand", "20000/s", "--objective", objective)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert sentence in done.stderr


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("capacity", "--objective", "latency.p99 < 20ms"), "capacity measured no closed loop: cannot read plan"),
        (("sweep", "--contexts", "1,2"), "the sweep measured nothing: cannot read plan"),
    ],
)
def test_a_file_of_nothing_says_why(command: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    """It has the failure, which is what a plan from it fails by."""
    file = tmp_path / "file.json"
    assert loadtrt(*command, "--engine", tmp_path / "missing.plan", "--json", file).returncode == 2
    done = loadtrt("plan-capacity", file, "--demand", "2000/s")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert sentence in done.stderr


def test_a_batcher_is_planned_from_a_search_alone(folder: Path, tmp_path: Path) -> None:
    """A sweep and runs with a batcher have no closed loops of its batches; a search that ended early too few."""
    swept, ran = tmp_path / "sweep.json", tmp_path / "run.json"
    common = ("--engine", DEVICE, "--warmup", "0", "--quiet", "--duration", "1s", "--objective", "latency.p99 < 20ms")
    assert loadtrt("sweep", *common, *BATCHING, "--rate", "500/s", "--json", swept).returncode in {0, 98}
    assert loadtrt("run", *common, *BATCHING, "--rate", "500/s", "--json", ran).returncode in {0, 98}
    for file, word in ((swept, "sweep"), (ran, "set of runs")):
        done = loadtrt("plan-capacity", file, "--demand", "2000/s")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert f"the {word} has a batcher, which a plan knows from closed loops of batches of each size" in done.stderr
    whole = read_result(CapacityResult, folder / "batching.json")
    (only,) = whole.candidates
    cut = only.model_copy(update={"trials": only.trials[:3]})
    part = tmp_path / "part.json"
    part.write_text(whole.model_copy(update={"outcome": "interrupted", "candidates": (cut,)}).model_dump_json())
    done = loadtrt("plan-capacity", part, "--demand", "2000/s")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "a plan needs closed loops of batches of each size with one in flight, which the search did" in done.stderr
