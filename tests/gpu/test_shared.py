"""A GPU that other processes use, too: runs beside one that computes are INVALID, beside one that holds memory not.

What NVML tells differs from host to host: a failure names what it told (`sharing` in run.json).
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GIB = 2**30
# Another process: holds 1 GiB, and where asked for keeps one SM's worth of blocks spinning, 5 ms a kernel.
_OTHER = """
import sys, threading
from cuda.bindings import driver, runtime

PTX = b'''.version 7.0
.target sm_50
.address_size 64
.visible .entry spin(.param .u64 cycles) {
    .reg .u64 %most, %began, %now;
    .reg .pred %again;
    ld.param.u64 %most, [cycles];
    mov.u64 %began, %clock64;
AGAIN:
    mov.u64 %now, %clock64;
    sub.u64 %now, %now, %began;
    setp.lt.u64 %again, %now, %most;
    @%again bra AGAIN;
    ret;
}
\\0'''

def checked(answer):
    status, *values = answer
    assert status == 0, status
    return values[0] if values else None

checked(runtime.cudaSetDevice(0))
held = checked(runtime.cudaMalloc(2**30))
function = checked(driver.cuModuleGetFunction(checked(driver.cuModuleLoadData(PTX)), b"spin"))
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
print("ready", flush=True)
while not ended.is_set():
    if sys.argv[1] == "computes":
        import ctypes
        checked(driver.cuLaunchKernel(function, 64, 1, 1, 64, 1, 1, 0, 0, ((8_000_000,), (ctypes.c_uint64,)), 0))
        checked(runtime.cudaDeviceSynchronize())
    else:
        ended.wait(0.05)
"""


@contextmanager
def another(does: str) -> Iterator[None]:
    """Another process on the GPU, that "computes", or only "holds" memory."""
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER, does], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
        process.stdin.close()
        assert process.wait(60) == 0


def _started(command: str, plan: Path, *arguments: str) -> subprocess.Popen[str]:
    line = (command, "--engine", str(plan), "--allow-host-code", "--batch", "16", "--json", "-")
    return subprocess.Popen(
        [sys.executable, "-m", "loadtrt", *line, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    out, error = process.communicate()
    assert "Traceback" not in error, error
    assert out, error
    result: dict[str, Any] = json.loads(out)
    return process.returncode, result


def _run(plan: Path, *arguments: str, duration: str = "5s") -> tuple[int, dict[str, Any]]:
    return _ended(_started("run", plan, "--contexts", "4", "--duration", duration, "--quiet", *arguments))


def _kinds(result: dict[str, Any], what: str) -> list[dict[str, str]]:
    (model,) = result["models"].values()
    return [item for item in model[what] if item["kind"] == "gpu-shared"]


@pytest.mark.parametrize("duration", ["1s", "5s"])
@pytest.mark.parametrize("arguments", [(), ("--rate", "100/s"), ("--no-telemetry",)])
def test_a_run_alone_is_never_taken_for_a_shared_one(
    googlenet: Path, arguments: tuple[str, ...], duration: str
) -> None:
    """Neither its own process nor its observer are others. The process of the tests may hold memory, and computes
    nothing."""
    _, result = _run(googlenet, *arguments, duration=duration)
    assert _kinds(result, "problems") == [], result["sharing"]
    assert all(other["sm_ratio"] in (0.0, None) for other in result["sharing"]["clients"]), result["sharing"]


def test_the_driver_tells_whose_kernels_ran(googlenet: Path) -> None:
    """Without it two runs at once cannot be told from one beside a process that holds memory."""
    _, result = _run(googlenet)
    assert result["sharing"]["told"], result["sharing"]
    assert result["sharing"]["own_sm_ratio"] > 0.5, result["sharing"]


@pytest.mark.parametrize("arguments", [(), ("--no-telemetry",)])
def test_two_runs_at_once_are_both_invalid(googlenet: Path, arguments: tuple[str, ...]) -> None:
    """Each names the other, and what it took."""
    both = [_started("run", googlenet, "--contexts", "4", "--duration", "8s", "--quiet", *arguments) for _ in range(2)]
    for code, result in map(_ended, both):
        (problem,) = _kinds(result, "problems")
        assert code == 97, result["sharing"]
        assert "of the time" in problem["evidence"]
        assert max(other["sm_ratio"] for other in result["sharing"]["clients"]) > 0.1


@pytest.mark.parametrize("load", [(), ("--rate", "50/s")])
def test_a_foreign_process_that_computes(googlenet: Path, load: tuple[str, ...]) -> None:
    """Makes a run INVALID, however little that itself computes; --shared-gpu makes a finding of it."""
    with another("computes"):
        code, result = _run(googlenet, *load)
        (problem,) = _kinds(result, "problems")
        assert code == 97, result["sharing"]
        assert "--shared-gpu" in problem["remedy"]
        _, result = _run(googlenet, *load, "--shared-gpu")
        assert _kinds(result, "problems") == []
        assert any("--shared-gpu" in finding["cause"] for finding in _kinds(result, "findings")), result["sharing"]


def test_a_foreign_process_that_only_holds_memory(googlenet: Path) -> None:
    """Is a finding, with its memory."""
    with another("holds"):
        _, result = _run(googlenet)
    assert _kinds(result, "problems") == [], result["sharing"]
    (finding,) = _kinds(result, "findings")
    assert "hold memory" in finding["cause"], result["sharing"]
    assert any((other["memory_bytes"] or 0) >= GIB for other in result["sharing"]["clients"]), result["sharing"]


def test_searches_sweeps_and_profiles_say_so(googlenet: Path) -> None:
    """A search ends, unless the others are accepted; each point of a sweep is INVALID; a profile notes them."""
    with another("computes"):
        search = ("--contexts", "2", "--objective", "latency.p99 < 1s", "--quick", "--quiet")
        code, result = _ended(_started("capacity", googlenet, *search, "--time", "10s"))
        assert (code, result["candidates"][0]["answer"]) == (97, "unsteady")
        assert "others computed on this GPU" in result["candidates"][0]["conclusion"]
        code, result = _ended(_started("sweep", googlenet, "--contexts", "1,2", "--duration", "3s", "--quiet"))
        assert code == 97
        assert all(_kinds(point["run"], "problems") for point in result["points"])
        _, result = _ended(_started("profile", googlenet, "--duration", "3s", "--quiet"))
        assert any("others computed on this GPU" in note for note in result["notes"]), result["notes"]
