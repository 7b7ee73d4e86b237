"""A device that is lost while it is measured: the error is sticky, and what was measured is kept."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from loadtrt.report.result_files import read_run

if TYPE_CHECKING:
    from pathlib import Path

# Runs the command line, and stores to an address of nobody on the same device once requests have been served.
_BREAK = """
import sys, threading, time

PTX = b'''.version 7.0
.target sm_50
.address_size 64
.visible .entry store_nowhere() {
    .reg .u64 %address;
    .reg .u32 %value;
    mov.u64 %address, 16;
    mov.u32 %value, 1;
    st.global.u32 [%address], %value;
    ret;
}
\\0'''

delay = float(sys.argv.pop())

def break_the_device():
    from cuda.bindings import driver, runtime
    time.sleep(delay)
    (status,) = runtime.cudaSetDevice(0)
    status, module = driver.cuModuleLoadData(PTX)
    status, function = driver.cuModuleGetFunction(module, b"store_nowhere")
    driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0)

breaking = threading.Thread(target=break_the_device, daemon=True)
breaking.start()
time.sleep(0.1)
from loadtrt.__main__ import main
main()
"""


@pytest.mark.parametrize("mode", [(), ("--no-graph",), ("--wait", "block"), ("--metrics", "127.0.0.1:0")])
def test_a_lost_device_keeps_what_was_measured(googlenet: Path, tmp_path: Path, mode: tuple[str, ...]) -> None:
    """Exit code 3, a sentence that names CUDA's error, and a result that says that the run failed."""
    file = tmp_path / "run.json"
    run = ("run", "--engine", str(googlenet), "--batch", "16", "--allow-host-code", "--contexts", "2", "--quiet")
    line = [*run, "--duration", "60s", "--json", str(file), *mode]
    done = subprocess.run([sys.executable, "-c", _BREAK, *line, "12"], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "fault in loadtrt" not in done.stderr
    assert "cudaErrorIllegalAddress" in done.stderr
    result = read_run(file)
    assert result.outcome == "failed"
    assert result.model.ok > 0
    assert result.phases.measure_ns < 59 * 10**9
