"""`loadtrt schema`: the JSON schema of what loadtrt reads and writes."""

from __future__ import annotations

import json

import click

_KINDS = ("config", "run", "repeat", "sweep", "capacity", "interference", "fleet", "placement", "profile", "failure")


@click.command(short_help="Print a JSON schema.")
@click.argument("kind", type=click.Choice(_KINDS))
def command(kind: str) -> int:
    """Print the JSON schema of a configuration file (config) or of a result's file.

    \b
    loadtrt schema config > loadtrt.schema.json
    # yaml-language-server: $schema=loadtrt.schema.json       (first line of a YAML file, for editors)
    """
    print(json.dumps(_schema(kind), indent=2, ensure_ascii=False))
    return 0


def _schema(kind: str) -> dict[str, object]:
    if kind == "config":
        from loadtrt.asked.reading import config_schema

        return config_schema()
    from loadtrt.report.result_files import SCHEMAS

    if kind == "failure":
        from loadtrt.results.failure import Failure

        return Failure.model_json_schema()
    schema = next(
        each for each in SCHEMAS.values() if each.model_fields["schema_version"].default == f"loadtrt.{kind}/1"
    )
    return schema.model_json_schema()
