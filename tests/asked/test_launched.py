"""Which worker a process is, by its environment, and the instant at which all workers begin."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from command_line import loadtrt
from loadtrt.asked.launched import parse_start, worker_of
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

SLURM = {"SLURM_PROCID": "2", "SLURM_NTASKS": "8"}
JOB = {"JOB_COMPLETION_INDEX": "1"}


@pytest.mark.parametrize(
    ("text", "environment", "worker"),
    [
        ("1/4", SLURM, "1/4"),
        ("auto", SLURM, "2/8"),
        ("auto/8", SLURM, "2/8"),
        ("auto/3", JOB, "1/3"),
        ("auto", {**SLURM, "OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "6"}, "5/6"),
        ("auto", {**JOB, "RANK": "0", "WORLD_SIZE": "2"}, "0/2"),
        ("auto", {"PMI_RANK": "3", "PMI_SIZE": "4"}, "3/4"),
    ],
)
def test_the_worker_of_an_environment(text: str, environment: dict[str, str], worker: str) -> None:
    """The innermost launcher counts, and what is written is not overruled."""
    launched = worker_of(text, environment)
    assert launched.worker == worker
    assert bool(launched.remark) == text.startswith("auto")


@pytest.mark.parametrize(
    ("text", "environment", "sentence"),
    [
        ("auto", {}, "none of OMPI_COMM_WORLD_RANK, .* is set here: write the number, such as --worker 0/8"),
        ("auto", JOB, "does not tell how many workers there are: write --worker auto/8"),
        ("auto", {"SLURM_PROCID": "2"}, "SLURM_NTASKS is not set"),
        ("auto/4", SLURM, "sets SLURM_NTASKS to 8: write --worker auto"),
        ("auto/2", {"JOB_COMPLETION_INDEX": "2"}, "there is no worker 2 of 2"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "2"}, "'x/2' is not a worker"),
        ("auto/many", JOB, "'1/many' is not a worker"),
    ],
)
def test_an_environment_that_does_not_tell(text: str, environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        worker_of(text, environment)


def test_a_start_instant_is_exact() -> None:
    """To the ns, in any zone, or as seconds since 1970."""
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    expected = int(soon.timestamp()) * 10**9
    assert parse_start(f"{soon:%Y-%m-%dT%H:%M:%SZ}") == expected
    assert parse_start(f"{soon:%Y-%m-%d %H:%M:%S}.000000001+00:00") == expected + 1
    assert parse_start(f"{soon + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}+02:00") == expected
    assert parse_start(str(expected // 10**9)) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("soon", "is not an instant"),
        ("", "is not an instant"),
        ("2030-11-29T16:00:00", "has no zone"),
        ("16:00:00", "of some day"),
        ("30", "of some day"),
        ("2001-11-29T16:00:00Z", "has passed"),
        ("2201-11-29T16:00:00Z", "more than a day away"),
    ],
)
def test_what_is_no_start_instant(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse_start(text)


def test_a_worker_begins_at_its_instant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its result says which worker it was, of which load, and how late it began."""
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    file, start = tmp_path / "run.json", int(time.time()) + 4
    options = ("simulated:service=1ms,clock=virtual", "--warmup", "0s", "--rate", "800/s", "--duration", "1s")
    done = loadtrt("run", *options, "--worker", "auto", "--start-at", str(start), "--json", file)
    assert "worker 2/8, by SLURM_PROCID and SLURM_NTASKS of Slurm" in done.stderr
    assert "worker 2/8 of this load, random" in " ".join(done.stdout.split())
    result = json.loads(file.read_text())
    (model,) = result["models"].values()
    assert result["began"] >= datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    assert result["late_start_ns"] is not None
    assert result["config"]["worker"] == "2/8"
    assert model["throughput"]["offered_per_s"] == 100


def test_routing_is_about_workers() -> None:
    """Alone, and in closed loops, it would do nothing."""
    done = loadtrt("run", "simulated:null", "--routing", "random")
    assert (done.returncode, "--routing says how workers share a load" in done.stderr) == (2, True)
    done = loadtrt("run", "simulated:null", "--processes", "2", "--routing", "random")
    assert (done.returncode, "--routing is for arrivals, and each worker has a closed loop" in done.stderr) == (2, True)
