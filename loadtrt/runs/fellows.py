"""Workers of one load that are no strangers to each other: neither those of --devices and --ray, which one process
starts, nor runs with --worker i/n and one --start-at, which find each other on a host.

Each of the latter has a socket, whose name says of which load it is and which process has it. The kernel lists the
names in /proc/net/unix and forgets them with their processes. Workers in other containers are not seen.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtrt.environment import count_as_own, count_only_this, read_words
from loadtrt.live.clients import namespace_pids
from loadtrt.load.dealing import parse_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from loadtrt.asked.config import RunConfig
    from loadtrt.results.run_result import RunResult

_PROC = Path("/proc")


@contextmanager
def found_by_fellows(config: RunConfig, start_at: int | None) -> Iterator[Callable[[RunResult], RunResult]]:
    """A block in which this process is a worker that the others of its load find, and finds them; gives a function that
    takes the blame for them from a result. Without a worker or an instant nobody is looked for."""
    if config.worker is None or start_at is None:
        yield lambda result: result
        return
    load = f"@loadtrt-worker/{start_at}/{parse_worker(config.worker)[1]}/{_namespace()}/"
    own = tuple(namespace_pids(_PROC)) or (os.getpid(),)
    known = {own}  # ids of each in all namespaces that it can see, first the one in /proc

    def find() -> Collection[int] | None:
        here = {own, *_listed(load)}
        known.update(here)
        return {ids[0] for ids in here} if here == known else None

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found_by:
        with suppress(OSError):  # another thread is a worker, too, or a sandbox has no such names
            found_by.bind("\0" + load[1:] + "-".join(map(str, own)))
        count_as_own(find)
        try:
            yield lambda result: without_blame(result, {pid for ids in known for pid in ids})
        finally:
            count_only_this()


def _namespace() -> str:
    """Of the process ids here; "" where there is no /proc, which would list the names, too."""
    with suppress(OSError):
        return os.readlink(_PROC / "self/ns/pid")
    return ""


def _listed(load: str) -> Iterator[tuple[int, ...]]:
    """The ids of each process that is a worker of a load."""
    for line in read_words(_PROC / "net/unix").splitlines():
        _, found, ids = line.partition(load)
        if found and all(each.isdecimal() for each in ids.split("-")):
            yield tuple(map(int, ids.split("-")))


def without_blame(result: RunResult, fellows: Collection[int]) -> RunResult:
    """A result that is not INVALID because fellows used the GPU, and nobody else. fellows: their ids."""
    computing = result.sharing.computing if result.sharing is not None else ()
    if not computing or not set(fellows).issuperset(client.pid for client in computing):
        return result
    models: dict[str, Any] = {}
    for name, model in result.models.items():
        problems = tuple(problem for problem in model.problems if problem.kind != "gpu-shared")
        models[name] = model.model_copy(update={"problems": problems, "valid": not problems})
    valid = result.failure is None and all(model.valid for model in models.values())
    return result.model_copy(update={"models": models, "valid": valid})
