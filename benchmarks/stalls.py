"""The p99 that perf_analyzer and loadtrt report of a server that stalls once, beside the true one.

    python -m venv triton && triton/bin/pip install nvidia-pytriton perf-analyzer==2.60.0    # needs glibc 2.38
    python -m benchmarks.stalls --triton triton/bin/python --perf-analyzer triton/bin/perf_analyzer [--rounds 3]

--triton is an interpreter that has nvidia-pytriton, and serves one model, which sleeps for 2 ms a request, and 1 s
longer at its 300th of 1 000 requests. --perf-analyzer is started once with its defaults and once with --async; both
send 1 000 requests at 50/s. loadtrt has no client for servers: it runs a simulated engine, in real time, that takes
5 ms a request and stalls for 1 s at the same place. The true p99 is that of requests at equal gaps in front of one
server (Lindley's recursion), whose service time is the median that the tool reports.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import socket
import subprocess
import sys
import time
from statistics import median

import numpy as np

from benchmarks.machine import machine_line
from loadtrt.units import SECOND_NS, format_duration

REQUESTS, RATE, STALLED, STALL_NS = 1_000, 50, 300, SECOND_NS
HTTP, GRPC, METRICS = 18500, 18501, 18502
TOKEN = "benchmark"  # noqa: S105  # Triton of pytriton answers for statistics only to those who know a token
SERVER = f"""
import itertools, time
import numpy as np
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig

numbers = itertools.count()

def infer(requests):
    if next(numbers) % {REQUESTS} == {STALLED}:
        time.sleep({STALL_NS / SECOND_NS})
    time.sleep(0.002)
    return [{{"y": request["x"]}} for request in requests]

local = dict.fromkeys(("http_address", "grpc_address", "metrics_address"), "127.0.0.1")
config = TritonConfig(http_port={HTTP}, grpc_port={GRPC}, metrics_port={METRICS}, **local)
with Triton(config=config, security_config=TritonSecurityConfig(access_token={TOKEN!r})) as triton:
    tensors = {{name: [Tensor(name=name, dtype=np.float32, shape=(16,))] for name in "xy"}}
    triton.bind("m", infer, tensors["x"], tensors["y"], config=ModelConfig(batching=False))
    triton.serve()
"""
Numbers = tuple[float, float]  # the median and p99, ns


def true_p99(service_ns: float) -> float:
    """Of requests at equal gaps in front of one server, which stalls at one of them: Lindley's recursion."""
    service = np.full(REQUESTS, service_ns)
    service[STALLED] += STALL_NS
    waited, latencies = 0.0, []
    for each in service:
        latencies.append(waited + each)
        waited = max(0.0, waited + each - SECOND_NS / RATE)
    return float(np.sort(latencies)[round(0.99 * REQUESTS) - 1])


def of_perf_analyzer(command: str, *mode: str) -> Numbers:
    """What it reports of one run."""
    header = ("-H", f"triton-grpc-protocol-triton-access-token:{TOKEN}")
    load = ("--request-rate-range", str(RATE), "--request-distribution", "constant", "--request-count", str(REQUESTS))
    line = [*shlex.split(command), "-m", "m", "-i", "grpc", "-u", f"127.0.0.1:{GRPC}", *header, *load, *mode]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    if warning := re.search(r"\[WARNING\] (.*)", said):
        print(f"perf_analyzer {' '.join(mode)}: {warning[1]}", flush=True)
    found = {name: float(value) * 1e3 for name, value in re.findall(r"(p50|p99) latency: (\d+) usec", said)}
    return found["p50"], found["p99"]


def of_loadtrt() -> Numbers:
    """What it reports of one run of a simulated engine that stalls."""
    engine = f"simulated:service=5ms,stall=1s@{STALLED / RATE:g}s"
    load = ("--contexts", "1", "--buffers", "1", "--rate", f"{RATE}/s", "--arrivals", "constant", "--warmup", "0")
    line = [sys.executable, "-m", "loadtrt", "run", "--engine", engine, *load, "--requests", str(REQUESTS)]
    said = subprocess.run([*line, "--quiet", "--json", "-"], capture_output=True, text=True, check=False).stdout
    (model,) = json.loads(said)["models"].values()
    times = model["metrics"]["latency"]["percentiles_ns"]
    return times["p50"], times["p99"]


def await_server(server: subprocess.Popen[bytes]) -> None:
    """Until its port is open; the model is ready some seconds later."""
    while server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", GRPC)) == 0:
                time.sleep(8)
                return
        time.sleep(0.5)
    sys.exit("the server ended before it served")


def main() -> None:
    """Run the rounds and print a line for each tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triton", required=True, metavar="PYTHON", help="interpreter that has nvidia-pytriton")
    parser.add_argument("--perf-analyzer", required=True, metavar="COMMAND")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows: dict[str, list[Numbers]] = {"perf_analyzer": [], "perf_analyzer --async": [], "loadtrt": []}
    server = subprocess.Popen([options.triton, "-c", SERVER], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_server(server)
        for _ in range(options.rounds):
            rows["perf_analyzer"].append(of_perf_analyzer(options.perf_analyzer))
            rows["perf_analyzer --async"].append(of_perf_analyzer(options.perf_analyzer, "--async"))
            rows["loadtrt"].append(of_loadtrt())
    finally:
        server.terminate()
        server.wait()
    print(
        f"one stall of {format_duration(STALL_NS)} in {REQUESTS} requests at {RATE}/s; medians of {options.rounds} runs"
    )
    print(f"{'':24}{'p50':>9}{'p99':>10}{'true p99':>10}{'said : true':>24}")
    for name, runs in rows.items():
        shares = sorted(p99 / true_p99(p50) for p50, p99 in runs)
        times = [median(column) for column in (*zip(*runs, strict=True), [true_p99(p50) for p50, _ in runs])]
        shown = "".join(f"{format_duration(round(each)):>10}" for each in times)
        print(f"{name:23}{shown}{median(shares):>11.3f} ({shares[0]:.3f} .. {shares[-1]:.3f})")
    print(machine_line())


if __name__ == "__main__":
    main()
