"""Runs of MLPerf's own LoadGen in this process, and its queries as loadtrt judges them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loadtrt.asked.mlperf import LEAST_NS, SCENARIOS
from loadtrt.asked.objective import parse_objective
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import COLUMNS, Records
from loadtrt.stats.scenario import Sending, scenario_of
from loadtrt.stats.verdict import judge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from loadtrt.results.breakdown import ScenarioResult
    from loadtrt.results.run_result import ObjectiveShare

    Instants = npt.NDArray[np.int64]

lg = pytest.importorskip("mlperf_loadgen")
NAMES = {"single-stream": "SingleStream", "multi-stream": "MultiStream", "server": "Server", "offline": "Offline"}
_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]\d+)?"  # as C++ streams print one
_SAMPLE = re.compile(
    rf'"name":"Sample","cat":"default","ph":"b".*?"ts":({_NUMBER}),.*?"query_seq":(\d+),.*?"complete_ns":(\d+)'
)


@dataclass(frozen=True)
class Told:
    """What LoadGen wrote of a run: its queries, when they were due and how long each took, ns, and its summary."""

    due: Instants
    latency: Instants
    summary: str

    def number(self, after: str) -> float | None:
        """The number printed after these words, such as 63, 0.99 or 1.58782e+06; None where the summary has none."""
        printed = re.search(rf"{after}\s*:?\s*({_NUMBER})", self.summary)
        return float(printed[1]) if printed else None


def run_loadgen(
    scenario: str,
    folder: Path,
    issue: Callable[[Any], None],
    flush: Callable[[], None] = lambda: None,
    **settings: Any,
) -> Told:
    """Run LoadGen on what takes samples by `issue`, and knows by `flush` that no more will come."""
    asked = lg.TestSettings()
    asked.scenario, asked.mode = getattr(lg.TestScenario, NAMES[scenario]), lg.TestMode.PerformanceOnly
    asked.min_duration_ms = 0
    for name, value in settings.items():
        setattr(asked, name, value)
    output, log = lg.LogOutputSettings(), lg.LogSettings()
    output.outdir = str(folder)
    log.log_output, log.enable_trace = output, True
    system = lg.ConstructSUT(issue, flush)
    library = lg.ConstructQSL(64, 64, lambda _: None, lambda _: None)
    lg.StartTestWithLogSettings(system, library, asked, log, "")
    lg.DestroyQSL(library)
    lg.DestroySUT(system)
    samples = _SAMPLE.findall((folder / "mlperf_log_trace.json").read_text())
    queries: dict[int, tuple[int, int]] = {}
    for ts, query, took in samples:  # a query is over with its last sample
        queries[int(query)] = (round(float(ts) * 1000), max(int(took), queries.get(int(query), (0, 0))[1]))
    due, latency = np.array([queries[query] for query in sorted(queries)], np.int64).T
    return Told(due - due[0], latency, (folder / "mlperf_log_summary.txt").read_text())


def at_once(samples: Any) -> None:
    lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0) for sample in samples])


def judged(told: Told, name: str, bound_ns: int) -> tuple[ObjectiveShare, ScenarioResult]:
    """LoadGen's queries, judged by loadtrt: under its objective, and by the rules."""
    rows = np.zeros((len(told.due), len(COLUMNS)), np.int64)
    rows[:, 0] = rows[:, 1] = rows[:, 2] = told.due
    rows[:, 3] = told.due + told.latency
    histogram = Histogram()
    histogram.add(told.latency)
    objective = parse_objective(f"latency.p99 < {bound_ns}ns")
    good = int(np.count_nonzero(told.latency <= bound_ns))
    share = judge(objective, Records(rows), histogram, good, len(rows))
    sending = Sending(len(rows), len(rows), SCENARIOS[name].inferences or 1, LEAST_NS)
    histograms = {"latency": histogram, "service": histogram}
    found = scenario_of(name, sending, Records(rows), histograms, (share,))
    assert found is not None
    return share, found
