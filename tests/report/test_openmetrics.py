"""`loadtrt export openmetrics`: an old run in Prometheus says what its run.json says."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from grafana import asking
from loadtrt.cli.export import command
from loadtrt.cli.main import cli
from loadtrt.errors import UsageError
from loadtrt.live.alerts import LAW_KINDS
from loadtrt.prometheus.families import FAMILIES, HISTOGRAMS
from loadtrt.records.records import METRICS
from loadtrt.report.openmetrics import openmetrics_text
from loadtrt.results.gpu_telemetry import GpuClient, GpuFacts, GpuInterval, GpuSharing, GpuTelemetry, SamplingCost
from loadtrt.results.run_result import RunResult
from loadtrt.units import SECOND_NS
from prometheus import promtool, running_prometheus
from runs_by_hand import changed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = 4


@pytest.fixture(scope="module")
def run_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than two lanes of 10 ms can serve: some requests are never sent. In virtual time."""
    path = tmp_path_factory.mktemp("runs") / "overload.json"
    arguments = ["run", "--engine", "simulated:service=10ms,clock=virtual", "--contexts", 2, "--rate", 300]
    arguments += ["--duration", f"{SECONDS}s", "--warmup", 0, "--drain", "100ms", "--objective", "latency.p99 < 500ms"]
    arguments += ["--quiet", "--json", path]
    CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False, standalone_mode=False)
    return path


@pytest.fixture(scope="module")
def result(run_json: Path) -> RunResult:
    """With the telemetry of a GPU."""
    plain = RunResult.model_validate_json(run_json.read_text())
    intervals = tuple(
        GpuInterval(
            start_ns=second.start_ns,
            duration_ns=SECOND_NS,
            readings=5,
            sm_clock_mean_hertz=1.98e9 - 1e8 * number,
            power_mean_watts=None if number == 1 else 600.0,
            energy_joules=600.0 + number,
            pcie_rx_bytes=10**9,
            pcie_tx_bytes=None if number == 2 else 10**6,
            throttle_shares={"sw_power_cap": 0.2} if number else {},
        )
        for number, second in enumerate(plain.model.intervals)
    )
    telemetry = GpuTelemetry(
        gpu=GpuFacts(name="NVIDIA H100", power_limit_watts=700.0),
        every_ns=SECOND_NS // 5,
        intervals=intervals,
        power_mean_watts=None,
        energy_joules=None,
        joules_per_inference=None,
        throttled_fraction=None,
        missing=(),
        cost=SamplingCost(readings=20, lost=0, seconds=0.1, fraction=0.02),
    )
    sharing = GpuSharing((GpuClient(77, memory_bytes=2**30, sm_ratio=0.25), GpuClient(78, sm_ratio=0.5)))
    return plain.model_copy(update={"telemetry": telemetry, "sharing": sharing})


def _series(text: str) -> dict[str, list[tuple[float, float]]]:
    """(Unix time, value) of each series."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value, instant = re.fullmatch(r"(.*}) (\S+) (\S+)", line).groups()  # type: ignore[union-attr]
            found.setdefault(name, []).append((float(instant), float(value)))
    return found


def _finder(text: str) -> Callable[[str], list[tuple[float, float]]]:
    series = _series(text)

    def find(pattern: str) -> list[tuple[float, float]]:
        """The points of the one series that the pattern finds."""
        (name,) = [name for name in series if re.search(pattern, name)]
        return series[name]

    return find


def test_counts_end_with_the_results(result: RunResult) -> None:
    """Each counter begins at 0, never falls and ends with what run.json says; so do histograms, in every bucket."""
    text = openmetrics_text(result)
    find = _finder(text)
    assert result.model.unserved
    for outcome in ("ok", "failed", "unserved", "dropped"):
        points = find(f'^loadtrt_requests_total.*lane="".*outcome="{outcome}"')
        assert points[-1][1] == getattr(result.model, outcome)
    assert [n for _, n in find('^loadtrt_requests_total.*"ok"')][1] == result.model.intervals[0].requests
    assert find("^loadtrt_inferences_total")[-1][1] == result.model.ok
    assert find("^loadtrt_objective_good_total")[-1][1] == result.model.objectives[0].good
    for metric, family in zip(METRICS, HISTOGRAMS, strict=True):
        assert find(f"^{family.name}_count")[-1][1] == result.model.metrics[metric.name].count
        assert find(rf'^{family.name}_bucket.*le="\+Inf"')[-1][1] == result.model.metrics[metric.name].count
        assert find(f"^{family.name}_sum")[-1][1] == result.model.histograms[metric.name]["sum_ns"] / SECOND_NS
    for name, points in _series(text).items():
        instants, reached = zip(*points, strict=True)
        assert list(instants) == sorted(set(instants)), name
        if re.match(r"\w+_(total|bucket|count|sum)\{", name):
            assert reached[0] == 0, name
            assert list(reached) == sorted(reached), name


def test_requests_that_were_dropped(result: RunResult) -> None:
    """An outcome of their own, and bad for every objective."""
    find = _finder(openmetrics_text(changed(result, dropped=50)))
    assert [n for _, n in find('^loadtrt_requests_total.*"dropped"')][::4][:1] == [0]
    assert find('^loadtrt_requests_total.*"dropped"')[-1][1] == 50
    assert (
        find("^loadtrt_objective_requests_total")[-1][1]
        == result.model.ok + result.model.failed + result.model.unserved + 50
    )


def test_problems_are_the_verdicts(result: RunResult) -> None:
    """At the end each kind is 1 where the result has that problem, as the exporter had it live."""
    find = _finder(openmetrics_text(result))
    active = {kind: find(f'^loadtrt_problem_active.*kind="{kind}"')[-1][1] for kind in LAW_KINDS}
    assert active == {kind: float(kind == "unserved") for kind in LAW_KINDS}


def test_seconds_are_the_intervals(result: RunResult) -> None:
    """Each second's quantiles stand at its end, and are not a number once the run is over; means are the interval's."""
    find = _finder(openmetrics_text(result))
    p99 = find('^loadtrt_latency_window_seconds.*quantile="0.99"')
    assert [value for _, value in p99[:-1]] == [(it.latency_p99_ns or 0) / SECOND_NS for it in result.model.intervals]
    assert p99[-1][1] != p99[-1][1]
    start = find("^loadtrt_start_time_seconds")[0][0]
    assert start == pytest.approx(datetime.fromisoformat(result.began).timestamp(), abs=0.0015)
    slow = result.model_copy(update={"phases": result.phases.model_copy(update={"load_ns": 90 * SECOND_NS})})
    assert openmetrics_text(slow) == openmetrics_text(result)  # `started` is after loading
    older = slow.model_copy(update={"began": ""})
    assert _finder(openmetrics_text(older))("^loadtrt_start_time_seconds")[0][0] == pytest.approx(start, abs=1.1)
    assert [round(instant - start, 3) for instant, _ in p99] == [*range(1, len(p99) + 1)]
    count, total = find("^loadtrt_queue_seconds_count"), find("^loadtrt_queue_seconds_sum")
    for number, interval in enumerate(result.model.intervals[:-1]):
        spent = total[number + 1][1] - total[number][1]
        mean_ns = spent / (count[number + 1][1] - count[number][1]) * SECOND_NS
        assert mean_ns == pytest.approx(interval.queue_mean_ns)


def test_longer_intervals_stand_at_their_ends(result: RunResult) -> None:
    """A day's are of 32 s, and the family says that its quantiles are."""
    text = openmetrics_text(changed(result, interval_ns=32 * SECOND_NS))
    p99 = _finder(text)('^loadtrt_latency_window_seconds.*quantile="0.99"')
    start = _finder(text)("^loadtrt_start_time_seconds")[0][0]
    assert [round(instant - start, 3) for instant, _ in p99] == [32 * place for place in range(1, len(p99) + 1)]
    assert "latencies of the last 32 s, within" in text
    assert "latencies of the last whole second, within" in openmetrics_text(result)


def test_the_gpu_is_told_as_far_as_it_is_known(result: RunResult) -> None:
    """A second without a number is not a number; a counter that missed one is left out, and so is what is not known."""
    text = openmetrics_text(result)
    find = _finder(text)
    assert [value for _, value in find('^loadtrt_gpu_clock_hertz.*domain="sm"')][:2] == [1.98e9, 1.88e9]
    power = [value for _, value in find("^loadtrt_gpu_power_watts")]
    assert (power[0], power[1] != power[1]) == (600.0, True)
    energy = [value for _, value in find("^loadtrt_gpu_energy_joules_total")]
    assert energy[:3] == [0, 600.0, 1201.0]
    assert [value for _, value in find("^loadtrt_gpu_throttle_active")][:2] == [0.0, 0.2]
    assert 'direction="rx"' in text
    assert 'direction="tx"' not in text
    assert "loadtrt_gpu_temperature" not in text
    assert "loadtrt_gpu" not in openmetrics_text(result.model_copy(update={"telemetry": None, "sharing": None}))


def test_others_on_the_gpu_are_told_at_the_end(result: RunResult) -> None:
    """Their number, memory and kernels; nothing where the driver did not tell."""
    find = _finder(openmetrics_text(result))
    for name, value in (("processes", 2), ("memory_bytes", 2**30), ("kernels_ratio", 0.75)):
        assert [number for _, number in find(f"^loadtrt_gpu_other_{name}")] == [value]
    untold = result.model_copy(update={"sharing": GpuSharing((GpuClient(77),))})
    assert "loadtrt_gpu_other_kernels_ratio" not in openmetrics_text(untold)


def test_names_and_labels_are_the_exporters(result: RunResult) -> None:
    """Every family is declared once, as the table has it, and is one of it, with its labels."""
    text = openmetrics_text(result, 'a "run"')
    declared = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert len(declared) == len(set(declared))
    assert set(declared) <= {(family.stem, family.kind) for family in FAMILIES}
    labels = {family.stem: set(family.labels) for family in FAMILIES if family.kind != "info"}
    for stem, its in labels.items():
        places = {"Hostname"} if stem.startswith("loadtrt_gpu_") else set()
        for found in re.findall(rf"^{stem}(?:_total|_bucket|_count|_sum)?{{(.*)}} \S+ \S+$", text, re.MULTILINE):
            assert set(re.findall(r'(\w+)="', found)) - {"le", "quantile"} - places == {"model", "run", *its}
    assert text.count('run="a \\"run\\""') == len(re.findall(r"^loadtrt", text, re.MULTILINE))


def test_each_instant_is_a_page_of_openmetrics(result: RunResult) -> None:
    """prometheus_client's parser takes it. Instant by instant: of several it drops all but the first buckets."""
    lines = openmetrics_text(result).splitlines()
    instants = {line.rsplit(" ", 1)[1] for line in lines if not line.startswith("#")}
    assert len(instants) == len(result.model.intervals) + 2
    for instant in instants:
        page = [line for line in lines if line.startswith("#") or line.endswith(f" {instant}")]
        assert _parsed("\n".join(page) + "\n")


def _parsed(text: str) -> list[object]:
    return list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def test_a_run_that_failed_at_once_is_a_page_too(result: RunResult) -> None:
    """Without any second, its counts have two instants to stand at."""
    nothing: dict[str, object] = {
        "intervals": (),
        "histograms": {},
        "telemetry": None,
        "ok": 0,
        "unserved": 3,
        "objectives": (),
    }
    find = _finder(openmetrics_text(changed(result, **nothing)))
    assert [value for _, value in find('^loadtrt_requests_total.*"unserved"')] == [0, 3]


def test_prometheus_shows_the_old_run(run_json: Path, result: RunResult, tmp_path: Path) -> None:
    """promtool makes blocks of the command's file; Prometheus on them answers a dashboard's queries for that time."""
    target = tmp_path / "run.om"
    file = tmp_path / "with_gpu.json"
    file.write_text(result.model_dump_json())
    CliRunner().invoke(command, ["openmetrics", str(file), "-o", str(target), "--run", "old"], catch_exceptions=False)
    promtool("tsdb", "create-blocks-from", "openmetrics", target, tmp_path / "data")
    start = _finder(target.read_text())("^loadtrt_start_time_seconds")[0][0]
    end = start + len(result.model.intervals)
    with running_prometheus(tmp_path / "prometheus", data=tmp_path / "data") as prometheus:
        assert prometheus.value('sum(loadtrt_requests_total{run="old",outcome="ok"})', end) == result.model.ok
        ((_, rates),) = prometheus.query_range("sum(rate(loadtrt_inferences_total[2s]))", start + 2, end)
        served = (result.model.intervals[0].requests + result.model.intervals[1].requests) / 2
        assert rates[0][1] == pytest.approx(served, rel=0.01)
        p99 = prometheus.value("histogram_quantile(0.99, loadtrt_latency_seconds_bucket)", end)
        exact_ns = result.model.metrics["latency"].percentiles_ns["p99"]
        assert p99 * SECOND_NS == pytest.approx(exact_ns, rel=0.25)
        shown = prometheus.value('loadtrt_latency_window_seconds{quantile="1.0"}', end)
        assert shown == (result.model.intervals[-1].latency_max_ns or 0) / SECOND_NS
        assert prometheus.value("sum by (run) (increase(loadtrt_gpu_energy_joules_total[3s]))", end) > 0
        assert RunResult.model_validate_json(run_json.read_text()).model.engine.version in {
            labels["version"] for labels, _ in prometheus.query("loadtrt_run_info", end)
        }
        asked, dashboard = asking.Prometheus(prometheus.url), asking.load("run")
        chosen = asking.resolve(dashboard, asked, start, end, {})
        assert (chosen["instance"], chosen["run"]) == (".*", "old")  # it has no instance, as nobody scraped it
        (requests,) = (panel for panel in asking.panels(dashboard) if panel["title"] == "Requests")
        assert all(series for _, series in asking.answers(requests, chosen, asked, start, end))


def test_the_command_writes_to_stdout_and_refuses_what_is_no_run(run_json: Path, tmp_path: Path) -> None:
    """The label run is the run's own, unless it is given; a file that is no run is refused with its reason."""
    text = CliRunner().invoke(command, ["openmetrics", str(run_json)], catch_exceptions=False).stdout
    assert text.endswith("# EOF\n")
    name = json.loads(run_json.read_text())["run"]
    assert f'run="{name}"' in text
    other = tmp_path / "other.json"
    other.write_text("[]")
    with pytest.raises(UsageError, match="is an empty list"):
        CliRunner().invoke(command, ["openmetrics", str(other)], catch_exceptions=False)
