"""`loadtrt run`: its options, and the way from them to a result that is shown and written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from loadtrt.cli.options import GroupedCommand, options
from loadtrt.cli.outputs import inputs_of, outputs_of, require_outputs
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@click.command(cls=GroupedCommand, short_help="Drive an engine with load.")
@options("run")
def command(config: Path | None, force: bool, **given: Any) -> int:
    """Drive an engine with load and say how fast and how late it is.

    \b
    loadtrt run --engine googlenet16.trt --contexts 4 --fp16
    loadtrt run --engine googlenet16.trt --contexts 4 --rate 500/s
    loadtrt run --engine zoo:googlenet --contexts 4          (no GPU needed)
    """
    from loadtrt.asked.reading import load_config

    checked = load_config(config, given)
    values = checked.options()
    require_outputs(outputs_of(values, "a run"), [config, *inputs_of(values)], force=force)
    from loadtrt.cli.running import run

    try:
        return run(checked)
    except UsageError as error:
        model = checked.model
        batch, size = f"batch {model.batch}", f"size {model.batch} of dimension 0"
        told = batch in str(error) or size in str(error)
        if model.scenario is None or given["batch"] is not None or not told:
            raise
        raise UsageError(f"{error} ({batch} is what --scenario {model.scenario} asks for)") from None
