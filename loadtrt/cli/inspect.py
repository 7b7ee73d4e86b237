"""`loadtrt inspect`: what a plan or an ONNX model contains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadtrt.asked.reading import FIELDS
from loadtrt.cli.delivery import show_line
from loadtrt.cli.options import FORCE_HELP, TRT_LOG_HELP
from loadtrt.cli.outputs import Output, require_outputs
from loadtrt.errors import UsageError
from loadtrt.files import write_file
from loadtrt.printing import NAME, printable, printable_json, say

if TYPE_CHECKING:
    from collections.abc import Sequence

_FILE_WIDTH = 200  # columns where stdout is not a terminal
_MORE = "inputs and outputs with types, shapes, formats and profiles; memory; layers with precisions and tactics"


@click.command("inspect", short_help="Show what a plan or model contains.")
@click.argument("file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option("--module", metavar="NAME", help="TensorRT module to load the plan with.  [default: by the plan]")
@click.option("--plugins", multiple=True, metavar="FILE", help="Plugin library to load before the plan (repeatable).")
@click.option("--lean-library", metavar="FILE", help=str(FIELDS["lean_library"].description))
@click.option("--allow-host-code", is_flag=True, help="Let TensorRT run the host code in the plan.")
@click.option(
    "--device", type=click.IntRange(0, 1023), default=0, help="Number of the GPU to load the plan on.  [default: 0]"
)
@click.option("--trt-log", metavar="FILE|-", help=TRT_LOG_HELP)
@click.option("--force", is_flag=True, help=FORCE_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print all facts as JSON.")
def command(
    file: Path,
    module: str | None,
    plugins: tuple[str, ...],
    lean_library: str | None,
    allow_host_code: bool,
    device: int,
    trt_log: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Show what PLAN contains: a TensorRT plan, or an .onnx model.

    Reads the header of a plan without TensorRT and without a GPU. With both, also loads the plan and shows its inputs,
    outputs, profiles, memory and layers.
    """
    from loadtrt.engines.inspection import inspect_file
    from loadtrt.engines.tensorrt_log import logging_to

    zoo, _, name = str(file).partition(":")
    if zoo == "zoo" and not file.exists():
        raise UsageError(f"{file} is not a file: 'loadtrt zoo {name}' writes {name}.onnx, which can be inspected")
    read = [file, *plugins, lean_library]
    require_outputs([Output("--trt-log", trt_log, "a log of TensorRT")], read, force=force)
    with logging_to(trt_log, say, "--trt-log"):
        report = inspect_file(
            file,
            module=module,
            plugins=plugins,
            lean_library=lean_library,
            allow_host_code=allow_host_code,
            device=device,
        )
    if as_json:
        write_file("-", printable_json(json.dumps(report, indent=2, ensure_ascii=False)) + "\n")
    elif report["kind"] == "onnx":
        _show_onnx(report)
    else:
        _show_plan(report)


def _show_plan(report: dict[str, Any]) -> None:
    from loadtrt.units import format_bytes

    facts = [
        ("plan", report["file"]),
        ("built by", report["built_by"]),
        ("size", f"{format_bytes(report['size_bytes'])}, SHA-256 {report['sha256']}"),
    ]
    if report["host_code_bytes"]:
        facts.append(("host code", f"{format_bytes(report['host_code_bytes'])}: a lean runtime, so version-compatible"))
    if report["compute_capabilities"]:
        facts.append(("built for", f"compute capability {', '.join(report['compute_capabilities'])}"))
    installing = [line for line in (report["install"], report["install_note"]) if line]
    facts += [("to install" if not place else "", line) for place, line in enumerate(installing)]
    facts += _build_facts(report)
    loaded = report["loaded"]
    if loaded is None:
        _grid(facts)
        show_line()
        show_line(f"Not loaded: {report['not_loaded']}.")
        show_line(f"A plan that loads also shows {_MORE}.")
        return
    scratch = loaded["context_bytes"]
    facts += [
        ("loaded by", f"{loaded['flavour']} {loaded['flavour_version']} on {loaded['device']}"),
        ("lean runtime", loaded["lean_library"]),
        ("profiles", str(loaded["profiles"])),
        ("weights", format_bytes(loaded["weights_bytes"])),
        ("a context", "unknown" if scratch is None else f"{format_bytes(scratch)} of scratch memory"),
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
        rows.append((way, tensor["name"], _typed(tensor), tensor["location"], ranges, tensor["format"]))
    _table(("", "tensor", "type", "in", "profiles: min..opt..max", "format"), rows)
    if loaded["layers"]:
        layers = [(item["name"], item["type"], item["precision"], item["tactic"]) for item in loaded["layers"]]
        _table(("layer", "type", "precision", "tactic"), layers)
    if loaded["layers_missing"]:
        show_line()
        show_line(f"Layers: {loaded['layers_missing']}.")
    _show_warnings(report)


def _show_warnings(report: dict[str, Any]) -> None:
    from loadtrt.findings.log_findings import findings_of_log
    from loadtrt.results.engine_info import LogMessage

    loaded = report["loaded"]
    log = [LogMessage(**message) for message in loaded["log"]]
    for finding in findings_of_log(log, report["file"], loaded["device"], report["build"]):
        show_line()
        show_line(f"{finding.evidence}: {finding.cause} → {finding.remedy}.")


def _build_facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts of the sidecar; what is wrong with the sidecar; or nothing where there is none."""
    from loadtrt.units import format_duration

    build = report["build"]
    if build is None:
        return [] if report["no_build"].startswith("there is no ") else [("sidecar", report["no_build"])]
    options = ", ".join(f"{key}={json.dumps(value)}" for key, value in build["options"].items())
    loading = f", and loading the builder {format_duration(build['load_ns'])}" if build["load_ns"] else ""
    facts = [
        ("built from", f"{build['model']}, SHA-256 {build['model_sha256']}"),
        ("built on", build["gpu"]),
        ("options", options),
        ("precision", build["precision"]),
        ("build took", f"{format_duration(build['build_ns'])}{loading}"),
    ]
    return [fact for fact in facts if fact[1]]


def _show_onnx(report: dict[str, Any]) -> None:
    from loadtrt.units import format_bytes, format_count

    facts = [
        ("model", report["file"]),
        ("size", format_bytes(report["size_bytes"])),
        ("parameters", format_count(report["parameters"])),
        ("opsets", ", ".join(f"{domain} {version}" for domain, version in report["opsets"].items())),
        ("IR version", str(report["ir_version"])),
        ("producer", report["producer"]),
    ]
    _grid([fact for fact in facts if fact[1]])
    tensors = [("input" if item["input"] else "output", item["name"], _typed(item)) for item in report["tensors"]]
    _table(("", "tensor", "type"), tensors)
    _table(("node", "count"), [(name, str(count)) for name, count in report["nodes"].items()])


def _typed(tensor: dict[str, Any]) -> str:
    """ "fp16[?,3,224,224]"."""
    shape = tensor["shape"]
    sizes = "…" if shape is None else ",".join("?" if size == -1 else str(size) for size in shape)
    return f"{tensor['dtype']}[{sizes}]"


def _range(item: dict[str, list[int]]) -> str:
    return "..".join("x".join(map(str, item[part])) or "unknown" for part in ("min", "opt", "max"))


def _grid(rows: Sequence[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        show_line(f"{name:<{width}}  {value}")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str | Sequence[str]]]) -> None:
    """A cell is a name, or lines."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "type")
    for row in rows:
        cells = (
            printable(cell, NAME) if isinstance(cell, str) else "\n".join(printable(line, NAME) for line in cell)
            for cell in row
        )
        table.add_row(*map(Text, cells))  # Text: brackets in names are not markup
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(table)
