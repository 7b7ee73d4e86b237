"""Writing files: whole or as they were, and never in the place of what is not a regular file."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from loadtrt.errors import UsageError
from loadtrt.files import descriptor_of, locked, require_writable, write_file


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """Text is written as UTF-8, bytes as they are, and nothing else stays in the folder."""
    file = tmp_path / "result"
    write_file(file, "µs")
    assert file.read_bytes() == "µs".encode()
    write_file(file, b"\0\1")
    assert file.read_bytes() == b"\0\1"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_a_file_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    """A private result stays private, and a new one has the mode that the umask leaves."""
    file = tmp_path / "result"
    file.touch()
    file.chmod(mode)
    write_file(file, "new")
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert file.read_text() == "new"
    write_file(tmp_path / "another", "new")
    (tmp_path / "plain").touch()
    assert (tmp_path / "another").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_hard_links_stay_one_file(tmp_path: Path) -> None:
    """All names of a file have the new bytes."""
    file, link = tmp_path / "result", tmp_path / "link"
    file.write_text("old, and longer")
    os.link(file, link)
    write_file(file, "new")
    assert file.samefile(link)
    assert link.read_text() == "new"


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EACCES, errno.EPERM, errno.EXDEV])
@pytest.mark.parametrize("call", ["os.open", "pathlib.Path.replace"])
def test_what_cannot_be_replaced_is_written_in_place(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that takes no new files, a file that is mounted by itself: the bytes are there, and no part is left."""
    file = tmp_path / "result"
    file.write_text("old, and longer")
    really = os.open

    def refuse(path: str | Path, *arguments: int) -> int:
        if call == "os.open" and not str(path).endswith(".part"):
            return really(path, *arguments)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(call, refuse)
    write_file(file, "new")
    monkeypatch.undo()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_a_folder_that_takes_no_new_files(tmp_path: Path) -> None:
    """Another user, who may write to the file alone: both before measuring and after."""
    file = tmp_path / "result"
    file.write_text("old")
    file.chmod(0o666)
    tmp_path.chmod(0o555)
    before, user = file.stat(), os.geteuid()
    try:
        if not user:  # root may write anywhere
            for folder in tmp_path.parents[:-1]:  # the last is /
                folder.chmod(folder.stat().st_mode | 0o111)
            os.seteuid(65534)
        require_writable("--json", file)
        write_file(file, "new")
        with pytest.raises(UsageError, match="cannot be written: Permission denied"):
            require_writable("--json", tmp_path / "another")
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o755)
    assert file.read_text() == "new"
    assert os.path.samestat(file.stat(), before)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_leaves_what_was_there(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old bytes stay, no part is left, and the error names the file."""
    file = tmp_path / "result"
    file.write_text("old")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(code, os.strerror(code))))
    with pytest.raises(UsageError, match=rf"cannot write plan .*result: {os.strerror(code)}$"):
        write_file(file, "new", "plan")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("target", ["/dev/full", "gone/result", "folder", "x" * 300, "a\0b"])
def test_what_was_measured_is_saved_elsewhere(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the working folder, private, and the sentence says where; what can be made again is not."""
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="cannot write") as refused:
        write_file(target, "can be made again")
    assert "saved" not in str(refused.value)
    with pytest.raises(UsageError, match="it is saved as ") as refused:
        write_file(target, "measured", measured=True)
    saved = Path(str(refused.value).rpartition("saved as ")[2])
    assert (saved.parent, saved.read_text()) == (tmp_path, "measured")
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"folder", saved.name}


def test_a_working_folder_that_is_gone_saves_in_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$TMPDIR is next."""
    gone, temporary = tmp_path / "gone", tmp_path / "temporary"
    gone.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    gone.rmdir()
    with pytest.raises(UsageError, match=f"it is saved as {temporary}/"):
        write_file("result", "measured", measured=True)
    assert [file.read_text() for file in temporary.iterdir()] == ["measured"]


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


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_stdout(
    name: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All names are stdout, wherever that goes, after what was printed before; and none is replaced."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("/dev/stdout")
    print("first")
    write_file(name, "result\n")
    assert capfdbinary.readouterr().out == b"first\nresult\n"
    assert (tmp_path / "link").is_symlink()
    assert Path("/dev/stdout").is_symlink()


def test_an_open_descriptor_is_written_to(tmp_path: Path) -> None:
    """A file that a shell has opened gets the bytes where its writer stands; the descriptor stays open."""
    with (tmp_path / "result").open("wb") as opened:
        opened.write(b"before, ")
        opened.flush()
        for name in (f"/dev/fd/{opened.fileno()}", f"/proc/{os.getpid()}/fd/{opened.fileno()}"):
            assert descriptor_of(name) == opened.fileno()
            write_file(name, "result, ")
        opened.write(b"after")
    assert (tmp_path / "result").read_text() == "before, result, result, after"


def test_paths_that_are_no_descriptors(tmp_path: Path) -> None:
    """Links in a circle, files with a number for a name, and those of /dev."""
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert [descriptor_of(name) for name in (str(tmp_path / "a"), str(tmp_path / "1"), "/dev/null", "1", "")] == [
        None
    ] * 5


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no/result", "--json no/result: there is no folder no"),
        (".", "--json . is a folder: name a file in it"),
        ("/proc/result", "--json /proc/result cannot be written"),
        ("x" * 300, "cannot be written: File name too long"),
        ("a\0b", "cannot be written: .*null"),
        ("socket", "--json socket is a disk or a socket"),
        ("dangling", "--json dangling: there is no folder /nowhere/else"),
    ],
)
def test_what_cannot_be_written_is_said_first(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is measured, and without leaving a file."""
    import socket

    monkeypatch.chdir(tmp_path)
    Path("dangling").symlink_to("/nowhere/else/x.json")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket")
        with pytest.raises(UsageError, match=sentence):
            require_writable("--json", name)
    assert {path.name for path in tmp_path.iterdir()} == {"socket", "dangling"}


def test_a_file_is_locked_for_one_process(tmp_path: Path) -> None:
    """Another one is refused, by any name of the file, until the first has finished; no lock stays."""
    file, link = tmp_path / "sweep.json", tmp_path / "link"
    link.symlink_to(file)
    code = f"import sys; from loadtrt.files import locked\nwith locked('--json', {str(link)!r}): sys.exit(7)"
    other = [sys.executable, "-c", code]
    with locked("--json", str(file)):
        refused = subprocess.run(other, capture_output=True, text=True, check=False)
        with locked("--json", str(tmp_path / "another.json")):
            pass
    assert "another process keeps its results in this file: name another" in refused.stderr
    assert subprocess.run(other, check=False).returncode == 7
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_two_writers_in_one_folder_share_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of two containers have the same number, 1, and may have the same volume."""
    really = Path.replace

    def meanwhile(part: Path, file: Path) -> Path:
        monkeypatch.setattr("pathlib.Path.replace", really)
        write_file(tmp_path / "second", "two")
        return really(part, file)

    monkeypatch.setattr("pathlib.Path.replace", meanwhile)
    write_file(tmp_path / "first", "one")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"first": "one", "second": "two"}


def test_a_lock_that_nobody_can_open_locks_nothing(tmp_path: Path) -> None:
    """Another user's lock in a folder for all, or a link in its place: the sweep is made all the same."""
    file = tmp_path / "sweep.json"
    with locked("--json", str(file)):
        (lock,) = tmp_path.iterdir()
    lock.symlink_to("/nowhere")
    with locked("--json", str(file)):
        assert lock.is_symlink()
