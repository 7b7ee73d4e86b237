"""The file beside a plan, PLAN.json: what the plan was built from, by what, and how long that took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_KEPT_BY_RUNS = {"model", "model_sha256", "options", "precision", "flavour", "flavour_version", "gpu", "build_ns"}


class SidecarTensor(BaseModel):
    """One input or output; `shape` has -1 where a profile leaves the size open."""

    model_config = ConfigDict(frozen=True)

    name: str
    input: bool
    dtype: str
    shape: tuple[int, ...]


class Sidecar(BaseModel):
    """What is kept of a build. `options`: those that differ from the defaults. `precision`: what was done about it, in
    words. `gpu`: the one that it was built on, "" where `targets` say. `build_ns`: of the builder alone."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    loadtrt_version: str
    model: str
    model_sha256: str
    options: dict[str, Any]
    precision: str
    flavour: str
    flavour_version: str
    gpu: str
    targets: tuple[str, ...]
    tensors: tuple[SidecarTensor, ...]
    build_ns: int
    plan_sha256: str
    plan_bytes: int


def sidecar_of(plan: Path) -> Path:
    """PLAN.json."""
    return plan.with_name(f"{plan.name}.json")


def read_sidecar(plan: Path, plan_sha256: str | None = None) -> Sidecar | None:
    """The sidecar of `plan`, None where there is none.

    Raises UsageError for one that cannot be read, and for one of another plan than that of `plan_sha256`.
    """
    file = sidecar_of(plan)
    try:
        sidecar = Sidecar.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its JSON"
        raise UsageError(f"{file} is no sidecar of a build: {where}: {first['msg']}") from None
    if plan_sha256 not in (None, sidecar.plan_sha256):
        raise UsageError(f"{file} is of another plan: its SHA-256 differs")
    return sidecar


def build_facts(plan: Path, plan_sha256: str) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """What a run keeps of the plan's build, None where nobody knows; a note where the sidecar is broken or another
    plan's. `plan_sha256`: of the plan as it is now."""
    try:
        sidecar = read_sidecar(plan, plan_sha256)
    except UsageError as error:
        return None, (f"what the plan was built from is not known: {error}",)
    return (sidecar.model_dump(mode="json", include=_KEPT_BY_RUNS) if sidecar else None), ()
