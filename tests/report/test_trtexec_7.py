"""Times that trtexec of TensorRT 7 exported: read as those of later versions, which have the same under other names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from command_line import loadtrt
from loadtrt.errors import UsageError
from loadtrt.report.trtexec import read_times

if TYPE_CHECKING:
    from pathlib import Path

# The keys that sampleReporting.cpp writes in each release, and of which of a query's times it takes the value.
H2D, COMPUTE, D2H = ("in_start", "in_end"), ("compute_start", "compute_end"), ("out_start", "out_end")
ENQUEUE = ("enq_start", "enq_end")
LENGTHS_7 = {"inMs": H2D, "computeMs": COMPUTE, "outMs": D2H}
_COMPUTE, _OUT = ("startComputeMs", "endComputeMs", COMPUTE), ("startOutMs", "endOutMs", D2H)
WRITTEN = {
    "7.0": [("startInMs", "endInMs", H2D), _COMPUTE, _OUT],
    "7.2": [("startEnqMs", "endEnqMs", H2D), ("startInMs", "endInMs", ENQUEUE), _COMPUTE, _OUT],  # as it stands there
    "8.2": [
        ("startEnqMs", "endEnqMs", ENQUEUE),
        ("startH2dMs", "endH2dMs", H2D),
        _COMPUTE,
        ("startD2hMs", "endD2hMs", D2H),
    ],
}


def _queries(count: int, slower: float = 1.0) -> list[dict[str, float]]:
    """Queries of one stream, one after the other, with a gap between copy and compute now and then; ms."""
    random = np.random.default_rng(7)
    queries, now = [], 10.0
    for _ in range(count):
        in_end = now + 0.1 + 0.02 * random.random()
        compute_start = in_end + 0.05 * random.integers(2)
        compute_end = compute_start + slower * (1 + 0.1 * random.random())
        out_end = compute_end + 0.03
        times = {"in_start": now, "in_end": in_end, "compute_start": compute_start, "compute_end": compute_end}
        enqueued = now - 3.4  # of another clock
        queries.append(
            {**times, "out_start": compute_end, "out_end": out_end, "enq_start": enqueued, "enq_end": enqueued + 0.01}
        )
        now = out_end + 0.01
    return queries


def _export(file: Path, version: str, queries: list[dict[str, float]]) -> Path:
    records = []
    for query in queries:
        record: dict[str, float] = {}
        for start, end, (first, last) in WRITTEN[version]:
            record |= {start: query[first], end: query[last]}
        lengths = LENGTHS_7 if version < "8" else {"h2dMs": H2D, "computeMs": COMPUTE, "d2hMs": D2H}
        record |= {key: query[last] - query[first] for key, (first, last) in lengths.items()}
        record["latencyMs"] = sum(record[key] for key in lengths)
        record["endToEndMs"] = query["out_end"] - query["in_start"]
        records.append({key: float(f"{value:.6g}") for key, value in record.items()})  # as C++ prints a float
    file.write_text(json.dumps(records))
    return file


@pytest.mark.parametrize("version", WRITTEN)
def test_the_times_of_every_version_are_the_same(version: str, tmp_path: Path) -> None:
    """Of one run: copies, compute, and the instants on the GPU's clock; the time of enqueuing where there is any."""
    queries = _queries(40)
    times = read_times(_export(tmp_path / "times.json", version, queries))
    for what, (first, last) in (("h2d", H2D), ("compute", COMPUTE), ("d2h", D2H)):
        expected = [(query[last] - query[first]) * 1e6 for query in queries]
        assert getattr(times, what) == pytest.approx(expected, abs=200)  # six digits of 100 ms
    assert times.submitted == pytest.approx([query["in_start"] * 1e6 for query in queries], abs=200)
    assert times.completed == pytest.approx([query["out_end"] * 1e6 for query in queries], abs=200)
    enqueued = 0 if version == "7.0" else 10_000
    assert times.enqueued - times.submitted == pytest.approx(np.full(40, enqueued), abs=200)


@pytest.mark.parametrize("before", ["7.0", "7.2"])
@pytest.mark.parametrize("after", ["7.0", "8.2"])
def test_a_baseline_of_7_is_compared(before: str, after: str, tmp_path: Path) -> None:
    """With later times too: 20 % more compute is found."""
    a = _export(tmp_path / "a.json", before, _queries(300))
    b = _export(tmp_path / "b.json", after, _queries(300, slower=1.2))
    done = loadtrt("compare", a, b)
    assert done.returncode == 0
    (row,) = (line.split() for line in done.stdout.splitlines() if line.startswith("compute mean"))
    assert float(row[6]) == pytest.approx(1.2, abs=0.01)
    enqueued = [line for line in done.stdout.splitlines() if line.startswith("enqueue mean")]
    assert not enqueued or ("–" in enqueued[0]) == ("7.0" in (before, after))
    assert bool(enqueued) == ({before, after} != {"7.0"})


def test_a_record_of_7_that_lacks_a_time_is_told(tmp_path: Path) -> None:
    """By the name that it has in the file."""
    file = tmp_path / "a.json"
    file.write_text('[{"startInMs": 0, "endInMs": 1, "latencyMs": 1}]')
    with pytest.raises(UsageError, match="record 1 has no startComputeMs"):
        read_times(file)


@pytest.mark.parametrize(
    "text",
    ["&&&& RUNNING TensorRT.trtexec # trtexec", "[01/02/2024-10:00:00] [I] === Model Options ==="],
)
def test_a_log_of_trtexec_is_told(text: str, tmp_path: Path) -> None:
    """With the option that writes times."""
    file = tmp_path / "log.json"
    file.write_text(f"{text}\n")
    done = loadtrt("compare", file, file)
    assert (done.returncode, done.stderr) == (
        2,
        f"loadtrt: {file} is a log of trtexec: give a file that its --exportTimes wrote\n",
    )
