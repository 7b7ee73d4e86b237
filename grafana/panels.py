"""Parts of dashboards: queries whose metrics exist, panels with descriptions, variables.

Built with grafana-foundation-sdk 0.0.21, pinned: its newest-looking version, 1769699998!10.1.0, is for Grafana 10.1.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from loadtrt.prometheus.families import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from grafana_foundation_sdk.cog.builder import Builder

Row: TypeAlias = "tuple[str, Sequence[Builder[dashboard.Panel]]]"  # (title, panels)

SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}  # of a summary loadtrt exports the quantiles alone
METRIC = re.compile(r"\bloadtrt_\w+")
BOUND = "(objective|limit) .*"  # legends of bounds, which are drawn as red dashed lines
HEIGHT = 8


def series_names() -> frozenset[str]:
    """Every series that loadtrt exports, from the exporter's own table."""
    return frozenset(family.name + suffix for family in FAMILIES for suffix in SUFFIXES.get(family.kind, ("",)))


def query(expr: str, legend: str) -> prometheus.Dataquery:
    """A query over time. Raises ValueError for a metric that loadtrt does not export."""
    unknown = set(METRIC.findall(expr)) - series_names()
    if unknown:
        raise ValueError(f"loadtrt exports no {', '.join(sorted(unknown))}: {expr}")
    return prometheus.Dataquery().expr(expr).legend_format(legend).range()


def chart(
    title: str,
    description: str,
    unit: str,
    *queries: prometheus.Dataquery,
    span: int = 12,
    stacked: bool = False,
    log: bool = False,
    most: float | None = None,
) -> timeseries.Panel:
    """Lines over time. stacked: areas, one on another. log: a logarithmic axis. most: where the axis ends."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .span(span)
        .height(HEIGHT)
        .targets(_lettered(queries))
        .line_width(1)
        .fill_opacity(60 if stacked else 0)
        .show_points(common.VisibilityMode.NEVER)
        .legend(_legend())
        .tooltip(_tooltip())
        .override_by_regexp(
            BOUND,
            [
                dashboard.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "red"}),
                dashboard.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}),
                dashboard.DynamicConfigValue("custom.lineWidth", 2),
            ],
        )
    )
    if stacked:
        panel = panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if log:
        scale = common_builders.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10)
        return panel.scale_distribution(scale)
    panel = panel.min(0)
    return panel if most is None else panel.max(most)


def heat_map(
    title: str, description: str, unit: str, buckets: prometheus.Dataquery, *, span: int = 12
) -> heatmap.Panel:
    """A classic histogram's buckets over time. unit: of what the buckets measure; their colour is requests a second."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .unit("reqps")
        .datasource(SOURCE)
        .span(span)
        .height(HEIGHT)
        .targets(_lettered([buckets.format(PromQueryFormat.HEATMAP)]))
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(common.AxisPlacement.LEFT))
        .cell_values(heatmap.CellValues().unit("reqps"))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
            .reverse(False)
        )
        .cell_gap(0)
        .show_legend()
    )


def number(title: str, description: str, unit: str, shown: prometheus.Dataquery) -> stat.Panel:
    """The latest value, large, with its course behind it."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .span(4)
        .height(4)
        .targets(_lettered([shown]))
        .reduce_options(common_builders.ReduceDataOptions().values(False).calcs(["lastNotNull"]).fields(""))
        .graph_mode(common.BigValueGraphMode.AREA)
        .color_mode(common.BigValueColorMode.NONE)
    )


def states(
    title: str, description: str, shown: prometheus.Dataquery, *, colour: str, span: int = 12
) -> statetimeline.Panel:
    """A band for each series, coloured while its value is 1."""
    shades = {
        "0": dashboard.ValueMappingResult(text="no", color="transparent", index=0),
        "1": dashboard.ValueMappingResult(text="yes", color=colour, index=1),
    }
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .unit("none")
        .datasource(SOURCE)
        .span(span)
        .height(HEIGHT)
        .targets(_lettered([shown]))
        .mappings([dashboard.ValueMap(options=shades)])
        .show_value(common.VisibilityMode.NEVER)
        .legend(common_builders.VizLegendOptions().show_legend(False).calcs([]))
        .tooltip(_tooltip())
    )


def lines(title: str, description: str, columns: Sequence[tuple[str, str, str]]) -> table.Panel:
    """A line for each set of labels; columns: (name, unit, instant query of one value a line)."""
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .unit("short")
        .datasource(SOURCE)
        .span(24)
        .height(HEIGHT - 2)
        .targets(_lettered([query(expr, "").format(PromQueryFormat.TABLE).instant() for _, _, expr in columns]))
        .transformations(
            [
                dashboard.DataTransformerConfig("merge", options={}),
                dashboard.DataTransformerConfig("organize", options={"excludeByName": {"Time": True}}),
            ]
        )
    )
    for letter, (name, unit, _) in zip("ABCDEFGHIJKL", columns, strict=False):
        shown = [dashboard.DynamicConfigValue("displayName", name), dashboard.DynamicConfigValue("unit", unit)]
        panel = panel.override_by_name(f"Value #{letter}", shown)
    return panel


def source_variable() -> dashboard_builders.DatasourceVariable:
    """Which Prometheus: hard-wired data sources break every dashboard that is carried elsewhere."""
    return dashboard_builders.DatasourceVariable("datasource").label("data source").type("prometheus")


def query_variable(
    name: str, label: str, expr: str, *, regex: str = "", every: bool = False, at_load: bool = False
) -> dashboard_builders.QueryVariable:
    """Values that a query of label_values or query_result gives, the last in the alphabet first: run ids are dates.

    regex: its group is the value, and the variable is hidden, being no choice. every: may be all values at once.
    at_load: keeps what was chosen when the time range changes.
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
        variable = variable.include_all(True).all_value(".*").multi(True)
    return variable.regex(f"/{regex}/").hide(dashboard.VariableHide.HIDE_VARIABLE) if regex else variable


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


def _lettered(queries: Sequence[prometheus.Dataquery]) -> list[Any]:
    """list[Any], because the SDK's list of Builder[Dataquery] is invariant, and its builders would not fit."""
    return [shown.ref_id(letter).datasource(SOURCE) for letter, shown in zip("ABCDEFGHIJKL", queries, strict=False)]


def _legend() -> common_builders.VizLegendOptions:
    return (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull"])
    )


def _tooltip() -> common_builders.VizTooltipOptions:
    return common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
