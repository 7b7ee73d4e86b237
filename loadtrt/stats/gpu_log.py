"""Readings of a GPU in little memory, and their sums by intervals of any span of time."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.results.gpu_telemetry import GpuInterval, slowdowns_of
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from loadtrt.results.gpu_telemetry import GpuReading

    Floats = npt.NDArray[np.float64]

MOST_READINGS = 2**18  # 23 MiB; 14 hours at 5 Hz, before every other reading is dropped
COUNTERS = ("energy_joules", "pcie_rx_bytes", "pcie_tx_bytes")
GAUGES = (
    "sm_clock_hertz",
    "power_watts",
    "temperature_celsius",
    "memory_used_bytes",
    "utilization_ratio",
    "memory_utilization_ratio",
)
_UNKNOWN = -1


class GpuLog:
    """Readings in order of time, 88 bytes each, at most `most` of them.

    The log keeps readings rather than intervals, as the run's intervals start with measuring, an instant known only
    later. A full log drops every other reading: counters lose nothing, and the curve of hours keeps its shape.
    """

    def __init__(self, most: int = MOST_READINGS) -> None:
        self._most = most
        self._at = array("q")
        self._columns = {name: array("d") for name in (*GAUGES, *COUNTERS)}
        self._reasons = array("q")  # places in _combinations
        self._combinations: list[tuple[str, ...]] = []

    def __len__(self) -> int:
        return len(self._at)

    def add(self, reading: GpuReading) -> None:
        """Keep a reading that is later than all before it."""
        if len(self._at) >= self._most:
            del self._at[1::2], self._reasons[1::2]
            for column in self._columns.values():
                del column[1::2]
        self._at.append(reading.at_ns)
        for name, column in self._columns.items():
            value = getattr(reading, name)
            column.append(np.nan if value is None else value)
        reasons = reading.throttle_reasons
        if reasons is not None and reasons not in self._combinations:
            self._combinations.append(reasons)
        self._reasons.append(_UNKNOWN if reasons is None else self._combinations.index(reasons))

    @property
    def began_ns(self) -> int | None:
        """Instant of the first reading."""
        return self._at[0] if self._at else None

    def missing(self) -> tuple[str, ...]:
        """The fields of GpuReading that are None in every reading."""
        columns = [name for name, column in self._columns.items() if np.isnan(column).all()]
        return (*columns, *(() if self._combinations else ("throttle_reasons",)))

    def intervals(self, start_ns: int, end_ns: int, each_ns: int = SECOND_NS) -> tuple[GpuInterval, ...]:
        """The time from start_ns to end_ns (perf_counter_ns) in intervals of each_ns, the last one shorter. Counters
        are not extrapolated: they are None before the first reading and after the last."""
        if end_ns <= start_ns:
            return ()
        edges = np.append(np.arange(0, end_ns - start_ns, each_ns, dtype=np.int64), end_ns - start_ns)
        at = np.array(self._at, np.int64) - start_ns  # small numbers, which float64 holds to the ns
        columns = {name: np.array(column) for name, column in self._columns.items()}
        reasons = np.array(self._reasons, np.int64)
        counted = {name: _gains(at, columns[name], edges) for name in COUNTERS}
        slow = np.array([bool(slowdowns_of(names)) for names in self._combinations], np.bool_)
        places = np.searchsorted(at, edges)
        intervals = []
        for number in range(len(edges) - 1):
            first, last = int(places[number]), int(places[number + 1])
            seen = {name: columns[name][first:last] for name in GAUGES}
            codes = reasons[first:last]
            known = codes[codes != _UNKNOWN]
            clocks = seen["sm_clock_hertz"]
            slowed = clocks[(codes != _UNKNOWN) & slow[codes]] if len(slow) else clocks[:0]
            memory = _of(np.max, seen["memory_used_bytes"])
            received, sent = counted["pcie_rx_bytes"][number], counted["pcie_tx_bytes"][number]
            intervals.append(
                GpuInterval(
                    start_ns=int(edges[number]),
                    duration_ns=int(edges[number + 1] - edges[number]),
                    readings=last - first,
                    sm_clock_mean_hertz=_of(np.mean, clocks),
                    sm_clock_min_hertz=_of(np.min, clocks),
                    sm_clock_max_hertz=_of(np.max, clocks),
                    sm_clock_throttled_hertz=_of(np.mean, slowed),
                    power_mean_watts=_of(np.mean, seen["power_watts"]),
                    power_max_watts=_of(np.max, seen["power_watts"]),
                    temperature_max_celsius=_of(np.max, seen["temperature_celsius"]),
                    memory_used_max_bytes=None if memory is None else int(memory),
                    utilization_mean_ratio=_of(np.mean, seen["utilization_ratio"]),
                    memory_utilization_mean_ratio=_of(np.mean, seen["memory_utilization_ratio"]),
                    energy_joules=counted["energy_joules"][number],
                    pcie_rx_bytes=None if received is None else round(received),
                    pcie_tx_bytes=None if sent is None else round(sent),
                    throttle_shares=self._shares(known) if len(known) else None,
                    throttled_fraction=float(slow[known].mean()) if len(known) else None,
                )
            )
        return tuple(intervals)

    def _shares(self, codes: npt.NDArray[np.int64]) -> dict[str, float]:
        readings = Counter(name for code in codes for name in self._combinations[code])
        return {name: count / len(codes) for name, count in readings.items()}


def _gains(at: npt.NDArray[np.int64], counter: Floats, edges: npt.NDArray[np.int64]) -> list[float | None]:
    """What a counter gained between neighbouring edges, linear between readings. None for a counter that ever goes
    backwards: the driver was reloaded."""
    known = ~np.isnan(counter)
    if not known.any() or (np.diff(counter[known]) < 0).any():
        return [None] * (len(edges) - 1)
    gains = np.diff(np.interp(edges, at[known], counter[known], left=np.nan, right=np.nan))
    return [None if np.isnan(gain) else float(gain) for gain in gains]


def _of(law: Callable[[Floats], np.float64], values: Floats) -> float | None:
    """`law` of the known values."""
    known = values[~np.isnan(values)]
    return float(law(known)) if len(known) else None
