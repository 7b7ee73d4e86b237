"""The git revision in a result's environment."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from loadtrt.environment import environment, revision

if TYPE_CHECKING:
    from pathlib import Path


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_a_revision_is_of_the_working_folder(tmp_path: Path) -> None:
    """The commit, with -dirty where files that git tracks have changed; others do not count."""
    assert revision(tmp_path) == ""  # no repository
    _git(tmp_path, "init", "--quiet")
    assert revision(tmp_path) == ""  # no commit
    (tmp_path / "kept").write_text("a")
    _git(tmp_path, "add", "kept")
    _git(tmp_path, "commit", "--quiet", "-m", "first")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "other").write_text("b")
    (tmp_path / "below").mkdir()
    assert revision(tmp_path) == revision(tmp_path / "below") == commit
    (tmp_path / "kept").write_text("c")
    assert revision(tmp_path) == f"{commit}-dirty"


@pytest.mark.parametrize("program", [None, "exit 1", "echo nonsense", "printf '\\377'"])
def test_without_git_there_is_no_revision(program: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never an error: git is missing, fails, or says something else."""
    if program is not None:
        (tmp_path / "git").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision() == ""
    assert "revision" not in environment()


def test_a_repositorys_monitor_is_not_started(tmp_path: Path) -> None:
    """It is a program that a repository names."""
    _git(tmp_path, "init", "--quiet")
    _git(tmp_path, "config", "core.fsmonitor", f"touch {tmp_path / 'started'} #")
    (tmp_path / "kept").write_text("a")
    _git(tmp_path, "-c", "core.fsmonitor=false", "add", "kept")
    _git(tmp_path, "-c", "core.fsmonitor=false", "commit", "--quiet", "-m", "first")
    assert revision(tmp_path)
    assert not (tmp_path / "started").exists()
