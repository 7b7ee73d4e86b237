"""`loadtrt plan-capacity` for several models, against simulated devices that they share and against other searches."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_line import loadtrt
from loadtrt.report.plain import terminal_text
from loadtrt.report.result_files import read_result
from loadtrt.results.placement_result import PlacementResult
from loadtrt.results.run_result import RunResult
from loadtrt.sizing.covering import fewest_gpus

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

# Behind one queue: M/M/1, whose p99 is ln 100 / (μ − λ) of all models together, and so the same for each.
QUEUE = "simulated:service=1ms,distribution=exponential,device=g,sharing=priority,clock=virtual"
OBJECTIVE = ("--objective", "latency.p99 < 20ms")
MOST = 1000 - math.log(100) / 0.02  # requests/s that meet it: 770


def plan(folder: Path, *arguments: str | Path, code: int = 0) -> PlacementResult:
    done = _plan(folder, *arguments)
    assert done.returncode == code, done.stderr
    return read_result(PlacementResult, folder / "plan.json")


def _plan(folder: Path, *arguments: str | Path) -> CompletedProcess[str]:
    files = (folder / "a.json", folder / "b.json")
    return loadtrt("plan-capacity", *files, *arguments, "--json", folder / "plan.json", "--force")


def demands(a: float, b: float) -> tuple[str, ...]:
    return ("--demand", f"a={a:g}", "--demand", f"b={b:g}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.json and b.json, capacities alone; aof.json and bof.json, beside each other; i.json, interference."""
    made = tmp_path_factory.mktemp("placement")
    search = ("capacity", "--warmup", "0", "--quick", "--time", "12s", "--quiet", *OBJECTIVE)
    loadtrt(*search, "--engine", QUEUE, "--json", made / "a.json")
    models = ("--model", f"a='{QUEUE}'", "--model", f"b='{QUEUE}',rate=220/s,seed=5")
    loadtrt(*search, *models, "--of", "a", "--json", made / "aof.json")
    shutil.copy(made / "a.json", made / "b.json")  # the models are one, and so is what each does to the other
    mirrored = (made / "aof.json").read_text().replace('"of": "a"', '"of": "b"').replace('"b": {', '"a": {')
    (made / "bof.json").write_text(mirrored)
    models = ("--model", f"a='{QUEUE}'", "--model", f"b='{QUEUE}',seed=5")
    options = ("--load", "20%", "--neighbour", "30%", "--no-verify", "--duration", "5s", "--rounds", "3")
    loadtrt("interference", *models, "--warmup", "0", *options, "--quiet", "--json", made / "i.json")
    return made


def beside(folder: Path, *names: str) -> list[str | Path]:
    return [word for name in names or ("aof", "bof") for word in ("--together", folder / f"{name}.json")]


# --- laws


@pytest.mark.parametrize("sources", [("aof", "bof"), ("i",)])
def test_a_placement_meets_its_objectives_when_it_is_run(folder: Path, sources: tuple[str, ...]) -> None:
    """On the simulated device, at the rates that the plan gives a GPU; and by the closed form."""
    result = plan(folder, *demands(180, 150), *beside(folder, *sources))
    (group,) = result.together
    assert (result.apart, result.gpus, group.gpus) == (2, 1, 1)
    assert group.rates_per_s == {"a": pytest.approx(180), "b": pytest.approx(150)}
    limits = {name: limit.rate_per_s for name, limit in group.limits.items()}
    assert sum(limits.values()) < MOST
    file = folder / "run.json"
    models = [
        word
        for name, rate in limits.items()
        for word in ("--model", f"{name}='{QUEUE}',rate={rate}/s,seed={ord(name)},{OBJECTIVE[0][2:]}='{OBJECTIVE[1]}'")
    ]
    loadtrt("run", *models, "--duration", "30s", "--warmup", "0", "--quiet", "--json", file, "--force")
    for model in read_result(RunResult, file).models.values():
        (share,) = model.objectives
        assert (share.bad or 0.0) < 0.01


def test_processes_are_a_way_of_their_own(folder: Path) -> None:
    """What was measured in processes allows nothing in one process; the plan says which of both it is for."""
    content = json.loads((folder / "i.json").read_text())
    for cell, way in zip(content["cells"], ("processes", "streams"), strict=True):
        cell["share"] = way
    (folder / "apart.json").write_text(json.dumps(content))
    plain, apart = (plan(folder, *demands(180, 150), *beside(folder, name)) for name in ("i", "apart"))
    words = [{way.shared.partition(":")[0] for way in result.measured} for result in (plain, apart)]
    assert words == [{"plain streams"}, {"processes of their own"}]


def test_what_is_placed_covers_the_demands_within_what_was_measured(folder: Path) -> None:
    result = plan(folder, *demands(3000, 900), *beside(folder), "--growth", "10%", "--headroom", "20%")
    for name, model in result.models.items():
        carried = [(group.gpus, group.rates_per_s.get(name, 0.0)) for group in result.together]
        assert sum(gpus * rate for gpus, rate in carried) == pytest.approx(model.demand.planned_per_s)
    for group in result.together:
        for name, limit in group.limits.items():
            assert group.rates_per_s[name] <= limit.rate_per_s * (1 + 1e-9)
    assert sum(group.gpus for group in result.together) == result.gpus
    assert result.proven_least == result.gpus
    assert result.gpus_least <= result.gpus <= result.apart
    assert result.models["a"].demand.planned_per_s == pytest.approx(3000 * 1.1 * 1.2)


def test_more_demand_never_needs_fewer_and_together_is_never_more_than_apart(folder: Path) -> None:
    counts = {}
    for a, b in itertools.product((50, 400, 2500), (50, 900)):
        result = plan(folder, *demands(a, b), *beside(folder))
        assert result.gpus <= result.apart
        counts[a, b] = result.gpus, result.apart
    for one, other in itertools.combinations(counts, 2):
        if one[0] <= other[0] and one[1] <= other[1]:
            assert counts[one][0] <= counts[other][0]
            assert counts[one][1] <= counts[other][1]
    assert any(together < apart for together, apart in counts.values())


def test_the_utilisation_bounds_what_they_have_together(folder: Path) -> None:
    """Of each GPU, by the throughputs alone; a tenth of them is a hundred requests a second."""
    result = plan(folder, *demands(180, 150), *beside(folder), "--max-utilisation", "10%")
    for group in result.together:
        assert sum(limit.rate_per_s for limit in group.limits.values()) == pytest.approx(100, rel=0.05)
    assert result.gpus == 4


@given(
    st.lists(st.lists(st.integers(0, 6), min_size=2, max_size=2), min_size=0, max_size=4),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_no_choice_of_fewer_gpus_is_enough(kinds: list[list[int]], alone: tuple[int, int], wanted: list[int]) -> None:
    """Against all choices."""
    carried = [[alone[0], 0], [0, alone[1]], *kinds]
    cover = fewest_gpus(carried, wanted)
    totals = [sum(count * kind[at] for count, kind in zip(cover.counts, carried, strict=True)) for at in (0, 1)]
    assert all(total >= want for total, want in zip(totals, wanted, strict=True))
    assert cover.proven == sum(cover.counts)
    sums = {(0, 0)}
    for gpus in itertools.count(1):
        sums = {(min(a + x, wanted[0]), min(b + y, wanted[1])) for a, b in sums for x, y in carried}
        if tuple(wanted) in sums:
            assert sum(cover.counts) == gpus
            break


def test_a_thousand_gpus_are_found_at_once() -> None:
    """Of three demands and many kinds; no fewer are proven to be enough than the linear program says."""
    kinds = [[10.0, 0, 0], [0, 7.0, 0], [0, 0, 5.0]] + [[9 - n, 0.6 * n, 0.3 * n] for n in range(1, 9)]
    cover = fewest_gpus(kinds, [4000.0, 1500.0, 900.0])
    assert math.ceil(cover.linear - 1e-9) <= cover.proven <= sum(cover.counts) <= cover.linear + 3


# --- what is not known


def test_what_was_not_measured_is_not_guessed(folder: Path) -> None:
    """One direction alone says nothing of the other model."""
    for sources in ((), ("aof",)):
        result = plan(folder, *demands(180, 150), *(beside(folder, *sources) if sources else ()))
        assert (result.gpus, result.unmeasured) == (2, (("a", "b"),))
        assert "a and b were not both measured beside each other" in " ".join(terminal_text(result).split())


def test_a_measurement_that_is_too_short_is_said_to_be(folder: Path, tmp_path: Path) -> None:
    """One round has no interval; it may be enough."""
    content = json.loads((folder / "i.json").read_text())
    for cell in content["cells"]:
        cell["rounds"] = cell["rounds"][:1]
    (tmp_path / "short.json").write_text(json.dumps(content))
    result = plan(folder, *demands(180, 150), "--together", tmp_path / "short.json")
    assert (result.gpus, result.gpus_least, result.unmeasured) == (2, 1, ())
    assert "they may at a " in result.reason
    assert "measure for longer" in result.reason


def test_a_measurement_that_ended_before_its_cells_tells_nothing(folder: Path, tmp_path: Path) -> None:
    """As after Ctrl-C, with one closed loop."""
    content = json.loads((folder / "i.json").read_text())
    content |= {"cells": [], "alone": {"a": content["alone"]["a"]}, "outcome": "interrupted"}
    (tmp_path / "begun.json").write_text(json.dumps(content))
    result = plan(folder, *demands(180, 150), "--together", tmp_path / "begun.json")
    assert (result.gpus, result.apart, len(result.measured)) == (2, 2, 0)


def test_interference_tells_nothing_of_other_objectives(folder: Path, tmp_path: Path) -> None:
    """p99.9 is not in its file; what it tells of the other model stands."""
    text = (folder / "a.json").read_text().replace("latency.p99 < 20ms", "latency.p99.9 < 40ms")
    (tmp_path / "a.json").write_text(text)
    files = (tmp_path / "a.json", folder / "b.json")
    given = (*demands(180, 150), *beside(folder, "i"), "--json", tmp_path / "plan.json")
    done = loadtrt("plan-capacity", *files, *given)
    assert done.returncode == 0, done.stderr
    result = read_result(PlacementResult, tmp_path / "plan.json")
    assert (result.gpus, result.unmeasured) == (2, (("a", "b"),))
    assert any("left out for a: it has latency.p50 and latency.p99, and not 'latency.p99.9 < 40ms'" in note for note in
               result.notes)  # fmt: skip


def test_an_overloaded_neighbour_meets_nothing(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "i.json").read_text())
    for cell in content["cells"]:
        cell["neighbour_overloaded"] = cell["overloaded"] = True
    (tmp_path / "over.json").write_text(json.dumps(content))
    result = plan(folder, *demands(180, 150), "--together", tmp_path / "over.json")
    assert (result.gpus, result.gpus_least, result.measured) == (2, 2, ())


def test_other_lanes_are_not_put_together(folder: Path, tmp_path: Path) -> None:
    """a beside a b of one context, b beside an a of two: no GPU was measured on which both are so."""
    content = json.loads((folder / "bof.json").read_text())
    content["beside"]["a"]["contexts"] = 2
    (tmp_path / "bof.json").write_text(json.dumps(content))
    result = plan(folder, *demands(180, 150), *beside(folder, "aof"), "--together", tmp_path / "bof.json")
    assert (result.gpus, result.unmeasured) == (2, (("a", "b"),))


# --- the command line, and its results


def test_the_answer_in_words(folder: Path) -> None:
    done = _plan(folder, *demands(360, 300), *beside(folder), "--spares", "1", "--gpu-price", "2")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "GPUs for a and b on simulated" in text
    assert "a month" in text
    assert "plain streams: a 1 context; b 1 context" in text
    table = read_result(PlacementResult, folder / "plan.json").to_pandas()
    assert {"gpus", "model", "rate_per_s", "limit_per_s"} <= set(table.columns)


def test_three_models_share_a_gpu(folder: Path, tmp_path: Path) -> None:
    """As each was measured beside both others."""
    names, words = ("a", "b", "c"), []
    for name in names:
        content = json.loads((folder / "aof.json").read_text())
        neighbour = content["beside"].pop("b") | {"rate": 110.0}
        content |= {"of": name, "beside": {other: neighbour for other in names if other != name}}
        (tmp_path / f"{name}of.json").write_text(json.dumps(content))
        shutil.copy(folder / "a.json", tmp_path / f"{name}.json")
        words += ["--demand", f"{name}=100", "--together", f"{name}of.json"]
    for asked, gpus in ((words, 1), ([*words, "--growth", "20%"], 2), (words[:-2], 3)):
        files = (f"{name}.json" for name in names)
        done = loadtrt("plan-capacity", *files, *asked, "--json", "plan.json", "--force", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        result = read_result(PlacementResult, tmp_path / "plan.json")
        assert (result.gpus, result.apart) == (gpus, 3)
        assert "GPUs for a, b and c on" in done.stdout
        assert set(result.unmeasured) == ({("a", "c"), ("b", "c")} if gpus == 3 else set())


def test_names_steer_no_terminal(folder: Path) -> None:
    name = "\x1b[31m<b>x\n|"
    given = (f"{name}={folder / 'a.json'}", folder / "b.json", "--demand", f"{name}=100", "--demand", "b=100")
    done = loadtrt("plan-capacity", *given)
    assert done.returncode == 0, done.stderr
    assert all(line.isprintable() for line in done.stdout.splitlines())
    for bad in (("--demand", f"{name}=x", "--demand", "b=1"), ("--demand", f"{name}=1", "--demand", "c=1")):
        done = loadtrt("plan-capacity", *given[:2], *bad)
        assert done.returncode == 2
        assert done.stderr.strip().isprintable()


def test_files_are_named_by_what_they_are_called_or_by_a_name(folder: Path) -> None:
    named = (f"x={folder / 'a.json'}", folder / "b.json", "--demand", "x=100", "--demand", "b=100")
    done = loadtrt("plan-capacity", *named, "--json", folder / "named.json", "--force")
    assert done.returncode == 0, done.stderr
    assert list(read_result(PlacementResult, folder / "named.json").models) == ["x", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("a.json b.json --demand a=100", "for the others; for one model write --demand RATE"),
        ("a.json b.json --demand 100 --demand 200", "--demand is given twice (100, 200)"),
        ("a.json b.json --demand a=100 --demand 200", "--demand 200 names no model: write NAME=RATE"),
        ("a.json b.json --demand a=100 --demand a=200", "--demand is given twice for a"),
        ("a.json b.json --demand a=fast --demand b=1", "--demand a: 'fast' is not a rate"),
        ("a.json --demand a=100 --demand b=1", "b has a demand and no file"),
        ("a.json b.json --demand a=100 --demand c=1", "b.json measures no model that has a demand"),
        ("a.json a=b.json --demand a=100 --demand b=1", "a.json and b.json are both of a"),
        ("a.json b=aof.json --demand a=1 --demand b=1", "aof.json measures b beside b: give it as --together"),
        ("a.json b=i.json --demand a=1 --demand b=1", "i.json is not a search for capacity"),
        ("a.json b.json --demand a=1 --demand b=1 --together a.json", "a.json measures one model alone"),
        ("a.json b.json --demand a=1 --demand b=1 --together no.json", "no.json"),
        (
            "a.json x=b.json --demand a=1 --demand x=1 --together i.json",
            "i.json measures a, b, of which fewer than two",
        ),
        ("a.json x=b.json --demand a=1 --demand x=1 --together aof.json", "aof.json has b, which has no demand"),
        ("a.json b.json --demand a=1 --demand b=1 --trace t.csv", "--trace is for one model"),
        ("a.json b.json --demand a=1 --demand b=1 --routing random", "--routing is for one model"),
        ("a.json b.json --demand a=1 --demand b=1 --measure", "--measure is for one model"),
        ("a.json b.json --demand a=1 --demand b=1 --duration 9s", "--duration is for one model"),
        ("a.json b.json --demand a=1 --demand b=1 --allow-host-code", "--allow-host-code is for one model"),
        ("a.json b.json --demand a=1 --demand b=1 --spares -1", "spares"),
        ("a.json b.json --demand a=9M --demand b=1", "the demands need more than 2000 GPUs"),
        ("a.json b.json --together i.json", "a plan of several models needs the demand of each"),
        ("a.json b.json --demand 100", "of several models give the demand of each, as --demand NAME=RATE"),
    ],
)
def test_bad_arguments(folder: Path, arguments: str, message: str) -> None:
    done = loadtrt("plan-capacity", *arguments.split(), "--quiet", folder=folder)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("aof.json", {"objectives": ["latency.p99 < 30ms"]}, "are for other objectives of a"),
        ("aof.json", {"of": None}, "does not say which of the models it is of"),
        ("i.json", {"arrivals": "constant"}, "was measured with constant arrivals: measure with --arrivals poisson"),
    ],
)
def test_measurements_of_something_else(
    folder: Path, tmp_path: Path, file: str, change: dict[str, object], message: str
) -> None:
    other = tmp_path / file
    other.write_text(json.dumps(json.loads((folder / file).read_text()) | change))
    done = _plan(folder, *demands(1, 1), "--together", other)
    assert done.returncode == 2
    assert message in done.stderr


def test_another_engine_is_not_the_same_model(folder: Path, tmp_path: Path) -> None:
    text = (folder / "aof.json").read_text().replace("service=1ms", "service=2ms")
    (tmp_path / "aof.json").write_text(text)
    done = _plan(folder, *demands(1, 1), "--together", tmp_path / "aof.json")
    assert done.returncode == 2
    assert "measured a with another engine" in done.stderr
