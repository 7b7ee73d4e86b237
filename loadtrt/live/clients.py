"""Who else uses a GPU: NVML's list of processes, and its samples of whose kernels ran, kept from look to look.

Which of the processes is this one? The driver gives ids of the host, or of this container, and in a container it may
give one kind in the list and the other in the samples. So each is asked for itself: this process is the one with an id
that it knows of itself, else the busiest of those that were not there before it opened the GPU.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from loadtrt.cuda.runtime import is_in_use
from loadtrt.live.nvml import find_driver, open_gpu
from loadtrt.results.gpu_telemetry import LOADTRT, GpuClient, GpuSharing
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from loadtrt.live.nvml import GpuProcess, SmUse

LOOK_NS = SECOND_NS  # between two looks: a list of processes costs the driver more than a clock
_LATE_NS = 2 * SECOND_NS
_US = 1000
_BUSY = 0.5
_PROC = Path("/proc")
_MPS_SERVER = "nvidia-cuda-mps-server"
_there_before: set[int] = set()  # before this process opened a GPU, for its later runs and profiles
_NO_LIST = "which other processes use the GPU"
_NOT_LISTED = "all processes that use the GPU: its list lacks even this one, as in a container"
_NO_USE = "whose kernels run"
_NO_USE_MPS = f"{_NO_USE}: under MPS all count as the server's"


class Shared(Protocol):
    """What is asked of a GPU, such as `loadtrt.live.nvml.Gpu`."""

    def processes(self) -> tuple[GpuProcess, ...] | None: ...
    def sm_use(self, since_us: int) -> tuple[SmUse, ...] | None: ...
    def process_name(self, pid: int) -> str | None: ...
    def utilization(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Own:
    """How a measuring process is recognized among others.

    pids: its ids in all namespaces that it can see, the outermost first.
    before: ids that the driver gave before it opened a GPU, none of which can be its own.
    """

    pids: tuple[int, ...]
    before: frozenset[int] = frozenset()

    def to_json(self) -> dict[str, list[int]]:
        return {"pids": list(self.pids), "before": sorted(self.before)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Iterable[int]]) -> Own:
        """The inverse of `to_json`."""
        return cls(tuple(fields["pids"]), frozenset(fields["before"]))

    def among(self, weights: Mapping[int, Any]) -> int | None:
        """Its id among those with these weights: one that it knows, else the heaviest that was not there before."""
        candidates = weights.keys() - self.before
        known = (pid for pid in self.pids if pid in candidates)
        return next(known, max(candidates, key=weights.__getitem__, default=None))


def own_process(proc: Path = _PROC) -> Own:
    """How to recognize this process. Call it before it opens a GPU: later nobody is known to have been there before but
    those that an earlier call saw."""
    pids = tuple(dict.fromkeys((*namespace_pids(proc), os.getpid())))
    if not is_in_use(proc):
        _there_before.clear()
        driver, _ = find_driver()
        now_us = time.time_ns() // _US
        for index in range(driver.gpus if driver else 0):
            gpu, _ = open_gpu(index)
            if gpu is not None:
                with gpu:
                    _there_before.update(process.pid for process in gpu.processes() or ())
                    _there_before.update(use.pid for use in gpu.sm_use(now_us - 2 * SECOND_NS // _US) or ())
    return Own(pids, frozenset(_there_before))


def namespace_pids(proc: Path) -> list[int]:
    """The ids of this process in the namespaces that its /proc shows, the outermost first."""
    try:
        lines = (proc / "self" / "status").read_text().splitlines()
        return [int(pid) for line in lines if line.startswith("NSpid:") for pid in line.split()[1:]]
    except (OSError, ValueError):
        return []


class _Look(NamedTuple):
    """processes: by id; None: not told. used: part of the time from since_ns to until_ns in which kernels of each ran;
    None: not told. utilization: of the GPU by all; None: not told. Instants are Unix time."""

    at_ns: int
    processes: dict[int, GpuProcess] | None
    since_ns: int
    until_ns: int
    used: dict[int, float] | None
    utilization: float | None


class Clients:
    """Who uses a GPU beside this process, from the first look on. Safe to use from any thread."""

    def __init__(
        self,
        gpu: Shared,
        own: Own,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        past_ns: int = 0,
        proc: Path = _PROC,
    ) -> None:
        """Takes the first look. past_ns: how far back it looks for kernels that ran."""
        self._gpu, self._own, self._now, self._proc = gpu, own, now_ns, proc
        self._lock = Lock()
        self._seen_ns = now_ns() - past_ns
        self._looks: list[_Look] = []
        self._names: dict[int, str | None] = {}
        self.look()

    @property
    def due(self) -> bool:
        """Whether the last look is LOOK_NS old."""
        return self._now() - self._looks[-1].at_ns >= LOOK_NS

    def look(self) -> None:
        """Ask who is there, and whose kernels ran since the last look. Samples come late, but not by more than
        _LATE_NS: a longer time than that has a part of its own in the sums, in which no kernels ran."""
        since_ns = max(self._seen_ns, self._looks[-1].at_ns - _LATE_NS) if self._looks else self._seen_ns
        listed, samples = self._gpu.processes(), self._gpu.sm_use(since_ns // _US)  # a lost GPU may not answer at all
        processes = None if listed is None else {process.pid: process for process in listed}
        until_ns, used = since_ns, dict[int, float]()
        for sample in samples or ():
            until_ns = max(until_ns, sample.at_us * _US)
            used[sample.pid] = max(used.get(sample.pid, 0.0), sample.ratio)
        told, busy = None if samples is None else used, self._gpu.utilization()
        with self._lock:
            if self._looks and processes == self._looks[-1].processes:
                processes = self._looks[-1].processes  # of a day of looks only changes take memory
            self._seen_ns = until_ns
            self._looks.append(_Look(self._now(), processes, since_ns, until_ns, told, busy))

    def between(self, start_ns: int, end_ns: int) -> GpuSharing:
        """Who used the GPU between two instants of Unix time, by the looks so far."""
        with self._lock:
            first = bisect_right(self._looks, start_ns, key=lambda look: look.at_ns) - 1
            last = bisect_left(self._looks, end_ns, key=lambda look: look.at_ns)
            return self._sharing(self._looks[max(first, 0) : last + 1], start_ns, end_ns)

    def _sharing(self, looks: Sequence[_Look], start_ns: int, end_ns: int) -> GpuSharing:
        used = _use_of(looks, start_ns, end_ns)
        told = bool(used) or (any(look.used is not None for look in looks) and not _busy(looks))
        lists = [list_ for list_, _ in groupby(look.processes for look in looks) if list_ is not None]
        listed = {pid: process for processes in lists for pid, process in processes.items()}
        own, server = self._own_listed(listed, used)
        mps = own is not None and listed[own].mps
        here = None if own is None else listed[own].instance  # MIG's other instances have SMs and memory of their own
        others = [pid for pid, process in listed.items() if pid not in (own, server) and process.instance == here]
        candidates = {pid: share for pid, share in used.items() if pid not in others}
        if not mps:
            busy = self._own.among(candidates)
        elif server in candidates:
            busy = server
        else:
            busy = max(candidates, key=candidates.__getitem__, default=None)  # the server by another id
        unlisted = [pid for pid in used if pid != busy and pid not in listed]
        if unlisted and busy not in (own, server):  # samples have other ids than the list, of the same processes
            others = []
        clients = [
            GpuClient(
                pid,
                self._name(pid, own),
                max((processes[pid].memory_bytes or 0 for processes in lists if pid in processes), default=0) or None,
                _grew(pid, lists),
                used.get(pid, 0.0) if told and not (mps and listed[pid].mps) else None,
            )
            for pid in others
        ]
        clients += [GpuClient(pid, self._name(pid, busy), sm_ratio=used[pid]) for pid in unlisted]
        clients.sort(key=lambda client: (client.sm_ratio or 0.0, client.memory_bytes or 0), reverse=True)
        unknown = [] if lists else [_NO_LIST]
        unknown += [_NOT_LISTED] if lists and own is None else []
        unknown += [_NO_USE_MPS] if mps else [] if told else [_NO_USE]
        own_ratio = None if busy is None or mps else used[busy]
        return GpuSharing(tuple(clients), own_ratio, told and not mps, tuple(unknown), mps)

    def _own_listed(self, listed: Mapping[int, GpuProcess], used: Mapping[int, float]) -> tuple[int | None, int | None]:
        """This process in the list, and the MPS server if it computes through one."""
        weights = {pid: (used.get(pid, 0.0), process.memory_bytes or 0) for pid, process in listed.items()}
        clients = {pid: weight for pid, weight in weights.items() if listed[pid].mps}
        plain = {pid: weight for pid, weight in weights.items() if not listed[pid].mps}
        if not clients or set(self._own.pids) & plain.keys() - self._own.before:
            return self._own.among(weights), None
        named = [pid for pid in plain if self._gpu.process_name(pid) == _MPS_SERVER]
        return self._own.among(clients), max(named or plain, key=plain.__getitem__, default=None)

    def _name(self, pid: int, own: int | None) -> str | None:
        """The name of a process; None unless ids are of this process' namespace, which its own id shows: elsewhere the
        name would be of another process with that id here."""
        if own not in self._own.pids:
            return None
        if pid not in self._names:
            self._names[pid] = LOADTRT if _runs_loadtrt(self._proc / str(pid)) else self._gpu.process_name(pid)
        return self._names[pid]


def _runs_loadtrt(process: Path) -> bool:
    """Whether this process of /proc is another loadtrt, whatever Python runs it."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    places = [place for place, word in enumerate(words) if os.path.basename(word) == LOADTRT.encode()]
    return any(place < 2 or words[place - 1] == b"-m" for place in places)


def _use_of(looks: Sequence[_Look], start_ns: int, end_ns: int) -> dict[int, float]:
    """Part of the time in which kernels of each process ran, as far as the driver has told: its samples come a second
    late or so, and there are none of a time in which nobody's ran."""
    spans = [(max(look.since_ns, start_ns), min(look.until_ns, end_ns), look.used or {}) for look in looks]
    spans = [span for span in spans if span[0] < span[1]]
    if not spans:
        return {}
    until_ns = max(spans[-1][1], min(end_ns, looks[-1].at_ns) - SECOND_NS)
    whole_ns = until_ns - max(start_ns, looks[0].since_ns)
    sums: dict[int, float] = {}
    for since_ns, upto_ns, used in spans:
        for pid, share in used.items():
            sums[pid] = sums.get(pid, 0.0) + share * (upto_ns - since_ns)
    return {pid: total / whole_ns for pid, total in sums.items()}


def _busy(looks: Sequence[_Look]) -> bool:
    """Whether kernels ran for most of the time: a driver that has no samples of whose they were does not tell."""
    known = [look.utilization for look in looks[1:] if look.utilization is not None]
    return bool(known) and sum(known) >= _BUSY * len(known)


def _grew(pid: int, lists: Sequence[Mapping[int, GpuProcess]]) -> bool:
    """Whether a process came, or took more memory, after the first of these lists."""
    sizes = [processes[pid].memory_bytes or 0 for processes in lists if pid in processes]
    return pid not in lists[0] or max(sizes) > sizes[0]
