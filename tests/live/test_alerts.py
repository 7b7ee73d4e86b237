"""Live alerts: the verdict's laws on live counts, and what only an observer sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from live_snapshots import FACTS, GPU, NAMES, snapshot
from loadtrt.findings.validity import limit_of
from loadtrt.live.alerts import LAW_KINDS, SILENCE_NS, alerts_of, counts_now, law_alerts, terms_of
from loadtrt.live.view import number_now
from loadtrt.records.histogram import QUANTILE_ERROR, bucket_of
from loadtrt.results.gpu_telemetry import GpuClient, GpuSharing
from observed_runs import observed_run

if TYPE_CHECKING:
    from loadtrt.live.alerts import Alert
    from loadtrt.live.observer import RunFacts
    from loadtrt.records.board import Snapshot


ENGINES = st.builds(
    "simulated:service={},distribution={},enqueue={},error={},seed={},clock=virtual".format,
    st.sampled_from(["200us", "2ms", "5ms"]),
    st.sampled_from(["constant", "exponential"]),
    st.sampled_from(["0s", "50us", "400us"]),
    st.sampled_from([0, 0, 0.02, 1]),
    st.integers(0, 9),
)
LOADS = st.one_of(
    st.fixed_dictionaries({"arrivals": st.just("closed"), "requests": st.integers(0, 1500)}),
    st.fixed_dictionaries(
        {
            "arrivals": st.sampled_from(["poisson", "constant"]),
            "rate": st.sampled_from(["50/s", "300/s", "500/s", "800/s", "3000/s"]),
            "duration": st.sampled_from(["0.5s", "2s"]),
            "drain": st.sampled_from(["0s", "10ms", "100s"]),
        }
    ),
)
MORE = st.fixed_dictionaries(
    {"contexts": st.integers(1, 3), "buffers": st.integers(1, 2), "seed": st.integers(0, 99)},
    optional={
        "max_lateness": st.sampled_from(["1us", "10s"]),
        "objective": st.sampled_from(
            [["latency.p99 < 10ms"], ["latency.p99 < 1s", "compute.p50 < 1ms"], ["errors < 1%", "throughput > 90/s"]]
        ),
    },
)


@settings(max_examples=60)
@given(ENGINES, LOADS, MORE)
def test_at_the_end_alerts_are_the_verdict(engine: str, load: dict[str, Any], more: dict[str, Any]) -> None:
    """For every finished run the live alerts are the problems and the overload of its result.

    Lateness comes from histograms there, which are within QUANTILE_ERROR: so near to the limit either may be right.
    """
    options = {"engine": engine, **load, **more}
    if options.get("requests") == 0:
        options |= {"requests": None, "duration": "100ms"}
    result, seen, facts = observed_run({name: value for name, value in options.items() if value is not None})
    overloaded = bool(result.model.steadiness and result.model.steadiness.overloaded and not result.model.unserved)
    expected = {problem.kind for problem in result.model.problems} | ({"overloaded"} if overloaded else set())
    counts = counts_now(seen, facts)
    limit_ns = limit_of(counts, terms_of(facts))
    kinds = {alert.kind for alert in law_alerts(seen, facts)}
    if abs(counts.lateness_ns - limit_ns) <= 2 * QUANTILE_ERROR * limit_ns:
        kinds, expected = kinds - {"late"}, expected - {"late"}
    for kind in expected or {"none"}:
        event(kind)
    assert kinds == expected
    assert kinds <= set(LAW_KINDS)
    assert seen.starved_fraction == result.model.starved_fraction


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"engine": "simulated:service=5ms,clock=virtual", "rate": "100/s"}, set()),
        (
            {"engine": "simulated:service=5ms,error=0.1,clock=virtual", "rate": "100/s", "objective": ["errors < 50%"]},
            set(),
        ),
        (
            {"engine": "simulated:service=2ms,enqueue=1ms,clock=virtual", "rate": "500/s", "contexts": 3},
            {"late", "starved"},
        ),
        ({"engine": "simulated:service=5ms,clock=virtual", "rate": "220/s", "drain": "60s"}, {"overloaded"}),
        ({"engine": "simulated:service=5ms,clock=virtual", "rate": "250/s", "drain": "0s"}, {"unserved"}),
        ({"engine": "simulated:service=5ms,error=0.1,clock=virtual", "rate": "100/s"}, {"failed"}),
        ({"engine": "simulated:service=1s,clock=virtual", "duration": "1ms", "drain": "0s"}, {"unserved"}),
    ],
)
def test_each_kind_comes_from_a_run(options: dict[str, Any], kinds: set[str]) -> None:
    """The property above is not empty: here are runs with each kind."""
    result, seen, facts = observed_run({"duration": "4s", "seed": 3, **options})
    assert {alert.kind for alert in law_alerts(seen, facts)} == kinds
    assert {problem.kind for problem in result.model.problems} == kinds


def test_an_overload_that_an_objective_judges_is_an_alert_and_no_problem() -> None:
    """As the finding in the result is none; a problem has the same numbers in both."""
    engine = {"engine": "simulated:service=5ms,clock=virtual", "rate": "220/s", "drain": "60s", "duration": "4s"}
    result, seen, facts = observed_run({**engine, "seed": 3})
    alerts = [(alert.evidence, alert.remedy) for alert in law_alerts(seen, facts)]
    assert alerts == [(problem.evidence, problem.remedy) for problem in result.model.problems]
    result, seen, facts = observed_run({**engine, "seed": 3, "objective": ["latency.p99 < 1s"]})
    assert [alert.kind for alert in law_alerts(seen, facts)] == ["overloaded"]
    assert result.model.problems == ()


def test_live_counts_of_objectives_are_those_of_the_result() -> None:
    """Good requests of every kind, and rates to the last digit."""
    texts = ["errors < 50%", "drops < 9%", "latency.p99 < 40ms", "throughput > 90/s", "goodput > 80/s"]
    engine = {"engine": "simulated:service=5ms,cv=1,error=0.1,clock=virtual", "rate": "180/s", "max_queue": 3}
    result, seen, facts = observed_run({**engine, "duration": "20s", "objective": texts})
    assert facts.objectives == result.config.model.objectives
    assert seen.good.tolist()[: len(texts)] == [item.good for item in result.model.objectives]
    assert result.model.dropped
    assert result.model.objectives[0].good == result.model.ok + result.model.dropped
    assert result.model.objectives[1].good == result.model.ok + result.model.failed
    for item, good in list(zip(result.model.objectives, seen.good, strict=False))[3:]:
        assert number_now(item.objective, seen, int(good), None) == pytest.approx(item.value, rel=1e-12)


def _alerts(found: Snapshot, facts: RunFacts = FACTS, gpu: Any = None, silent_ns: int = 0) -> tuple[Alert, ...]:
    return alerts_of(found, facts, gpu, found.written_ns + silent_ns)


def _late(lateness_ns: int) -> Snapshot:
    found = snapshot()
    found.counts[NAMES.index("lateness")] = 0
    found.counts[NAMES.index("lateness"), bucket_of(np.array([lateness_ns]))[0]] = 10_000
    return found


@pytest.mark.parametrize(
    ("found", "kind", "evidence", "remedy"),
    [
        (
            snapshot(outcomes=np.array([[9, 1, 0, 0]] * 2, np.int64)),
            "failed",
            "2 requests failed",
            "fix the first error",
        ),
        (_late(900_000), "late", "late at p99", "free a core"),
        (snapshot(missed=7), "missed", "7 finished requests not seen in time", "for the observer"),
        (snapshot(overloaded=True, waiting=40), "overloaded", "40 wait", "lower the load"),
        (snapshot(starved_fraction=0.3), "starved", "30 % of the time", "larger batches"),
    ],
)
def test_faults_while_a_run_measures(found: Snapshot, kind: str, evidence: str, remedy: str) -> None:
    """Each fault has its evidence and its remedy; a run without faults has none."""
    found.counts[NAMES.index("compute"), 900] = 10_000
    (alert,) = _alerts(found)
    assert alert.kind == kind
    assert evidence in alert.evidence
    assert remedy in alert.remedy
    assert _alerts(snapshot(), gpu=GPU) == ()


def test_a_run_that_has_just_begun_has_no_faults_yet() -> None:
    """One late request, or none served, says nothing in the first instants; a failure does. Before measuring there is
    nothing to say."""
    few = replace(_late(900_000_000), outcomes=np.array([[3, 0, 0, 0], [0, 0, 0, 0]], np.int64))
    few.counts[NAMES.index("lateness")] //= 5000
    assert _alerts(few) == ()
    assert [alert.kind for alert in _alerts(replace(few, phase="drain"))] == ["late"]
    none = replace(few, outcomes=np.zeros((2, 4), np.int64), counts=np.zeros_like(few.counts), in_flight=0)
    for phase, kinds in (("warm-up", []), ("measure", []), ("drain", []), ("done", ["no-requests"])):
        assert [alert.kind for alert in _alerts(replace(none, phase=phase))] == kinds
    failed = replace(few, outcomes=np.array([[3, 1, 0, 0], [0, 0, 0, 0]], np.int64))
    assert [alert.kind for alert in _alerts(failed)] == ["failed"]


def test_others_on_the_gpu_are_told_from_the_first_look_on() -> None:
    """A slow engine serves few requests in a whole run: its alerts must not wait for a p99."""
    sharing = GpuSharing((GpuClient(77, "python3", sm_ratio=0.5),))
    few = snapshot(1.0, (10, 10))
    assert counts_now(few, FACTS).lateness_rank != "p99"
    [alert] = law_alerts(few, FACTS, replace(GPU, sharing=sharing))
    assert (alert.kind, "python3 (process 77" in alert.evidence) == ("gpu-shared", True)
    assert law_alerts(few, replace(FACTS, shared_gpu=True), replace(GPU, sharing=sharing)) == ()


def test_lateness_has_the_limit_of_the_verdict() -> None:
    """A tenth of the median (4 ms), a twentieth of the objective (8 ms), --max-lateness; none in a closed loop."""
    assert _alerts(_late(390_000)) == ()
    assert [alert.kind for alert in _alerts(_late(410_000))] == ["late"]
    assert _alerts(_late(900_000), replace(FACTS, rate=None, closed=True)) == ()
    assert _alerts(_late(410_000), replace(FACTS, max_lateness_ns=10**6)) == ()
    assert [alert.kind for alert in _alerts(_late(300_000), replace(FACTS, max_lateness_ns=10**5))] == ["late"]
    looser = replace(FACTS, objectives=(replace(FACTS.objectives[0], bound_ns=20_000_000),))
    assert _alerts(_late(900_000), looser) == ()
    assert [alert.kind for alert in _alerts(_late(1_100_000), looser)] == ["late"]
    (alert,) = _alerts(_late(900_000), replace(FACTS, information={"wait": "block"}))
    assert alert.remedy == "use --wait spin"


def test_silence() -> None:
    """A board that is not written for 3 s while requests are sent or in flight: its process hangs. While it loads or
    reports, it does not write."""
    for phase, in_flight, silent_ns, silent in (
        ("measure", 0, SILENCE_NS, False),
        ("measure", 0, SILENCE_NS + 1, True),
        ("drain", 3, SILENCE_NS + 1, True),
        ("drain", 0, 10**12, False),
        ("done", 0, 10**12, False),
        ("load", 0, 10**12, False),
    ):
        kinds = [alert.kind for alert in _alerts(snapshot(phase=phase, in_flight=in_flight), silent_ns=silent_ns)]
        assert kinds == ["silent"] * silent


@pytest.mark.parametrize(
    ("reasons", "cause"),
    [
        (("sw_power_cap",), "1 980 MHz: power cap"),
        (("sw_thermal_slowdown", "hw_thermal_slowdown"), "heat, heat (hardware protection)"),
        (("hw_slowdown", "sw_power_cap"), "power cap"),
        (("hw_slowdown",), "hardware protection"),
        (("gpu_idle", "applications_clocks_setting"), None),
        (None, None),
    ],
)
def test_a_slowed_gpu(reasons: tuple[str, ...] | None, cause: str | None) -> None:
    """What slows a loaded GPU, in the words of the findings; what is normal is no alert."""
    alerts = _alerts(snapshot(), gpu=replace(GPU, throttle_reasons=reasons))
    assert [(alert.kind, alert.evidence.endswith(cause or "")) for alert in alerts] == [("throttled", True)] * bool(
        cause
    )


def test_the_docs_name_every_kind() -> None:
    """docs/live.md has a line for each kind of alert, the verdict's first."""
    text = (Path(__file__).parents[2] / "docs/live.md").read_text()
    table = text.partition("| kind |")[2].partition("\n\n")[0]
    kinds = [name.strip() for line in table.splitlines()[2:] for name in line.split("|")[1].split(",")]
    assert kinds[: len(LAW_KINDS)] == list(LAW_KINDS)
    assert kinds[len(LAW_KINDS) :] == ["throttled", "silent", "missed", "lost"]
