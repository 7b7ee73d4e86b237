"""Which options about the sizes and inputs of requests go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadtrt.asked.model import Model


def require_known_kinds(model: Model) -> None:
    """Raise ValueError for options that mixes, batchers and bounded queues do not go together with."""
    if model.inputs != ("random",) and model.input_sets != type(model).model_fields["input_sets"].default:
        raise ValueError("--input-sets counts random input sets: leave it out with zeros, or with files of your own")
    parts, batching = model.mix_parts, model.batching
    several = "mix" if model.mix else "batcher" if model.batcher else None
    if model.mix and model.batcher:
        raise ValueError("--mix and --batcher exclude each other: the batcher decides how large batches are")
    if several and model.batch is not None:
        raise ValueError(f"--{several} decides how large requests are: leave --batch out")
    if several and model.inferences_per_request is not None:
        raise ValueError(f"--{several} decides how large requests are: leave --inferences-per-request out")
    if model.shapes and any(part.shapes for part in parts):
        raise ValueError("this mix has shapes of its own: leave --shapes out, or write its parts as SIZE:WEIGHT")
    if several and not {"random", "zeros"}.issuperset(model.inputs):
        raise ValueError(f"inputs from files have one size, and --{several} needs several: take random or zeros")
    if several and not model.copies:
        raise ValueError(f"--{several} needs copies, as what the device holds has one size: leave --no-copies out")
    if model.requests_per_launch > 1 and (not model.load.closed or several):
        raise ValueError(
            "--requests-per-launch is for closed loops of one size, where the next requests always wait: leave it "
            f"out, or {f'--{several}' if several else 'the options of an open loop'}"
        )
    if batching and model.max_queue is not None and model.max_queue < batching.sizes[-1]:
        raise ValueError(f"--max-queue {model.max_queue} leaves no room for a batch of {batching.sizes[-1]}: raise it")
    if model.max_queue is None and not model.load.closed and any(item.kind == "drops" for item in model.objectives):
        raise ValueError("an objective on drops needs --max-queue, such as --max-queue 8: else nothing is dropped")
