"""The weights that an ONNX model keeps in other files: found, checked, and read from the model's own files alone.

Versions of ONNX Runtime, TensorRT and onnx differ in which files they open for a model, so a model says nothing about
that any more once it is read here: each of its locations is that of a checked file, below one folder, without links.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtrt.errors import UsageError
from loadtrt.files import reason
from loadtrt.printing import shortened
from loadtrt.reading_files import open_file
from loadtrt.recognizing import HEAD_BYTES, recognized

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"  # ONNX Runtime's option
_MOST_LINKS = 40  # Linux' own limit


@dataclass(frozen=True, slots=True)
class ExternalData:
    """Where the weights of a model are.

    folder: the folder that the locations in the model are relative to.
    """

    folder: Path
    files: tuple[Path, ...]

    @property
    def nbytes(self) -> int:
        """The size of all files."""
        return sum(file.stat().st_size for file in self.files)


def find_external_data(model: Any, file: Path) -> ExternalData | None:
    """The external data of a model, whose locations are rewritten; None for a model without any.

    A location is relative to the folder of the model and names a regular file in it, or one of the cache of Hugging
    Face's hub, to which a link leads. Where the model's own name is a link, the folder is that of the link, or else of
    the file to which the link leads, and links may lead from one to the other.


    Raises UsageError for a location that names another file, or a file that is missing or too short.
    """
    tensors = [tensor for tensor in tensors_of(model) if tensor.data_location == tensor.EXTERNAL]
    if not tensors:
        return None
    folders = list(_folders(file))
    file_at: dict[str, Path] = {}
    sizes: dict[Path, int] = {}
    described = [(tensor, _described(tensor, file)) for tensor in tensors]
    for _, (location, offset, length) in described:
        if location not in file_at:
            file_at[location] = _own_file(location, folders, file)
            sizes[file_at[location]] = file_at[location].stat().st_size
        size, end = sizes[file_at[location]], offset + (length or 0)
        if end > size:
            found = _recognized(file_at[location])
            raise UsageError(
                f"{file} keeps weights in {file_at[location]}, which has {size} bytes, and the model reads {end}: "
                f"{f'it is {found[1]}' if found else 'copy it again'}"
            )
    folder = Path(os.path.commonpath([path.parent for path in file_at.values()]))
    for tensor, (location, offset, length) in described:
        del tensor.external_data[:]
        entries = {"location": file_at[location].relative_to(folder), "offset": offset, "length": length}
        for key, value in entries.items():
            if value is not None:
                tensor.external_data.add(key=key, value=str(value))
    return ExternalData(folder, tuple(sorted(set(file_at.values()))))


def load_external_data(model: Any, data: ExternalData | None) -> None:
    """Read the external data, where there is any, into the model."""
    if data is None:
        return
    for tensor in tensors_of(model):
        if tensor.data_location == tensor.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            with (data.folder / entries["location"]).open("rb") as file:
                file.seek(int(entries["offset"]))
                tensor.raw_data = file.read(int(entries.get("length", -1)))
            tensor.data_location = tensor.DEFAULT
            del tensor.external_data[:]


def tensors_of(model: Any) -> Iterator[Any]:
    """Every TensorProto in a model: of initializers, sparse ones, attributes, sub-graphs, functions, ..."""
    return (message for message in messages_of(model) if message.DESCRIPTOR.name == "TensorProto")


def messages_of(message: Any) -> Iterator[Any]:
    """A message of protobuf, and every message inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in [value] if hasattr(value, "ListFields") else value:
                yield from messages_of(item)


def _described(tensor: Any, file: Path) -> tuple[str, int, int | None]:
    """Location, offset and length of a tensor; the length is None for all that follows."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset, length = int(entries.get("offset", 0)), int(entries["length"]) if "length" in entries else None
    except ValueError:
        offset, length = -1, None
    if offset < 0 or (length or 0) < 0 or len(entries) < len(tensor.external_data):
        raise UsageError(
            f"weight {shortened(tensor.name)} of {file} has no valid offset or length in its external data, or an "
            "entry twice: export the model again"
        )
    return entries.get("location", ""), offset, length


def _folders(file: Path) -> Iterator[Path]:
    """The folder of the file, without links; if the file is a link, also that of what the link leads to, and so on."""
    for _ in range(_MOST_LINKS):
        folder = Path(os.path.realpath(file.parent))
        yield folder
        file = folder / file.name
        if not file.is_symlink():
            return
        file = folder / file.readlink()


def _own_file(location: str, folders: list[Path], file: Path) -> Path:
    """The file that a location names, without links. Raises UsageError."""
    parts = Path(location).parts
    # "*/_ORT_MEM_ADDR_/*" is ONNX Runtime's name for an address in memory.
    if not parts or location.startswith("/") or ".." in parts or "*" in parts:
        raise UsageError(
            f"{file} keeps weights in '{location}', which is not a path inside the folder of the model: a model may "
            "read no other files; export it again with its weights beside it"
        )
    missing = folders[0] / location
    for folder in folders:
        try:
            path = Path(os.path.realpath(folder / location, strict=True))
            held = path.stat()
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise UsageError(f"{file} keeps weights in {missing}, which cannot be read: {reason(error)}") from None
        if not any(map(path.is_relative_to, folders)) and path.parent != _hub_blobs(folder):
            raise UsageError(
                f"{file} keeps weights in {folder / location}, a link to {path}, outside the folder of the model: a "
                "model may read no other files; put a copy in the place of the link"
            )
        if not stat.S_ISREG(held.st_mode):
            raise UsageError(
                f"{file} keeps weights in {folder / location}, which is not a regular file: copy the weights' file to "
                f"{folder / location}"
            )
        if not os.access(path, os.R_OK):
            raise UsageError(f"{file} keeps weights in {path}, which cannot be read: permission denied")
        return path
    raise UsageError(f"{file} keeps weights in {missing}, which is missing: copy the weights' file to {missing}")


def _recognized(path: Path) -> tuple[str, str] | None:
    with open_file(path, takes=None) as opened:
        return recognized(opened.read(HEAD_BYTES))


def _hub_blobs(folder: Path) -> Path | None:
    """The folder `blobs` of the cache of Hugging Face's hub, models--OWNER--NAME/{blobs,snapshots/REVISION/...}, where
    `folder` is in a snapshot."""
    for snapshots in folder.parents:
        blobs = snapshots.parent / "blobs"
        if snapshots.name == "snapshots" and blobs.is_dir() and not blobs.is_symlink():
            return blobs
    return None
