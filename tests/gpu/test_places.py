"""What leaves a run on a real GPU for other tools: the GPU's UUID on pushed series, and ranges of NVTX."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from listening import listening
from loadtrt.results.run_result import RunResult

if TYPE_CHECKING:
    from pathlib import Path


def test_pushed_series_have_the_uuid_of_the_gpu(googlenet: Path, tmp_path: Path) -> None:
    """As nvidia-smi lists it, on the GPU's series and on run_info."""
    with listening() as (url, got):
        command = [
            sys.executable, "-m", "loadtrt", "run", "--engine", str(googlenet), "--batch", "16", "--allow-host-code",
            "--duration", "2s", "--quiet", "--json", "run.json", "--push", url, "--label", "team=search",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    result = RunResult.model_validate_json((tmp_path / "run.json").read_text())
    assert "pushed" not in done.stderr
    ((what, _, body),) = got
    assert what == "PUT /metrics/job/loadtrt/team/search"
    uuid = result.environment["gpu"]["uuid"]
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    assert uuid in listed
    series = re.findall(r"^(loadtrt_run_info|loadtrt_gpu_\w+)\{(.*)\} ", body.decode(), re.MULTILINE)
    assert {"loadtrt_run_info", "loadtrt_gpu_power_watts"} <= {name for name, _ in series}
    for name, labels in series:
        assert f'UUID="{uuid}"' in labels, name
        assert f'Hostname="{result.environment["host"]}"' in labels, name


def test_a_gpu_of_two_workers_is_pushed_once(googlenet: Path, tmp_path: Path) -> None:
    """With the number that --devices has, and neither worker is another process on it."""
    with listening() as (url, got):
        command = [
            sys.executable, "-m", "loadtrt", "run", "--engine", str(googlenet), "--batch", "16", "--allow-host-code",
            "--duration", "3s", "--devices", "0", "--processes", "2", "--quiet", "--json", "run.json", "--push", url,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode in (0, 97), done.stderr
    result = RunResult.model_validate_json((tmp_path / "run.json").read_text())
    uuid = result.workers[0].environment["gpu"]["uuid"]
    ((_, _, body),) = got
    text = body.decode()
    (labels,) = re.findall(r"^loadtrt_gpu_power_watts\{(.*)\} ", text, re.MULTILINE)
    assert f'UUID="{uuid}"' in labels
    assert 'device="0"' in labels
    assert "worker=" not in labels
    assert len(re.findall(r"^loadtrt_run_info\{", text, re.MULTILINE)) == 1
    served = re.findall(r'^loadtrt_latency_seconds_count\{.*device="0".*worker="(\d)".*\} (\S+)$', text, re.MULTILINE)
    assert {(number, float(count)) for number, count in served} == {
        (worker.worker, float(worker.model.ok)) for worker in result.workers
    }
    assert set(re.findall(r'^loadtrt_problem_active\{.*kind="gpu-shared".*\} (\S+)$', text, re.MULTILINE)) == {"0.0"}
    (others,) = re.findall(r"^loadtrt_gpu_other_processes\{.*\} (\S+)$", text, re.MULTILINE)
    assert float(others) == 0


def test_a_marked_run_drives_the_same_loop(googlenet: Path, tmp_path: Path) -> None:
    """--nvtx leaves the loop as it is, and the run is valid or late as any other."""
    loops = []
    for options in ((), ("--nvtx",)):
        command = [
            sys.executable, "-m", "loadtrt", "run", "--engine", str(googlenet), "--batch", "16", "--allow-host-code",
            "--requests", "200", "--quiet", "--json", "run.json", "--force", *options,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode in (0, 97), done.stderr
        model = RunResult.model_validate_json((tmp_path / "run.json").read_text()).model
        assert model.ok == model.submitted >= 200
        loops.append(model.engine.mode.get("loop"))
    assert loops[0] == loops[1]
