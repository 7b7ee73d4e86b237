"""Which engines may serve the models of one run: beside each other in one process, or each in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loadtrt.engines.simulation import parse_simulation
from loadtrt.errors import LoadtrtError, UsageError, naming
from loadtrt.results.engine_info import GPU_KINDS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from loadtrt.asked.model import Model
    from loadtrt.engines.engine import Engine

_SIMULATED = "simulated:"


def require_together(name: str, model: Model, others: Mapping[str, tuple[Model, Engine]]) -> None:
    """Raise UsageError where a model cannot be loaded beside those that are open: of another TensorRT, or on another
    GPU."""
    for other, (asked, engine) in others.items():
        if engine.info.kind not in GPU_KINDS or model.engine.startswith("simulated:"):
            continue
        if asked.device != model.device:
            raise UsageError(
                f"the models of a run use one GPU, and {other} has device {asked.device} and {name} {model.device}: "
                "make a run on each"
            )
        if engine.info.kind == "tensorrt" and not model.engine.startswith("stressor:"):
            _require_one_tensorrt(name, model, other, engine)


def require_tensorrt(option: str, engines: Collection[Engine]) -> None:
    """Raise UsageError where an option of a run is for TensorRT, and none of its models is on it."""
    if all(engine.info.kind != "tensorrt" for engine in engines):
        raise UsageError(f"{option} is for TensorRT, and none of these models is on it: leave it out")


def require_apart(models: Mapping[str, Model]) -> None:
    """Raise UsageError where models cannot each be in a process of its own: simulated ones that share a device, or of
    which only some are in virtual time."""
    simulations = {}
    for name, model in models.items():
        if model.engine.startswith(_SIMULATED) and model.engine != f"{_SIMULATED}null":
            with naming(name):
                simulations[name] = parse_simulation(model.engine.removeprefix(_SIMULATED), 0)
    for name, simulation in simulations.items():
        if simulation.device:
            raise UsageError(
                f"{name} is on the simulated device {simulation.device}, which one process has: leave device= out, or "
                "measure in one process"
            )
    virtual = [name for name, simulation in simulations.items() if simulation.clock == "virtual"]
    real = [name for name in models if name not in virtual]
    if virtual and real:
        raise UsageError(
            f"{virtual[0]} is simulated in virtual time and {real[0]} is not: give all models of a run clock=virtual, "
            "or none"
        )


def _require_one_tensorrt(name: str, model: Model, other: str, engine: Engine) -> None:
    from loadtrt.engines.flavour import choose_flavour
    from loadtrt.engines.plan import looks_like_plan, read_header

    if not looks_like_plan(Path(model.engine)):
        return
    header, loaded = read_header(model.engine), f"{engine.info.flavour} {engine.info.version}"
    try:
        choose_flavour(header, engine.info.flavour, lean=model.lean_library is not None)
    except LoadtrtError:
        raise UsageError(
            f"a process loads one TensorRT: {other} runs on {loaded}, which cannot run {name}, as {header.built_by} "
            f"built {model.engine}: rebuild one of them with the other's version, or make a run of each"
        ) from None


def place_together(engines: Mapping[str, Engine]) -> None:
    """Make engines that are open ready for one run, before lanes are allocated: those of a GPU get their shares of it.
    Raises UsageError and EngineError."""
    on_tensorrt = {name: engine.info for name, engine in engines.items() if engine.info.kind == "tensorrt"}
    modules = {name: f"{info.flavour} {info.version}" for name, info in on_tensorrt.items()}
    for name, module in modules.items():
        first = next(iter(modules))
        if module != modules[first]:
            raise UsageError(
                f"a process loads one TensorRT: {first} runs on {modules[first]} and {name} on {module}: give one of "
                "them the other's --module, or make a run of each"
            )
    if any(engine.info.kind == "simulated" for engine in engines.values()):
        from loadtrt.engines.simulated_sharing import share_devices

        share_devices(engines)
    if sum(engine.info.kind in GPU_KINDS for engine in engines.values()) > 1:
        from loadtrt.engines.cuda_engine import CudaEngine
        from loadtrt.engines.placement import placements

        on_gpu = {name: engine for name, engine in engines.items() if isinstance(engine, CudaEngine)}
        for name, placement in placements({name: engine.asked for name, engine in on_gpu.items()}).items():
            on_gpu[name].place(placement)
