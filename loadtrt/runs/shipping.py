"""The files that a run reads, sent to the hosts of its workers: each host keeps them in a folder that is named by their
content, once for all workers on it and for as long as one of them runs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from loadtrt.errors import UsageError
from loadtrt.files import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from loadtrt.asked.config import RunConfig

_FOLDER = "/files-of-this-host"  # stands in a configuration for the folder of a host
_ONE, _SEVERAL = ("engine", "trace", "verify_against", "lean_library"), ("plugins", "inputs")
_BEFORE_FILE = re.compile(r"^[^:]+:")  # of NAME:FILE


class Shipment:
    """The configuration of a run, and the files that go with it.

    groups: of each folder of files by its name, which is made of their content: the files by their names in it. Bytes
        stand for a file with this content.
    """

    def __init__(self, config: RunConfig) -> None:
        """Raises UsageError for a file that cannot be read."""
        self.groups: dict[str, dict[str, Path | bytes]] = {}
        self._names: dict[str, str] = {}
        for model in config.models.values():
            values = model.model_dump(mode="json", by_alias=True)
            named = [values[key] for key in _ONE if values.get(key)]
            for name in (*named, *(name for key in _SEVERAL for text in values[key] for name in _names_in(text))):
                self._add(name)

    def configuration(self, config: RunConfig) -> str:
        """A configuration of the run as JSON, in which files are those of a host."""
        content = config.model_dump(mode="json", by_alias=True)
        for model in content["models"].values():
            model |= {key: self._names.get(model[key], model[key]) for key in _ONE if model.get(key)}
            model |= {key: [self._placed(text) for text in model[key]] for key in _SEVERAL}
        return json.dumps(content)

    def _placed(self, text: str) -> str:
        for name in _names_in(text):
            if name in self._names:
                text = text.replace(name, self._names[name])
        return text

    def _add(self, name: str) -> None:
        """Take a file or a folder with its files along, unless there is none of this name: it is a word, or the worker
        will say what is wrong with it."""
        path = Path(name)
        if name in self._names or not os.path.exists(name):
            return
        try:
            files = _files_of(path)
            content = hashlib.sha256()
            for inside, data in sorted(files.items()):
                content.update(f"{inside}\0{_sha256(data)}\0".encode(errors="surrogateescape"))
        except OSError as error:
            raise UsageError(f"cannot read {name}: {reason(error)}") from None
        group = content.hexdigest()[:32]
        self.groups[group] = files
        self._names[name] = f"{_FOLDER}/{group}" if path.is_dir() else f"{_FOLDER}/{group}/{path.name}"


def _names_in(text: str) -> list[str]:
    """The files in FILE, NAME:FILE or NAME:FILE,NAME2:FILE2; names of files may have commas."""
    if os.path.exists(text):
        return [text]
    parts = [_BEFORE_FILE.sub("", part) for part in (text, *text.split(","))]
    return sorted({part for part in parts if os.path.exists(part)}, key=len, reverse=True)


def _files_of(path: Path) -> dict[str, Path | bytes]:
    """A file, an ONNX model with the files of its weights, or the files of a folder, by their names in a folder."""
    if path.is_dir():
        return {str(file.relative_to(path)): file for file in path.rglob("*") if file.is_file()}
    if path.suffix == ".onnx":
        from loadtrt.engines.external_data import find_external_data
        from loadtrt.engines.onnx_model import parse_model

        model, _ = parse_model(path)
        external = find_external_data(model, path)
        if external is not None:  # whose places stand in the model as they are below this folder
            weights: dict[str, Path | bytes] = {str(file.relative_to(external.folder)): file for file in external.files}
            return {**weights, path.name: model.SerializeToString()}
    return {path.name: path}


def _sha256(data: Path | bytes) -> str:
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Store:
    """The files of shipments on a host, in the folder of temporary files. Whoever uses them last deletes them.

    Who writes or deletes locks that folder, and who uses a group of files shares a lock of its folder.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.gettempdir()) / f"loadtrt-files-{os.getuid()}"
        self._used: dict[str, int] = {}

    def keep(self, groups: Iterable[str], fetch: Callable[[str], Mapping[str, bytes]]) -> None:
        """Have these groups. fetch: gives the files of one by name, where it is not here. Raises OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if self._folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{self._folder} is another user's")
        for group in groups:
            with self._alone():
                if not (self._folder / group).exists():
                    unready = Path(tempfile.mkdtemp(dir=self._folder))
                    for name, data in fetch(group).items():
                        file = unready / name
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_bytes(data)
                    unready.rename(self._folder / group)
                self._used[group] = os.open(self._folder / group, os.O_RDONLY)
                fcntl.flock(self._used[group], fcntl.LOCK_SH)

    def here(self, configuration: str) -> str:
        """A configuration with the files that are here."""
        return configuration.replace(_FOLDER, json.dumps(str(self._folder))[1:-1])

    def close(self) -> None:
        """Delete what nobody else uses."""
        while self._used:
            group, used = self._used.popitem()
            with self._alone(), suppress(OSError):  # another one uses it
                fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(self._folder / group, ignore_errors=True)
            os.close(used)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
