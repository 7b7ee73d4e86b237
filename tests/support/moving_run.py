"""A run that goes on while it is scraped: what it exports is real, its requests are made up and end by the clock."""

from __future__ import annotations

import time
from dataclasses import replace

from loadtrt.asked.objective import parse_objective
from loadtrt.lanes.recorder import Recorder
from loadtrt.live.follower import Follower
from loadtrt.live.metrics import Observation
from loadtrt.live.observer import RunFacts
from loadtrt.records.board import Board
from loadtrt.records.records import FAILED, OK, UNSERVED
from loadtrt.results.gpu_telemetry import GpuReading, GpuSharing
from loadtrt.units import SECOND_NS

MS = 1_000_000
GPU = GpuReading(
    at_ns=0,
    sm_clock_hertz=1_410_000_000,
    memory_clock_hertz=2_619_000_000,
    max_sm_clock_hertz=1_980_000_000,
    power_watts=690.0,
    power_limit_watts=700.0,
    energy_joules=1e6,
    temperature_celsius=70,
    memory_used_bytes=6 << 30,
    memory_total_bytes=80 << 30,
    utilization_ratio=0.97,
    throttle_reasons=("sw_power_cap",),
    memory_utilization_ratio=0.4,
    pcie_rx_bytes=0,
    pcie_tx_bytes=0,
    sharing=GpuSharing(),
)


class MovingRun:
    """Two lanes, 100 requests a second of batch 4, of which some fail and some are given up; a GPU at its power limit.

    information: more labels of its run_info. worker: its number, where it is the one worker of a fleet. begin: the run
    starts; before it there is nothing to scrape. take: for an Exporter.
    """

    def __init__(self, run: str, model: str = "googlenet.plan", worker: str = "", **information: str) -> None:
        self.facts = RunFacts(
            run=run,
            model=model,
            lanes=2,
            batch=4,
            rate=100.0,
            duration_ns=0,
            requests=None,
            objectives=(parse_objective("latency.p99 < 8ms"), parse_objective("throughput > 90/s")),
            information=information,
            worker=worker,
            device=worker,
        )
        self._board = Board(keep=0)
        self._recorder = Recorder(2, 0, board=self._board)
        self._follower = Follower(self._board, 2, [item.counted for item in self.facts.objectives])
        self._started_ns = 0
        self._number = 0

    def begin(self) -> None:
        """Measuring starts now."""
        self._board.enter("measure")
        self._started_ns = self._board.state().started_ns

    def take(self) -> Observation | None:
        """What there is now, with all that has ended by now."""
        if not self._started_ns:
            return None
        elapsed_ns = time.time_ns() - self._started_ns
        while (self._number + 2) * 10 * MS < elapsed_ns:
            self._finish(self._number, self._number * 10 * MS)
            self._number += 1
        self._recorder.show(self._number + 3, self._number, 1, 2)
        seconds = elapsed_ns / SECOND_NS
        gpu = replace(
            GPU,
            energy_joules=1e6 + 690 * seconds,
            pcie_rx_bytes=int(240e6 * seconds),
            pcie_tx_bytes=int(2e6 * seconds),
        )
        seen = Observation(self._follower.snapshot(), self.facts, gpu, time.time_ns(), 0.01 * seconds)
        return replace(seen, workers=(seen,)) if self.facts.worker else seen

    def _finish(self, number: int, due: int) -> None:
        status = FAILED if number % 50 == 49 else UNSERVED if number % 50 == 25 else OK
        queue, h2d, compute, d2h = number % 7 * MS // 4, MS // 2, (3 + number % 3) * MS, MS // 8
        submitted = due + 50_000 + queue
        completed = submitted + h2d + compute + d2h + 200_000
        self._recorder.record(
            due, submitted, submitted + 12_000, completed, h2d, compute, d2h, 50_000, number % 2, status
        )
