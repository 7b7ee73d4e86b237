"""What the load generator itself costs: the null engine completes each request at once, so all time is loadtrt's own.

    python -m benchmarks.generator [--seconds 5] [--json FILE] [--watched] [-- --engine tiny.plan --contexts 4]
    python -m benchmarks.generator --against ../before [--rounds 15]

Closed loop: the most requests a second that the generator can send on this machine. At a rate: how late it sends them
(lateness = submitted − max(due, a buffer set was free)), and the share of a core that it takes. Watched: the same by
`loadtrt run`, of any engine, while a terminal is drawn and metrics are scraped each second. Against: processor time of
a request here and in another checkout, in turns, in a closed loop and with all requests due at once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

import anyio

from benchmarks.watching import PORT, run_watched
from loadtrt.asked.config import RunConfig
from loadtrt.engines.open import open_engine
from loadtrt.environment import environment
from loadtrt.lanes.input_sets import inputs_for
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.records.histogram import Histogram
from loadtrt.results.run_result import RunResult
from loadtrt.units import SECOND_NS, format_count, format_duration

if TYPE_CHECKING:
    from loadtrt.lanes.recorder import Recorder
    from loadtrt.lanes.scheduler import Driven

CONTEXTS = 4
RATES = (1_000, 5_000, 20_000)
COST_REQUESTS = 400_000


@dataclass(frozen=True)
class Row:
    """One run of the null engine.

    rate: requests a second asked for; None in a closed loop.
    sent_per_s: requests a second sent.
    lateness_p50_ns, lateness_p99_ns, lateness_max_ns: how late they were sent.
    core_share: processor time over wall-clock time.
    """

    rate: int | None
    sent_per_s: float
    lateness_p50_ns: float
    lateness_p99_ns: float
    lateness_max_ns: float
    core_share: float


def run_null(**load: object) -> tuple[Recorder, Driven]:
    """Drive the null engine with this load."""
    config = RunConfig.of(engine="simulated:null", contexts=CONTEXTS, warmup=0, **load)
    engine = open_engine(config.model)
    session = Session()
    anyio.run(run_session, engine, config, inputs_for(engine, config.model).sets, Stop(), session)
    engine.close()
    if session.recorder is None or session.driven is None:
        sys.exit(f"the null engine failed: {session.failure}")
    return session.recorder, session.driven


def measure(rate: int | None, seconds: float) -> Row:
    """Drive the null engine for `seconds`, in a closed loop or at constant `rate`."""
    load = {"arrivals": "constant", "rate": rate} if rate else {"arrivals": "closed"}
    cpu, wall = time.process_time(), time.perf_counter()
    recorder, driven = run_null(duration=seconds, **load)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    lateness = recorder.histograms["lateness"]
    p50, p99 = lateness.quantiles((0.5, 0.99))
    rate_sent = driven.submitted * SECOND_NS / (driven.end_ns - driven.start_ns)
    return Row(rate, rate_sent, p50, p99, float(lateness.max or 0), cpu / wall)


def measure_watched(rate: int | None, seconds: float, options: list[str]) -> Row:
    """The same by `loadtrt run` with these options, while it is watched."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.json"
        load = ["--arrivals", "constant", "--rate", str(rate)] if rate else []
        command = [sys.executable, "-m", "loadtrt", "run", *options, *load, "--duration", f"{seconds}s"]
        run_watched([*command, "--metrics", f":{PORT}", "--metrics-linger", "0s", "--json", str(file)])
        result = RunResult.model_validate_json(file.read_text())
    lateness = Histogram.from_dict(result.model.histograms["lateness"])
    p50, p99 = lateness.quantiles((0.5, 0.99))
    sent_per_s = result.model.throughput.requests_per_s or 0.0
    return Row(rate, sent_per_s, p50, p99, float(lateness.max or 0), result.host_cores or 0.0)


def cost_ns(checkout: Path, arrivals: str) -> float:
    """Processor time of a request in a process of its own, with the package of this checkout."""
    command = [sys.executable, __file__, "--cost", arrivals]
    environ = os.environ | {"PYTHONPATH": str(checkout)}
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environ).stdout)


def compare(other: Path, rounds: int) -> None:
    """Print processor time of a request here and in `other`, which take turns, and the spread of their ratios."""
    here = Path(__file__).resolve().parents[1]
    print(f"{'':>8} {'there, ns':>10} {'here, ns':>10}   ratio: median, quartiles, least and most of {rounds} pairs")
    for arrivals in ("closed", "offline"):
        pairs = []
        for number in range(rounds):
            order = (here, other) if number % 2 else (other, here)
            cost = {checkout: cost_ns(checkout, arrivals) for checkout in order}
            pairs.append((cost[other], cost[here]))
        ratios = [after / before for before, after in pairs]
        low, middle, high = quantiles(ratios)
        before, after = (median(costs) for costs in zip(*pairs, strict=True))
        spread = f"{middle:.3f} [{low:.3f} .. {high:.3f}] [{min(ratios):.3f} .. {max(ratios):.3f}]"
        print(f"{arrivals:>8} {before:>10.0f} {after:>10.0f}   {spread}", flush=True)


def main() -> None:
    """Print the table, and the machine it was made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of each row")
    parser.add_argument("--json", type=Path, help="file for the rows, as JSON")
    parser.add_argument("--watched", action="store_true", help="measure `loadtrt run`, drawn and scraped")
    parser.add_argument("--against", type=Path, help="another checkout, to compare processor time a request with")
    parser.add_argument("--rounds", type=int, default=15, help="pairs of runs for --against")
    parser.add_argument("--cost", choices=("closed", "offline"), help=argparse.SUPPRESS)
    parser.add_argument("run", nargs="*", help="options of `loadtrt run`, after --, for --watched")
    options = parser.parse_args()
    if options.run and not options.watched:
        parser.error("options of `loadtrt run` are for --watched")
    if options.cost:
        recorder, driven = run_null(arrivals=options.cost, requests=COST_REQUESTS)
        print(recorder.cpu_ns / driven.submitted)
        return
    engine = options.run or ["--engine", "simulated:null", "--contexts", str(CONTEXTS), "--warmup", "0"]
    machine = environment()
    if not options.against:
        print(f"{' '.join(engine)}, {options.seconds:g} s a row{', watched' if options.watched else ''}")
    print(
        f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, anyio {machine['packages']['anyio']}"
    )
    if options.against:
        compare(options.against.resolve(), options.rounds)
        return
    print(f"{'asked':>10} {'sent/s':>10} {'late p50':>10} {'late p99':>10} {'late max':>10} {'of a core':>10}")
    rows = []
    for rate in (None, *RATES):
        row = measure_watched(rate, options.seconds, engine) if options.watched else measure(rate, options.seconds)
        rows.append(row)
        late = (format_duration(ns) for ns in (row.lateness_p50_ns, row.lateness_p99_ns, row.lateness_max_ns))
        asked = f"{format_count(row.rate)}/s" if row.rate else "closed"
        cells = (asked, format_count(row.sent_per_s), *late, f"{100 * row.core_share:.0f} %")
        print(" ".join(f"{cell:>10}" for cell in cells), flush=True)
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
