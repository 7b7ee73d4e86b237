"""`loadtrt interference` on a real GPU: every way to share is measured, outputs are right beside each neighbour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from command_line import loadtrt
from loadtrt.cuda.runtime import call, device_properties
from loadtrt.report.result_files import read_result
from loadtrt.results.interference_result import CLOSED, InterferenceResult

if TYPE_CHECKING:
    from pathlib import Path

COMMON = ("--allow-host-code", "--max-lateness", "1s", "--shared-gpu", "--warmup", "300ms", "--quiet")


def test_every_way_to_share_is_measured(tmp_path: Path, googlenet: Path, tiny: Path) -> None:
    """A cell that fails or whose outputs differ names why; a late or starved host is this test's own matter."""
    call("cudaSetDevice", 0)
    half = device_properties(0).multiprocessors // 2 // 8 * 8
    rest = device_properties(0).multiprocessors - half
    file = tmp_path / "i.json"
    done = loadtrt(
        "interference",
        *("--model", f"tiny={tiny}", "--model", f"net={googlenet},batch=16", *COMMON),
        *("--share", f"streams,priority,sms={half}+{rest},both", "--neighbour", "0,50%,closed"),
        *("--duration", "500ms", "--rounds", "1", "--json", file),
    )
    assert done.returncode in (0, 97), done.stderr
    result = read_result(InterferenceResult, file)
    assert result.outcome == "completed"
    assert len(result.cells) == 4 * 2 * 3
    assert [cell.failure for cell in result.cells if cell.failure] == []
    for cell in result.cells:
        assert cell.verified, cell.share
        assert all(one.different == 0 and one.outputs for one in cell.verified.values()), cell
        if cell.share.startswith(("sms", "both")):
            assert cell.modes[cell.model]["partitions"] == f"1 of {half} SMs", cell.modes
        if cell.neighbour_level == CLOSED:
            assert cell.neighbour_kept is not None
            assert cell.neighbour_kept.ratio is not None
            assert cell.neighbour_kept.ratio < 1.5


def test_a_plan_has_a_fingerprint(tmp_path: Path, googlenet: Path) -> None:
    """Beside each stressor, which it slows down."""
    file = tmp_path / "i.json"
    done = loadtrt(
        "interference",
        *("--model", f"net={googlenet},batch=16", "--stressors", "--neighbour", "closed", *COMMON),
        *("--duration", "1s", "--rounds", "1", "--json", file),
    )
    assert done.returncode in (0, 97), done.stderr
    result = read_result(InterferenceResult, file)
    assert [cell.failure for cell in result.cells if cell.failure] == []
    assert {cell.neighbour for cell in result.cells if cell.model == "net"} == {"dram", "pcie", "sm", "l2"}
    kept = {cell.model: cell.kept and cell.kept.ratio for cell in result.cells if cell.model != "net"}
    assert all(kept.values()), kept
    assert (kept["sm"] or 0.0) < 1.1, kept
