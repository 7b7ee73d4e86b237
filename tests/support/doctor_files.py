"""What the doctor's tests share: machines made of files, and finding a check."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.doctor import Check

GIB = 2**30


def write(root: Path, files: dict[str, str]) -> Path:
    """Files of a made-up machine below `root`."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def of(checks: list[Check], name: str) -> Check:
    """The check of that name."""
    return next(check for check in checks if check.name == name)
