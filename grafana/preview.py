"""A page with the data of a dashboard's panels: their queries executed on a Prometheus, drawn by charts.py.

    python -m grafana.preview --url http://127.0.0.1:9090 --html run.html --png run.png
    python -m grafana.preview --png docs/img/dashboard-data.png -- \\
        loadtrt run --engine zoo:googlenet --rate 20/s --metrics 127.0.0.1:18410 --metrics-linger 3s

The second starts a Prometheus that scrapes --metrics while the command runs. This is not Grafana: layout, titles,
units, legends and queries are the dashboard's, the drawing is not.
"""

from __future__ import annotations

import argparse
import html
import math
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from grafana import charts
from grafana.asking import Prometheus, answers, load, resolve
from grafana.scraping import scraping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grafana.asking import Series

COLUMN, LINE, GAP = 50, 25, 8  # pixels of a column of the dashboard's grid of 24, of a line, and between panels
WIDTH = 24 * COLUMN
HEAD = 58
BACK_S = 3600.0  # how long ago a run may have been
STYLE = """
* { box-sizing: border-box }
body { margin: 0; background: #f3f4f6; color: #1f2430; font: 12px "DejaVu Sans", sans-serif }
header { padding: 10px 8px 0; height: 58px }
main { position: relative }
section { position: absolute; background: #fff; border: 1px solid #dcdfe4; padding: 4px 6px; overflow: hidden }
h1 { font-size: 16px; margin: 0 0 4px }
h2 { position: absolute; margin: 0; font-size: 13px; padding: 6px 4px }
h3 { margin: 0 0 2px; font-size: 12px }
svg { display: block }
text { font-size: 10px; fill: #555b66 }
.grid { stroke: #e7e9ed }
.end { text-anchor: end }
.middle { text-anchor: middle }
.number { font-size: 26px; text-align: center; padding: 14px 0 }
.number small { font-size: 14px }
.green { background: #d6eadc }
.red { background: #f3cfcd }
.legend { font-size: 10px; line-height: 13px }
.legend span { margin-right: 10px; white-space: nowrap }
.legend i { display: inline-block; width: 10px; height: 3px; margin-right: 4px; vertical-align: middle }
table { width: 100%; border-collapse: collapse }
td, th { text-align: right; padding: 4px 8px; border-bottom: 1px solid #e7e9ed }
"""


def page(
    dashboard: Mapping[str, Any], prometheus: Prometheus, chosen: Mapping[str, str], until: float
) -> tuple[str, int]:
    """(HTML, its height in pixels) of the dashboard, over the time of the run it shows. chosen: variables' values;
    what is not chosen is the newest. until: seconds since the epoch, at most BACK_S after the run."""
    start, end = until - BACK_S, until
    values = resolve(dashboard, prometheus, start, end, chosen)
    run = values.get("run") or values["a"]
    seen = prometheus.at(f'loadtrt_run_info{{run="{run}"}}[{BACK_S:.0f}s]', until)
    if not seen:
        raise SystemExit(f"Prometheus at {prometheus.url} knows no run {run or 'at all'}")
    start, end = seen[0].points[0][0], seen[0].points[-1][0]
    values = resolve(dashboard, prometheus, start, end, values)
    body = [_panel(panel, values, prometheus, (start, end)) for panel in dashboard["panels"]]
    last = dashboard["panels"][-1]["gridPos"]
    height = HEAD + (last["y"] + last["h"]) * LINE + 2 * GAP
    options = " · ".join(
        f"{variable['name']} {values[variable['name']]}"
        for variable in dashboard["templating"]["list"]
        if variable["name"] in values and not variable.get("hide")
    )
    headline = f"{dashboard['title']}: the data of its panels. Not Grafana"
    how = (
        "Each panel's own queries, executed on a real Prometheus and drawn by grafana/preview.py; layout, units and "
        "legends are the dashboard's, the look is not."
    )
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(headline)}</title><style>{STYLE}</style>"
        f"<header><h1>{html.escape(headline)}</h1>{html.escape(how)}<br>{html.escape(options)}</header>"
        f'<main style="width:{WIDTH}px;height:{height - HEAD}px">{"".join(body)}</main>'
    ), height


def _panel(
    panel: Mapping[str, Any], values: Mapping[str, str], prometheus: Prometheus, span: tuple[float, float]
) -> str:
    place = panel["gridPos"]
    left, top = place["x"] * COLUMN + GAP // 2, place["y"] * LINE + GAP // 2
    if panel["type"] == "row":
        return f'<h2 style="left:{left}px;top:{top - 4}px">{html.escape(panel["title"])}</h2>'
    width, height = place["w"] * COLUMN - GAP, place["h"] * LINE - GAP
    answered = answers(panel, values, prometheus, *span)
    return (
        f'<section style="left:{left}px;top:{top}px;width:{width}px;height:{height}px" '
        f'title="{html.escape(panel["description"])}">'
        f"<h3>{html.escape(panel['title'])}</h3>{_content(panel, answered, span, (width - 14, height - 26))}</section>"
    )


def _content(
    panel: Mapping[str, Any],
    answered: Sequence[tuple[dict[str, Any], list[Series]]],
    span: tuple[float, float],
    size: tuple[int, int],
) -> str:
    named = [(_name(target, series), series) for target, every in answered for series in every]
    defaults = panel["fieldConfig"]["defaults"]
    unit, custom = defaults["unit"], defaults.get("custom", {})
    match panel["type"]:
        case "stat":
            value = named[0][1].points[-1][1] if named else math.nan
            latest = charts.shown(value, unit) if named else "no data"
            what = unit.removeprefix("suffix: ") if ":" in unit else ""
            steps = defaults.get("thresholds", {}).get("steps", [])
            colour = "".join([step["color"] for step in steps if value >= (step["value"] or -math.inf)][-1:])
            return f'<div class="number {colour}">{latest} <small>{what}</small></div>'
        case "heatmap":
            return charts.heat([series for _, series in named], span, size, panel["options"]["yAxis"]["unit"])
        case "state-timeline":
            return charts.bands(named, span, size)
        case "table":
            return _table(panel, answered)
    drawing = charts.lines(
        named,
        span,
        (size[0], size[1] - 13 * (1 + sum(14 + len(name) for name, _ in named) * 6 // size[0])),  # room for the legend
        unit,
        stacked=custom.get("stacking", {}).get("mode") == "normal",
        log=custom.get("scaleDistribution", {}).get("type") == "log",
        most=defaults.get("max"),
    )
    return drawing + charts.legend(named, unit)


def _table(panel: Mapping[str, Any], answered: Sequence[tuple[dict[str, Any], list[Series]]]) -> str:
    """A line for each set of labels, a column for each query, named as the overrides say."""
    columns: dict[str, dict[str, str]] = {
        override["matcher"]["options"].removeprefix("Value #"): {
            each["id"]: each["value"] for each in override["properties"]
        }
        for override in panel["fieldConfig"]["overrides"]
        if override["matcher"]["options"].startswith("Value #")
    }
    (hidden,) = (each["options"]["excludeByName"] for each in panel["transformations"] if each["id"] == "organize")
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    labels: list[str] = []
    for target, every in answered:
        for series in every:
            labels = sorted(set(series.labels) - set(hidden))
            line = cells.setdefault(tuple(series.labels[label] for label in labels), {})
            if target["refId"] not in columns:
                continue
            line[target["refId"]] = charts.shown(series.points[-1][1], columns[target["refId"]]["unit"])
    head = "".join(f"<th>{html.escape(name)}</th>" for name in (*labels, *(c["displayName"] for c in columns.values())))
    rows = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in (*key, *(line.get(c, "") for c in columns)))
        + "</tr>"
        for key, line in sorted(cells.items(), reverse=True)
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def _name(target: Mapping[str, Any], series: Series) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda name: series.labels.get(name[1], ""), target["legendFormat"])


def shoot(source: Path, picture: Path, height: int) -> None:
    """A picture of the page, by Chromium without a window."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("there is no chromium here: apt-get install -y --no-install-recommends chromium")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking"]
    command = [program, *flags, f"--window-size={WIDTH},{height}", f"--screenshot={picture.resolve()}"]
    subprocess.run([*command, source.resolve().as_uri()], check=True, capture_output=True, timeout=120)
    fine = np.asarray(cv2.imread(str(picture)), dtype=float)
    coarse = np.clip(np.round(fine / 8) * 8, 0, 255).astype(np.uint8)  # 33 levels a colour make two thirds of the bytes
    cv2.imwrite(str(picture), coarse, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="of a Prometheus that has scraped the run")
    parser.add_argument("--metrics", default="127.0.0.1:18410", help="what to scrape while COMMAND runs")
    parser.add_argument("--dashboard", choices=("run", "compare"), default="run")
    parser.add_argument(
        "--set", action="append", default=[], metavar="VARIABLE=VALUE", help="a variable of the dashboard"
    )
    parser.add_argument("--html", type=Path)
    parser.add_argument("--png", type=Path)
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="a run to watch, after --")
    given = parser.parse_args()
    if bool(given.url) == bool(given.command):
        parser.error("give either the --url of a Prometheus or, after --, a command to watch")
    chosen = dict(each.split("=", 1) for each in given.set)
    dashboard = load(given.dashboard)
    if given.url:
        text, height = page(dashboard, Prometheus(given.url), chosen, time.time())
    else:
        with scraping([given.metrics]) as prometheus:
            status = subprocess.run(given.command, check=False).returncode
            text, height = page(dashboard, prometheus, chosen, time.time())
            print(f"{given.command[0]} ended with {status}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        source = given.html or Path(folder) / "page.html"
        source.write_text(text)
        if given.png:
            shoot(source, given.png, height)


if __name__ == "__main__":
    main()
