"""Writing files: whole or not at all where that is possible, and never in the place of what is not a regular file."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from loadtrt.errors import UsageError
from loadtrt.recognizing import HEAD_BYTES, content_of
from loadtrt.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WRITTEN: set[str] = set()  # what write_file has written, by the names that it was given
inherited: frozenset[int] | None = None  # descriptors with which the process was started, where that is known
_LOOK_S = 0.05
# A device that is full or fails: to write over the old bytes would lose these too.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def write_file(target: str | Path, data: str | bytes, what: str = "result", *, measured: bool = False) -> None:
    """Write bytes, or text as UTF-8, to `target`.

    A regular file that may be replaced is replaced by a rename, and keeps its mode: it is whole or as it was. What may
    not be replaced is written in place: a pipe, a device, an open descriptor (/dev/stdout, /dev/fd/3), a file that is
    mounted by itself, has several hard links, belongs to another user, or lies in a folder that takes no new files. A
    symbolic link is followed.

    target: the file; "-" is stdout.
    data: the bytes, or text.
    what: what the file is, for errors.
    measured: whether the data cannot be made again. Where they cannot be written, they are saved in the working folder
        or in $TMPDIR.

    Raises UsageError, which names the file where the data are saved. A reader of a pipe that has left is no error where
    the data can be made again.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "replace")  # the name of a file may hold bytes that are not text
    try:
        _write(str(target), data)
        WRITTEN.add(str(target))
    except (OSError, ValueError) as error:
        if isinstance(error, BrokenPipeError) and not measured and takes_once(str(target)):
            return  # as with `| head`
        name = "to stdout" if str(target) == "-" else str(target)
        saved = _saved(str(target), data) if measured else None
        elsewhere = f"; it is saved as {saved}" if saved else ""
        raise UsageError(f"cannot write {what} {name}: {reason(error)}{elsewhere}") from error


def _write(target: str, data: bytes) -> None:
    if target == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    descriptor = descriptor_of(target)
    if descriptor is not None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # what was printed comes first
        with open(os.dup(descriptor), "wb") as opened:
            opened.write(data)
        return
    file = Path(os.path.realpath(target))
    before = file.stat() if file.exists() else None
    if before is not None and stat.S_ISFIFO(before.st_mode):
        _write_to_pipe(file, data)
        return
    if before is not None and not stat.S_ISREG(before.st_mode):
        _write_in_place(file, data)
        return
    with SIGNALS.deferred():
        try:
            _replace(file, before, data)
        except _CannotReplaceError:
            _write_in_place(file, data)


class _CannotReplaceError(Exception):
    """No other file may be put in the place of this one."""


def _replace(file: Path, before: os.stat_result | None, data: bytes) -> None:
    if before is not None and before.st_nlink > 1:
        raise _CannotReplaceError
    # Short, as the name of the file may be as long as names may be; and not by the process's number, which is 1 in many
    # containers that share a volume.
    part = file.with_name(f".loadtrt-{secrets.token_hex(8)}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if before is None else 0o600)
    except OSError as error:  # with ENOSPC the file system may have room for bytes, but not for another file
        raise _CannotReplaceError from error
    try:
        with open(descriptor, "wb") as opened:
            if before is not None:
                made = os.fstat(descriptor)
                if (made.st_uid, made.st_gid) != (before.st_uid, before.st_gid):
                    raise _CannotReplaceError
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            opened.write(data)
        try:
            part.replace(file)
        except OSError as error:
            raise error if error.errno in _FULL else _CannotReplaceError from error
    finally:
        with suppress(OSError):
            part.unlink()


def _write_to_pipe(file: Path, data: bytes) -> None:
    """Wait for a reader, until another signal comes, and write. Raises OSError where nobody reads."""
    interrupted = SIGNALS.requested()
    while True:
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if SIGNALS.hurried() or (SIGNALS.requested() and not interrupted):
                raise OSError(errno.ENXIO, "nobody reads this pipe") from None
        time.sleep(_LOOK_S)
    os.set_blocking(descriptor, True)
    with open(descriptor, "wb") as opened:
        opened.write(data)


def _write_in_place(file: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_TRUNC | (0 if file.exists() else os.O_CREAT)
    with open(os.open(file, flags, 0o666), "wb") as opened:
        opened.write(data)


def _saved(target: str, data: bytes) -> Path | None:
    """The file in the working folder or in $TMPDIR that holds the data now; None where none could be written."""
    named = target != "-" and not target.startswith("/dev/")
    suffix = f"-{os.path.basename(target)[-50:]}".replace("\0", "") if named else ".json"
    for folder in (os.getcwd, tempfile.gettempdir):
        with suppress(OSError):
            descriptor, saved = tempfile.mkstemp(prefix="loadtrt-saved-", suffix=suffix, dir=folder())
            file = Path(saved)
            try:
                with open(descriptor, "wb") as opened:
                    opened.write(data)
            except OSError:
                file.unlink()
                raise
            return file
    return None


def descriptor_of(name: str) -> int | None:
    """The open descriptor of this process that a path such as /dev/stdout or /dev/fd/3 names; None for other paths."""
    descriptors = os.path.realpath("/proc/self/fd")
    for _ in range(40):  # links in a row that Linux follows
        folder = os.path.realpath(os.path.dirname(name))
        last = os.path.basename(name)
        if folder in (descriptors, "/dev/fd") and last.isdecimal():
            return int(last)
        name = os.path.join(folder, last)
        if not os.path.islink(name):
            return None
        name = os.path.join(folder, os.readlink(name))
    return None


def reason(error: Exception) -> str:
    """Why a file could not be read or written, in words."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def require_writable(option: str, name: str | Path) -> None:
    """Raise UsageError where the file that `option` names cannot be written. Leaves no file."""
    try:
        descriptor = descriptor_of(str(name))
        if descriptor is not None:
            _require_open(descriptor)
            return
        file = Path(os.path.realpath(name))
        before = file.stat() if file.exists() else None
        folder_there = file.parent.is_dir()
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} {name} cannot be written: {reason(error)}") from None
    if before is None and not folder_there:
        missing = file.parent if os.path.islink(name) else Path(name).parent
        raise UsageError(f"{option} {name}: there is no folder {missing}")
    if before is not None and stat.S_ISDIR(before.st_mode):
        raise UsageError(f"{option} {name} is a folder: name a file in it")
    if before is not None and (stat.S_ISBLK(before.st_mode) or stat.S_ISSOCK(before.st_mode)):
        raise UsageError(f"{option} {name} is a disk or a socket: name a file")
    try:  # os.access knows nothing of folders and files that are immutable, nor of /proc
        if before is None:
            tempfile.TemporaryFile(dir=file.parent).close()
        elif stat.S_ISREG(before.st_mode):
            os.close(os.open(file, os.O_WRONLY))
        elif not os.access(file, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UsageError(f"{option} {name} cannot be written: {reason(error)}") from None


def _require_open(descriptor: int) -> None:
    """Raise OSError where a descriptor is not one that the process was started with, or is open for reading alone:
    loadtrt itself may open a file that gets this number."""
    if inherited is not None and descriptor not in inherited:
        raise OSError(errno.EBADF, "no file is open there")
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "it is open only for reading")


def takes_once(target: str | None) -> bool:
    """Whether what is written to a target a second time comes after the first, as in stdout, a descriptor or a pipe,
    and not in its place."""
    if target is None:
        return False
    return target == "-" or descriptor_of(target) is not None or (os.path.exists(target) and not os.path.isfile(target))


@contextmanager
def locked(option: str, name: str | None) -> Iterator[None]:
    """A block during which no other process of loadtrt keeps its results in the file `name` of `option`.

    option: the option, for errors.
    name: the file. None, "-" and what is not a regular file take the results of several processes.

    Raises UsageError where another process has the file.
    """
    file = None if name in (None, "-") or descriptor_of(str(name)) is not None else Path(os.path.realpath(str(name)))
    if file is None or (file.exists() and not file.is_file()):
        yield
        return
    try:
        unlock = _lock(file)
    except BlockingIOError:
        raise UsageError(f"{option} {name}: another process keeps its results in this file: name another") from None
    SIGNALS.last_acts.append(unlock)
    with _ending_with(unlock):
        yield


def _lock(file: Path) -> Callable[[], object]:
    """Lock a file by one beside it, and return what unlocks it. Where the folder takes no new files, `file` itself is
    locked: it is written in place. Raises BlockingIOError where it is locked; where nothing can be, nothing is."""
    lock = file.with_name(f".loadtrt-{hashlib.sha256(os.fsencode(file.name)).hexdigest()[:16]}.lock")
    for path, flags in ((lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW), (file, os.O_RDONLY)):
        with suppress(OSError):
            descriptor = os.open(path, flags, 0o600)
            break
    else:
        return lambda: None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        pass  # a file system without locks
    if path == lock and not _is_still(lock, descriptor):  # its last owner has just removed it
        os.close(descriptor)
        return _lock(file)
    return partial(_unlock, descriptor, lock if path == lock else None)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _unlock(descriptor: int, lock: Path | None) -> None:
    if lock is not None:
        with suppress(OSError):
            lock.unlink()
    os.close(descriptor)


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A folder that is deleted at the end of the block, whatever ends it: SIGKILL alone leaves it behind. parent: None
    for that of temporary files."""
    with SIGNALS.deferred():
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        remove = partial(shutil.rmtree, folder, ignore_errors=True)
        SIGNALS.last_acts.append(remove)
    with _ending_with(remove):
        yield folder


@contextmanager
def _ending_with(act: Callable[[], object]) -> Iterator[None]:
    """A block after which `act`, one of SIGNALS.last_acts, is called, unless the end of the command has done so."""
    try:
        yield
    finally:
        with SIGNALS.deferred():
            if act in SIGNALS.last_acts:
                SIGNALS.last_acts.remove(act)
                act()


def held_by(file: Path) -> str | None:
    """What a regular file holds, in words; None where it is empty or not there."""
    try:
        with file.open("rb") as opened:
            return content_of(opened.read(HEAD_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"what cannot be read ({reason(error)})"
