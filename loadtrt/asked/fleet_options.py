"""The declaration of the options of a fleet: its workers, where they run, and how they share a load."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from loadtrt.asked.declaring import FLEETS, Strict, option
from loadtrt.asked.fields import kept, option_name
from loadtrt.asked.launched import parse_devices, parse_ray
from loadtrt.errors import UsageError
from loadtrt.load.dealing import MOST_WORKERS, POOLED, of_one_host, parse_routing, parse_worker

_fleet = partial(option, group="Fleet")
# What ends or judges a run by the numbers of one process.
_OF_ONE_PROCESS = ("precision", "abort_on_fail")
_OF_RAY = ("workers", "gpus_per_worker", "cpus_per_worker")
_OF_ONE_WORKER = (
    *("profile", "export_times", "export_profile", "export_layer_info", "export_output", "trt_log"),
    "nvtx",
)


class FleetOptions(Strict):
    """The options that make a run one of several workers."""

    worker: Annotated[str, kept(parse_worker)] | None = _fleet(
        None,
        "Take one worker's part of the load, such as 2/8 for the third of eight; auto takes number and count from "
        "Slurm, MPI, torchrun or a Kubernetes Job, and auto/8 the number alone.",
        metavar="NUMBER/WORKERS",
    )
    routing: Annotated[str, kept(parse_routing)] = _fleet(
        "random",
        "Worker that each request goes to: a random one, the next one, the one for its key in the trace, or, on one "
        "host, the one with the fewest outstanding requests, of all workers or of two random ones.",
        commands=FLEETS,
        metavar="random|round-robin|sticky:KEY|least-outstanding|two-choices",
    )

    devices: Annotated[str, kept(parse_devices)] | None = _fleet(
        None,
        "Start a worker on each of these GPUs of this host; the workers share the load.",
        commands=FLEETS,
        metavar="0-3|all",
    )
    processes: int = _fleet(1, "Number of workers on each device; they share the load.", commands=FLEETS, ge=1, le=256)
    model_processes: bool = _fleet(
        False, "Measure each of several models in its own process: they take turns on the GPU, or use MPS."
    )
    ray: Annotated[str, kept(parse_ray)] | None = _fleet(
        None,
        "Start --workers workers, which share the load, on the nodes of a Ray cluster; auto is this host's cluster.",
        commands=FLEETS,
        metavar="auto|HOST:PORT|ray://HOST:PORT",
    )
    workers: int | None = _fleet(None, "Number of workers on the Ray cluster.", commands=FLEETS, ge=1, le=MOST_WORKERS)
    gpus_per_worker: float | None = _fleet(
        None,
        "GPUs that Ray reserves for each worker; below 1 several workers share one.",
        commands=FLEETS,
        shown_default="1; 0 for simulated engines and --on onnxruntime",
        ge=0,
        le=1,
    )
    cpus_per_worker: float = _fleet(1.0, "CPUs that Ray reserves for each worker.", commands=FLEETS, gt=0, le=1024)

    def given(self, *names: str) -> list[str]:
        """Those of these attributes that differ from their defaults."""
        return [name for name in names if getattr(self, name) != type(self).model_fields[name].default]

    @property
    def several_processes(self) -> bool:
        """Whether the run is made by processes that this one starts."""
        return self.shares_load or self.model_processes

    @property
    def shares_load(self) -> bool:
        """Whether processes that this one starts share the load of each model."""
        return self.devices is not None or self.processes > 1 or self.ray is not None

    @property
    def places_workers(self) -> bool:
        """Whether the GPU of each worker is not the one that --device says."""
        return self.devices is not None or (self.ray is not None and self.gpus_per_worker != 0)

    def require_one_host(self) -> None:
        """Raise UsageError for a routing by what workers have outstanding: this process knows of no other worker."""
        routing, _ = parse_routing(self.routing)
        if routing in POOLED:
            raise UsageError(of_one_host(routing))

    def _require_of_workers(self) -> None:
        """Refuse options that are of a run of one process, and those of a fleet that do not go together."""
        for name in self.given(*_OF_RAY) if self.ray is None else ():
            raise ValueError(f"{option_name(name)} is for workers on a Ray cluster: add --ray auto or its address")
        if self.worker is None and not self.several_processes:
            return
        for name in self.given(*_OF_ONE_PROCESS):
            raise ValueError(
                f"{option_name(name)} would end each worker by its own numbers: leave it out, or make the run in "
                "one process"
            )
        if self.several_processes:
            for name in self.given("devices", "processes", "ray", "worker") if self.model_processes else ():
                raise ValueError(
                    f"--model-processes gives each model a process, which takes all of its load: leave it or "
                    f"{option_name(name)} out"
                )
            if self.worker is not None:
                raise ValueError("--devices, --processes and --ray start workers of their own: leave --worker out")
            for name in self.given("devices", "processes") if self.ray is not None else ():
                raise ValueError(f"{option_name(name)} is for this host: leave it or --ray out")
            if self.ray is not None and self.workers is None:
                raise ValueError("--ray starts workers on a cluster: say how many, such as --workers 4")
            for name in self.given(*_OF_ONE_WORKER):
                otherwise = "--model-processes" if self.model_processes else "start each worker yourself with --worker"
                raise ValueError(f"{option_name(name)} is for one process: leave it out, or {otherwise}")
