"""Dashboards, rules and provisioning as files: current, of the schema, and of what loadtrt exports. No Grafana here."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from downloads import UnavailableError, node_modules
from grafana.build import dashboards
from grafana.panels import SUFFIXES, query
from loadtrt.live.alerts import LAW_KINDS, SILENCE_NS
from loadtrt.prometheus.families import FAMILIES, HISTOGRAMS, RUN_LABELS, WORKER_LABELS
from loadtrt.results.gpu_telemetry import SLOWDOWNS
from prometheus import promtool

FOLDER = Path(__file__).parents[2] / "grafana"
RULES = FOLDER / "prometheus" / "rules" / "loadtrt.yml"
PANELS = {
    "timeseries": "TimeSeries",
    "heatmap": "Heatmap",
    "stat": "Stat",
    "state-timeline": "StateTimeline",
    "table": "Table",
}
SELECTOR = re.compile(r"\b(loadtrt_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')
SCRAPED = (*RUN_LABELS, *WORKER_LABELS, "instance")  # Prometheus adds the last
LABELS = {
    family.name + suffix: {*family.labels, *SCRAPED, *({"le"} if suffix == "_bucket" else ())}
    | ({"quantile"} if family.kind == "summary" else set())
    for family in FAMILIES
    for suffix in SUFFIXES.get(family.kind, ("",))
} | {family.name: set(SCRAPED) for family in HISTOGRAMS}  # native ones


@pytest.fixture(params=["run", "compare"])
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each committed dashboard."""
    tree: dict[str, Any] = json.loads((FOLDER / "dashboards" / f"{request.param}.json").read_text())
    return tree


def _panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def _rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_committed_dashboards_are_what_the_code_builds() -> None:
    """If this fails: python -m grafana.build."""
    built = dict(dashboards())
    assert set(built) == set((FOLDER / "dashboards").iterdir())
    for path, text in built.items():
        assert path.read_text() == text, f"{path.name} is stale: python -m grafana.build"


def test_a_metric_that_is_not_exported_is_refused() -> None:
    """Whether it is misspelt, or a histogram without its suffix that is never a native one."""
    with pytest.raises(ValueError, match="exports no loadtrt_latncy_seconds_sum"):
        query("rate(loadtrt_latncy_seconds_sum[5s])", "")
    with pytest.raises(ValueError, match="exports no loadtrt_load_ratio:"):
        query("loadtrt_load_ratio", "")


def test_dashboards_keep_the_conventions(dashboard: dict[str, Any]) -> None:
    """Stable uid and no id, so that a dashboard is replaced and not doubled; the classic model; one cursor for all."""
    assert dashboard["uid"].startswith("loadtrt-")
    assert "id" not in dashboard
    assert "__inputs" not in dashboard
    assert dashboard["schemaVersion"] <= 42
    assert (dashboard["refresh"], dashboard["graphTooltip"], dashboard["tags"]) == ("5s", 1, ["loadtrt"])
    assert dashboard["description"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert ids == list(range(1, len(ids) + 1))


def test_panels_say_what_they_show(dashboard: dict[str, Any]) -> None:
    """A title of its own, a sentence, a unit, a legend; the data source that is chosen; all on the grid."""
    panels = _panels(dashboard)
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert len(set(rows)) == len(rows)
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not own & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        cells |= own
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGHIJKL"[: len(panel["targets"])])
        for thing in (panel, *panel["targets"]):
            assert thing["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert panel["type"] == "table" or (all(legends) and len(set(legends)) == len(legends)), panel["title"]


def test_queries_ask_for_series_that_there_are(dashboard: dict[str, Any]) -> None:
    """Names and labels are of the table that the exporter is made from; values of `le` and `quantile` match whether
    Prometheus writes 1 or, from 3.0 on, 1.0; rates are over Grafana's interval."""
    for panel in _panels(dashboard):
        for target in panel["targets"]:
            expr = target["expr"]
            _check_selectors(expr)
            for interval in re.findall(r"\brate\([^\[]*\[([^\]]*)\]", expr):
                assert interval == "$__rate_interval", expr
            assert re.findall(r"\b(?:irate|deriv)\(", expr) == []


def test_variables_are_defined_before_they_are_used(dashboard: dict[str, Any]) -> None:
    """The data source first; every $name in a query is a variable or Grafana's own."""
    names = {"__rate_interval", "__range", "datasource"}
    variables = dashboard["templating"]["list"]
    assert (variables[0]["type"], variables[0]["query"]) == ("datasource", "prometheus")
    for variable in variables[1:]:
        assert set(re.findall(r"\$\{?(\w+)", variable["query"])) <= names
        _check_selectors(variable["query"])
        names.add(variable["name"])
    for panel in _panels(dashboard):
        for target in panel["targets"]:
            assert set(re.findall(r"\$\{?(\w+)", target["expr"])) <= names


def test_dashboards_lead_to_each_other(dashboard: dict[str, Any]) -> None:
    """Each link leads to the other dashboard, with the data source, the hosts and a run that this one has, over the
    same time; cells with a run's id lead to that run, and those with a report's address there."""
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    runs = [name for name in ("run", "a", "b", "c") if name in variables]
    urls = []
    for link in dashboard["links"]:
        assert (link["type"], link["keepTime"], link["includeVars"]) == ("link", True, False)
        urls.append(link["url"])
    other = {"loadtrt-run": "loadtrt-compare", "loadtrt-compare": "loadtrt-run"}[dashboard["uid"]]
    asked = {"loadtrt-run": "run", "loadtrt-compare": "a"}[other]
    kept = "var-datasource=${datasource}&${instance:queryparam}"
    assert urls == [f"/d/{other}?{kept}&var-{asked}=${{{run}}}" for run in runs]
    cells = {
        override["matcher"]["options"]: each["value"][0]["url"]
        for panel in _panels(dashboard)
        for override in panel["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "links"
    }
    run_cell = f"/d/loadtrt-run?{kept}&var-run=${{__value.raw}}&${{__url_time_range}}"
    assert cells == ({"report": "${__value.raw}"} if other == "loadtrt-compare" else {"run": run_cell})


def test_phases_and_problems_are_annotations() -> None:
    """Each second, as phases are short; where every version of Grafana reads them; about the run that is shown."""
    run = json.loads((FOLDER / "dashboards" / "run.json").read_text())
    found = {each["name"]: each for each in run["annotations"]["list"]}
    assert found.keys() == {"phases", "problems"}
    for each, label in ((found["phases"], "phase"), (found["problems"], "kind")):
        assert each["titleFormat"] == f"{{{{{label}}}}}"
        assert (each["enable"], each["step"], each["target"]["interval"]) == (True, "1s", "1s")
        assert each["expr"] == each["target"]["expr"]
        assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert f"max by ({label})" in each["expr"]
        _check_selectors(each["expr"])


def test_thresholds_are_the_laws() -> None:
    """Red from the value on at which something is wrong, or up to it; and nothing else has a colour that judges."""
    run = json.loads((FOLDER / "dashboards" / "run.json").read_text())
    found = {}
    for panel in _panels(run):
        if steps := panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps"):
            assert steps[0]["value"] is None
            found[panel["title"]] = [(step["color"], step["value"]) for step in steps]
    one = [("green", None), ("red", 1)]
    assert found == {
        "Problems": one,
        "Objectives missed": one,
        "Not served": one,
        "Lost": one,
        "Burn rate": one,
        "Age of these numbers": [("green", None), ("red", SILENCE_NS / 1e9)],
        "Rates and power against their bounds": [("red", None), ("green", 1)],
    }


def _check_selectors(expr: str) -> None:
    for name, matchers in SELECTOR.findall(expr):
        assert name in LABELS, f"{name} in {expr}"
        for label, value in MATCHER.findall(matchers):
            assert label in LABELS[name], f"{label} of {name} in {expr}"
            assert label not in ("le", "quantile") or not re.fullmatch(r"\d+", value), expr
    for grouping in re.findall(r"\bby \(([^)]*)\)", expr):
        known = set().union(*(LABELS[name] for name, _ in SELECTOR.findall(expr)))
        assert set(grouping.split(", ")) <= known, expr


def test_rules_ask_for_series_that_there_are() -> None:
    """What is exported, or recorded by another rule."""
    recorded = {rule["record"] for rule in _rules() if "record" in rule}
    for rule in _rules():
        own = set(re.findall(r"\b(?:run|objective):[\w:]+", rule["expr"]))
        assert own <= recorded
        _check_selectors(re.sub(r"\b(?:run|objective):[\w:]+", "1", rule["expr"]))
        assert "record" in rule or {"summary", "description"} <= set(rule["annotations"])


def test_alerts_have_the_limits_of_the_code() -> None:
    """Rules have no laws of their own: each of the verdict's kinds that can be seen while a run measures has an alert,
    the slow-downs are those of the one table, and silence is the terminal's."""
    alerts = {rule["alert"]: rule["expr"] for rule in _rules() if "alert" in rule}
    assert set(re.search(r'reason=~"([^"]*)"', alerts["LoadtrtGpuThrottled"])[1].split("|")) == set(SLOWDOWNS)  # type: ignore[index]
    kinds = [
        kind for expr in alerts.values() for found in re.findall(r'kind=~?"([^"]*)"', expr) for kind in found.split("|")
    ]
    assert sorted(kinds) == sorted(set(LAW_KINDS) - {"no-requests"})
    assert f"loadtrt_snapshot_age_seconds) > {SILENCE_NS / 1e9:g}\n" in alerts["LoadtrtRunStalled"]


def test_promtool_finds_no_fault() -> None:
    """Configuration and rules are valid, and rules and alerts do what their unit tests say."""
    assert "1 rule files found" in promtool("check", "config", FOLDER / "prometheus" / "prometheus.yml")
    assert f"{len(_rules())} rules found" in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("test", "rules", FOLDER / "prometheus" / "rules_test.yml")


def test_every_alert_has_a_unit_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    """promtool passes a file without tests, too."""
    tests = yaml.safe_load((FOLDER / "prometheus" / "rules_test.yml").read_text())["tests"]
    seen = {(each["alertname"], bool(each["exp_alerts"])) for test in tests for each in test.get("alert_rule_test", ())}
    assert seen == {(rule["alert"], fires) for rule in _rules() if "alert" in rule for fires in (True, False)}


def test_everything_is_provisioned() -> None:
    """Images are pinned; ports are this machine's alone; every folder mounted exists, where its reader looks for it."""
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    mounts = {}
    for service in services.values():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for volume in service["volumes"]:
            source, target = volume.split(":")[:2]
            if source.startswith("./"):
                assert (FOLDER / source).is_dir()
                mounts[target] = source
    assert services["prometheus"]["extra_hosts"] == ["host.docker.internal:host-gateway"]
    source = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    assert source["jsonData"]["timeInterval"] == "1s"
    assert source["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((FOLDER / "provisioning/dashboards/loadtrt.yaml").read_text())["providers"][0]
    assert mounts[provider["options"]["path"]] == "./dashboards"
    assert mounts["/etc/grafana/provisioning"] == "./provisioning"
    assert mounts["/etc/prometheus"] == "./prometheus"


def test_dashboards_have_the_types_of_grafanas_schema(tmp_path: Path) -> None:
    """tsc takes the JSON for @grafana/schema's Dashboard, and each panel's options for its plugin's; it would not take
    a misspelt one. `Json` turns the schema's enums into the strings that they are in JSON."""
    lines = [
        "import type { AnnotationQuery, Dashboard, DataQuery } from '@grafana/schema';",
        "type Json<T> = T extends string ? `${T}` : T extends (infer U)[] ? Json<U>[]"
        " : T extends object ? { [K in keyof T]: Json<T[K]> } : T;",
    ]
    # What Grafana's data source for Prometheus reads of an annotation besides; @grafana/schema leaves that to it.
    lines += [
        "interface Query { expr: string; step: string; titleFormat: string; textFormat: string; target: DataQuery & "
        "{ expr: string; interval: string; legendFormat: string; range: boolean; instant: boolean } }",
        "type Annotated = Omit<Dashboard, 'annotations'> & { annotations: "
        "{ list?: (Omit<AnnotationQuery, 'target'> & Query)[] } };",
    ]
    for kind, name in PANELS.items():
        module = f"@grafana/schema/dist/esm/raw/composable/{kind.replace('-', '')}/panelcfg/x/{name}PanelCfg_types.gen"
        lines.append(f"import type * as {name} from '{module}';")
    for path, text in dashboards():
        lines.append(f"export const {path.stem}: Json<Annotated> = {text};")
        for panel in _panels(json.loads(text)):
            plugin, stem = PANELS[panel["type"]], f"{path.stem}_{panel['id']}"
            lines.append(f"export const {stem}: Json<{plugin}.Options> = {json.dumps(panel['options'])};")
            if custom := panel["fieldConfig"]["defaults"].get("custom"):
                lines.append(f"export const {stem}_custom: Json<Partial<{plugin}.FieldConfig>> = {json.dumps(custom)};")
    lines += ["// @ts-expect-error", "export const misspelt: Json<Partial<TimeSeries.FieldConfig>> = { lineWidht: 1 };"]
    lines += ["// @ts-expect-error", "export const wrong: Json<Partial<Dashboard>> = { title: 42 };"]
    try:
        modules = node_modules("schema")
    except UnavailableError as error:
        pytest.skip(f"dashboards are not checked against Grafana's schema: {error}")
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "dashboards.ts").write_text("\n".join(lines))
    flags = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]
    tsc = subprocess.run(
        [modules / ".bin" / "tsc", *flags, "dashboards.ts"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert tsc.returncode == 0, tsc.stdout
