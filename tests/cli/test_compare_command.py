"""`loadtrt compare`: two runs or two profiles, of loadtrt or of trtexec, side by side."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from layer_sides import each, profile_file
from loadtrt.cli.compare import command
from loadtrt.cli.main import cli
from loadtrt.engines.plan_facts import parse_layers
from loadtrt.errors import UsageError
from loadtrt.report.plain import TABLE_WIDTH, WIDTH
from loadtrt.report.trtexec import layer_info_json, profile_json
from loadtrt.stats.profiles import compare_profiles
from runs_by_hand import model_in, with_changes

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.results.engine_info import Layer

    Save = Callable[[str, Any], str]

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """run.json of 2000 requests that take 1 ms, and of 40 that take 2 ms, in a closed loop; in virtual time."""
    found = {}
    for name, service, requests in (("fast", "1ms", 2000), ("slow", "2ms", 40)):
        path = tmp_path_factory.mktemp("runs") / f"{name}.json"
        engine = f"simulated:service={service},clock=virtual"
        arguments = ["run", "--engine", engine, "--warmup", "0", "--requests", requests, "--quiet", "--json", path]
        CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False, standalone_mode=False)
        found[name] = json.loads(path.read_text())
    return found


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Save:
    """Writes text, or else JSON, into the working folder, and gives the file's name."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, content: Any) -> str:
        Path(name).write_text(content if isinstance(content, str) else json.dumps(content))
        return name

    return write


def _compare(*arguments: str) -> str:
    """The text, whose lines are no longer than they may be: 80 columns, and 100 in tables of layers, but for names that
    were cut and must be distinguished from others."""
    text = CliRunner().invoke(command, arguments, catch_exceptions=False).stdout
    runs, _, layers = text.partition("\nTwo profiles")
    assert max(map(len, runs.splitlines()), default=0) <= WIDTH
    assert all(len(line) <= TABLE_WIDTH or "…" in line for line in layers.splitlines())
    return text


def _rows(text: str) -> dict[str, list[str]]:
    """The table's cells by their label, without intervals; a cell has single blanks in it."""
    rows = (line.split("  ") for line in text.splitlines() if "  " in line.strip())
    cells = ([cell.strip() for cell in row if cell.strip()] for row in rows)
    return {row[0]: row[1:4] for row in cells if row}


def _times(
    count: int, compute_ms: float = 2.0, period_ms: float = 4.0, first_ms: float = 500.0, digits: int = 6
) -> str:
    """As trtexec prints them, six digits, or as loadtrt does, nine: copies of 0.5 and 0.25 ms, and enqueues of 0.02 ms
    on another clock."""

    def query(number: int) -> str:
        start = first_ms + period_ms * number
        h2d, compute, d2h = 0.5, compute_ms + 0.001 * number, 0.250004
        stamps = [start - 0.1, start - 0.08, start, start + h2d, start + h2d, start + h2d + compute]
        stamps += [start + h2d + compute, start + h2d + compute + d2h, h2d, compute, d2h, h2d + compute + d2h]
        keys = ["startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs", "startD2hMs"]
        keys += ["endD2hMs", "h2dMs", "computeMs", "d2hMs", "latencyMs"]
        return "{ " + ", ".join(f'"{key}" : {value:.{digits}g}' for key, value in zip(keys, stamps, strict=True)) + " }"

    return "[\n  " + "\n, ".join(query(number) for number in range(count)) + "\n]\n"


def test_two_runs(measured: dict[str, dict[str, Any]], save: Save) -> None:
    """Each number is the run's own, B/A their quotient, and "–" what 40 requests cannot tell."""
    text = _compare(save("a.json", measured["fast"]), save("b.json", measured["slow"]))
    rows = _rows(text)
    assert rows["requests/s"] == ["1 000", "500", "0.500"]
    assert rows["device p50"] == ["1.00 ms", "2.00 ms", "2.000"]
    assert rows["device p90"] == ["1.00 ms", "–", "–"]
    assert rows["compute mean"] == ["1.00 ms", "2.00 ms", "2.000"]
    assert rows["latency p50"][0] == "2.00 ms"  # two buffer sets: each waits for the one before
    assert not [row for row in rows if row.startswith("h2d")]  # the simulated engine has no copies
    assert "A  a.json: simulated:service=1ms,clock=virtual, 2 000 requests, batch 1" in text
    assert "different: service 1.00 ms / 2.00 ms\n" in text
    assert "–: not known" not in _compare("a.json", "a.json")


def test_settings_that_differ_are_named(measured: dict[str, dict[str, Any]], save: Save) -> None:
    """These alone: contexts, batch, mode, ...; batches tell requests from inferences."""
    other = json.loads(json.dumps(measured["fast"]))
    next(iter(other["config"]["models"].values()))["contexts"] = 4
    model = model_in(other)
    model["engine"] |= {"batch": 16, "mode": {**model["engine"]["mode"], "graph": "yes"}}
    model["throughput"]["inferences_per_s"] = 16_000.0
    text = _compare(save("a.json", measured["fast"]), save("b.json", other))
    assert "different: batch 1 / 16 · contexts 1 / 4 · graph – / yes\n" in text
    assert _rows(text)["inferences/s"] == ["1 000", "16 000", "16.000"]
    older, newer = (json.loads(json.dumps(measured["fast"])) for _ in range(2))
    for of_gpu in (older, newer):
        model_in(of_gpu)["engine"]["kind"] = "tensorrt"
    model_in(newer)["engine"]["mode"]["hardware queues"] = "32"
    text = _compare(save("old.json", older), save("new.json", newer))
    assert "different: hardware queues 8 / 32\n" in text  # an older run has CUDA's default
    model_in(newer)["engine"] |= {
        "kind": "simulated",
        "mode": {**model_in(older)["engine"]["mode"], "device times": "off"},
    }
    text = _compare(save("timed.json", measured["fast"]), save("untimed.json", newer))
    assert "different: device times on / off\n" in text


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (
            {"valid": False, "problems": [{"kind": "late", "evidence": "it was late", "remedy": "wait"}]},
            "B: INVALID: it was late",
        ),
        ({"outcome": "interrupted"}, "B: interrupted: what was measured until then is shown"),
        (
            {"throughput": {"requests_per_s": 50.0, "inferences_per_s": 50.0, "offered_per_s": 50.0}},
            "B: offered 50.0 requests/s",
        ),
    ],
)
def test_what_a_reader_must_know_of_a_run(
    change: dict[str, Any], note: str, measured: dict[str, dict[str, Any]], save: Save
) -> None:
    """A run that proves little says so."""
    text = _compare(save("a.json", measured["fast"]), save("b.json", with_changes(measured["fast"], change)))
    assert note in text


def test_a_metric_that_a_run_does_not_have(measured: dict[str, dict[str, Any]], save: Save) -> None:
    """It is unknown, whatever its phases would add up to."""
    old = json.loads(json.dumps(measured["fast"]))
    del model_in(old)["metrics"]["device"]
    text = _compare(save("a.json", old), save("b.json", measured["fast"]))
    assert _rows(text)["device p50"] == ["–", "1.00 ms", "–"]


def test_two_files_of_times(save: Save) -> None:
    """Throughput = n / (last endD2h − first startH2d), not by the clock of Enq; device is latencyMs."""
    text = _compare(save("a.json", _times(100)), save("b.json", _times(600, compute_ms=1.0, period_ms=2.0)))
    rows = _rows(text)
    assert rows["requests/s"][:2] == ["251", "500"]  # 100 / (99 × 4 + 2.849) ms, 600 / (599 × 2 + 2.349) ms
    assert rows["device p50"] == ["2.80 ms", "2.05 ms", "0.732"]
    assert rows["h2d mean"] == ["500 µs", "500 µs", "1.000"]
    assert rows["device p99"] == ["–", "2.34 ms", "–"]
    assert "latency p50" not in rows
    assert "neither batch nor mode" in " ".join(text.split())
    assert "A, B" not in text
    assert "enqueue is all calls" not in text  # one writer, one meaning


def test_coarse_enqueues_have_a_mean_alone(save: Save) -> None:
    """Beyond 1 s six digits are 10 µs: enqueues of 20 µs have a mean, and no percentiles."""
    text = _compare(save("a.json", _times(600)), save("b.json", _times(100)))
    rows = _rows(text)
    assert rows["enqueue p50"] == ["–", "20.0 µs", "–"]
    assert rows["enqueue mean"][0] == "20.0 µs"
    assert "A: enqueues are stamped in steps of 10.0 µs" in text
    assert "B: " not in text


def test_a_warm_up_may_be_in_the_times(save: Save) -> None:
    """trtexec up to 8.4 writes it; later ones begin after it."""
    text = _compare(save("a.json", _times(50, first_ms=2.5)), save("b.json", _times(50)))
    assert "A: starts within 200 ms: with warm-up, if trtexec up to 8.4 wrote it" in text
    assert "B: " not in text


def test_a_run_and_times(measured: dict[str, dict[str, Any]], save: Save) -> None:
    """What both measure stands side by side, and what they mean differently is said."""
    text = _compare(save("run.json", measured["fast"]), save("times.json", _times(100)))
    rows = _rows(text)
    assert rows["compute p50"] == ["1.00 ms", "2.05 ms", "2.049"]
    assert rows["h2d p50"] == ["0 ns", "500 µs", "–"]
    assert "latency p50" not in rows
    assert "\nfor loadtrt enqueue is all calls of a request" in text


def test_a_file_that_loadtrt_may_have_written(measured: dict[str, dict[str, Any]], save: Save) -> None:
    """Whose terms its times are in depends on who wrote it, which stamps to the nanosecond do not tell: "if"."""
    save("own.json", _times(100, digits=9))
    run, trtexec = save("run.json", measured["fast"]), save("trtexec.json", _times(100))
    assert "\nif trtexec wrote B: for loadtrt enqueue is all calls of a request" in _compare(run, "own.json")
    assert "\nif trtexec wrote A: for loadtrt enqueue is all calls" in _compare("own.json", run)
    assert "\nif loadtrt wrote B: for loadtrt enqueue is all calls" in _compare(trtexec, "own.json")
    assert "enqueue is all calls" not in _compare("own.json", "own.json")
    assert "trtexec's times" not in _compare("own.json", "own.json")


def _layers(name: str) -> tuple[str, tuple[Layer, ...]]:
    text = gzip.decompress((DATA / f"googlenet86_{name}.layers.json.gz").read_bytes()).decode()
    return layer_info_json(text), parse_layers(text)


def test_two_profiles_in_the_mode_that_both_have(save: Save) -> None:
    """A profile of loadtrt may hold a graph pass and a plain one: like is compared with like."""
    _, layers = _layers("fp32")
    a = profile_file(each(layers, "graph", 1000.0), each(layers, "plain", 3000.0))
    text = _compare(save("a.json", a), save("b.json", profile_file(each(layers, "plain", 1500.0))))
    assert text.count("plain, 72 layers") == 2
    assert "\n  A  a.json: a.plan, batch 16, plain, 72 layers, 1 inference\n" in text
    assert "\n  sum of layers under the profiler: 216 µs → 108 µs, 108 µs saved, 2.00× as fast\n" in text  # 72 × 3 µs


def test_profiles_tell_what_they_are_of(measured: dict[str, dict[str, Any]], save: Save) -> None:
    """Batch, device, runtime and mode that differ, and profiles that ended early, whether the profile is a file of its
    own or in a run."""
    profile = json.loads(profile_file(each(_layers("fp32")[1], "plain", 1000.0)))
    a = save("a.json", profile)
    other = profile | {"engine": profile["engine"] | {"batch": 4}, "outcome": "interrupted"}
    for name, content in (("b.json", other), ("run.json", with_changes(measured["fast"], {"profile": other}))):
        text = _compare(a, save(name, content))
        assert "\n  different: batch 16 / 4\n" in text
        assert "\n  B: interrupted, what was timed until then is shown\n" in text
    assert "different" not in _compare(a, a)


def test_a_profile_of_trtexec_with_layer_information(save: Save) -> None:
    """Names alone cannot tell types and precisions, and the option that would is named; layer information can, for
    either side."""
    info, layers = _layers("fp16")
    a = save("a.json", profile_json(each(layers, "plain", 1000.0)))
    b = save("b.json", profile_file(each(_layers("fp32")[1], "plain", 1000.0)))
    save("layers.json", info)
    for sides, unknown, known in (((a, b), "?→fp32", "fp16→fp32"), ((b, a), "fp32→?", "fp32→fp16")):
        option = f"--layer-info-{'ab'[sides.index(a)]}"
        text = _compare(*sides)
        assert f"  {unknown}  " in text
        assert option in text
        assert "\ntype  " not in text
        text = _compare(*sides, option, "layers.json")
        assert f"  {known}  " in text
        assert "?" not in text
        assert "--layer-info" not in text
        assert "\ntype  " in text


def test_runs_that_were_profiled(measured: dict[str, dict[str, Any]], save: Save) -> None:
    """Two such runs are compared as runs and layer by layer; such a run and a profile, layer by layer."""
    profile = json.loads(profile_file(each(_layers("fp16")[1], "plain", 1000.0)))
    run = save("run.json", with_changes(measured["fast"], {"profile": profile}))
    both = _compare(run, run)
    assert "requests/s" in both
    assert "76 layers" in both
    layers = _compare(run, save("profile.json", profile))
    assert "requests/s" not in layers
    assert "76 layers" in layers


@pytest.mark.parametrize(
    ("a", "b", "options", "sentence"),
    [
        ("run", "profile", (), "run.json is a run that was not profiled and profile.json is a profile"),
        ("trtexec", "times", (), "trtexec.json is a profile and times.json is a run that was not profiled"),
        ("layers", "profile", (), "layers.json is layer information (--exportLayerInfo), which has no times"),
        ("comparison", "profile", (), "comparison.json is a comparison of two profiles by loadtrt already"),
        ("sidecar", "profile", (), "sidecar.json is what loadtrt keeps beside a plan that it built, which"),
        ("later", "profile", (), 'later.json has the schema "loadtrt.run/9", which this loadtrt does not know'),
        ("foreign", "profile", (), "foreign.json is JSON, but neither a run of loadtrt, "),
        ("run", "nowhere", (), "cannot read nowhere.json: No such file"),
        ("run", "old", (), "old.json does not fit its schema loadtrt.run/1: models: it is missing"),
        ("profile", "bad", (), "bad.json does not fit its schema loadtrt.profile/1"),
        ("profile", "hollow", (), "hollow.json is a profile without any pass"),
        ("run", "run", ("--layer-info-a", "layers.json"), "--layer-info-a is for a profile in trtexec's format"),
        ("trtexec", "trtexec", ("--layer-info-b", "run.json"), "run.json is a run of loadtrt: give layer information"),
    ],
)
def test_what_cannot_be_compared(
    a: str, b: str, options: tuple[str, ...], sentence: str, measured: dict[str, dict[str, Any]], save: Save
) -> None:
    """Exit code 2 and one sentence that names the file."""
    info, layers = _layers("fp16")
    profile = each(layers, "plain", 1000.0)
    save("run.json", measured["fast"])
    save("profile.json", profile_file(profile))
    save("hollow.json", profile_file())
    save("trtexec.json", profile_json(profile))
    save("times.json", _times(3))
    save("layers.json", info)
    save("old.json", {key: value for key, value in measured["fast"].items() if key != "models"})
    save("bad.json", {"schema_version": "loadtrt.profile/1"})
    save("comparison.json", compare_profiles(profile, profile).model_dump_json())
    save("sidecar.json", {"schema_version": 1, "loadtrt_version": "0.1.0", "plan_sha256": "ab"})
    save("later.json", {"schema_version": "loadtrt.run/9"})
    save("foreign.json", {"schema_version": 3})
    found = CliRunner().invoke(command, [f"{a}.json", f"{b}.json", *options])
    assert isinstance(found.exception, UsageError)
    assert found.exception.exit_code == 2
    assert sentence in str(found.exception)
    assert len(str(found.exception).splitlines()) == 1
    assert found.stdout == ""


def test_two_files_are_needed() -> None:
    """One or three are a usage error of click's."""
    assert CliRunner().invoke(command, ["a.json"]).exit_code == 2
    assert CliRunner().invoke(command, ["a.json", "b.json", "c.json"]).exit_code == 2
