"""The host and its software: Python, packages, TensorRT modules; cores, quota, memory, governor, load, clock; limits.

Files are read below `root`, so that tests can provide another machine's /proc, /sys and /dev.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import time
from dataclasses import fields
from typing import TYPE_CHECKING

from loadtrt import __version__
from loadtrt.cuda import runtime
from loadtrt.doctor import ONNX_RUNTIME, Check, fail, info, ok, warn, warn_if
from loadtrt.engines.flavour import INSTEAD_OF_RTX, find_flavours, unsupported_gpu
from loadtrt.engines.installing import origin_of
from loadtrt.environment import (
    cgroup_folders,
    cpu_model,
    import_onnxruntime,
    load_average,
    memory_bytes,
    memory_limits,
    read_words,
    version_of,
)
from loadtrt.errors import EngineError
from loadtrt.units import format_bytes, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from loadtrt.engines.flavour import Flavour, FoundFlavour

# One core for the loop that submits and polls, one for everything else (observer process, ONNX Runtime, the driver).
LEAST_CORES = 2
LEAST_MEMORY_BYTES = 2 * 2**30
LEAST_SHARED_MEMORY_BYTES = 32 * 2**20
LEAST_OPEN_FILES = 256
# Clock sources that are read without a system call (arch/x86 and arm64 vDSO).
FAST_CLOCKS = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter")
SLOW_READING_NS = 500
LONGEST_TIMER_SLACK_NS = 1_000_000
_CPU_REMEDY = "give this process at least 2 cores (docker --cpuset-cpus, taskset, the job's CPU request)"


def host(root: Path) -> list[Check]:
    """CPU, quota, memory, governor, load, container, clock and timers of this machine."""
    available, total = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    cores = f"{cpu_model(root)}; {available} of {total} cores available"
    checks = [
        warn_if(available < LEAST_CORES, "CPU", cores, _CPU_REMEDY),
        _cpu_quota(root, available),
        _memory(root),
        _governor(root),
        _load(root, total),
        info("container", _container(root)),
        _clock(root),
    ]
    slack = read_words(root / "proc/self/timerslack_ns")
    if slack.isdigit():
        late = f"sleeps end up to {format_duration(int(slack))} late"
        remedy = "start loadtrt from a shell with the default timer slack of 50 µs (a service manager raised it)"
        checks.append(warn_if(int(slack) >= LONGEST_TIMER_SLACK_NS, "timer slack", late, remedy))
    return checks


def limits(root: Path) -> list[Check]:
    """What this user may do: lock memory, open files, share memory, open the GPU's device files."""
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    pinned = _limit(locked, format_bytes)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = files != resource.RLIM_INFINITY and files < LEAST_OPEN_FILES
    return [
        # The NVIDIA driver pins pages itself and does not count them here, so a small limit is not a fault.
        info("locked memory", f"{pinned} (pinned buffers come from the driver, outside this limit)"),
        warn_if(few, "open files", _limit(files), f"raise the limit: ulimit -n {LEAST_OPEN_FILES * 4}"),
        _shared_memory(root),
        _device_files(root),
    ]


def device_files(root: Path) -> list[Path]:
    """The GPUs' device files; their presence is a driver's claim that there is a GPU."""
    return sorted((root / "dev").glob("nvidia[0-9]*"))


def gpus_on_bus(root: Path) -> int:
    """How many NVIDIA display or 3D controllers the PCI bus shows, driver or not. A container sees its host's bus."""
    devices = (root / "sys/bus/pci/devices").glob("*")
    return sum(read_words(d / "vendor") == "0x10de" and read_words(d / "class").startswith("0x03") for d in devices)


def in_container(root: Path) -> bool:
    return _container(root) != "no"


def _container(root: Path) -> str:
    outside = "the host's settings can only be changed outside"
    for name, mark in (("Docker", ".dockerenv"), ("Podman", "run/.containerenv")):
        if (root / mark).exists():
            return f"yes ({name}): {outside}"
    words = read_words(root / "proc/1/cgroup")
    return f"yes: {outside}" if any(word in words for word in ("docker", "kubepods", "containerd", "lxc")) else "no"


def _cpu_quota(root: Path, available: int) -> Check:
    """A quota stops every thread of the process for the rest of each period once it is used up: pauses of up to 100 ms
    that look like the engine's latency. One at or above the available cores can never be used up."""
    cores = [quota for quota in _quotas(root) if quota < available]
    if not cores:
        return ok("CPU quota", "none")
    found = f"{min(cores):g} of {available} cores: once used up, the process pauses for up to 100 ms"
    return warn("CPU quota", found, "give whole cores in place of a quota (docker --cpuset-cpus, not --cpus)")


def _quotas(root: Path) -> Iterator[float]:
    for folder in cgroup_folders(root, "cpu"):
        allowed, _, period = read_words(folder / "cpu.max").partition(" ")  # version 2: "max 100000"
        if not allowed:
            # Version 1.
            allowed, period = read_words(folder / "cpu.cfs_quota_us"), read_words(folder / "cpu.cfs_period_us")
        if allowed.isdigit() and period.isdigit() and int(period):  # "max" and "-1" mean no limit
            yield int(allowed) / int(period)


def _memory(root: Path) -> Check:
    sizes = memory_bytes(root)
    if not {"MemTotal", "MemAvailable"} <= sizes.keys():
        return info("memory", "unknown: /proc/meminfo does not show it")
    total, available = sizes["MemTotal"], sizes["MemAvailable"]
    found = f"{format_bytes(available)} available of {format_bytes(total)}"
    limit = min((limit for limit, _ in memory_limits(root) if limit < total), default=None)
    if limit is not None:
        found += f"; this process's group is limited to {format_bytes(limit)}"
        available = min(available, limit)
    remedy = "free memory or raise the container's limit: plans, inputs and pinned buffers are in host memory"
    return warn_if(available < LEAST_MEMORY_BYTES, "memory", found, remedy)


def _governor(root: Path) -> Check:
    policies = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    governors = sorted({name for file in policies if (name := read_words(file))})
    if not governors:
        return info("frequency governor", "not visible (usual in virtual machines and containers)")
    remedy = "on the host: sudo cpupower frequency-set -g performance"
    return warn_if("powersave" in governors, "frequency governor", ", ".join(governors), remedy)


def _load(root: Path, total: int) -> Check:
    load = load_average(root)
    if load is None:
        return info("load average", "unknown: /proc/loadavg does not show it")
    remedy = "stop what else is running: it competes with the loop that submits requests"
    return warn_if(load > total / 2, "load average", f"{load:g} over the last minute, {total} cores", remedy)


def _clock(root: Path) -> Check:
    source = read_words(root / "sys/devices/system/clocksource/clocksource0/current_clocksource") or "unknown source"
    resolution_ns = time.get_clock_info("perf_counter").resolution * 1e9
    cost_ns = _clock_cost_ns()
    found = f"{source}; {resolution_ns:g} ns resolution, {cost_ns:.0f} ns a reading"
    slow = cost_ns > SLOW_READING_NS or (source not in FAST_CLOCKS and source != "unknown source")
    remedy = "every request reads the clock several times: boot the host with clocksource=tsc if its CPU allows"
    return warn_if(slow, "clock", found, remedy)


def _clock_cost_ns() -> float:
    """Nanoseconds a perf_counter_ns call: the best of five batches, so that a preempted one does not count."""
    batches = []
    for _ in range(5):
        start = time.perf_counter_ns()
        for _ in range(1000):
            time.perf_counter_ns()
        batches.append((time.perf_counter_ns() - start) / 1000)
    return min(batches)


def _shared_memory(root: Path) -> Check:
    try:
        usage = shutil.disk_usage(root / "dev/shm")
    except OSError:
        remedy = "mount it (mount -t tmpfs tmpfs /dev/shm): the live view reads its histograms there"
        return warn("shared memory", "there is no /dev/shm", remedy)
    found = f"{format_bytes(usage.free)} free of {format_bytes(usage.total)} in /dev/shm"
    small = usage.free < LEAST_SHARED_MEMORY_BYTES
    return warn_if(small, "shared memory", found, "enlarge it (docker --shm-size=256m)")


def _device_files(root: Path) -> Check:
    """A device file that is here and cannot be opened is a fault; none at all is a machine without a GPU."""
    gpus = device_files(root)
    if not gpus:
        return info("/dev/nvidia*", "none")
    files = [*gpus, *(file for name in ("nvidiactl", "nvidia-uvm") if (file := root / "dev" / name).exists())]
    closed = [file.name for file in files if not os.access(file, os.R_OK | os.W_OK)]
    if closed:
        often = "sudo usermod -aG video,render $USER, then log in anew"
        remedy = f"give this user read and write permission (often: {often})"
        return fail("/dev/nvidia*", f"not readable and writable: {', '.join(closed)}", remedy)
    remedy = "on the host: sudo nvidia-modprobe -u -c=0; in a container: start it with --gpus all"
    found = f"{plural(len(gpus), 'GPU')}, readable and writable"
    if not (root / "dev/nvidia-uvm").exists():
        return warn("/dev/nvidia*", f"{found}; nvidia-uvm is missing", remedy)
    return ok("/dev/nvidia*", found)


def _limit(value: int, shown: Callable[[int], str] = str) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else shown(value)


# Distribution names, as pip knows them. cuda-bindings and TensorRT are optional and have checks of their own.
PACKAGES = ("anyio", "click", "ml_dtypes", "numpy", "nvidia-ml-py", "onnx", "pydantic", "PyYAML", "rich")


def packages() -> list[Check]:
    """The interpreter, the packages that loadtrt needs, and whether ONNX Runtime loads."""
    python = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable}), {platform.platform()}"
    versions = {"loadtrt": __version__, **{name: version_of(name) for name in PACKAGES}}  # may run uninstalled
    missing = [name for name, version in versions.items() if version is None]
    found = ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None)
    checks = [info("Python", python), ok("packages", found)]
    if missing:
        checks.append(fail("missing packages", ", ".join(missing), f"pip install {' '.join(missing)}"))
    return [*checks, _onnxruntime()]


def tensorrt() -> list[Check]:
    """Each TensorRT module with its version, library and abilities. Imports them, but starts no runtime: without a
    driver that would end the process."""
    modules = find_flavours()
    gpus = _compute_capabilities()
    here = [_module(item.flavour, gpus) for item in modules if item.flavour is not None]
    absent = [item.name for item in modules if item.flavour is None and _absent(item)]
    broken = []
    for item in modules:
        if item.flavour is None and not _absent(item):  # without a driver, that may be what is missing
            remedy = f"install {item.name} again, in one version with its libraries: pip install --force-reinstall"
            broken.append(fail(item.name, item.reason, remedy) if gpus else warn(item.name, item.reason, remedy))
    if here:
        return [*here, *broken, *([info("not installed", ", ".join(absent))] if absent else [])]
    nothing = f"none that loads (looked for {', '.join(item.name for item in modules)})"
    remedy = (
        "pip install 'loadtrt[tensorrt]', whose libraries come from NVIDIA's own index, or lean, dispatch or rtx, "
        "which PyPI has; 'loadtrt inspect PLAN' prints the line for the version that built a plan"
    )
    return [*broken, warn("modules", nothing, remedy) if gpus else info("modules", nothing)]


def _module(flavour: Flavour, gpus: list[tuple[int, int]]) -> Check:
    able = [field.name for field in fields(flavour.capabilities) if getattr(flavour.capabilities, field.name)]
    library = f"{flavour.libs or 'unknown'} {origin_of(flavour.libs)}"
    found = f"{flavour.version}; library {library}; can {', '.join(able) or 'run plans only'}"
    refused = [unsupported_gpu(flavour, gpu) for gpu in gpus]
    if refused and refused[0] is not None and all(refused):
        return warn(flavour.name, f"{found}; but {refused[0]}", INSTEAD_OF_RTX)
    return ok(flavour.name, found)


def _absent(item: FoundFlavour) -> bool:
    return item.reason.endswith("not installed")


def _compute_capabilities() -> list[tuple[int, int]]:
    """Of every GPU that CUDA sees; none where CUDA cannot tell (the driver's checks say why)."""
    try:
        return [runtime.device_properties(index).compute_capability for index in range(runtime.device_count())]
    except EngineError:
        return []


def _onnxruntime() -> Check:
    """Imported, since an installed ONNX Runtime may still lack a library."""
    try:
        onnxruntime = import_onnxruntime()
        providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    except Exception as error:  # a broken extension module can raise any exception
        found = f"{version_of('onnxruntime') or 'not installed'}: {type(error).__name__}: {error}"
        return fail(ONNX_RUNTIME, found, "pip install --force-reinstall onnxruntime")
    return ok(ONNX_RUNTIME, f"{onnxruntime.__version__}, providers {', '.join(providers)}")
