"""The benchmark of coverage: its truths are those of theory, and it counts what a run printed."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from benchmarks.capacity import deterministic
from benchmarks.coverage import QUEUES, Coverage, coverage, plot, sample

BY_NAME = {queue.name: queue for queue in QUEUES}


def test_the_truth_of_one_server() -> None:
    """M/M/1 is exponential; M/D/1 by Erlang's formula, within what 4 million draws tell."""
    true = BY_NAME["M/M/1"].truth(0.7)
    assert true["mean"] == pytest.approx(1e6 / 0.3)
    assert true["p99"] == pytest.approx(-math.log(0.01) * 1e6 / 0.3, rel=1e-4)
    assert true["throughput"] == pytest.approx(700)
    constant = BY_NAME["M/D/1"].truth(0.7)
    assert deterministic(0.001, 700.0, constant["p99"] / 1e9) == pytest.approx(0.01, rel=0.02)
    assert constant["mean"] == pytest.approx(1e6 * (1 + 0.7 / 0.6))


def test_what_a_run_prints_is_what_is_counted() -> None:
    """The intervals of its result; and its latencies, of which p99 is one within them."""
    result, latencies = BY_NAME["M/M/4"].run(0.5, "5s", 1)
    known = result.model.metrics["latency"]
    assert len(latencies) == known.count
    assert latencies[math.ceil(0.99 * len(latencies)) - 1] == known.percentiles_ns["p99"]
    found = sample(BY_NAME["M/M/4"], 0.5, 5_000_000_000, 2, 1)
    ends = known.confidence["p99"]
    assert found.ends["p99"] == (ends.low, ends.high)
    assert np.array_equal(found.latencies, latencies)
    assert len(found.p99s) == 2


def test_how_intervals_are_counted() -> None:
    """ "At least" holds what is above it; widths are of those with both ends."""
    ends = [(1.0, 2.0), (1.0, None), (3.0, None), (None, 1.2), (1.0, 4.0)]
    found = coverage(BY_NAME["M/M/1"], 0.5, "p99", "loadtrt", ends, 1.5)
    assert (found.holds, found.open, found.width) == (0.6, 0.6, 3.0)


def test_the_plot_is_a_drawing_of_its_own() -> None:
    """An SVG that needs no page around it, with a line for each tester."""
    rows = [Coverage("M/M/1", load, "p99", name, 0.9, 0.0, 1.1) for load in (0.3, 0.5) for name in ("loadtrt", "other")]
    drawn = ElementTree.fromstring(plot(rows, ["loadtrt", "other"], "M/M/1"))  # noqa: S314  # drawn above
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"loadtrt", "other"} <= set(texts)
