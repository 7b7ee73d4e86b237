"""Files of results: whole or not at all, and never in the place of what is not a regular file."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from loadtrt.errors import UsageError
from loadtrt.files import write_file

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """Text is written as UTF-8, bytes as they are, and nothing else stays in the folder."""
    file = tmp_path / "result"
    write_file(file, "µs")
    assert file.read_bytes() == "µs".encode()
    write_file(file, b"\0\1")
    assert file.read_bytes() == b"\0\1"
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename that fails: the old bytes stay, no part is left, and the error names the file."""
    file = tmp_path / "result"
    file.write_text("old")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(UsageError, match=r"cannot write plan .*result: No space left"):
        write_file(file, "new", "plan")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_symbolic_link_keeps_its_place(tmp_path: Path) -> None:
    """The file behind the link is replaced, or made where there is none yet."""
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "result")
    for text in ("one", "two"):
        write_file(link, text)
        assert link.is_symlink()
        assert (tmp_path / "there" / "result").read_text() == text


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    """A FIFO stays one, and its reader gets the bytes."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_file(pipe, "result")
    reader.join()
    assert read == [b"result"]
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_stdout(name: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Both names are stdout, wherever that goes."""
    write_file(name, "result\n")
    assert capfdbinary.readouterr().out == b"result\n"
