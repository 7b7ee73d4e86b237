"""Panels of dashboards: queries whose metrics exist, descriptions, units and thresholds.

Built with grafana-foundation-sdk 0.0.21, pinned: its newest-looking version, 1769699998!10.1.0, is for Grafana 10.1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from loadtrt.prometheus.families import FAMILIES, HISTOGRAMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana_foundation_sdk.cog.builder import Builder

Row: TypeAlias = "tuple[str, Sequence[Builder[dashboard.Panel]]]"  # (title, panels)

SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}  # of a summary loadtrt exports the quantiles alone
METRIC = re.compile(r"\bloadtrt_\w+")
BOUND = "(objective|limit) .*"  # legends of bounds, which are drawn as red dashed lines
HEIGHT = 8
KEPT = "var-datasource=${datasource}&${instance:queryparam}"  # what a link to the other dashboard takes along


def series_names() -> frozenset[str]:
    """Every series that loadtrt exports, from the exporter's own table; those of times also as native histograms."""
    classic = (family.name + suffix for family in FAMILIES for suffix in SUFFIXES.get(family.kind, ("",)))
    return frozenset((*classic, *(family.name for family in HISTOGRAMS)))


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
    above: float | None = None,
    below: float | None = None,
) -> timeseries.Panel:
    """Lines over time. stacked: areas, one on another. log: a logarithmic axis. most: where the axis ends. above,
    below: the threshold from which, or up to which, a value is bad: a line with the bad side in red."""
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
    if above is not None or below is not None:
        style = common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.LINE_AND_AREA)
        panel = panel.thresholds(_thresholds(above, below)).thresholds_style(style)
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
    """A histogram's buckets over time, classic or native. unit: of what the buckets measure; their colour is requests a
    second."""
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


def number(
    title: str, description: str, unit: str, shown: prometheus.Dataquery, *, above: float | None = None
) -> stat.Panel:
    """The latest value, large, with its course behind it. above: red from this value on, green below."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .span(3)
        .height(4)
        .targets(_lettered([shown]))
        .reduce_options(common_builders.ReduceDataOptions().values(False).calcs(["lastNotNull"]).fields(""))
        .graph_mode(common.BigValueGraphMode.AREA)
    )
    if above is None:
        return panel.color_mode(common.BigValueColorMode.NONE)
    return panel.color_mode(common.BigValueColorMode.BACKGROUND).thresholds(_thresholds(above, None))


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
    run = "/d/loadtrt-run?" + KEPT + "&var-run=${__value.raw}&${__url_time_range}"
    panel = panel.override_by_name("run", [_cell_link("Open this run", run)])
    for letter, (name, unit, _) in zip("ABCDEFGHIJKL", columns, strict=False):
        shown = [dashboard.DynamicConfigValue("displayName", name), dashboard.DynamicConfigValue("unit", unit)]
        panel = panel.override_by_name(f"Value #{letter}", shown)
    return panel


def labels(title: str, description: str, shown: prometheus.Dataquery, *, hidden: Sequence[str] = ()) -> table.Panel:
    """A line for each series: its labels, without the hidden ones. A label `report` is a link."""
    names = ("Time", "Value", "__name__", "job", *hidden)
    return (
        table.Panel()
        .title(title)
        .description(description)
        .unit("none")
        .datasource(SOURCE)
        .span(24)
        .height(4)
        .targets(_lettered([shown.format(PromQueryFormat.TABLE).instant()]))
        .transformations(
            [dashboard.DataTransformerConfig("organize", options={"excludeByName": dict.fromkeys(names, True)})]
        )
        .override_by_name("report", [_cell_link("Open the report", "${__value.raw}")])
    )


def _thresholds(above: float | None, below: float | None) -> dashboard_builders.ThresholdsConfig:
    """Green on the good side of the one that is given, red beyond. A threshold's colour begins at its value."""
    under, value, over = ("green", above, "red") if above is not None else ("red", below, "green")
    steps = [dashboard.Threshold(None, under), dashboard.Threshold(value, over)]
    return dashboard_builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def _cell_link(title: str, url: str) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue("links", [{"title": title, "url": url, "targetBlank": False}])


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
