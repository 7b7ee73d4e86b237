"""MLPerf's scenarios: what each one sends, and the least that its rules ask for.

| | sends | at least | its result |
|---|---|---|---|
| single-stream | one inference when the last one completed | 600 s, 100 requests | p90 latency |
| multi-stream | a request of eight when the last one completed | 600 s, 662 requests | p99 latency |
| server | one inference, at instants of a Poisson process | 600 s, 100 requests | the rate, p99 within a target |
| offline | all at once | 600 s, 24 576 inferences | inferences a second |

Source: LoadGen 6.0.17 (loadgen/mlperf.conf for resnet50, issue_query_controller.cc; github.com/mlcommons/inference). A
scenario is a preset of loadtrt's own options. Options that are given take precedence, and the result says which rule is
not kept then (stats/scenario.py). LoadGen's query and sample are a request and an inference here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from loadtrt.asked.fields import option_name
from loadtrt.asked.load_options import OPTIONS as LOAD_OPTIONS
from loadtrt.errors import UsageError
from loadtrt.units import SECOND_NS, exact_duration, parse_duration, parse_rate

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST_NS = 600 * SECOND_NS
# The last request must be sent at LEAST_NS or later. Sending ends at the run's duration: so much more has room for one
# request of up to 7 s, and 100 requests that take longer one after the other last for 600 s by themselves.
_ROOM_S = 7
_GAPS = 20  # a gap of a Poisson process exceeds so many mean gaps once in e^20 times

ScenarioName = Literal["single-stream", "multi-stream", "server", "offline"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario.

    name: name of the scenario.
    sends: what it sends, in words.
    arrivals: kind of load.
    rank: rank of the latency percentile that is its result; None without one.
    requests: the fewest requests; offline the fewest inferences.
    inferences: inferences of a request; None for any number.
    """

    name: ScenarioName
    sends: str
    arrivals: Literal["closed", "poisson", "offline"]
    rank: float | None
    requests: int
    inferences: int | None

    @property
    def alone(self) -> bool:
        """Whether one request is in flight at a time."""
        return self.arrivals == "closed"


SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("single-stream", "one inference when the last one completed", "closed", 0.9, 100, 1),
        Scenario("multi-stream", "a request of 8 inferences when the last one completed", "closed", 0.99, 662, 8),
        Scenario("server", "single inferences at Poisson instants of one rate", "poisson", 0.99, 100, 1),
        Scenario("offline", "all requests at once", "offline", None, 24_576, None),
    )
}
_NEVER = ("stages", "bursts", "burstiness", "trace", "mix")
_OPEN = ("rate", "batcher", "max_queue")  # without effect where one request is in flight
_LANES = ("contexts", "buffers")
_TARGET = re.compile(r"\s*latency\.p99\s*<")


def with_scenario(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a configuration, with the scenario's value for each option that is not given.

    Raises UsageError where an option contradicts the scenario, or one that it needs is missing."""
    given = {key: value for key, value in options.items() if value is not None}
    scenario = SCENARIOS.get(str(given.get("scenario")))
    if scenario is None:
        return dict(options)  # the declaration of the option refuses an unknown scenario
    _require_agreement(scenario, given)
    return {**options, **{key: value for key, value in _preset(scenario, given).items() if key not in given}}


def overruled_by_scenario(name: object) -> set[str]:
    """Options of a configuration file that this scenario, given on the command line, overrules."""
    scenario = SCENARIOS.get(str(name))
    if scenario is None:
        return set()
    more = (*_OPEN, *_LANES) if scenario.alone else ()
    return {*LOAD_OPTIONS, "duration", "requests", "mix", *more} - ({"rate"} if scenario.name == "server" else set())


def _require_agreement(scenario: Scenario, given: Mapping[str, Any]) -> None:
    """Raises UsageError for an option that contradicts the scenario, and for one that is missing."""
    option = f"--scenario {scenario.name}"
    if str(given.get("arrivals", scenario.arrivals)) != scenario.arrivals:
        raise UsageError(f"{option} sends {scenario.sends}: remove --arrivals")
    for key in (*_NEVER, *(_OPEN if scenario.alone else ())):
        if key in given:
            raise UsageError(f"{option} sends {scenario.sends}: remove {option_name(key)}")
    for key in _LANES if scenario.alone else ():
        if str(given.get(key, 1)) != "1":
            raise UsageError(f"{option} has one request in flight: remove --{key}, or set it to 1")
    if scenario.name != "server":
        return
    if "rate" not in given:
        raise UsageError(f"{option} needs a rate: add --rate, such as 500/s")
    objective = given.get("objective", ())
    objectives = objective if isinstance(objective, list | tuple) else [objective]
    if not any(_TARGET.match(str(objective)) for objective in objectives):
        raise UsageError(f"{option} needs a target: add --objective, such as 'latency.p99 < 15ms'")


def _preset(scenario: Scenario, given: Mapping[str, Any]) -> dict[str, Any]:
    preset: dict[str, Any] = {"arrivals": scenario.arrivals}
    if scenario.alone:
        preset |= {"contexts": 1, "buffers": 1}
    if scenario.name == "multi-stream" and not given.get("shapes"):
        preset["batch"] = scenario.inferences
    if scenario.name == "offline":
        preset["requests"] = scenario.requests
    elif "duration" not in given and "requests" not in given:
        preset |= {"requests": scenario.requests, "duration": exact_duration(_least_ns(given))}
    return preset


def _least_ns(given: Mapping[str, Any]) -> int:
    """Duration of sending, until a request is sent (a stream) or due (with a rate) after LEAST_NS, as in LoadGen."""
    seconds = LEAST_NS // SECOND_NS
    try:
        seconds += math.ceil(_GAPS / parse_rate(given["rate"])) if "rate" in given else _ROOM_S
        most = parse_duration(given["max_duration"]) if "max_duration" in given else seconds * SECOND_NS
    except UsageError:
        return LEAST_NS  # the declaration of the option refuses its value
    return min(seconds * SECOND_NS, most)
