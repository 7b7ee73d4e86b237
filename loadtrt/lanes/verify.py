"""Outputs under load against outputs of a quiet run, so that a race between requests shows.

With one input set every output is the same, and a buffer overwritten too early would go unseen: several sets in turn
(the default) make it visible.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.errors import EngineError
from loadtrt.measure.facts import Verification

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt

    from loadtrt.engines.engine import Completion, Engine
    from loadtrt.load.tensors import Arrays

_QUIET_NS = 60_000_000_000  # the longest that one quiet request may take
# Kernels may sum in another order from run to run (atomics), so equality is by |a − b| ≤ atol + rtol·|b|, by the
# precision of the output's type.
_TOLERANCE = {2: (1e-2, 1e-2), 4: (1e-4, 1e-3), 8: (1e-6, 1e-5)}  # bytes of a float: (atol, rtol)


class Verifier:
    """Takes references, compares completions, and sums up."""

    def __init__(self, engine: Engine, input_sets: int) -> None:
        self._engine = engine
        self._input_sets = input_sets
        self._references: list[Arrays] = []
        self._outputs = 0
        self._different = 0
        self._worst = 0.0
        self._first: str | None = None

    async def take_references(self) -> None:
        """Run each input set once, alone, on lane 0. Raises EngineError when one fails or takes over a minute."""
        self._references = [await quiet_outputs(self._engine, inputs) for inputs in range(self._input_sets)]

    def compare(self, completion: Completion, inputs: int) -> None:
        """Check the outputs of a completion that served input set number `inputs`."""
        if completion.error is not None:
            return
        found = self._engine.outputs(completion.lane, completion.buffer)
        if not found:
            return  # every output's shape is decided by the data: how much of its buffer was written is not known
        self._outputs += 1
        excess = max(_excess(found[name], wanted) for name, wanted in self._references[inputs].items())
        self._worst = max(self._worst, excess)
        if excess > 1:
            self._different += 1
            if self._first is None:
                self._first = f"lane {completion.lane}, buffer set {completion.buffer}, input set {inputs}"

    def result(self) -> Verification:
        """How many outputs were compared and how many differed."""
        return Verification(
            outputs=self._outputs,
            different=self._different,
            worst=self._worst if math.isfinite(self._worst) else None,
            input_sets=self._input_sets,
            first_difference=self._first,
        )


async def quiet_outputs(engine: Engine, inputs: int) -> Arrays:
    """Copies of the outputs of one request with input set number `inputs`, alone on lane 0 of an idle engine (with
    several to a launch, of the first of these). Raises EngineError when it fails or takes over a minute."""
    engine.submit(0, inputs)
    deadline = engine.now_ns() + _QUIET_NS
    completions: list[Completion] = []
    while len(completions) < engine.per_launch and engine.now_ns() < deadline:
        completions += await engine.wait(deadline)
    if len(completions) < engine.per_launch:
        raise EngineError("a quiet request did not finish within 60 s; the engine hangs")
    completion = completions[0]
    if completion.error is not None:
        raise EngineError(f"a quiet request failed: {completion.error}")
    return {name: array.copy() for name, array in engine.outputs(0, completion.buffer).items()}


def _excess(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """Largest |found − wanted| / (atol + rtol·|wanted|); above 1 they differ. Integers must be equal."""
    if found.shape != wanted.shape:
        return float("inf")
    if np.issubdtype(wanted.dtype, np.integer) or wanted.dtype == np.bool_:
        return 0.0 if np.array_equal(found, wanted) else float("inf")
    atol, rtol = _TOLERANCE.get(wanted.dtype.itemsize, (0.1, 0.1))
    b = wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        ratio = np.abs(found.astype(np.float64) - b) / (atol + rtol * np.abs(b))
    same = (found == wanted) | (np.isnan(found.astype(np.float64)) & np.isnan(b))
    ratio = np.where(same, 0.0, np.where(np.isnan(ratio), np.inf, ratio))
    return float(ratio.max(initial=0.0))
