"""`loadtrt inspect`: what is in a plan or an ONNX model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_FILE_WIDTH = 200  # columns where nobody's terminal sets them
_MORE = "inputs and outputs with types, shapes, formats and profiles; memory; layers with precisions and tactics"


@click.command("inspect", short_help="Say what is in a plan or model.")
@click.argument("file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option("--module", metavar="NAME", help="TensorRT module to import.  [default: by the plan]")
@click.option("--plugins", multiple=True, metavar="FILE", help="Plugin library to load (repeatable).")
@click.option("--allow-host-code", is_flag=True, help="Let TensorRT run host code that the plan carries.")
@click.option("--device", type=click.IntRange(min=0), default=0, help="GPU number.  [default: 0]")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(
    file: Path, module: str | None, plugins: tuple[str, ...], allow_host_code: bool, device: int, as_json: bool
) -> None:
    """Say what is in PLAN: a TensorRT plan, or an .onnx model.

    A plan's header is read without TensorRT and without a GPU. Where both are there, the plan is loaded too, and its
    inputs, outputs, profiles, memory and layers are shown.
    """
    from loadtrt.engines.inspection import inspect_file

    zoo, _, name = str(file).partition(":")
    if zoo == "zoo" and not file.exists():
        raise UsageError(f"{file} is not a file: 'loadtrt zoo {name}' writes {name}.onnx, which can be inspected")
    found = inspect_file(file, module=module, plugins=plugins, allow_host_code=allow_host_code, device=device)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif found["kind"] == "onnx":
        _show_onnx(found)
    else:
        _show_plan(found)


def _show_plan(found: dict[str, Any]) -> None:
    from loadtrt.units import format_bytes

    facts = [
        ("plan", found["file"]),
        ("built by", found["built_by"]),
        ("size", f"{format_bytes(found['size_bytes'])}, SHA-256 {found['sha256']}"),
    ]
    if found["host_code_bytes"]:
        facts.append(("host code", f"{format_bytes(found['host_code_bytes'])}: a lean runtime, so version-compatible"))
    if found["compute_capabilities"]:
        facts.append(("built for", f"compute capability {', '.join(found['compute_capabilities'])}"))
    facts += _build_facts(found)
    loaded = found["loaded"]
    if loaded is None:
        _grid(facts)
        click.echo(f"\nNot loaded: {found['not_loaded']}.\nOnce it loads, this also shows {_MORE}.")
        return
    scratch = loaded["context_bytes"]
    facts += [
        ("loaded by", f"{loaded['flavour']} {loaded['flavour_version']}"),
        ("profiles", str(loaded["profiles"])),
        ("weights", format_bytes(loaded["weights_bytes"])),
        ("a context", "not known" if scratch is None else f"{format_bytes(scratch)} of scratch memory"),
        ("layers", str(loaded["layer_count"])),
        ("aux streams", str(loaded["aux_streams"])),
        ("refittable", "yes" if loaded["refittable"] else "no"),
        ("hardware", loaded["hardware_compatibility"]),
        ("verbosity", loaded["profiling_verbosity"]),
    ]
    _grid([fact for fact in facts if fact[1]])
    rows = []
    for tensor in loaded["tensors"]:
        way = "input" if tensor["input"] else "output"
        ranges = [f"{number}: {_range(item)}" for number, item in enumerate(tensor["ranges"])]
        ranges += [f"{number}: values {_range(item)}" for number, item in enumerate(tensor["values"])]
        rows.append(
            (way, tensor["name"], _typed(tensor), tensor["location"], "\n".join(ranges), tensor["format"]),
        )
    _table(("", "tensor", "type", "in", "profiles: min..opt..max", "format"), rows)
    if loaded["layers"]:
        layers = [(item["name"], item["type"], item["precision"], item["tactic"]) for item in loaded["layers"]]
        _table(("layer", "type", "precision", "tactic"), layers)
    if loaded["layers_missing"]:
        click.echo(f"\nLayers: {loaded['layers_missing']}.")


def _build_facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    """What the sidecar tells; a line of what is wrong with it, and none where there is no sidecar."""
    from loadtrt.units import format_duration

    made = found["build"]
    if made is None:
        return [] if found["no_build"].startswith("there is no ") else [("sidecar", found["no_build"])]
    options = ", ".join(f"{key}={json.dumps(value)}" for key, value in made["options"].items())
    facts = [
        ("built from", f"{made['model']}, SHA-256 {made['model_sha256']}"),
        ("built on", made["gpu"]),
        ("options", options),
        ("precision", made["precision"]),
        ("build took", format_duration(made["build_ns"])),
    ]
    return [fact for fact in facts if fact[1]]


def _show_onnx(found: dict[str, Any]) -> None:
    from loadtrt.units import format_bytes, format_count

    facts = [
        ("model", found["file"]),
        ("size", format_bytes(found["size_bytes"])),
        ("parameters", format_count(found["parameters"])),
        ("opsets", ", ".join(f"{domain} {version}" for domain, version in found["opsets"].items())),
        ("IR version", str(found["ir_version"])),
        ("producer", found["producer"]),
    ]
    _grid([fact for fact in facts if fact[1]])
    tensors = found["tensors"]
    _table(
        ("", "tensor", "type"),
        [("input" if item["input"] else "output", item["name"], _typed(item)) for item in tensors],
    )
    _table(("node", "count"), [(name, str(count)) for name, count in found["nodes"].items()])


def _typed(tensor: dict[str, Any]) -> str:
    """ "fp16[?,3,224,224]"."""
    shape = tensor["shape"]
    sizes = "…" if shape is None else ",".join("?" if size == -1 else str(size) for size in shape)
    return f"{tensor['dtype']}[{sizes}]"


def _range(item: dict[str, list[int]]) -> str:
    return "..".join("x".join(map(str, item[part])) or "not told" for part in ("min", "opt", "max"))


def _grid(rows: Sequence[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "type")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: brackets in names are no markup
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(table)
