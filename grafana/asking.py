"""Asks Prometheus what a dashboard would ask it: variables resolved as Grafana resolves them, every query executed."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DASHBOARDS = Path(__file__).parent / "dashboards"
RATE_INTERVAL_S = 4  # what Grafana makes of $__rate_interval at 1 s of scraping: max(step + scrape, 4 · scrape)
_NAME = re.compile(r"\$(?:(\w+)|\{(\w+)(?::\w+)?\})")


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer.

    points: (seconds since the epoch, value) in order; of a native histogram the number of its values.
    cells: (seconds, lower bound, upper bound, number of values) of each bucket of a native histogram.
    """

    labels: dict[str, str]
    points: list[tuple[float, float]]
    cells: list[tuple[float, float, float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A server's HTTP API. url: "http://host:port". Raises OSError without an answer, ValueError for a bad query."""

    url: str

    def over(self, expr: str, start: float, end: float, step: float = 1.0) -> list[Series]:
        """The query at each step."""
        return _series(self._ask("query_range", query=expr, start=start, end=end, step=step)["result"])

    def at(self, expr: str, instant: float) -> list[Series]:
        """The query at one instant; of a range selector, all of its points."""
        return _series(self._ask("query", query=expr, time=instant)["result"])

    def values(self, label: str, selector: str, start: float, end: float) -> list[str]:
        """The label's values among the selected series."""
        matching = self._ask("series", **{"match[]": selector, "start": str(start), "end": str(end)})
        return sorted({series[label] for series in matching if label in series})

    def _ask(self, path: str, **parameters: str | float) -> Any:
        body = urllib.parse.urlencode(parameters).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}", body, timeout=300) as answer:  # noqa: S310  # the user's own URL
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{json.load(error)['error']}: {parameters}") from None


def load(name: str) -> dict[str, Any]:
    """A committed dashboard's JSON: "run" or "compare"."""
    tree: dict[str, Any] = json.loads((DASHBOARDS / f"{name}.json").read_text())
    return tree


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Its panels, without the rows' headings."""
    yield from (panel for panel in dashboard["panels"] if panel["type"] != "row")


def substitute(text: str, values: Mapping[str, str]) -> str:
    """$name, ${name} and ${name:format} replaced. Raises KeyError for a variable that there is not."""
    return _NAME.sub(lambda name: values[name[1] or name[2]], text)


def resolve(
    dashboard: Mapping[str, Any], prometheus: Prometheus, start: float, end: float, chosen: Mapping[str, str]
) -> dict[str, str]:
    """Values of the dashboard's variables, the first option of each where none is `chosen`, and Grafana's own."""
    span = max(int(end - start), 1)
    step = max(span // 300, 1)
    values = {
        "__rate_interval": f"{max(step + 1, RATE_INTERVAL_S)}s",
        "__interval": f"{step}s",
        "__range": f"{span}s",
        "__range_s": str(span),
    }
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "datasource":  # those would replace the data source's uid alone
            options = _options(substitute(variable["query"], values), prometheus, start, end)
            if "regex" in variable:
                matches = [re.search(variable["regex"].strip("/"), option) for option in options]
                options = [match[1] for match in matches if match]
            options.sort(reverse=True)
            first = variable["allValue"] if variable.get("includeAll") else options[0] if options else ""
            values[variable["name"]] = chosen.get(variable["name"], first)
    return values


def answers(
    panel: Mapping[str, Any], values: Mapping[str, str], prometheus: Prometheus, start: float, end: float
) -> list[tuple[dict[str, Any], list[Series]]]:
    """(target, its series) for each query of the panel."""
    step = float(values["__interval"].rstrip("s"))
    answered = []
    for target in panel["targets"]:
        expr = substitute(target["expr"], values)
        series = prometheus.at(expr, end) if target.get("instant") else prometheus.over(expr, start, end, step)
        answered.append((target, series))
    return answered


def _options(query: str, prometheus: Prometheus, start: float, end: float) -> list[str]:
    """What Grafana offers for a query variable, before its regex."""
    if of_label := re.fullmatch(r"label_values\((.+), *(\w+)\)", query):
        return prometheus.values(of_label[2], of_label[1], start, end)
    if of_result := re.fullmatch(r"query_result\((.+)\)", query):
        return [
            f"{_text(series.labels)} {point[1]:g} {point[0] * 1000:.0f}"
            for series in prometheus.at(of_result[1], end)
            for point in series.points
        ]
    raise ValueError(f"no query of a variable: {query}")


def _text(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def _series(result: Any) -> list[Series]:
    if result and not isinstance(result[0], dict):  # a scalar: (instant, value)
        return [Series({}, [(float(result[0]), float(result[1]))])]
    return [_one(series) for series in result]


def _one(series: Mapping[str, Any]) -> Series:
    if "value" in series or "values" in series:
        numbers = series.get("values") or [series["value"]]
        return Series(dict(series["metric"]), [(float(at), float(value)) for at, value in numbers])
    native = series.get("histograms") or [series["histogram"]]
    return Series(
        dict(series["metric"]),
        [(float(at), float(histogram["count"])) for at, histogram in native],
        [
            (float(at), float(low), float(high), float(count))
            for at, histogram in native
            for _, low, high, count in histogram.get("buckets", ())
        ],
    )
