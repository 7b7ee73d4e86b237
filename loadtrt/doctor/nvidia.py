"""The NVIDIA driver, CUDA, and each GPU that CUDA sees: what it can compute, how it stands now, whether it opens."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from loadtrt.cuda import runtime
from loadtrt.doctor import GPU_OPENS, Check, Group, fail, info, ok, warn, warn_if
from loadtrt.doctor.host import device_files, gpus_on_bus, in_container
from loadtrt.environment import version_of
from loadtrt.errors import CudaError, EngineError
from loadtrt.live.clients import LOOK_NS, Clients, Own, own_process
from loadtrt.live.nvml import MEGAHERTZ, find_driver, open_gpu
from loadtrt.results.gpu_telemetry import SLOWDOWNS, clients_text
from loadtrt.units import format_bytes, plural

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.cuda.runtime import DeviceProperties
    from loadtrt.live.nvml import Driver, Gpu
    from loadtrt.results.gpu_telemetry import GpuReading

# The oldest driver branch that runs each major version of CUDA (minor version compatibility).
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}

_PRECISIONS = {
    "FP32": (5, 0),
    "INT8": (6, 1),
    "FP16": (7, 0),
    "TF32": (8, 0),
    "BF16": (8, 0),
    "INT4": (8, 0),
    "FP8": (8, 9),
    "FP4": (10, 0),
}
_EARLY_FP16 = ((5, 3), (6, 0), (6, 2))  # Jetson TX1, P100, Jetson TX2; 6.1 after them has none
_INSTALL_DRIVER = "install the NVIDIA driver (R580 or newer for CUDA 13), or in a container start it with --gpus all"

# Variables that change how CUDA runs: the values that harm a measurement, and why.
_VARIABLES: dict[str, tuple[tuple[str, ...], str]] = {
    "CUDA_VISIBLE_DEVICES": ((), ""),
    "CUDA_MODULE_LOADING": (("EAGER",), "eager loading takes GPU memory and start-up time"),
    "CUDA_LAUNCH_BLOCKING": (("1",), "every launch waits for its kernel, so contexts do not overlap"),
    "CUDA_DEVICE_MAX_CONNECTIONS": (
        tuple(map(str, range(1, 32))),
        "loadtrt takes 32 queues then, and streams that share one wait for each other",
    ),
}


def precisions(compute_capability: tuple[int, int]) -> tuple[str, ...]:
    """The precisions that TensorRT has kernels for on a GPU of this compute capability.

    Rule: each precision has a first compute capability and stays: FP32 5.0, INT8 6.1 (on tensor cores from 7.2), FP16
    7.0 (and a few before), TF32 and BF16 8.0, INT4 8.0 (weights only), FP8 8.9, FP4 10.0. Source: the tables "Hardware
    and precision" of the TensorRT support matrices (docs.nvidia.com/deeplearning/tensorrt, getting-started,
    support-matrix); INT4 and FP4 from those of TensorRT-RTX and of NVIDIA Model Optimizer, which list them.
    """
    early = ("FP16",) if compute_capability in _EARLY_FP16 else ()
    return tuple(name for name, first in _PRECISIONS.items() if compute_capability >= first or name in early)


def driver(root: Path) -> list[Check]:
    """The driver, the bindings and whether they fit, what CUDA sees, and the variables that change what it does."""
    variables = _variables()  # before CUDA is used, for which loadtrt sets one itself
    nvml, why = find_driver()
    here = bool(nvml and nvml.gpus) or bool(device_files(root))
    checks = [_driver(root, here, nvml, why)]
    bindings = version_of("cuda-bindings")
    if bindings is None:
        found = "cuda-bindings is not installed: TensorRT plans cannot run without it"
        remedy = "pip install 'loadtrt[cu13]', or 'loadtrt[cu12]' for drivers older than R580"
        checks.append(warn("CUDA bindings", found, remedy) if here else info("CUDA bindings", found))
    else:
        checks.append(_fit(bindings, nvml.version if nvml else None))
        checks.append(_visible(here, why))
    return [*checks, variables]


def gpus() -> list[Group]:
    """A group for each GPU that CUDA sees; none where CUDA sees none (the driver's checks say why)."""
    try:
        count = runtime.device_count()
    except EngineError:
        return []
    return [_gpu(index) for index in range(count)]


def _driver(root: Path, here: bool, nvml: Driver | None, why: str) -> Check:
    if nvml is not None:
        found = f"{nvml.version or 'unknown version'}, supports CUDA {nvml.cuda_version or 'unknown'}"
        if nvml.gpus or not here:
            return ok("NVIDIA driver", f"{found}, {plural(nvml.gpus, 'GPU')}")
        remedy = "look at 'dmesg | grep -i -e nvrm -e xid' and nvidia-smi; a reset or a reboot often brings it back"
        return fail("NVIDIA driver", f"{found}, but the driver sees no GPU although /dev/nvidia* exists", remedy)
    if here:
        return fail("NVIDIA driver", f"this machine has a GPU, but NVML does not answer: {why}", _INSTALL_DRIVER)
    if on_bus := gpus_on_bus(root):
        whose = "the host of this container has" if in_container(root) else "the PCI bus has"
        found = f"{whose} {on_bus} NVIDIA GPU(s), but no driver for them is loaded"
        return warn("NVIDIA driver", found, _INSTALL_DRIVER)
    return info("NVIDIA driver", "none, and no NVIDIA GPU on this machine")


def _fit(bindings: str, driver_version: str | None) -> Check:
    """Law: a CUDA runtime works where the driver's CUDA has at least its major version."""
    try:
        speaks, built_for = runtime.versions()
    except EngineError as error:
        found = f"cuda-bindings {bindings} does not load: {error}"
        return fail("CUDA bindings", found, "pip install --force-reinstall cuda-bindings")
    major = int(built_for.partition(".")[0])
    oldest = OLDEST_DRIVER.get(major)
    needs = f"cuda-bindings {bindings} (CUDA {built_for})" + (f" needs driver R{oldest} or newer" if oldest else "")
    if speaks == "none":
        return info("CUDA bindings", f"{needs}; CUDA finds no driver")
    found = f"{needs}; driver {driver_version or 'of unknown version'} supports CUDA {speaks}"
    if int(speaks.partition(".")[0]) < major:
        remedy = f"install driver R{oldest or 'of its time'} or newer, or pip install 'loadtrt[cu12]'"
        return fail("CUDA bindings", found, remedy)
    return ok("CUDA bindings", found)


def _visible(here: bool, why_no_nvml: str) -> Check:
    try:
        count = runtime.device_count()
    except EngineError as error:
        if not here:
            return info("GPUs for CUDA", "none")
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None and isinstance(error, CudaError) and error.status == "cudaErrorNoDevice":
            found = f"none: CUDA_VISIBLE_DEVICES is '{hidden}' and hides them"
            return warn("GPUs for CUDA", found, "unset CUDA_VISIBLE_DEVICES, or name GPUs that nvidia-smi -L lists")
        nvml = f"; NVML: {why_no_nvml}" if why_no_nvml else ""
        remedy = "make nvidia-smi work first; then look at the permissions of /dev/nvidia* and at nvidia-uvm"
        return fail("GPUs for CUDA", f"this machine has a GPU, but CUDA cannot use it: {error}{nvml}", remedy)
    return ok("GPUs for CUDA", str(count)) if count else info("GPUs for CUDA", "none")


def _variables() -> Check:
    values = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    harmful = [name for name, value in values.items() if value.upper() in _VARIABLES[name][0]]
    remedies = [f"unset {name}: {_VARIABLES[name][1]}" for name in harmful]
    unset = [name for name in _VARIABLES if name not in values]
    found = [f"{name} is '{value}'" for name, value in values.items()]
    found += [f"not set: {', '.join(unset)}"] if unset else []
    return warn_if(bool(remedies), "variables", "; ".join(found), "; ".join(remedies))


def _gpu(index: int) -> Group:
    try:
        device = runtime.device_properties(index)
    except CudaError as error:
        return Group(f"GPU {index}", [fail(GPU_OPENS, str(error), "look at nvidia-smi and 'dmesg | grep -i xid'")])
    major, minor = device.compute_capability
    kinds = precisions(device.compute_capability)
    lacks = [name for name in _PRECISIONS if name not in kinds]
    words = " ".join("INT4 (weights)" if name == "INT4" else name for name in kinds)
    checks = [
        info("device", f"compute capability {major}.{minor}, {device.multiprocessors} SMs, PCI {device.pci_bus_id}"),
        info("precisions", f"{words}; not {' '.join(lacks)}" if lacks else words),
    ]
    gpu, why = open_gpu(device.pci_bus_id)
    if gpu is None:
        remedy = "runs work, but without clocks, power and throttling: let this user read NVML (nvidia-smi must work)"
        checks.append(warn("telemetry", why, remedy))
    else:
        with gpu:  # before a context is opened here, which would show up as a process
            checks += [*_state(gpu.read()), *_settings(gpu), _processes(gpu)]
    return Group(f"GPU {index}: {device.name}", [*checks, *_opens(device)])


def _state(now: GpuReading) -> list[Check]:
    clocks = f"SM {_mhz(now.sm_clock_hertz)} now, {_mhz(now.max_sm_clock_hertz)} at most"
    clocks += f"; memory {_mhz(now.memory_clock_hertz)}"
    if now.performance_state is not None:
        clocks += f"; P{now.performance_state}"
    power = f"{_or_unknown(now.power_watts, '.0f')} W of {_or_unknown(now.power_limit_watts, '.0f')} W"
    heat = f"{power}; {_or_unknown(now.temperature_celsius, 'd')} °C; {_or_unknown(now.utilization_ratio, '.0%')} busy"
    return [info("clocks", clocks), info("power", heat), _throttling(now)]


def _throttling(now: GpuReading) -> Check:
    if now.throttle_reasons is None:
        return info("throttling", "unknown")
    if not now.slowdowns:
        return ok("throttling", f"none ({', '.join(now.throttle_reasons)})" if now.throttle_reasons else "none")
    remedy = "; ".join(dict.fromkeys(SLOWDOWNS[reason].remedy for reason in now.slowdowns))
    return warn("throttling", f"slowed down now by {', '.join(now.slowdowns)}", remedy)


def _settings(gpu: Gpu) -> list[Check]:
    settings = gpu.settings()
    switches = {"persistence": settings.persistence, "ECC": settings.ecc, "MIG": settings.mig}
    words = (f"{name} {'unknown' if on is None else 'on' if on else 'off'}" for name, on in switches.items())
    checks = [info("modes", f"{', '.join(words)}; compute mode {settings.compute_mode or 'unknown'}")]
    if settings.compute_mode == "prohibited":
        checks.append(fail("compute mode", "prohibited: no process may compute", "sudo nvidia-smi -c DEFAULT"))
    elif settings.compute_mode not in (None, "default"):
        found = f"{settings.compute_mode}: only one process may compute, so a second run at the same time fails"
        checks.append(warn("compute mode", found, "sudo nvidia-smi -c DEFAULT, unless that is intended"))
    return checks


def _processes(gpu: Gpu) -> Check:
    listed, now_ns, pids = gpu.processes(), time.time_ns(), own_process().pids
    if listed is None:
        return info("other processes", "unknown")
    # No context is open here yet: ids that this process does not know are of others, which Clients would guess about.
    there = {process.pid for process in listed} | {use.pid for use in gpu.sm_use((now_ns - LOOK_NS) // 1000) or ()}
    own = Own(pids, frozenset(there.difference(pids)))
    others = Clients(gpu, own, past_ns=LOOK_NS).between(now_ns - LOOK_NS, now_ns).clients
    remedy = "stop them or take another GPU (CUDA_VISIBLE_DEVICES): a run beside one that computes is INVALID"
    return warn_if(bool(others), "other processes", clients_text(others) or "none seen", remedy)


def _opens(device: DeviceProperties) -> list[Check]:
    """Opening a context is the only proof; the caller's current device is left as it was."""
    try:
        before = runtime.call("cudaGetDevice")
        runtime.call("cudaSetDevice", device.index)
        try:
            free, total = runtime.memory_info()
        finally:
            runtime.call("cudaSetDevice", before)
    except CudaError as error:
        remedy = "see who uses the GPU (nvidia-smi), its compute mode, and 'dmesg | grep -i xid'"
        return [fail(GPU_OPENS, str(error), remedy)]
    found = f"{format_bytes(free)} free of {format_bytes(total)}"
    remedy = "see who holds it (nvidia-smi): contexts and buffers need the memory that is left"
    return [ok(GPU_OPENS, "a CUDA context opens"), warn_if(free < total / 2, "memory", found, remedy)]


def _mhz(hertz: int | None) -> str:
    return "unknown" if hertz is None else f"{hertz // MEGAHERTZ} MHz"


def _or_unknown(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)
