"""The machine and software that a run happened on, for run.json."""

from __future__ import annotations

import ctypes
import importlib
import math
import os
import platform
import re
import resource
import struct
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

_FATAL = 4  # ONNX Runtime's log severity: what it has to say comes back as exceptions
_RECLAIMABLE = ("inactive_file", "active_file", "slab_reclaimable")  # lines of memory.stat; version 1 lacks the last
_TAKEN = 0.25  # of the cores: others take so much and more
_FREE = 0.1  # of the cores: less is idle
_STOLEN = 0.05  # of the cores' time, as of a run's lanes that are idle (findings/validity.py)
_BY_OTHERS = "the cores are used by others"
_CLOCK_ERROR, _UNSYNCHRONIZED = 5, 0x40  # of adjtimex(2): its result, and a bit of the status
_LEAST_S = 1.0  # /proc/stat counts in hundredths of a second
_GIT_S = 5.0  # a repository on a slow share: then nothing is said of it
PACKAGES = ("anyio", "numpy", "onnx", "onnxruntime", "cuda-bindings", "nvidia-ml-py", "pydantic")


def environment() -> dict[str, Any]:
    """Operating system, CPU, packages and the driver of GPUs, and the git revision of the working folder. What there is
    not is left out."""
    made_of, driver = revision(), gpu_driver()
    return {
        **({"revision": made_of} if made_of else {}),
        **({"driver": driver} if driver else {}),
        "host": platform.node(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "clock_error_ns": clock_error_ns(),
        "packages": dict(_versions()),
    }


@cache
def _versions() -> dict[str, str]:
    """Of PACKAGES that are installed: reading them takes 20 ms, and a search makes many runs."""
    return {package: version for package in PACKAGES if (version := version_of(package)) is not None}


def revision(folder: Path | None = None) -> str:
    """The commit that is checked out in a folder, by default the working one, with "-dirty" where files that git tracks
    have changed; "" where that is not known.

    No lock is taken, and the repository's file system monitor, which is a program, is not started.
    """
    command = ["git", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    said = ""
    with suppress(OSError, subprocess.SubprocessError):  # no git, no repository, not this user's
        said = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_GIT_S,
            check=True,
            start_new_session=True,  # a Ctrl-C is the run's
        ).stdout.decode(errors="replace")
    lines, told = said.splitlines(), "# branch.oid "
    commit = next((line.removeprefix(told) for line in lines if line.startswith(told)), "")
    changed = any(not line.startswith("#") for line in lines)
    return "" if not commit.isalnum() else f"{commit}-dirty" if changed else commit  # "(initial)" before the first


def gpu_driver(root: Path = Path("/")) -> str:
    """The version of NVIDIA's driver; "" where none is loaded, or it does not tell. root: folder of /proc."""
    version = re.search(r"Kernel Module\b.*?\s(\d+\.[\d.]+)\s", read_words(root / "proc/driver/nvidia/version") + " ")
    return version[1] if version is not None else ""


def visible_gpus() -> int:
    """How many NVIDIA GPUs CUDA_VISIBLE_DEVICES leaves of those here."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return len(list(Path("/dev").glob("nvidia[0-9]*")))
    return len([entry for entry in visible.split(",") if entry.strip()])


def clock_error_ns() -> int | None:
    """How far the wall clock may be off, as the kernel bounds it from what NTP or PTP tells it, ns; None where the
    clock is not synchronized, or the kernel does not tell."""
    with suppress(OSError, AttributeError):  # of another libc, or a container's that may not ask
        timex = ctypes.create_string_buffer(256)
        state = ctypes.CDLL(None).adjtimex(timex)
        _modes, _offset, _freq, max_error_us, _estimated, status = struct.unpack_from("@Illlli", timex)
        if 0 <= state < _CLOCK_ERROR and not status & _UNSYNCHRONIZED:
            return int(max_error_us) * 1000
    return None


def version_of(package: str) -> str | None:
    """The version of an installed distribution; None where it is not installed. package: its name on PyPI."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def import_onnxruntime(module: str = "onnxruntime") -> Any:
    """ONNX Runtime, or a module of it, with its telemetry off and its log silent; nothing else imports it.

    ONNX Runtime 1.32 keeps an identifier in the home folder, starts a thread and asks for a host of Microsoft's, unless
    the variable is set before it is imported. `disable_telemetry_events` is for a process that has imported it already.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    onnxruntime = importlib.import_module("onnxruntime")
    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(_FATAL)  # sessions and runs take it over
    return importlib.import_module(module)


def memory_bytes(root: Path = Path("/")) -> dict[str, int]:
    """The lines of /proc/meminfo by name (MemTotal, MemAvailable, …), in bytes. root: folder of /proc."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    sizes = (line.replace(":", " ").split() for line in lines)
    return {words[0]: int(words[1]) * 1024 for words in sizes if words[2:] == ["kB"]}


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory that this process can still take: of the machine, of its cgroups, and of its address space (ulimit -v);
    None where nothing tells. root: folder of /proc and /sys."""
    rooms = list(_cgroup_rooms(root))
    if (machine := memory_bytes(root).get("MemAvailable")) is not None:
        rooms.append(machine)
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    taken = read_words(root / "proc/self/statm").partition(" ")[0]
    if limit != resource.RLIM_INFINITY and taken.isdigit():
        rooms.append(limit - int(taken) * resource.getpagesize())
    return max(min(rooms), 0) if rooms else None


def memory_limits(root: Path = Path("/")) -> Iterator[tuple[int, Path]]:
    """(limit in bytes, folder) of each cgroup of this process that limits its memory."""
    for folder in cgroup_folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            if (limit := read_words(folder / name)).isdigit():
                yield int(limit), folder


def _cgroup_rooms(root: Path) -> Iterator[int]:
    """What each limit leaves. As in MemAvailable, pages of files and caches of the kernel count as free: they are given
    back before a process is refused."""
    for limit, folder in memory_limits(root):
        used = read_words(folder / "memory.current") or read_words(folder / "memory.usage_in_bytes")
        counts = dict(line.split(" ", 1) for line in read_words(folder / "memory.stat").splitlines() if " " in line)
        if used.isdigit():
            yield limit - max(int(used) - sum(_counted(counts, name) for name in _RECLAIMABLE), 0)


def _counted(counts: dict[str, str], name: str) -> int:
    """A line of memory.stat, which version 1 has with the groups below as total_NAME; 0 without it."""
    text = counts.get(f"total_{name}") or counts.get(name) or ""
    return int(text) if text.isdigit() else 0


def cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """This process's cgroup and all above it (a limit at any of them binds), in versions 1 and 2.

    Inside a container the path may be the host's: what does not exist reads as empty, and the mount's top remains.
    """
    mount = root / "sys/fs/cgroup"
    for line in read_words(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = mount / controller if controllers else mount
        parts = [part for part in path.split("/") if part not in ("", "..")]
        yield from (top.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def read_words(file: Path) -> str:
    """The text of a file of the system; "" where there is none."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def cpu_model(root: Path = Path("/")) -> str:
    """The processor's name; its architecture where /proc/cpuinfo has no name (ARM). root: folder of /proc."""
    try:
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """Times of the cores that this process may use, in seconds since the machine started.

    at: the instant, by time.monotonic().
    cores: how many cores these are.
    busy: time in which they ran anything, all together.
    idle: time in which they ran nothing.
    stolen: time in which another virtual machine had them.
    own: processor time of this process and of all that it started; of a worker, of its fleet: infinite where it is not
        known, so that nothing is left to others.
    """

    at: float
    cores: int
    busy: float
    idle: float
    stolen: float
    own: float


def core_times(root: Path = Path("/")) -> CoreTimes | None:
    """The times now; None where /proc/stat does not tell them. root: folder of /proc."""
    wanted = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    rows = [line.split() for line in read_words(root / "proc/stat").splitlines() if line.startswith("cpu")]
    cores = [[int(text) for text in words[1:]] for words in rows if words[0] in wanted and len(words) > 8]
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    # user, nice, system, idle, iowait, irq, softirq, steal; the times of guests are in user's already
    user, nice, system, idle, waiting, irq, soft, stolen = (
        sum(row[at] for row in cores) / ticks_per_s for at in range(8)
    )
    if not user + system + idle:
        return None
    busy = user + nice + system + irq + soft
    family = _family[-1]()
    own = math.inf if family is None else sum(_ticks_of(root, str(each)) for each in family) / ticks_per_s
    return CoreTimes(time.monotonic(), len(cores), busy, idle + waiting, stolen, own)


FELLOWS = "LOADTRT_FELLOWS"  # variable: ids of the processes that started workers of this one's fleet on this host
Family: TypeAlias = "Callable[[], Collection[int | str] | None]"
_family: list[Family] = [lambda: ("self",)]  # the last one gives the processes that count as own


def count_as_own(family: Family) -> None:
    """From now on these processes and all that they started are no others on the cores: the workers of one fleet.

    family: asked for them each time; None where some have ended, so that nobody knows what they took.
    """
    _family.append(family)


def count_only_this() -> None:
    """What counted before the last `count_as_own` does again."""
    _family.pop()


def _ticks_of(root: Path, process: str) -> int:
    """Processor time of a process, of its children that ended, and of those that run (where the kernel lists them)."""
    folder = root / "proc" / process
    numbers = read_words(folder / "stat").rpartition(")")[2].split()  # the name before it may contain anything
    children = [child for file in folder.glob("task/*/children") for child in read_words(file).split()]
    return sum(map(int, numbers[11:15])) + sum(_ticks_of(root, child) for child in children)


_IMPORTED = core_times()


def busy_host(since: CoreTimes | None = _IMPORTED, root: Path = Path("/")) -> str | None:
    """Evidence that others use the cores of this process, so that a late load generator is their work; None without.

    Over the time since `since`, of the cores that this process may use (its affinity), by /proc/stat:

        others = busy − own      own: this process, its threads, and all processes that it started

    Others use the cores if they took a quarter of them and less than a tenth was idle (with idle cores nothing waits),
    or if other virtual machines had them for 5 % of the time (steal). Less than a second tells nothing. Where there is
    no /proc/stat, the load average of the last minute decides: one above the cores, as this process adds about one.
    Beside /proc/stat it is not asked, since it stays high for a minute after another run of loadtrt has ended.

    since: times at the beginning, from `core_times`; by default when this module was imported, for a command its start.
    root: folder of /proc.
    """
    now, load, cores = core_times(root), load_average(root), len(os.sched_getaffinity(0))
    average = f"load average {load:.1f} on {plural(cores, 'core')}" if load is not None else ""
    if now is None or since is None:
        return f"{_BY_OTHERS}: {average}" if load is not None and load >= cores + 1 else None
    if now.at - since.at < _LEAST_S:
        return None
    names = ("own", "busy", "idle", "stolen")
    own, busy, idle, stolen = (getattr(now, name) - getattr(since, name) for name in names)
    lasted = max(busy + idle + stolen, 1 / os.sysconf("SC_CLK_TCK")) / now.cores
    others, free, lost = max(busy - own, 0.0) / lasted, idle / lasted, stolen / lasted
    if lost >= _STOLEN * now.cores:
        return f"{_BY_OTHERS}: other virtual machines had them for {100 * lost / now.cores:.0f} % of the time"
    if others < _TAKEN * now.cores or free >= _FREE * now.cores:
        return None
    took = f"other processes took {others:.1f} of {plural(now.cores, 'core')}, and {free:.1f} were idle"
    return f"{_BY_OTHERS}: {took}{average and f' ({average})'}"


def load_average(root: Path = Path("/")) -> float | None:
    """Processes that ran or waited for a core, a mean over the last minute; None where it is not known."""
    first = read_words(root / "proc/loadavg").partition(" ")[0]
    return float(first) if first.replace(".", "", 1).isdigit() else None
