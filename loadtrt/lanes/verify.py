"""Compares outputs under load with outputs of a quiet run, so that a race between requests shows; and those of a quiet
request with a reference, so that a precision that gives other answers shows.

With one input set all outputs are equal, and a buffer that is overwritten too early goes unseen. Several input sets in
turn, the default, make it visible.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.errors import EngineError
from loadtrt.lanes.ending import FIRST_NS
from loadtrt.results.engine_info import Verification
from loadtrt.results.precisions import Deviation
from loadtrt.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import numpy.typing as npt

    from loadtrt.engines.engine import Completion, Engine
    from loadtrt.engines.reference import Reference
    from loadtrt.load.tensors import Arrays

_REPEATED = 4  # quiet requests that are made twice, at least
# Kernels may sum in another order from run to run (atomics), so outputs are equal where |a − b| ≤ atol + rtol·|b|, by
# the precision of the output's type.
_TOLERANCE = {2: (1e-2, 1e-2), 4: (1e-4, 1e-3), 8: (1e-6, 1e-5)}  # bytes of a float: (atol, rtol)
_SMALLEST = 2.0**-14  # the smallest number of FP16 that has all its bits


class FailedRequestError(EngineError):
    """A quiet request was answered by an error."""


class Verifier:
    """Takes reference outputs, compares completions with them, and counts differences.

    unrepeatable: the output in which two quiet requests with the same inputs differ; None where they agree.
    """

    def __init__(self, engine: Engine, input_sets: int, limit_ns: int) -> None:
        """limit_ns: the longest time that a quiet request may take."""
        self._engine, self._limit_ns = engine, limit_ns
        self._input_sets = input_sets
        self.unrepeatable: str | None = None
        self._references: list[Arrays] = []
        self._outputs = 0
        self._different = 0
        self._worst = 0.0
        self._first: str | None = None

    async def take_references(self, tell: Callable[[int, int], None] | None) -> None:
        """Run each input set once, alone, on lane 0, and some of them again: a model that draws random numbers differs
        from itself, and no fault of the load can be told from that. Raises EngineError when one fails or takes too
        long.

        tell: called as (submitted, completed) after each request.
        """
        sets = self._input_sets
        for number in range(sets + _REPEATED):
            outputs = await quiet_outputs(self._engine, number % sets, self._limit_ns)
            if number < sets:
                self._references.append(outputs)
            else:
                reference = self._references[number % sets]
                differing = (name for name in outputs if _excess(outputs[name], reference[name]) > 1)
                self.unrepeatable = self.unrepeatable or next(differing, None)
            if tell is not None:
                tell(number + 1, number + 1)

    def compare(self, completion: Completion, inputs: int) -> None:
        """Compare the outputs of a completion with the reference of input set `inputs`."""
        if completion.error is not None:
            return
        outputs = self._engine.outputs(completion.lane, completion.buffer)
        if not outputs:
            return  # the data decide on every output's shape: how much of its buffer was written is not known
        self._outputs += 1
        excess = max(_excess(outputs[name], reference) for name, reference in self._references[inputs].items())
        self._worst = max(self._worst, excess)
        if excess > 1:
            self._different += 1
            if self._first is None:
                self._first = f"lane {completion.lane}, buffer set {completion.buffer}, input set {inputs}"

    def result(self) -> Verification:
        """The number of outputs compared, and of those that differed."""
        return Verification(
            outputs=self._outputs,
            different=self._different,
            worst=self._worst if math.isfinite(self._worst) else None,
            input_sets=self._input_sets,
            first_difference=self._first,
            unrepeatable=self.unrepeatable,
        )


async def quiet_outputs(engine: Engine, inputs: int, limit_ns: int) -> Arrays:
    """Copies of the outputs of one request with input set `inputs`, alone on lane 0 of an idle engine; of the first
    request where a launch has several. Raises EngineError when it fails or takes over `limit_ns`."""
    engine.submit(0, inputs)
    deadline = engine.now_ns() + limit_ns
    completions: list[Completion] = []
    while len(completions) < engine.per_launch and engine.now_ns() < deadline:
        completions += await engine.wait(deadline)
    if len(completions) < engine.per_launch:
        raise EngineError(
            f"a quiet request did not finish within {format_duration(limit_ns)}: the engine hangs; if a request may "
            "take so long, raise --drain"
        )
    completion = completions[0]
    if completion.error is not None:
        raise FailedRequestError(f"a quiet request failed: {completion.error}")
    return {name: array.copy() for name, array in engine.outputs(0, completion.buffer).items()}


def _excess(output: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    """The largest |output − reference| / (atol + rtol·|reference|); above 1 they differ. All else must be equal."""
    if output.shape != reference.shape:
        return math.inf
    if np.issubdtype(reference.dtype, np.integer) or reference.dtype.kind in "bO":
        return 0.0 if np.array_equal(output, reference) else math.inf
    atol, rtol = _TOLERANCE.get(reference.dtype.itemsize, (0.1, 0.1))
    a, b = output.astype(np.float64), reference.astype(np.float64)
    with np.errstate(invalid="ignore"):
        ratio = np.abs(a - b) / (atol + rtol * np.abs(b))
    same = (output == reference) | (np.isnan(a) & np.isnan(b))
    ratio = np.where(same, 0.0, np.where(np.isnan(ratio), np.inf, ratio))
    return float(ratio.max(initial=0.0))


async def deviation_from(engine: Engine, reference: Reference, limit_ns: int = FIRST_NS) -> Deviation:
    """How far the outputs of one quiet request with the first input set are from the reference. Raises EngineError
    where it takes over `limit_ns`."""
    outputs: Arrays = {}
    again: Arrays = {}
    unknown = reference.unknown
    if not unknown:
        try:
            outputs, again = [await quiet_outputs(engine, 0, limit_ns) for _ in range(2)]
        except FailedRequestError as error:  # the run will tell of it, too
            unknown = str(error)
    expected, repeated = reference.outputs or {}, reference.again or {}
    shared = [name for name in outputs if name in expected]
    # A model that draws random numbers differs from itself, here or there, and no fault can be told from that.
    pairs = [(name, again.get(name), outputs[name]) for name in shared]
    pairs += [(name, repeated[name], expected[name]) for name in shared if name in repeated]
    unsteady = {name for name, one, other in pairs if one is None or _of(name, one, other, reference.tolerance).differs}
    random = tuple(name for name in shared if name in unsteady)
    if not unknown and not shared:
        unknown = f"{reference.name} has none of the outputs {', '.join(outputs) or 'that the engine can tell'}"
    elif not unknown and len(random) == len(shared):
        unknown = f"two requests with the same inputs differ in output {random[0]}: the model draws random numbers"
        random = ()
    if unknown and reference.demanded:
        raise EngineError(f"outputs cannot be compared: {unknown}")
    found = [_of(name, outputs[name], expected[name], reference.tolerance) for name in shared if name not in random]
    worst = max(found, key=lambda item: (item.kind == "shape", item.not_finite > 0, item.relative), default=None)
    overflow = next(iter(reference.overflows), "")
    return replace(
        Deviation("", unknown) if unknown or worst is None else worst,
        reference=reference.name,
        outputs=0 if unknown else len(found),
        random=random,
        missing=() if unknown else tuple(name for name in outputs if name not in expected),
        demanded=reference.demanded,
        overflows=len(reference.overflows),
        first_overflow=overflow,
        largest_overflow=reference.overflows.get(overflow, 0.0),
        unlooked=reference.unlooked,
    )


def _of(name: str, output: npt.NDArray[Any], wanted: npt.NDArray[Any], tolerance: float) -> Deviation:
    """Of one output."""
    kinds = {array.dtype.kind for array in (output, wanted)}
    if output.shape != wanted.shape:
        shapes = f"{list(output.shape)} instead of {list(wanted.shape)}"
        return Deviation("", output=name, kind="shape", shapes=shapes, relative=1.0, tolerance=tolerance)
    if kinds & set("OUS"):
        differing = [a != b for a, b in zip(_texts(output), _texts(wanted), strict=True)]
        share = float(np.mean(differing)) if differing else 0.0
        return Deviation("", output=name, kind="text", relative=share, tolerance=tolerance)
    if kinds <= set("iub"):
        share = float(np.mean(output != wanted)) if output.size else 0.0
        apart = float(np.abs(output.astype(np.float64) - wanted.astype(np.float64)).max(initial=0))
        return Deviation("", output=name, kind="integer", absolute=apart, relative=share, tolerance=tolerance)
    a, b = (array.astype(np.float64) for array in (output, wanted))
    held = np.isfinite(a) & np.isfinite(b)
    wrong = int(np.count_nonzero(~held & (a != b) & ~(np.isnan(a) & np.isnan(b))))
    a, b = a[held], b[held]
    absolute, largest = float(np.abs(a - b).max(initial=0)), float(np.abs(b).max(initial=0))
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return Deviation(
        reference="",
        output=name,
        absolute=absolute,
        largest=largest,
        relative=absolute / max(largest, _SMALLEST),
        cosine=min(float(a @ b) / lengths, 1.0) if lengths else None,
        not_finite=wrong,
        not_compared=int(np.count_nonzero(~held)) - wrong,
        tolerance=tolerance,
    )


def _texts(array: npt.NDArray[Any]) -> list[str]:
    return [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in array.ravel()]
