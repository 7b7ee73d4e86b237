"""loadtrt: an async, multi-context load tester for TensorRT.

The functions take the options of the commands by name, as the command line and YAML have them, and return results:
`run`, `sweep`, `capacity`, `interference`, `plan_capacity`, `profile`, `merge`, `compare`, `read`. Those that measure
have a twin to await, such as `run_async`. docs/python.md shows them at work.

Each is imported when it is used first: `import loadtrt` itself imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "CapacityResult",
    "Comparison",
    "CudaError",
    "EngineError",
    "FleetResult",
    "InterferenceResult",
    "LayerComparison",
    "LoadtrtError",
    "PlacementResult",
    "ProfileResult",
    "RepeatResult",
    "Result",
    "RunConfig",
    "RunResult",
    "SweepResult",
    "UsageError",
    "__version__",
    "capacity",
    "capacity_async",
    "compare",
    "interference",
    "interference_async",
    "merge",
    "plan_capacity",
    "plan_capacity_async",
    "profile",
    "profile_async",
    "read",
    "run",
    "run_async",
    "sweep",
    "sweep_async",
]

if TYPE_CHECKING:
    from loadtrt.api.functions import (
        capacity,
        capacity_async,
        compare,
        interference,
        interference_async,
        merge,
        plan_capacity,
        plan_capacity_async,
        profile,
        profile_async,
        read,
        run,
        run_async,
        sweep,
        sweep_async,
    )
    from loadtrt.asked.config import RunConfig
    from loadtrt.errors import CudaError, EngineError, LoadtrtError, UsageError
    from loadtrt.results import Result
    from loadtrt.results.capacity_result import CapacityResult, SweepResult
    from loadtrt.results.fleet_result import FleetResult
    from loadtrt.results.interference_result import InterferenceResult
    from loadtrt.results.placement_result import PlacementResult
    from loadtrt.results.profile_result import ProfileResult
    from loadtrt.results.repeat_result import RepeatResult
    from loadtrt.results.run_result import RunResult
    from loadtrt.stats.profiles import LayerComparison
    from loadtrt.stats.regression import Comparison
else:
    # Where each name is: type checkers read the imports above, and must not see a module that has any name.
    _MODULES = {
        "loadtrt.api.functions": [name for name in __all__ if name.islower() and not name.startswith("_")],
        "loadtrt.asked.config": ["RunConfig"],
        "loadtrt.errors": ["CudaError", "EngineError", "LoadtrtError", "UsageError"],
        "loadtrt.results": ["Result"],
        "loadtrt.results.capacity_result": ["CapacityResult", "SweepResult"],
        "loadtrt.results.fleet_result": ["FleetResult"],
        "loadtrt.results.interference_result": ["InterferenceResult"],
        "loadtrt.results.placement_result": ["PlacementResult"],
        "loadtrt.results.profile_result": ["ProfileResult"],
        "loadtrt.results.repeat_result": ["RepeatResult"],
        "loadtrt.results.run_result": ["RunResult"],
        "loadtrt.stats.profiles": ["LayerComparison"],
        "loadtrt.stats.regression": ["Comparison"],
    }

    def __getattr__(name: str) -> Any:
        """A name of __all__, imported."""
        from importlib import import_module

        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(module), name)
        raise AttributeError(f"module 'loadtrt' has no attribute '{name}'")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
