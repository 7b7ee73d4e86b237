"""Compares the outputs of a quiet request with a reference, so that a precision that gives other answers shows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.errors import EngineError
from loadtrt.lanes.ending import FIRST_NS
from loadtrt.lanes.verify import FailedRequestError, quiet_outputs
from loadtrt.results.precisions import Deviation

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt

    from loadtrt.engines.engine import Engine
    from loadtrt.engines.reference import Reference
    from loadtrt.load.tensors import Arrays

_SMALLEST = 2.0**-14  # the smallest number of FP16 that has all its bits


async def deviation_from(engine: Engine, reference: Reference, limit_ns: int = FIRST_NS) -> Deviation:
    """How far the outputs of one quiet request with the first input set are from the reference. Raises EngineError
    where it takes over `limit_ns`."""
    outputs: Arrays = {}
    unknown = reference.unknown
    if not unknown:
        try:
            outputs = await quiet_outputs(engine, 0, limit_ns)
        except FailedRequestError as error:  # the run will tell of it, too
            unknown = str(error)
    expected = reference.outputs or {}
    pairs = [(name, outputs[name], expected[name]) for name in outputs if name in expected]
    other = next((name for name, output, wanted in pairs if output.shape != wanted.shape), None)
    if not unknown and not pairs:
        unknown = f"{reference.name} has none of the outputs {', '.join(outputs) or 'that the engine can tell'}"
    elif other is not None:
        unknown = f"output {other} has another shape in {reference.name}"
    if unknown:
        if reference.demanded:
            raise EngineError(f"outputs cannot be compared: {unknown}")
        return Deviation(reference.name, unknown)
    found = [_deviation(name, output, wanted) for name, output, wanted in pairs]
    worst = max(found, key=lambda item: (item.not_finite > 0, item.relative))
    return replace(
        worst, reference=reference.name, outputs=len(found), tolerance=reference.tolerance, demanded=reference.demanded
    )


def _deviation(name: str, output: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> Deviation:
    """Of one output, without its terms."""
    a, b = (array.astype(np.float64) for array in (output, wanted))
    if wanted.dtype.kind not in "fV":
        share = float(np.mean(a != b)) if a.size else 0.0
        return Deviation("", output=name, absolute=float(np.abs(a - b).max(initial=0)), relative=share)
    held = np.isfinite(b)
    wrong = int(np.count_nonzero(held & ~np.isfinite(a)))
    held &= np.isfinite(a)
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
    )
