"""Which worker of a fleet this process is, and when it begins to measure: as options or as launchers say."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

from loadtrt.errors import UsageError
from loadtrt.load.dealing import parse_worker
from loadtrt.printing import shortened
from loadtrt.units import SECOND_NS, format_count

if TYPE_CHECKING:
    from collections.abc import Mapping

# Names of the number of a process and of how many there are, by what sets them. Launchers run in one another, as mpirun
# in a job of Slurm: the innermost comes first. Kubernetes tells no process how many completions its Job has.
_LAUNCHERS = (
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MPI", "PMI_RANK", "PMI_SIZE"),
    ("torchrun", "RANK", "WORLD_SIZE"),
    ("Slurm", "SLURM_PROCID", "SLURM_NTASKS"),
    ("a Kubernetes Indexed Job", "JOB_COMPLETION_INDEX", ""),
)
_LONGEST_WAIT_NS = 24 * 3600 * SECOND_NS
_MOST_DEVICE = 1023
_LEAST_S = 10**9  # the year 2001: a smaller number is no Unix time in seconds


class Launched(NamedTuple):
    """Which worker this process is.

    worker: as --worker takes it, such as "2/8".
    remark: how that is known, a sentence for the user; "" where the option says it.
    """

    worker: str
    remark: str = ""


def worker_of(text: str, environment: Mapping[str, str]) -> Launched:
    """The worker that --worker means: "auto" and "auto/8" ask the environment. Raises UsageError."""
    word, slash, wanted = text.partition("/")
    if word != "auto":
        return Launched(text)
    found = next((known for known in _LAUNCHERS if environment.get(known[1])), None)
    if found is None:
        names = ", ".join(number for _, number, _ in _LAUNCHERS)
        raise UsageError(
            f"--worker {text}: none of {names} is set here: write the number, such as --worker 0/{wanted or 8}"
        )
    launcher, number, count = found
    told = environment.get(count, "") if count else ""
    if not slash and not told:
        lacks = f"{count} is not set" if count else "it does not tell how many workers there are"
        raise UsageError(f"--worker auto: {launcher} sets {number}, and {lacks}: write --worker auto/8 for eight")
    if slash and told and told != wanted:
        raise UsageError(f"--worker {text}: {launcher} sets {count} to {shortened(told)}: write --worker auto")
    worker = f"{environment[number]}/{wanted or told}"
    try:
        parse_worker(worker)
    except UsageError as error:
        raise UsageError(f"--worker {text}, as {launcher} sets {number}: {error}") from None
    names = f"{number} and {count}" if told else number
    return Launched(worker, f"worker {worker}, by {names} of {launcher}")


def require_workers(routing: object, *, several: bool, closed: bool = False) -> None:
    """Raise UsageError for --routing where there are no workers to share a load, or no arrivals. routing: as given,
    None where it is not. closed: whether all loads are closed loops, of which each worker has its own."""
    if routing is not None and not several:
        raise UsageError(
            "--routing says how workers share a load: add --devices, --processes, --ray or --worker, or leave it out"
        )
    if routing is not None and closed:
        raise UsageError("--routing is for arrivals, and each worker has a closed loop: add --rate, or leave it out")


def parse_devices(text: str) -> tuple[int, ...]:
    """The numbers of "0-3" or "0,2-3"; empty for "all". Raises UsageError."""
    if text == "all":
        return ()
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last > _MOST_DEVICE:
            raise UsageError(f"'{shortened(text)}' is not a list of devices: write such as 0-3, 0,2 or all")
        numbers += range(first, last + 1)
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"'{shortened(text)}' names a device twice: --processes starts several workers on each")
    return tuple(numbers)


def parse_ray(text: str) -> str:
    """The address of a Ray cluster: "auto", HOST:PORT or ray://HOST:PORT. Raises UsageError."""
    if text != "auto" and not re.fullmatch(r"(ray://)?([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?", text):
        raise UsageError(
            f"'{shortened(text)}' is not the address of a Ray cluster: write auto, HOST:6379 or ray://HOST:10001"
        )
    if text != "auto" and not text.startswith("ray://") and not re.search(r":\d+$", text):
        raise UsageError(
            f"'{shortened(text)}' has no port: a Ray cluster listens on 6379, as in {shortened(text)}:6379"
        )
    return text


def parse_start(text: str) -> int:
    """Unix time in ns of --start-at: a date with a zone, or Unix time in seconds. Raises UsageError for other text, for
    an instant that has passed, and for one that is more than a day away."""
    from loadtrt.load.instants import NoInstantError, Texts, read_instants

    form = "write a date with its zone, such as 2026-11-29T16:00:00Z, or Unix time in seconds"
    try:
        kind, whole, billionths = read_instants(Texts.of([text]))
    except NoInstantError:
        raise UsageError(f"'{shortened(text)}' is not an instant: {form}") from None
    if kind == "date":
        raise UsageError(f"'{text}' has no zone, and hosts may have several: {form}")
    if kind == "time of day" or whole[0] < _LEAST_S:
        raise UsageError(f"'{text}' is not an instant of some day: {form}")
    start_ns = int(whole[0]) * SECOND_NS + int(billionths[0])
    left_ns = start_ns - time.time_ns()
    if left_ns <= 0:
        ago = f"{format_count(-left_ns // SECOND_NS)} s ago by this host's clock"
        raise UsageError(f"'{text}' has passed, {ago}: give all workers a later one")
    if left_ns > _LONGEST_WAIT_NS:
        raise UsageError(f"'{text}' is more than a day away: give all workers an earlier instant")
    return start_ns
