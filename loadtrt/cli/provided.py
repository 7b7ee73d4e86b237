"""Files that come with loadtrt: dashboards, rules and example configurations, in the wheel or beside the package."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import loadtrt
from loadtrt.errors import UsageError
from loadtrt.files import reason, require_writable, write_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_INSIDE = "loadtrt/provided/"  # as pyproject.toml has it for the wheel


def provided(kind: str) -> dict[str, Path]:
    """The files of a kind, "configs" or "grafana", by their names in its folder, which may hold "/".

    A wheel holds them in the package. In a checkout they lie where pyproject.toml takes them from for the wheel.
    """
    package = Path(loadtrt.__file__).parent
    if (package / "provided").is_dir():
        places = {f"{_INSIDE}{kind}": package / "provided" / kind}
    else:
        root = package.parent
        places = {inside: root / outside for outside, inside in _included(root).items()}
    found = {}
    for inside, place in places.items():
        if not f"{inside}/".startswith(f"{_INSIDE}{kind}/"):
            continue
        for file in _files(place):
            name = Path(inside.removeprefix(_INSIDE), file.relative_to(place))
            found[str(name.relative_to(kind))] = file
    if not found:
        raise UsageError(f"this installation of loadtrt has no {kind}: install its wheel, or use a whole checkout")
    return dict(sorted(found.items()))


def write_provided(files: Mapping[Path, str], *, force: bool) -> None:
    """Write texts to files, and make the folders they lie in. Raises UsageError, before any is written, where one is
    there and holds something else, unless `force`; what holds the same already is left as it is."""
    others = [file for file, text in files.items() if not force and _held(file) not in (None, "", text)]
    if others:
        more = f" and {len(others) - 1} more hold" if others[1:] else " holds"
        raise UsageError(
            f"{others[0]}{more} something else, which would be overwritten: name another place, or add --force"
        )
    for folder in sorted({file.parent for file in files}):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise UsageError(f"the folder {folder} cannot be made: {reason(error)}") from None
    for file in files:
        require_writable("the file", file)
    for file, text in files.items():
        write_file(file, text, "file")


def _included(root: Path) -> dict[str, str]:
    """What pyproject.toml puts into the wheel beside the package: place in it by place in the checkout."""
    try:
        wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return {}
    included: dict[str, str] = wheel["force-include"]
    return included


def _files(place: Path) -> Iterator[Path]:
    return iter([place]) if place.is_file() else (file for file in sorted(place.rglob("*")) if file.is_file())


def _held(file: Path) -> str | None:
    """What a regular file holds, as text; None where there is none."""
    try:
        return file.read_bytes().decode(errors="replace") if file.is_file() else None
    except (OSError, ValueError) as error:
        raise UsageError(f"the file {file} cannot be written: {reason(error)}") from None
