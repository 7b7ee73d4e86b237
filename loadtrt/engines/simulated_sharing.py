"""Simulated engines of one run that name one device are on it together, and all of them have one clock."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from loadtrt.engines.clock import VirtualClock
from loadtrt.engines.simulated import SimulatedEngine
from loadtrt.engines.simulated_device import DeviceTime, shared_device
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtrt.engines.engine import Engine
    from loadtrt.engines.simulation import Simulation

_ROUNDING = 1e-9  # of sums of parts


def share_devices(engines: Mapping[str, Engine]) -> None:
    """Put the simulated engines of one run, by the names of their models, on the devices that they name, and give them
    one clock. Before lanes are allocated. Raises UsageError where they contradict each other."""
    simulated = {name: engine for name, engine in engines.items() if isinstance(engine, SimulatedEngine)}
    virtual = [name for name, engine in simulated.items() if isinstance(engine.clock, VirtualClock)]
    real = [name for name in engines if name not in virtual]
    if virtual and real:
        raise UsageError(
            f"{virtual[0]} is simulated in virtual time and {real[0]} is not: give all models of a run clock=virtual, "
            "or none"
        )
    for name in virtual[1:]:
        simulated[name].clock = simulated[virtual[0]].clock
    named = sorted((engine.simulation.device, name) for name, engine in simulated.items() if engine.simulation.device)
    for device, pairs in groupby(named, key=lambda pair: pair[0]):
        _share(device, {name: simulated[name] for _, name in pairs})


def _share(device: str, engines: Mapping[str, SimulatedEngine]) -> None:
    """Put engines on one device: each that has a part of it by itself, the others on what is left."""
    simulations = {name: engine.simulation for name, engine in engines.items()}
    contention, sharing = (_agreed(device, simulations, key) for key in ("contention", "sharing"))
    time_ = DeviceTime(_agreed(device, simulations, "stall"), _agreed(device, simulations, "lost"))
    parts = {name: part for name, simulation in simulations.items() if (part := simulation.part) is not None}
    left = 1 - sum(parts.values())
    together = [name for name in engines if name not in parts]
    if left < -_ROUNDING or (together and left < _ROUNDING):
        given = ", ".join(f"{name} {part:g}" for name, part in parts.items())
        whose = f", which leaves nothing for {together[0]}" if left > -_ROUNDING else ", more than there is"
        raise UsageError(f"simulated engine: parts of device {device} are {given}{whose}: make one smaller")
    rest = shared_device(sharing, contention)
    for name, engine in engines.items():
        alone = name in parts
        engine.share(shared_device(sharing, contention) if alone else rest, time_, parts[name] if alone else left)


def _agreed(device: str, simulations: Mapping[str, Simulation], key: str) -> Any:
    """What is of the device as a whole, and so the same for all that give it; faults may be given by one of them."""
    given = {name: value for name, simulation in simulations.items() if (value := getattr(simulation, key)) is not None}
    (first, value), *others = given.items() or [("", None)]
    for name, other in others:
        if other != value:
            by_priority = ", such as by a --priority of each" if key == "sharing" else ""
            raise UsageError(
                f"simulated engine: device {device} has {key} {value} in {first} and {other} in {name}: write the same "
                f"in both{by_priority}"
            )
    return value
