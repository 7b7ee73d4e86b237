"""`loadtrt zoo`: write a model without a download."""

from __future__ import annotations

from pathlib import Path

import click

from loadtrt.cli.delivery import show_line
from loadtrt.cli.options import FORCE_HELP
from loadtrt.cli.outputs import Output, require_outputs
from loadtrt.files import write_file


@click.command("zoo")
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="ONNX file to write.  [default: NAME.onnx]")
@click.option("--batch", type=click.IntRange(1, 1 << 20), help="Size of the first dimension.  [default: dynamic]")
@click.option(
    "--seed", type=click.IntRange(0, (1 << 63) - 1), default=0, show_default=True, help="Seed for the random weights."
)
@click.option("--force", is_flag=True, help=FORCE_HELP)
def command(name: str, output: Path | None, batch: int | None, seed: int, force: bool) -> None:
    """Write the model NAME as ONNX, with random weights. The only model at present is googlenet."""
    from math import prod

    from loadtrt.units import format_bytes, format_count
    from loadtrt.zoo import make

    file = output or Path(f"{name}.onnx")
    require_outputs([Output("-o", file, "an ONNX model")], (), force=force)
    model = make(name, batch, seed)
    data = model.SerializeToString()
    write_file(file, data, "model")
    parameters = sum(prod(weight.dims) for weight in model.graph.initializer)
    opset = model.opset_import[0].version
    show_line(f"{file}: {format_bytes(len(data))}, {format_count(parameters)} parameters, opset {opset}")
    for way, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            sizes = (str(dim.dim_value) if dim.dim_value else "?" for dim in value.type.tensor_type.shape.dim)
            show_line(f"  {way} {value.name} fp32[{','.join(sizes)}]")
