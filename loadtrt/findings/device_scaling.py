"""Whether several devices do as many times the work of one: what they lose to each other, and what they lose it to.

The scaling efficiency is the throughput of N devices over N times that of one, in closed loops with the same number of
requests in flight on each. Its interval is that of a ratio (stats/regression.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from loadtrt.findings.utilization import mean_ns
from loadtrt.results.run_result import Finding
from loadtrt.stats.measured import Number
from loadtrt.stats.regression import within_runs
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.results.capacity_result import SweepPoint
    from loadtrt.results.run_result import RunResult

LEAST = 0.98  # of as many times the work of one
GREW = 1.05  # times as long: of a part of a request that explains what is lost
FULL_CORES = 0.9  # of the cores
_PARTS = {  # of a request, with what devices share there
    "h2d": ("copying inputs", "the devices share a link to the host (a PCIe switch), or the host's memory is full"),
    "d2h": ("copying outputs", "the devices share a link to the host (a PCIe switch), or the host's memory is full"),
    "enqueue": ("enqueuing", "the driver, or the host's cores, are shared by the workers"),
    "compute": ("computing", "the devices share power or cooling, or are not alike"),
}
_PLACES = frozenset({"devices", "workers"})  # axes of a sweep that change how many devices there are
_REMEDIES = {
    "h2d": "'nvidia-smi topo -m' shows which devices share a switch; --no-copies shows what is left without copies",
    "enqueue": "fewer processes on each device, --wait block, or more cores",
    "compute": "compare the devices' clocks and temperatures (nvidia-smi -q -d PERFORMANCE), and run each alone",
}


class Efficiency(NamedTuple):
    """A throughput over what it would be if devices did not lose anything to each other, with its 95 % interval.

    devices: how many.
    fewest: how many it is compared with.
    """

    devices: int
    fewest: int
    ratio: float
    low: float | None
    high: float | None


def devices_of(run: RunResult) -> int:
    """How many different devices the workers of a run had."""
    places = set()
    for worker in run.workers:
        known, gpu = worker.environment, worker.environment.get("gpu") or {}
        places.add((known.get("host"), gpu.get("uuid") or known.get("device", worker.worker)))
    return len(places)


def fewest_devices(points: Sequence[SweepPoint], point: SweepPoint) -> RunResult | None:
    """The closed loop on the fewest devices among the points of a sweep with the other settings of this one; None where
    none has fewer, and where devices are no axis."""
    if _PLACES.isdisjoint(point.settings) or point.run is None or not point.run.config.model.load.closed:
        return None
    others = _others(point)
    known = [
        one.run
        for one in (*points, point)
        if one.run is not None and one.run.valid and not one.failure and _others(one) == others
    ]
    fewest = min(known, key=devices_of, default=None)
    return None if fewest is None or devices_of(fewest) == devices_of(point.run) else fewest


def _others(point: SweepPoint) -> dict[str, Any]:
    return {name: value for name, value in point.settings.items() if name not in _PLACES}


def efficiency_of(fewest: RunResult, run: RunResult) -> Efficiency | None:
    """Of a run on several devices, beside one on the fewest; None where either throughput is not known, or there are no
    more devices."""
    counts = devices_of(fewest), devices_of(run)
    rates = [each.model.throughput for each in (fewest, run)]
    numbers = [Number(rate.requests_per_s, rate.confidence, None) for rate in rates]
    first, second = (number.value for number in numbers)
    if not first or not second or not 0 < counts[0] < counts[1]:
        return None
    ratio = second / counts[1] / (first / counts[0])
    return Efficiency(counts[1], counts[0], ratio, *within_runs(ratio, *numbers))


def scaling(fewest: RunResult, run: RunResult, cores: int | None) -> Finding | None:
    """That several devices do surely less than LEAST times what they would if they lost nothing to each other.

    fewest: the run on the fewest devices, usually one, with all else equal.
    cores: of the host.
    """
    known = efficiency_of(fewest, run)
    if known is None or known.high is None or known.low is None or known.high >= LEAST:
        return None
    before = "one" if known.fewest == 1 else plural(known.fewest, "device")
    each = f"{known.devices} × one" if known.fewest == 1 else f"{known.devices / known.fewest:g} × {before}"
    evidence = (
        f"{plural(known.devices, 'device')} served {format_count(run.model.throughput.requests_per_s or 0.0)} "
        f"requests/s, {100 * known.ratio:.1f} % of {each} (95 %: {100 * known.low:.1f} .. {100 * known.high:.1f} %)"
    )
    why, cause, remedy = _why(fewest, run, cores)
    return Finding(kind="scaling", evidence=f"{evidence}; {why}", cause=cause, remedy=remedy)


def _why(fewest: RunResult, run: RunResult, cores: int | None) -> tuple[str, str, str]:
    """(evidence, cause, remedy) of what was lost."""
    throttled = [next((it for it in each.model.findings if it.kind == "throttled"), None) for each in (fewest, run)]
    if throttled[1] is not None and throttled[0] is None:
        return throttled[1].evidence, "power or heat slows down devices that run side by side", throttled[1].remedy
    if cores and run.host_cores is not None and run.host_cores >= FULL_CORES * cores:
        used = f"the workers used {run.host_cores:.1f} of {plural(cores, 'core')}"
        return used, "the host's cores are full", "more cores, fewer workers, or --wait block"
    grown = []
    for part in _PARTS:
        before, after = (mean_ns(each, part) for each in (fewest, run))
        if before and after and after >= GREW * before:
            grown.append((after - before, part, before, after))
    if not grown:
        timed = fewest.model.engine.device_times and run.model.engine.device_times
        return (
            "no part of a request took longer" if timed else "device times were not measured",
            "the workers were late, or waited for each other" if run.model.starved_fraction else "it is not known",
            "look at each worker: 'loadtrt run' with the same devices has a row for each",
        )
    _, part, before, after = max(grown)
    name, cause = _PARTS[part]
    took = f"{name} took {format_duration(after)} on average, and {format_duration(before)} on the fewest devices"
    return took, cause, _REMEDIES["h2d" if part == "d2h" else part]
