"""MLPerf's scenarios: what each sends, and the least that its rules ask for.

| | sends | at least | its result |
|---|---|---|---|
| single-stream | one inference when the last was answered | 600 s, 100 requests | p90 latency |
| multi-stream | a request of eight when the last was answered | 600 s, 662 requests | p99 latency |
| server | one inference, at instants of a Poisson process | 600 s, 100 requests | the rate, p99 within a target |
| offline | all at once | 600 s, 24 576 inferences | inferences a second |

Source: LoadGen 6.0.17 (loadgen/mlperf.conf for resnet50, issue_query_controller.cc; github.com/mlcommons/inference). A
scenario is a preset of loadtrt's own options: those that are given win, and the result says which rule is not kept then
(stats/scenario.py). What LoadGen calls a query and a sample are a request and an inference here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from loadtrt.asked.load_options import OPTIONS as LOAD_OPTIONS
from loadtrt.errors import UsageError
from loadtrt.units import SECOND_NS, exact_duration, parse_duration, parse_rate

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST_NS = 600 * SECOND_NS
_GAPS = 20  # that a Poisson process pauses for so many mean gaps happens once in e^20 times

ScenarioName = Literal["single-stream", "multi-stream", "server", "offline"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """sends: in words. rank: the quantile of its latency, None where it has none. requests: the fewest (offline: the
    fewest inferences). inferences: of a request, None for any number. alone: one request is in flight."""

    name: ScenarioName
    sends: str
    arrivals: Literal["closed", "poisson", "offline"]
    rank: float | None
    requests: int
    inferences: int | None

    @property
    def alone(self) -> bool:
        return self.arrivals == "closed"


SCENARIOS: Mapping[str, Scenario] = {
    each.name: each
    for each in (
        Scenario("single-stream", "one inference when the last was answered", "closed", 0.9, 100, 1),
        Scenario("multi-stream", "a request of 8 inferences when the last was answered", "closed", 0.99, 662, 8),
        Scenario("server", "single inferences at Poisson instants of one rate", "poisson", 0.99, 100, 1),
        Scenario("offline", "all requests at once", "offline", None, 24_576, None),
    )
}
_NEVER = ("stages", "bursts", "burstiness", "trace", "mix")
_OPEN = ("rate", "batcher", "max_queue")  # what a scenario with one request in flight has no use for
_LANES = ("contexts", "buffers")
_TARGET = re.compile(r"\s*latency\.p99\s*<")


def with_scenario(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a configuration, as they were written, with what their scenario adds where nothing was said.

    Raises UsageError where they contradict it, or leave out what it needs."""
    given = {key: value for key, value in options.items() if value is not None}
    scenario = SCENARIOS.get(str(given.get("scenario")))
    if scenario is None:
        return dict(options)  # whoever knows which there are says so
    _require_agreement(scenario, given)
    return {**options, **{key: value for key, value in _preset(scenario, given).items() if key not in given}}


def overruled_by_scenario(name: object) -> set[str]:
    """Options of a configuration file for which this scenario, on the command line, leaves no room."""
    scenario = SCENARIOS.get(str(name))
    if scenario is None:
        return set()
    more = (*_OPEN, *_LANES) if scenario.alone else ()
    return {*LOAD_OPTIONS, "duration", "requests", "mix", *more} - ({"rate"} if scenario.name == "server" else set())


def _require_agreement(scenario: Scenario, given: Mapping[str, Any]) -> None:
    """Raises UsageError for what contradicts the scenario, and for what it lacks."""
    option = f"--scenario {scenario.name}"
    if str(given.get("arrivals", scenario.arrivals)) != scenario.arrivals:
        raise UsageError(f"{option} sends {scenario.sends}: leave --arrivals out")
    for key in (*_NEVER, *(_OPEN if scenario.alone else ())):
        if key in given:
            raise UsageError(f"{option} sends {scenario.sends}: leave --{key.replace('_', '-')} out")
    for key in _LANES if scenario.alone else ():
        if str(given.get(key, 1)) != "1":
            raise UsageError(f"{option} has one request in flight: leave --{key} out, or take 1")
    if scenario.name != "server":
        return
    if "rate" not in given:
        raise UsageError(f"{option} needs a rate: add --rate, such as 500/s")
    objective = given.get("objective", ())
    if not any(
        _TARGET.match(str(each)) for each in (objective if isinstance(objective, list | tuple) else [objective])
    ):
        raise UsageError(f"{option} needs a target: add --objective, such as 'latency.p99 < 15ms'")


def _preset(scenario: Scenario, given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"arrivals": scenario.arrivals}
    if scenario.alone:
        found |= {"contexts": 1, "buffers": 1}
    if scenario.name == "multi-stream" and not given.get("shapes"):
        found["batch"] = scenario.inferences
    if scenario.name == "offline":
        found["requests"] = scenario.requests
    elif "duration" not in given and "requests" not in given:
        found |= {"requests": scenario.requests, "duration": exact_duration(_least_ns(given))}
    return found


def _least_ns(given: Mapping[str, Any]) -> int:
    """How long to send: with a rate, until a request is due after LEAST_NS, as LoadGen has it."""
    seconds = LEAST_NS // SECOND_NS
    try:
        if "rate" in given:
            seconds += math.ceil(_GAPS / parse_rate(given["rate"]))
        most = parse_duration(given["max_duration"]) if "max_duration" in given else seconds * SECOND_NS
    except UsageError:
        return LEAST_NS  # whoever checks that option says so
    return min(seconds * SECOND_NS, most)
