"""Inputs that want too much or are damaged: one sentence, exit code 2 or 3, and never a traceback or a full memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bad_inputs import KINDS, Bad
from command_line import loadtrt

if TYPE_CHECKING:
    from pathlib import Path

_FREE_BYTES = 1 << 30


@pytest.mark.parametrize(
    "bad", [pytest.param(bad, id=f"{kind}-{number}") for kind, bads in KINDS.items() for number, bad in enumerate(bads)]
)
def test_a_bad_input_is_refused_in_one_sentence(bad: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names what is wrong, and is short however long the input is. A fault would be raised here."""
    for module in ("lanes.input_sets", "runs.layers", "runs.room"):
        monkeypatch.setattr(f"loadtrt.{module}.available_bytes", lambda: _FREE_BYTES)
    for name, content in bad.files.items():
        (tmp_path / name).write_bytes(content)
    ended = loadtrt(*bad.command.split(), folder=tmp_path)
    sentences = [line for line in ended.stderr.splitlines() if line.startswith("loadtrt: ")]
    assert ended.returncode == bad.code, ended.stderr
    assert bad.sentence in sentences[-1]
    assert len(sentences[-1]) < 3100
    assert len(sentences) <= 2  # the other names what was loaded
    assert "Traceback" not in ended.stderr
