"""The host's cost of one request on a GPU, step by step: CUDA calls, microseconds, throughput.

    python -m benchmarks.hot_path --engine tiny.plan [--batch N] [--contexts 1,4] [--rounds 5]

First the cost of single calls of the driver from Python. Then a closed loop over the lanes alone, without scheduler or
records, for each way of submitting a request, and `loadtrt run` in the same process, interpreted; and `loadtrt run`
compiled, where numba is installed. Each way has processes of its own in each round, and ways take turns, since hosts
vary. Shown are medians, and in brackets the least and most of a round.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections import defaultdict
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NoReturn

import anyio

from benchmarks.machine import machine_line
from loadtrt.asked.config import RunConfig
from loadtrt.cuda.driver import functions
from loadtrt.cuda.runtime import call
from loadtrt.cuda.stream import Event, GpuClock, Stream
from loadtrt.engines.plan_engine import TensorRTEngine, load_tensorrt
from loadtrt.lanes.input_sets import inputs_for
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.loop.compiled import is_compiled
from loadtrt.units import SECOND_NS, plural

if TYPE_CHECKING:
    from collections.abc import Callable

WAYS: dict[str, dict[str, Any]] = {
    "every call by itself": {"graph": False},
    "compute as a graph": {"submit": "apart"},
    "request as a graph": {"submit": "graph"},
    "request as a graph, 3 sets": {"submit": "graph", "buffers": 3},
    "4 requests a graph": {"submit": "graph", "requests_per_launch": 4},
    "16 requests a graph": {"submit": "graph", "requests_per_launch": 16},
}
READS = 5  # CUDA calls that find a request finished and read its events


def single_calls() -> None:
    """Print the duration of single calls, ns."""
    driver, stream, events, spent = functions(), Stream(), [Event(), Event()], ctypes.c_float()
    on, at = int(stream), ctypes.addressof(spent)
    first, second = (int(event.handle) for event in events)
    for event in (first, second):
        driver.record(event, on, 0, 0)
    stream.synchronize()
    calls: dict[str, Callable[[], object]] = {
        "an empty Python function": lambda: None,
        "perf_counter_ns": perf_counter_ns,
        "cuEventQuery": lambda: driver.query(first, 0, 0, 0),
        driver.elapsed.__name__: lambda: driver.elapsed(at, first, second, 0),
        "cuEventRecordWithFlags": lambda: driver.record(first, on, 0, 0),
    }
    for name, function in calls.items():
        spans = []
        for _ in range(20):
            began = perf_counter_ns()
            for _ in range(500):
                function()
            spans.append((perf_counter_ns() - began) / 500)
            stream.synchronize()
        print(f"  {name:28} {median(spans):6.0f} ns")


def engine_of(options: argparse.Namespace, way: str, contexts: int, **more: Any) -> tuple[TensorRTEngine, RunConfig]:
    """An engine without lanes, and the configuration of a closed loop that submits in this way."""
    batch = {} if options.batch is None else {"batch": options.batch}
    given = {"engine": options.engine, "allow_host_code": True, "input_sets": 2, "warmup": 0.2, "contexts": contexts}
    config = RunConfig.of(**given, **WAYS[way], **batch, **more)
    return load_tensorrt(config.model), config


def bare_loop(engine: TensorRTEngine, seconds: float) -> tuple[float, float, float]:
    """Drive an engine's lanes in a closed loop.

    Returns requests/s; µs of submitting a request, and of the poll that finds it finished.
    """
    queue, several = engine._queue, engine.per_launch
    assert queue is not None  # noqa: S101  # it is allocated
    for lane in range(engine.contexts):
        for _ in range(engine.buffers):
            queue.submit(lane, 0)
    done, sent, left = 0, engine.contexts * engine.buffers, [several] * engine.contexts
    submit_ns = poll_ns = 0
    began = now = perf_counter_ns()
    end = began + int(seconds * SECOND_NS)
    while now < end:
        found = queue.poll(several=several > 1)
        if found:
            poll_ns += perf_counter_ns() - now
        for completion in found:
            done += 1
            left[completion.lane] -= 1
            if not left[completion.lane]:
                left[completion.lane] = several
                asked = perf_counter_ns()
                queue.submit(completion.lane, sent % 2)
                submit_ns += perf_counter_ns() - asked
                sent += 1
        now = perf_counter_ns()
    rate, finished = done * SECOND_NS / (now - began), done
    while finished < sent * several:
        finished += len(queue.poll())
    return rate, submit_ns / done / 1e3, poll_ns / done / 1e3


def lanes_alone(options: argparse.Namespace, way: str, contexts: int) -> tuple[float, ...]:
    """`bare_loop` on an engine of its own, and how many CUDA calls submit a request."""
    engine, config = engine_of(options, way, contexts)
    gc.disable()
    try:
        engine.allocate(inputs_for(engine, config.model).sets)
        bare_loop(engine, 0.2)
        calls = len(engine._lanes[0].programs[0][0][0]) / engine.per_launch
        return (*bare_loop(engine, options.seconds), calls)
    finally:
        gc.enable()
        engine.close()


def whole_run(options: argparse.Namespace, way: str, contexts: int) -> tuple[float, float]:
    """Requests/s of a session, and µs of processor time for each request."""
    engine, config = engine_of(options, way, contexts, duration=options.seconds)
    session = Session()
    try:
        anyio.run(run_session, engine, config, inputs_for(engine, config.model).sets, Stop(), session)
        if session.driven is None or session.recorder is None or session.failure:
            sys.exit(f"the run failed: {session.failure}")
        driven = session.driven
        rate = driven.submitted * SECOND_NS / (driven.end_ns - driven.start_ns)
        return rate, session.recorder.cpu_ns / driven.submitted / 1e3
    finally:
        engine.close()


def spread(values: list[float]) -> str:
    """Median, least and most."""
    return f"{median(values):,.0f} [{min(values):,.0f} .. {max(values):,.0f}]"


def turn(way: str, contexts: int, *, compiled: bool) -> dict[str, Any]:
    """`lanes_alone`, where nothing is compiled, and `whole_run`, in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.hot_path", *sys.argv[1:], "--turn", way, str(contexts)]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": str(int(not compiled))}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)  # our own command
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Print the tables, and the machine they were made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", required=True, help="path of a plan")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--contexts", type=lambda text: [int(number) for number in text.split(",")], default=[1, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="duration of each loop in each round")
    parser.add_argument("--turn", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        way, contexts = options.turn[0], int(options.turn[1])
        alone = None if is_compiled() else lanes_alone(options, way, contexts)
        print(json.dumps({"lanes": alone, "run": whole_run(options, way, contexts)}))
        end()
    call("cudaSetDevice", 0)
    GpuClock().close()
    print(machine_line())
    print("$ python -m benchmarks.hot_path " + " ".join(sys.argv[1:]))
    print("single calls")
    single_calls()
    lanes: dict[tuple[int, str], list[list[float]]] = defaultdict(list)
    runs: dict[tuple[int, str, bool], list[list[float]]] = defaultdict(list)
    for _ in range(options.rounds):
        for contexts in options.contexts:
            for way in WAYS:
                for compiled in (False, True) if is_compiled() else (False,):
                    figures = turn(way, contexts, compiled=compiled)
                    runs[contexts, way, compiled].append(figures["run"])
                    if not compiled:
                        lanes[contexts, way].append(figures["lanes"])
    for contexts in options.contexts:
        print(plural(contexts, "context"))
        heads = [f"{head:>26} {'CPU µs':>7}" for head in ("run, interpreted", "run, compiled")]
        print(f"  {'':28} {'CUDA calls':>12} {'µs a request':>14} {'lanes alone, requests/s':>26}", *heads)
        for way in WAYS:
            rates, submits, polls, called = (list(column) for column in zip(*lanes[contexts, way], strict=True))
            calls, spent = f"{called[0]:.3g} + {READS}", f"{median(submits):.1f} + {median(polls):.1f}"
            cells = []
            for compiled in (False, True):
                made = runs.get((contexts, way, compiled))
                run, cpu = (list(column) for column in zip(*made, strict=True)) if made else ([], [])
                cells.append(f"{spread(run):>26} {median(cpu):7.1f}" if made else f"{'–':>26} {'–':>7}")
            print(f"  {way:28} {calls:>12} {spent:>14} {spread(rates):>26}", *cells)
    print("calls and µs: to submit + to find it finished and read its events, interpreted")
    end()


def end() -> NoReturn:
    """Exit at once: plans with host code sometimes crash while Python ends."""
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
