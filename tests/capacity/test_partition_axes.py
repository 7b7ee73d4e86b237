"""Sweeps over partitions of the SMs: their order, and the points that have no context for a partition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from command_line import loadtrt
from loadtrt.asked.config import RunConfig
from loadtrt.asked.reading import varied
from loadtrt.errors import UsageError
from loadtrt.report.result_files import read_result
from loadtrt.results.capacity_result import SweepResult
from loadtrt.sizing.grid import parse_axis, points_of, unusable

if TYPE_CHECKING:
    from pathlib import Path

VIRTUAL = "simulated:service=2ms,clock=virtual"


def test_a_point_needs_a_context_for_each_partition() -> None:
    """Law: a point of fewer contexts than partitions is left out with the reason, all others are measured; SMs of one
    partition need one context."""
    axes = {"sms": (8, 16), "partitions": (1, 2, 4), "contexts": (4, 2)}
    points = points_of(axes)
    assert list(points[0]) == ["contexts", "partitions", "sms"]
    left = [(point["contexts"], point["partitions"]) for point in points if unusable(point)]
    assert left == [(2, 4), (2, 4)]
    assert unusable({"contexts": 2, "partitions": 4}) == "4 partitions need as many contexts"
    assert unusable({"sms": 8}) is None


def test_counts_are_read_as_those_of_contexts() -> None:
    """Law: lists and ranges, from 1 on."""
    assert parse_axis("partitions", "1,2,4..6") == (1, 2, 4, 5, 6)
    for text in ("0", "half", "8..1"):
        with pytest.raises(UsageError, match="--sms"):
            parse_axis("sms", text)


def test_contexts_and_partitions_belong_together() -> None:
    """Law: a run of fewer contexts than partitions is refused wherever its options come from; a result that was
    narrowed to fewer contexts is read all the same."""
    with pytest.raises(
        UsageError, match=r"--partitions 4 needs as many contexts: give --contexts 4 or more, or take --sms"
    ):
        RunConfig.of(engine="a.plan", contexts=2, partitions=4)
    whole = RunConfig.of(engine="a.plan", contexts=4, partitions=4)
    with pytest.raises(UsageError, match="--partitions 4 needs"):
        varied(whole, contexts=2)
    narrowed = whole.with_model(contexts=1)
    assert RunConfig.model_validate_json(narrowed.model_dump_json()) == narrowed


def test_a_sweep_measures_the_points_that_can_be(tmp_path: Path) -> None:
    """Law: points without a context for each partition are skipped, those that the engine refuses have failed, and the
    rest is measured; a file may ask for partitions that only the command line's contexts suffice for."""
    file = tmp_path / "sweep.json"
    common = ("--warmup", "0", "--duration", "1s", "--quiet", "--json", file)
    done = loadtrt("sweep", "--engine", VIRTUAL, "--contexts", "1,2", "--partitions", "1,2", *common)
    assert (done.returncode, done.stderr) == (0, "")
    result = read_result(SweepResult, file)
    assert [(item.settings, item.reason) for item in result.skipped] == [
        ({"contexts": 1, "partitions": 2}, "2 partitions need as many contexts")
    ]
    measured = {tuple(point.settings.values()): point.failure for point in result.points}
    assert measured[1, 1] is None
    assert measured[2, 1] is None
    assert (measured[2, 2] or "").startswith("--partitions is for TensorRT plans")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--engine", VIRTUAL, "--contexts", "1,2", "--partitions", "4,8"),
            "no point of the sweep can be measured: 4 partitions need",
        ),
        (
            ("--engine", VIRTUAL, "--partitions", "1,2"),
            "--partitions 2 needs as many contexts: give --contexts 2 or more",
        ),
        (("--engine", "simulated:null", "--sms", "8,16"), "simulated:null has no device to share: leave --sms out"),
    ],
)
def test_a_sweep_that_can_measure_nothing_is_one_sentence(arguments: tuple[str, ...], words: str) -> None:
    """Law: it ends before anything is measured."""
    done = loadtrt("sweep", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_options_of_a_file_are_completed_by_axes(tmp_path: Path) -> None:
    """Law: a file's partitions are checked with the contexts of each point, not with those of the file."""
    file = tmp_path / "run.yaml"
    file.write_text(f"engine: {VIRTUAL}\npartitions: 2\n")
    done = loadtrt("sweep", "--config", file, "--contexts", "2,4")
    assert "--partitions is for TensorRT plans" in done.stderr
    done = loadtrt("capacity", "--config", file, "--contexts", "2", "--objective", "latency.p99 < 10ms")
    assert "--partitions is for TensorRT plans" in done.stderr
    done = loadtrt("sweep", "--config", file, "--contexts", "1,4")
    assert "--partitions 2 needs as many contexts" in done.stderr


@pytest.mark.parametrize("sms", ["8,16", "8", "25%,50%", "8,25%"])
@pytest.mark.parametrize("device", ["", ",device=g"])
def test_sms_that_a_simulated_device_has_not_are_refused_at_once(sms: str, device: str) -> None:
    """In a sentence about what was asked, whatever the values; and not point by point, as a failure of the engine."""
    done = loadtrt("sweep", "--engine", f"{VIRTUAL}{device}", "--sms", sms, "--warmup", "0", "--duration", "1s")
    if device and "%" in sms:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert ("write --sms as a share, such as 25%" if device else "add device=gpu0") in line
