"""The host's cost of one request on a GPU, step by step: CUDA calls, microseconds, throughput.

    python -m benchmarks.hot_path --engine tiny.plan [--batch N] [--contexts 1,4] [--rounds 5]

First the cost of single calls. Then a closed loop over the lanes alone, without scheduler or records, for each way of
submitting a request, and `loadtrt run` in the same process. Each way has a process of its own in each round, and ways
take turns, since hosts vary. Shown are medians, and in brackets the least and most of a round.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NoReturn

import anyio

from benchmarks.machine import machine_line
from loadtrt.asked.config import RunConfig
from loadtrt.cuda import program
from loadtrt.cuda.runtime import call, cudart
from loadtrt.cuda.stream import Event, GpuClock, Stream
from loadtrt.engines.cuda_engine import TensorRTEngine, load_tensorrt
from loadtrt.lanes.input_sets import inputs_for
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Way:
    """A way of submitting a request. together: the largest inputs, in bytes, that are copied within the graph."""

    name: str
    graph: bool = True
    together: int = program.COPIED_TOGETHER_BYTES
    per_launch: int = 1
    buffers: int = 2


WAYS = (
    Way("every call by itself", graph=False),
    Way("compute as a graph", together=-1),
    Way("request as a graph", together=1 << 40),
    Way("request as a graph, 3 sets", together=1 << 40, buffers=3),
    Way("4 requests a graph", together=1 << 40, per_launch=4),
    Way("16 requests a graph", together=1 << 40, per_launch=16),
)


def single_calls() -> None:
    """Print the duration of single calls, ns."""
    runtime, stream, first, second = cudart(), Stream(), Event(), Event()
    for event in (first, second):
        call("cudaEventRecord", event.handle, stream.handle)
    stream.synchronize()
    calls: dict[str, Callable[[], object]] = {
        "an empty Python function": lambda: None,
        "perf_counter_ns": perf_counter_ns,
        "cudaEventQuery": lambda: runtime.cudaEventQuery(first.handle),
        "cudaEventElapsedTime": lambda: runtime.cudaEventElapsedTime(first.handle, second.handle),
        "cudaEventRecord": lambda: runtime.cudaEventRecord(first.handle, stream.handle),
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


def config_of(options: argparse.Namespace, way: Way, contexts: int, **more: Any) -> RunConfig:
    """The configuration of a closed loop that submits in this way."""
    batch = {} if options.batch is None else {"batch": options.batch}
    given = {"graph": way.graph, "buffers": way.buffers, "requests_per_launch": way.per_launch, "contexts": contexts}
    return RunConfig.of(
        **{"engine": options.engine, "allow_host_code": True, "input_sets": 2, "warmup": 0.2, **given, **batch, **more}
    )


def bare_loop(engine: TensorRTEngine, seconds: float) -> tuple[float, float, float, float, float]:
    """Drive an engine's lanes in a closed loop.

    Returns requests/s; µs of submitting a request, and of the poll that finds it finished; CUDA calls of both.
    """
    lanes, clock = engine._lanes, engine._clock
    assert clock is not None  # noqa: S101  # it is allocated
    several, sets = engine.per_launch, len(lanes[0]._programs[0])
    for lane in lanes:
        for _ in range(engine.buffers):
            lane.submit(0)
    done, number, pending = 0, 0, [0] * len(lanes)
    submit_ns = submits = poll_ns = polls = 0
    began = now = perf_counter_ns()
    end = began + int(seconds * SECOND_NS)
    while now < end:
        for place, lane in enumerate(lanes):
            asked = perf_counter_ns()
            if lane.poll(clock) is None:
                continue
            answered = perf_counter_ns()
            poll_ns += answered - asked
            polls += 1
            done += 1
            pending[place] += 1
            if pending[place] < several:
                continue
            pending[place] = 0
            number += 1
            lane.submit(number % sets)
            submit_ns += perf_counter_ns() - answered
            submits += 1
        now = perf_counter_ns()
    rate = done * SECOND_NS / (now - began)
    for lane in lanes:
        while lane._in_flight:
            lane.poll(clock)
    submitted = len(lanes[0]._programs[0][0]) / several
    return (
        rate,
        submit_ns / submits / several / 1e3,
        poll_ns / polls / 1e3,
        submitted,
        5.0 if engine._config.copies else 3.0,
    )


@contextmanager
def copied_together(way: Way) -> Iterator[None]:
    """Lanes that are allocated in this context copy in this way."""
    usual, program.COPIED_TOGETHER_BYTES = program.COPIED_TOGETHER_BYTES, way.together
    try:
        yield
    finally:
        program.COPIED_TOGETHER_BYTES = usual


def whole_run(options: argparse.Namespace, way: Way, contexts: int) -> tuple[float, float]:
    """Requests/s of a session, and µs of processor time for each request."""
    config = config_of(options, way, contexts, duration=options.seconds)
    engine, session = load_tensorrt(config.model), Session()
    try:
        with copied_together(way):
            anyio.run(run_session, engine, config, inputs_for(engine, config.model).sets, Stop(), session)
        if session.driven is None or session.recorder is None or session.failure:
            sys.exit(f"the run failed: {session.failure}")
        driven = session.driven
        rate = driven.submitted * SECOND_NS / (driven.end_ns - driven.start_ns)
        return rate, session.recorder.cpu_ns / driven.submitted / 1e3
    finally:
        engine.close()


def bare(options: argparse.Namespace, way: Way, contexts: int) -> tuple[float, float, float, float, float]:
    """`bare_loop` on an engine of its own."""
    config = config_of(options, way, contexts)
    engine = load_tensorrt(config.model)
    gc.disable()
    try:
        with copied_together(way):
            engine.allocate(inputs_for(engine, config.model).sets)
        bare_loop(engine, 0.2)
        return bare_loop(engine, options.seconds)
    finally:
        gc.enable()
        engine.close()


def spread(values: list[float]) -> str:
    """Median, least and most."""
    return f"{median(values):,.0f} [{min(values):,.0f} .. {max(values):,.0f}]"


def one_turn(options: argparse.Namespace, number: int, contexts: int) -> None:
    """Print, as JSON, `bare` and `whole_run` of one way; null for a run that `loadtrt run` cannot make."""
    way = WAYS[number]
    lanes = bare(options, way, contexts)
    print(json.dumps({"lanes": lanes, "run": None if way.together == -1 else whole_run(options, way, contexts)}))


def turn(number: int, contexts: int) -> dict[str, Any]:
    """`one_turn` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.hot_path", *sys.argv[1:], "--turn", str(number), str(contexts)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # our own command
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
    parser.add_argument("--turn", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        one_turn(options, *options.turn)
        end()
    call("cudaSetDevice", 0)
    GpuClock().close()
    print(machine_line())
    print("$ python -m benchmarks.hot_path " + " ".join(sys.argv[1:]))
    print("single calls")
    single_calls()
    lanes: dict[tuple[int, Way], list[list[float]]] = defaultdict(list)
    runs: dict[tuple[int, Way], list[list[float]]] = defaultdict(list)
    for _ in range(options.rounds):
        for contexts in options.contexts:
            for number, way in enumerate(WAYS):
                figures = turn(number, contexts)
                lanes[contexts, way].append(figures["lanes"])
                if figures["run"]:
                    runs[contexts, way].append(figures["run"])
    for contexts in options.contexts:
        print(f"{contexts} context{'s' * (contexts > 1)}")
        heads = (
            f"{'CUDA calls':>12} {'µs a request':>14} {'lanes alone, requests/s':>34} {'loadtrt run':>34} {'CPU µs':>7}"
        )
        print(f"  {'':28} {heads}")
        for way in WAYS:
            rates, submits, polls, called, read = (list(column) for column in zip(*lanes[contexts, way], strict=True))
            calls = f"{called[0]:.3g} + {read[0]:.0f}"
            spent = f"{median(submits):.1f} + {median(polls):.1f}"
            whole = runs.get((contexts, way))
            run = spread([rate for rate, _ in whole]) if whole else "–"
            cpu = f"{median([cpu for _, cpu in whole]):.1f}" if whole else "–"
            print(f"  {way.name:28} {calls:>12} {spent:>14} {spread(rates):>34} {run:>34} {cpu:>7}")
    print("calls and µs: to submit + to find it finished and read its events")
    end()


def end() -> NoReturn:
    """Exit at once: plans with host code sometimes crash while Python ends."""
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
