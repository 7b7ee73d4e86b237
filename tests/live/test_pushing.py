"""Pushed metrics: what a real Pushgateway, a real Prometheus and a reader of OTLP get, and what is said of failures."""

from __future__ import annotations

import gzip
import math
import ssl
import subprocess
import sys
import urllib.error
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from exported import FACTS, recorded, some_requests, view
from listening import listening, silent, trickling
from loadtrt.errors import UsageError
from loadtrt.live import pusher as pushing
from loadtrt.live.metrics import families
from loadtrt.live.pusher import Pusher
from loadtrt.results.capacity_result import SweepResult
from loadtrt.results.run_result import RunResult
from prometheus import free_port, running_prometheus, running_pushgateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOADTRT = (sys.executable, "-m", "loadtrt")
SIMULATED = ("--engine", "simulated:service=5ms", "--warmup", "0", "--max-lateness", "60s")


def _loadtrt(command: str, *arguments: str, folder: Path) -> str:
    """What is said on stderr."""
    done = subprocess.run(
        [*LOADTRT, command, *SIMULATED, *arguments], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode in (0, 97), done.stderr  # a busy machine makes no valid run
    return done.stderr


def _seen() -> Any:
    return view(recorded(some_requests())[0])


def test_a_run_of_three_seconds_is_found_by_its_label(tmp_path: Path) -> None:
    """Shorter than Prometheus' usual scrape, it is pushed to a Pushgateway that a Prometheus scrapes."""
    with (
        running_pushgateway(tmp_path) as gateway,
        running_prometheus(tmp_path / "prometheus", [gateway], every="200ms") as prometheus,
    ):
        options = ("--contexts", "2", "--duration", "3s", "--json", "run.json", "--label", "team=search/a b")
        said = _loadtrt("run", *options, "--push", f"http://{gateway}", folder=tmp_path)
        result = RunResult.model_validate_json((tmp_path / "run.json").read_text())
        served = prometheus.wait_for('sum(loadtrt_requests_total{team="search/a b",outcome="ok"})')
        ((labels, _),) = prometheus.query('loadtrt_run_info{team="search/a b"}')
    assert "pushed" not in said
    assert served == result.model.ok > 0
    assert labels["job"] == "loadtrt"
    assert labels["run"] == result.run
    assert labels["Hostname"] == result.environment["host"]


def test_a_pushgateway_keeps_all_points_of_a_sweep_and_the_last_run_of_a_label(tmp_path: Path) -> None:
    """A group is in place of the one before."""
    with (
        running_pushgateway(tmp_path) as gateway,
        running_prometheus(tmp_path / "prometheus", [gateway], every="200ms") as prometheus,
    ):
        options = ("--requests", "20", "--label", "team=a", "--push", f"http://{gateway}")
        _loadtrt("sweep", *options, "--contexts", "1,2", "--json", "sweep.json", "--all", folder=tmp_path)
        points = SweepResult.model_validate_json((tmp_path / "sweep.json").read_text()).points
        prometheus.wait_for('count(loadtrt_run_info{team="a"})', lambda count: count == 2)
        found = {labels["point"]: labels["run"] for labels, _ in prometheus.query('loadtrt_run_info{team="a"}')}
        counts = dict.fromkeys(found.values(), 0.0)
        for labels, value in prometheus.query('sum by (run) (loadtrt_requests_total{outcome="ok"})'):
            counts[labels["run"]] = value
        _loadtrt("run", *options, "--quiet", folder=tmp_path)
        prometheus.wait_for('count(loadtrt_run_info{team="a"})', lambda count: count == 1)
    runs = {f"contexts {point.settings['contexts']}": point.run for point in points}
    assert found == {text: run and run.run for text, run in runs.items()}
    assert counts == {run.run: run.model.ok for run in runs.values() if run is not None}


def test_prometheus_takes_remote_write(tmp_path: Path) -> None:
    """Every number of the page, with the user's labels on every series."""
    with running_prometheus(tmp_path / "prometheus", writable=True) as prometheus:
        url = f"{prometheus.url}/api/v1/write"
        options = ("--duration", "1s", "--json", "run.json", "--label", "team=search", "--push", url)
        said = _loadtrt("run", *options, folder=tmp_path)
        result = RunResult.model_validate_json((tmp_path / "run.json").read_text())
        served = prometheus.wait_for('sum(loadtrt_requests_total{team="search",outcome="ok"})')
        count = prometheus.value('loadtrt_latency_seconds_count{team="search",job="loadtrt"}')
        p50 = prometheus.value("histogram_quantile(0.5, loadtrt_latency_seconds_bucket)")
        without = prometheus.query('{__name__=~"loadtrt_.*",team!="search"}')
    assert "pushed" not in said
    assert served == count == result.model.ok > 0
    assert not math.isnan(p50)
    assert without == []


def test_a_run_that_goes_on_is_seen_by_remote_write() -> None:
    """Places that keep a history get metrics again and again, a Pushgateway only at the end."""
    with listening() as (url, got):
        pusher = Pusher([url, f"remote-write+{url}"])
        assert pusher.continues
        pusher.push(_seen())
        assert [what for what, _, _ in got] == ["POST /api/v1/write"]
        assert pusher.finish(_seen(), push=True) == []
    assert [what for what, _, _ in got[1:]] == ["PUT /metrics/job/loadtrt/team/search", "POST /api/v1/write"]
    assert not Pusher([url]).continues


def test_a_reader_of_otlp_gets_the_page() -> None:
    """Numbers, buckets, quantiles and labels are those of the page, read by OpenTelemetry's own messages."""
    with listening() as (url, got):
        assert Pusher([f"otlp+{url}"]).finish(_seen(), push=True) == []
    ((what, headers, body),) = got
    assert what == "POST /v1/metrics"
    assert headers["Content-Type"] == "application/x-protobuf"
    (resource,) = ExportMetricsServiceRequest.FromString(gzip.decompress(body)).resource_metrics
    assert {"service.name": "loadtrt", "service.instance.id": "gpu-7"}.items() <= _attributes(resource.resource)
    (scope,) = resource.scope_metrics
    found = {metric.name: metric for metric in scope.metrics}
    page = {f"{m.name}_info" if m.type == "info" else m.name: m for m in families(_seen())}
    assert found.keys() == page.keys()
    for name, metric in found.items():
        kind = metric.WhichOneof("data")
        expected = {"counter": "sum", "info": "gauge"}.get(page[name].type, page[name].type)
        assert kind == expected
        for point in getattr(metric, kind).data_points:
            assert dict(_attributes(point))["team"] == "search"
            assert dict(_attributes(point))["run"] == FACTS.run
    requests = {(point["lane"], point["outcome"]): value for point, value in _numbers(found["loadtrt_requests"].sum)}
    assert requests["0", "ok"] == requests["1", "ok"] == 500
    assert found["loadtrt_requests"].sum.is_monotonic
    (latency,) = found["loadtrt_latency_seconds"].histogram.data_points
    assert len(latency.bucket_counts) == len(latency.explicit_bounds) + 1
    assert sum(latency.bucket_counts) == latency.count == 1000
    (window,) = found["loadtrt_latency_window_seconds"].summary.data_points
    assert [item.quantile for item in window.quantile_values] == [0.5, 0.9, 0.95, 0.99, 0.999, 1.0]
    assert found["loadtrt_gpu_power_watts"].unit == "W"


def _attributes(holder: Any) -> Any:
    return {item.key: item.value.string_value for item in holder.attributes}.items()


def _numbers(holder: Any) -> Iterator[tuple[dict[str, str], float]]:
    for point in holder.data_points:
        yield dict(_attributes(point)), point.as_double


@pytest.mark.parametrize("path", ["", "/api/v1/write", "/v1/metrics"])
def test_what_does_not_arrive_is_told_and_costs_nothing(path: str, tmp_path: Path) -> None:
    """One sentence, with --quiet too; the result is written, and the exit code is the run's."""
    place = f"http://127.0.0.1:{free_port()}{path}"
    options = ("--requests", "20", "--quiet", "--json", "run.json", "--push", place)
    said = [line for line in _loadtrt("run", *options, folder=tmp_path).splitlines() if "pushed" in line]
    port = place.removeprefix("http://").partition("/")[0]
    assert said == [f"metrics were not pushed to {place}: nothing listens at {port}; the result has all"]
    assert RunResult.model_validate_json((tmp_path / "run.json").read_text()).model.ok == 20


def test_a_place_that_refuses_says_why() -> None:
    """The first line of its answer."""
    with listening(400, b"out of bounds\nand more") as (url, _):
        (said,) = Pusher([f"{url}/api/v1/write"]).finish(_seen(), push=True)
    assert said == f"metrics were not pushed to {url}/api/v1/write: it answered 400 out of bounds; the result has all"


def test_a_place_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "_TIMEOUT_S", 0.01)
    with silent() as url:
        (said,) = Pusher([f"{url}/api/v1/write"]).finish(_seen(), push=True)
    assert said.endswith("no answer within 0.01 s; the result has all")


def test_a_place_that_trickles_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header now and then keeps each read of the answer within its timeout, for ever."""
    monkeypatch.setattr(pushing, "_TIMEOUT_S", 0.5)
    with trickling() as url:
        for place in (url, f"{url}/api/v1/write"):
            (said,) = Pusher([place]).finish(_seen(), push=True)
            assert said.endswith("no answer within 0.5 s; the result has all")


def test_the_next_runs_of_a_sweep_do_not_wait_for_a_place_that_did_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each point would take seconds longer. Places that answer get all."""
    monkeypatch.setattr(pushing, "_TIMEOUT_S", 0.5)
    with silent() as url, listening() as (other, got):
        pusher = Pusher([url, other])
        first = pusher.finish(_seen(), push=True)
        monkeypatch.setattr(pushing, "_TIMEOUT_S", 60.0)
        assert pusher.finish(_seen(), push=True) == first
    assert len(got) == 2


@pytest.mark.parametrize("path", ["", "/api/v1/write"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_told_and_not_followed(status: int, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other place would get the secret headers, and a GET, which loses the metrics with a good answer."""
    monkeypatch.setenv("LOADTRT_PUSH_HEADERS", "Authorization=Bearer secret")
    with listening() as (other, got), listening(status, headers={"Location": f"{other}/x"}) as (url, _):
        (said,) = Pusher([f"{url}{path}"]).finish(_seen(), push=True)
    assert said.endswith(f": it answered {status} and points to {other}/x; the result has all")
    assert got == []


def test_a_certificate_that_is_not_trusted_is_told() -> None:
    """In words, with the way out."""
    reason = ssl.SSLCertVerificationError()
    reason.verify_message = "self-signed certificate"
    said = pushing._why(urllib.error.URLError(reason), "https://h")
    assert said == "its certificate is not trusted: self-signed certificate ($SSL_CERT_FILE names others)"


def test_a_host_that_cannot_be_is_told() -> None:
    (said,) = Pusher(["http://a..b"]).finish(_seen(), push=True)
    assert said == "metrics were not pushed to http://a..b: there is no host a..b; the result has all"


def test_an_answer_does_not_steer_the_terminal() -> None:
    with listening(500, b"\x1b[31mred \xff") as (url, _):
        (said,) = Pusher([url]).finish(_seen(), push=True)
    assert said.isprintable()
    assert r"\x1b[31mred" in said


def test_pushes_that_failed_on_the_way_are_counted() -> None:
    """The last one arrived, and a history has a gap."""
    with listening(503) as (url, _):
        pusher = Pusher([f"{url}/api/v1/write"])
        pusher.push(_seen())
    with listening() as (other, _):
        pusher._places = [place._replace(url=f"{other}/api/v1/write") for place in pusher._places]
        (said,) = pusher.finish(_seen(), push=True)
    assert said.startswith("1 of 2 pushes failed to ")
    assert "it answered 503" in said


def test_in_a_hurry_nothing_is_pushed() -> None:
    """As after the second Ctrl-C."""
    with listening() as (url, got):
        assert Pusher([url]).finish(_seen(), push=False) == []
    assert got == []


def test_headers_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are secret, and so no option."""
    monkeypatch.setenv("LOADTRT_PUSH_HEADERS", "Authorization=Basic dTpw==, X-Scope-OrgID=a%20b")
    with listening() as (url, got):
        assert Pusher([url, f"{url}/api/v1/write", f"{url}/v1/metrics"]).finish(_seen(), push=True) == []
    assert len(got) == 3
    for _, headers, _ in got:
        assert headers["Authorization"] == "Basic dTpw=="
        assert {name.lower(): value for name, value in headers.items()}["x-scope-orgid"] == "a b"


def test_otlp_that_is_not_installed_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "loadtrt.live.otlp", None)
    with pytest.raises(UsageError, match=r"needs the package opentelemetry-proto: pip install 'loadtrt\[otlp\]'"):
        Pusher(["http://h:4318/v1/metrics"])


def test_a_sweep_serves_metrics(tmp_path: Path) -> None:
    """One page for all points: Prometheus sees the end of each, with its settings, though the next has begun."""
    port = free_port()
    command = [
        *LOADTRT, "sweep", *SIMULATED, "--requests", "20", "--contexts", "1,2,3", "--all", "--json", "sweep.json",
        "--metrics", f":{port}", "--metrics-linger", "10h", "--label", "team=search",
    ]  # fmt: skip
    with (
        running_prometheus(tmp_path / "prometheus", [f"127.0.0.1:{port}"], every="200ms") as prometheus,
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            prometheus.wait_for('count(loadtrt_phase{phase="done"} == 1)', lambda count: count == 3)
            found = {labels["point"]: labels for labels, _ in prometheus.query("loadtrt_run_info")}
            of_runs = {
                name: {labels["run"]: value for labels, value in prometheus.query(f"sum by (run) ({name})")}
                for name in ("loadtrt_requests_total", "loadtrt_latency_seconds_sum", "loadtrt_latency_seconds_count")
            }
            points = prometheus.query("loadtrt_points")
            progress = {(labels["run"], labels["state"]): value for labels, value in points}
        finally:
            process.terminate()
        _, said = process.communicate()
    runs = [point.run for point in SweepResult.model_validate_json((tmp_path / "sweep.json").read_text()).points]
    assert said.count("metrics at http") == 1
    assert "metrics stay for" in said
    for place, run in enumerate(runs):
        assert run is not None
        labels = found[f"contexts {place + 1}"]
        assert (labels["run"], labels["team"]) == (run.run, "search")
        requests, total, count = (values[run.run] for values in of_runs.values())
        assert requests == count == run.model.ok
        assert total / count == pytest.approx(
            (run.model.metrics["latency"].mean_ns or 0) / 1e9
        )  # of its own rows alone
        assert [progress[run.run, state] for state in ("done", "now", "left")] == [place, 1, 2 - place]
