"""How an option is declared: once, as a field of a configuration (asked/config.py).

The command line, the configuration file's keys, their JSON schema and the tables of the documentation are derived from
the declarations. What an option is of its own kind on one command only (the values of a sweep, the trial of a search)
stands in that command.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Group = Literal["Engine", "Lanes", "Load", "Requests", "Ending", "Objectives", "Fleet", "Results", "Watching"]
GROUPS: tuple[Group, ...] = get_args(Group)
# Commands that take an option beside `run`.
SEARCHES = "sweep capacity interference"
ENGINES = "sweep capacity profile interference"
PLANS = "plan-capacity"
FLEETS = "sweep capacity"
LOADS = f"sweep capacity {PLANS}"


class Strict(BaseModel):
    """Unknown keys are errors, and nothing changes once it was checked."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True, arbitrary_types_allowed=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _require_numbers(cls, value: object, info: ValidationInfo) -> object:
        """pydantic alone takes true for 1."""
        field = cls.model_fields[info.field_name or ""]
        if shown_as(field) and _holds_bool(value):
            kinds = _leaves(field.annotation)
            if kinds & {int, float} and bool not in kinds:
                raise ValueError("true and false are not numbers: write a number, or leave the option out")
        return value


def _leaves(kind: Any) -> set[Any]:
    """The types that an annotation is made of."""
    inside = get_args(kind)
    return set().union(*map(_leaves, inside)) if inside else {kind}


def _holds_bool(value: object) -> bool:
    if isinstance(value, dict):
        return _holds_bool(list(value.values()))
    return any(map(_holds_bool, value)) if isinstance(value, list | tuple) else isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Shown:
    """How an option is shown and where it is offered.

    group: heading in --help.
    commands: the commands that take it, apart from `run`.
    metavar: stands for its value in --help; None for the usual one of its type.
    default: what --help says of a default that depends on others; None for the field's own.
    writes: what the command writes to the file that the option names, as cli/outputs.py calls it; "result" for what
        differs from command to command; None for an option that does not name a file to write.
    """

    group: Group
    commands: frozenset[str]
    metavar: str | None = None
    default: str | None = None
    writes: str | None = None

    def __call__(self, schema: dict[str, Any]) -> None:
        """Leave the JSON schema of the field as it is: pydantic calls what a field carries as `json_schema_extra`."""


def option(
    default: Any,
    help_: str,
    *,
    group: Group,
    commands: str = "",
    metavar: str | None = None,
    shown_default: str | None = None,
    writes: str | None = None,
    **limits: Any,
) -> Any:
    """A field of a configuration that is an option too.

    default: the default value; ... where there is none.
    help_: what the option does, a sentence that stands alone.
    group, metavar, writes: see Shown.
    commands: the commands that take it apart from `run`, with blanks between.
    shown_default: `default` of Shown.
    limits: bounds and an alias, as `pydantic.Field` takes them.
    """
    shown = Shown(group, frozenset(commands.split()), metavar, shown_default, writes)
    return Field(default, description=help_, json_schema_extra=shown, **limits)


def shown_as(field: FieldInfo) -> Shown | None:
    """How a field of a configuration is shown as an option; None for a field that is not one."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, Shown) else None


def value_type(field: FieldInfo) -> Any:
    """The type of an option's value, without None."""
    kinds = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    optional = type(None) in get_args(field.annotation)
    kind = kinds[0] if optional else field.annotation
    return get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
