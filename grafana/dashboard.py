"""Whole dashboards: variables, links between them, annotations, rows, and their JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from grafana.panels import SOURCE, query

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grafana.panels import Row


def source_variable() -> dashboard_builders.DatasourceVariable:
    """Which Prometheus: hard-wired data sources break every dashboard that is carried elsewhere."""
    return dashboard_builders.DatasourceVariable("datasource").label("data source").type("prometheus")


def query_variable(
    name: str, label: str, expr: str, *, regex: str = "", every: bool = False, at_load: bool = False
) -> dashboard_builders.QueryVariable:
    """Values that a query of label_values or query_result gives, the last in the alphabet first: run ids are dates.

    regex: its group is the value, and the variable is hidden, being no choice. every: may be all values at once, as it
    is at first, also of series without this label. at_load: keeps what was chosen when the time range changes.
    """
    refresh = dashboard.VariableRefresh
    variable = (
        dashboard_builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(expr)
        .refresh(refresh.ON_DASHBOARD_LOAD if at_load else refresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_DESC)
    )
    if every:
        current = dashboard.VariableOption(selected=True, text=["All"], value=["$__all"])
        variable = variable.include_all(True).all_value(".*").multi(True).current(current)
    return variable.regex(f"/{regex}/").hide(dashboard.VariableHide.HIDE_VARIABLE) if regex else variable


def instance_variable(matchers: str = "") -> dashboard_builders.QueryVariable:
    """Which scraped hosts. Runs that were imported have no instance."""
    return query_variable("instance", "instance", f"label_values(loadtrt_run_info{{{matchers}}}, instance)", every=True)


def annotation(name: str, colour: str, expr: str, title: str, text: str) -> dashboard_builders.AnnotationQuery:
    """A region in every panel while a series of the query is above 0, titled by its labels.

    The query is there twice: Grafana 11 and older read `expr` and `step`, newer ones `target`. Without a step it is a
    minute, longer than most phases.
    """
    step = "1s"
    return (
        dashboard_builders.AnnotationQuery()
        .name(name)
        .datasource(SOURCE)
        .enable(True)
        .hide(False)
        .icon_color(colour)
        .expr(expr)
        .step(step)
        .target(query(expr, "").interval(step).ref_id("Anno"))
        .title_format(title)
        .text_format(text)
    )


def link(title: str, tooltip: str, url: str) -> dashboard_builders.DashboardLink:
    """At the top of a dashboard, over the time range that is shown."""
    return (
        dashboard_builders.DashboardLink(title)
        .type(dashboard.DashboardLinkType.LINK)
        .icon("dashboard")
        .tooltip(tooltip)
        .url(url)
        .keep_time(True)
        .tags([])
    )


def new_dashboard(
    uid: str, title: str, description: str, since: str, *variables: dashboard_builders.QueryVariable
) -> dashboard_builders.Dashboard:
    """Empty, with what all of ours share. since: the beginning of the range that it opens with."""
    built = (
        dashboard_builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["loadtrt"])
        .time(since, "now")
        .refresh("5s")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .with_variable(source_variable())
    )
    for variable in variables:
        built = built.with_variable(variable)
    return built


def with_rows(built: dashboard_builders.Dashboard, rows: Iterable[Row]) -> dashboard_builders.Dashboard:
    """Rows from top to bottom, panels from left to right."""
    for title, panels in rows:
        built = built.with_row(dashboard_builders.Row(title))
        for panel in panels:
            built = built.with_panel(panel)
    return built


def render(built: dashboard_builders.Dashboard) -> str:
    """Its JSON, as Grafana is provisioned with it: panels numbered, and without what the SDK adds and Grafana 13's
    schema does not know: keys of interval variables on every variable, the old footer of tables.
    """
    tree: dict[str, Any] = json.loads(json.dumps(built.build(), cls=JSONEncoder))
    for place, panel in enumerate(tree["panels"], 1):
        panel["id"] = place
        panel.get("options", {}).pop("footer", None)
    for variable in tree["templating"]["list"]:
        for key in ("auto", "auto_min", "auto_count"):
            variable.pop(key, None)
    return json.dumps(tree, indent=1, ensure_ascii=False) + "\n"
