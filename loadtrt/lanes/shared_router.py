"""The memory by which workers of one host route the requests of one load among them (loop/routing.py)."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from dataclasses import dataclass
from errno import EBUSY
from typing import TYPE_CHECKING, Any, Self
from zlib import crc32

import numpy as np

from loadtrt.errors import EngineError
from loadtrt.loop import routing as cells_of
from loadtrt.loop.requests import CELLS, COMING, view_of
from loadtrt.loop.routing import Router
from loadtrt.units import NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from loadtrt.load.dealing import Deal
    from loadtrt.loop.requests import State

_LOCK_CELLS = 16  # a pthread_mutex_t has 40 or 48 bytes; the rest keeps other words off its cache lines, but for ...
_SHAPE = 15  # ... a number that is the same of all workers
_LINE_CELLS = 16  # two cache lines, which processors fetch together
_SHARED, _ROBUST = 1, 1  # PTHREAD_PROCESS_SHARED, PTHREAD_MUTEX_ROBUST
_POLICIES = {"": cells_of.LONGEST_IDLE, "longest-idle": cells_of.LONGEST_IDLE, "lowest-index": cells_of.LOWEST_INDEX}
_POLICIES |= {"random": cells_of.RANDOM_TIES}


class RoutingMemory:
    """The memory by which the workers of a fleet route the requests of one model; made by what starts them.

    descriptor: of the memory, which workers inherit.
    """

    def __init__(self, workers: int) -> None:
        """Raises EngineError where the system has no such lock."""
        self.descriptor = os.memfd_create("loadtrt-routing")
        size = 8 * (_LOCK_CELLS + workers)
        os.ftruncate(self.descriptor, size)
        memory = mmap.mmap(self.descriptor, size)
        self._cells = np.frombuffer(memory, np.int64)
        library, attributes = ctypes.CDLL(None), ctypes.create_string_buffer(64)
        at = ctypes.c_void_p(self._cells.ctypes.data)
        status = (
            library.pthread_mutexattr_init(attributes)
            or library.pthread_mutexattr_setpshared(attributes, _SHARED)
            or library.pthread_mutexattr_setrobust(attributes, _ROBUST)
            or library.pthread_mutex_init(at, attributes)
        )
        if status:
            raise EngineError(f"workers cannot route requests here: there is no lock for them ({os.strerror(status)})")

    def leave(self, worker: int) -> None:
        """The process of a worker has ended: nothing goes there any more."""
        self._cells[_LOCK_CELLS + worker] = 1

    def close(self) -> None:
        """Give the memory back, once no worker is started any more."""
        os.close(self.descriptor)


def _agreed(descriptor: int, functions: Mapping[str, Any], shape: int) -> bool:
    """Whether all workers so far have this number; the first one writes it down."""
    cells = np.frombuffer(mmap.mmap(descriptor, 8 * _LOCK_CELLS), np.int64)
    lock_at = cells.ctypes.data
    while (status := functions["trylock"](lock_at, 0, 0, 0)) == EBUSY:
        time.sleep(0.001)
    if status == cells_of.OWNER_DIED:
        functions["consistent"](lock_at, 0, 0, 0)
    cells[_SHAPE] = cells[_SHAPE] or shape
    functions["unlock"](lock_at, 0, 0, 0)
    return bool(cells[_SHAPE] == shape)


@dataclass(frozen=True, slots=True)
class SharedRouter:
    """What a worker routes the requests of one load by.

    arrays: as machine code has them.
    view: the same for Python.
    """

    arrays: Router
    view: Router

    @classmethod
    def join(
        cls,
        descriptor: int,
        deal: Deal,
        schedule: npt.NDArray[np.int64],
        sets: int,
        seed: int,
        sizes: Sequence[int] = (),
    ) -> Self:
        """Take part in the routing of a load.

        descriptor: of a RoutingMemory.
        schedule: due instants of all requests, as of all workers.
        sets: number of buffer sets of a worker, at most.
        seed: the fleet's.
        sizes: input sets of all requests, where a mix draws them.

        Raises EngineError where that is not what the workers beside this one have.
        """
        count, workers = len(schedule), deal.workers
        row = _LINE_CELLS * -(-(CELLS + sets) // _LINE_CELLS)
        first = _LINE_CELLS * -(-(_LOCK_CELLS + workers) // _LINE_CELLS)
        size = 8 * (first + workers * row) + 2 * (count + 1)
        library, instant = ctypes.CDLL(None), np.zeros(2, np.int64)
        functions = {name: library[f"pthread_mutex_{name}"] for name in ("trylock", "unlock", "consistent")}
        functions["clock"] = library["clock_gettime"]
        for function in functions.values():
            function.argtypes, function.restype = [ctypes.c_void_p] * 4, ctypes.c_int
        # Before the memory has its size: with a smaller one, workers that use it would be ended by SIGBUS.
        if not _agreed(descriptor, functions, crc32(schedule.tobytes(), sets) + 1):
            raise EngineError(
                "this worker has another load, or other lanes, than those beside it: leave the plan and the trace "
                "as they are while workers start"
            )
        os.ftruncate(descriptor, size)  # as every worker does
        memory = mmap.mmap(descriptor, size)
        cells = np.frombuffer(memory, np.int64, first + workers * row)
        n = np.zeros(cells_of.ROUTER_CELLS, np.int64)
        n[cells_of.WORKER], n[cells_of.WORKERS], n[cells_of.COUNT], n[cells_of.SIZES] = (
            deal.worker,
            workers,
            count,
            len(sizes),
        )
        n[cells_of.POLICY] = cells_of.TWO_CHOICES if deal.routing == "two-choices" else _POLICIES[deal.key]
        n[cells_of.ROW_CELLS], n[cells_of.SETS], n[cells_of.NEXT] = row, sets, NEVER
        n[cells_of.LOCK_AT], n[cells_of.TIME_AT], n[cells_of.CLOCK] = (
            cells.ctypes.data,
            instant.ctypes.data,
            time.CLOCK_MONOTONIC,
        )
        arrays = Router(
            n=n,
            lock=functions["trylock"],
            unlock=functions["unlock"],
            consistent=functions["consistent"],
            clock=functions["clock"],
            time=instant,
            schedule=schedule,
            owners=np.frombuffer(memory, np.int16, count + 1, 8 * len(cells)),
            gone=cells[_LOCK_CELLS : _LOCK_CELLS + workers],
            rows=cells[first:],
            given=np.zeros(workers, np.int64),
            last=np.full(workers, -1),
            counts=np.zeros(workers, np.int64),
            draws=deal.draws(count, seed),
            sizes=np.array(sizes or (0,), np.int64),
            took=np.zeros(count, np.int64),
        )
        return cls(arrays, view_of(arrays))

    def share(self, state: State) -> State:
        """The state with the cells that other workers read in shared memory."""
        n, row = self.arrays.n, int(self.arrays.n[cells_of.ROW_CELLS])
        cells = self.arrays.rows[n[cells_of.WORKER] * row :]
        shared = cells[:CELLS], cells[CELLS : CELLS + len(state.free)]
        shared[0][:], shared[1][:] = state.n, state.free
        shared[0][COMING] = 0  # none is known to be of this worker
        return state._replace(n=shared[0], free=shared[1])

    @property
    def workers(self) -> int:
        """Number of workers."""
        return int(self.arrays.n[cells_of.WORKERS])

    @property
    def chosen(self) -> int:
        """Of how many requests this worker chose the owner."""
        return int(self.arrays.n[cells_of.CHOSEN])

    @property
    def took_ns(self) -> npt.NDArray[np.int64]:
        """How long it took, of each request that this worker found without an owner, until that was known: int64 ns."""
        took: npt.NDArray[np.int64] = self.arrays.took[: self.arrays.n[cells_of.LOOKED]]
        return took
