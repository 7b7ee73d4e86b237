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
        tolerance=tolerance,
    )


def _texts(array: npt.NDArray[Any]) -> list[str]:
    return [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in array.ravel()]
