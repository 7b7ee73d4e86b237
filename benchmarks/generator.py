"""What the load generator itself costs: the null engine answers at once, so all time is loadtrt's own.

    python -m benchmarks.generator [--seconds 5] [--json FILE] [--watched] [-- --engine tiny.plan --contexts 4]

Closed loop: the most requests a second that this machine's generator can send. At a rate: how late it sends them
(lateness = submitted − max(due, a buffer set was free)), and the share of a core that it takes. Watched: the same by
`loadtrt run` while it is drawn on a terminal and its metrics are scraped each second, and of any engine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio

from benchmarks.watching import PORT, run_watched
from loadtrt.asked.config import RunConfig
from loadtrt.engines.open import open_engine
from loadtrt.environment import environment
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.load.inputs import make_inputs
from loadtrt.measure.histogram import Histogram
from loadtrt.measure.result import RunResult
from loadtrt.units import SECOND_NS, format_count, format_duration

CONTEXTS = 4
RATES = (1_000, 5_000, 20_000)


@dataclass(frozen=True)
class Row:
    """One run of the null engine. rate: asked for, None in a closed loop; sent: requests a second; times in ns."""

    rate: int | None
    sent_per_s: float
    lateness_p50_ns: float
    lateness_p99_ns: float
    lateness_max_ns: float
    core_share: float


def measure(rate: int | None, seconds: float) -> Row:
    """Drive the null engine for `seconds`, in a closed loop or at constant `rate`."""
    load = {"arrivals": "constant", "rate": rate} if rate else {"arrivals": "closed"}
    config = RunConfig.of(
        **{"engine": "simulated:null", "contexts": CONTEXTS, "duration": seconds, "warmup": 0, **load}
    )
    engine = open_engine(config.model)
    session = Session()
    inputs = make_inputs(engine.info.tensors, config.model.inputs, config.model.input_sets, {}, config.model.seed)
    cpu, wall = time.process_time(), time.perf_counter()
    anyio.run(run_session, engine, config, inputs, Stop(), session)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    engine.close()
    recorder, driven = session.recorder, session.driven
    if recorder is None or driven is None:
        sys.exit(f"the null engine failed: {session.failure}")
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
    return Row(rate, sent_per_s, p50, p99, float(lateness.max or 0), result.host_cores)


def main() -> None:
    """Print the table, and the machine it was made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each row")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    parser.add_argument("--watched", action="store_true", help="by `loadtrt run`, drawn and scraped")
    parser.add_argument("run", nargs="*", help="options of `loadtrt run`, after --, for --watched")
    options = parser.parse_args()
    if options.run and not options.watched:
        parser.error("options of `loadtrt run` are for --watched")
    engine = options.run or ["--engine", "simulated:null", "--contexts", str(CONTEXTS), "--warmup", "0"]
    machine = environment()
    print(f"{' '.join(engine)}, {options.seconds:g} s a row{', watched' if options.watched else ''}")
    print(
        f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, anyio {machine['packages']['anyio']}"
    )
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
