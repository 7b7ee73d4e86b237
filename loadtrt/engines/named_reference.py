"""What --verify-against names, judged before an engine's outputs are compared with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loadtrt.environment import available_bytes
from loadtrt.errors import UsageError
from loadtrt.load.inputs import array_shape, is_float
from loadtrt.load.tensors import STRING

if TYPE_CHECKING:
    from loadtrt.asked.model import Model
    from loadtrt.load.tensors import Arrays
    from loadtrt.results.engine_info import EngineInfo


def is_file(reference: str) -> bool:
    """Whether what --verify-against names holds outputs, and is not a model."""
    return Path(reference).suffix.lower() in (".npz", ".npy")


def outputs_in(file: str, model: Model, info: EngineInfo) -> Arrays:
    """The outputs in an .npz, or the only one in an .npy. Raises UsageError where they can be of other inputs, and
    where there are none."""
    from loadtrt.load.array_files import read_outputs

    if set(model.inputs) <= {"random"}:
        raise UsageError(
            f"the outputs in {file} belong to certain inputs, and these are random: add --inputs with the file of those"
        )
    held = read_outputs(file, available_bytes())
    names = [spec.name for spec in info.tensors if not spec.is_input]
    if list(held) == [""]:
        if len(names) > 1:
            raise UsageError(
                f"{file} has one array, and {model.engine} the outputs {', '.join(names)}: write an .npz with "
                "numpy.savez(file, NAME=array)"
            )
        return dict.fromkeys(names, held[""])
    found = {name: held[name] for name in names if name in held}
    if not found:
        raise UsageError(
            f"{file} has none of the outputs {', '.join(names)}: it has {', '.join(held) or 'no arrays'}; name the "
            "arrays as the outputs"
        )
    return found


def require_inputs(name: str, model: Model, inputs: Arrays) -> None:
    """Raise UsageError where the model `name` takes inputs that the engine does not have."""
    from loadtrt.engines.onnx_model import parse_model
    from loadtrt.engines.value_types import given_inputs

    if name.startswith("zoo:"):
        return
    graph = parse_model(Path(name))[0].graph
    taken = [value.name for value in given_inputs(graph)]
    given = [*inputs, *model.shape_values]
    if not set(taken) <= set(given):
        raise UsageError(
            f"--verify-against {name}: it takes the inputs {', '.join(taken)}, and {model.engine} {', '.join(given)}: "
            "name the model that the engine was made from"
        )


def require_outputs(name: str, outputs: Arrays, info: EngineInfo) -> None:
    """Raise UsageError where a reference has none of the engine's outputs, or one of another shape or kind."""
    specs = [spec for spec in info.tensors if not spec.is_input]
    if specs and not any(spec.name in outputs for spec in specs):
        raise UsageError(
            f"--verify-against {name}: it has the outputs {', '.join(outputs)}, and the engine "
            f"{', '.join(spec.name for spec in specs)}: name the model that the engine was made from"
        )
    for spec in specs:
        array = outputs.get(spec.name)
        if array is None:
            continue
        is_text = array.dtype.kind in "OUS"
        unknown = array.dtype.kind == "c" or (array.dtype.kind == "V" and array.dtype.name.startswith("void"))
        unknown |= array.dtype.kind in "biu" and is_float(spec.dtype)  # floats that were cast would seem to deviate
        if unknown or is_text != (spec.dtype == STRING):
            kind = "text" if is_text else str(array.dtype)
            raise UsageError(f"--verify-against {name}: output {spec.name} is {kind} there, and {spec} of the engine")
        wanted = array_shape(spec)
        fits = len(wanted) == array.ndim and all(
            size in (-1, found) for size, found in zip(wanted, array.shape, strict=True)
        )
        if not fits:
            raise UsageError(
                f"--verify-against {name}: output {spec.name} has the shape {list(array.shape)} there, and "
                f"{list(wanted)} in the engine: take the outputs for these inputs and this batch"
            )
