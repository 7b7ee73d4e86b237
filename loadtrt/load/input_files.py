"""Inputs from files: numpy's .npy and .npz, ONNX's TensorProto (.pb), raw bytes, and folders of them.

What --inputs takes, each of it repeatable:
  - NAME:FILE, one input. Its bytes say what the file is: an .npy, an .npz (its array NAME, or the only one), a
    TensorProto where the name ends in .pb, and else the tensor's bytes as they are (as trtexec's --loadInputs);
    NAME:FILE,NAME2:FILE2 as trtexec writes them.
  - NAME:FOLDER, the samples of one input, a file each, in the order of their names ("10" after "9").
  - FILE.npz with an array for each input; another FILE for the input that it is named for, or the only one.
  - FOLDER, of such files: those with an input's name in theirs, input_0.pb for the first input (as in ONNX's
    test_data_set_0), or any for an only input; folders in it are samples.

An array has the tensor's shape, or one more axis in front for as many sets; several for one tensor are several sets,
and a tensor with one array serves all of them. Where the first size of a tensor is the batch, arrays may be items:
without that size, or with another one; they are put together to batches, the last filled from the beginning.
"""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.errors import LoadtrtError, UsageError
from loadtrt.load.array_files import (
    MOST_HEADER_BYTES,
    MOST_SETS,
    may_be_items,
    not_an_array,
    proto_array,
    read_npy,
    read_proto,
    read_raw,
)
from loadtrt.load.inputs import InputOrigin, InputSets, array_shape, named_tensor, require_room
from loadtrt.printing import shortened
from loadtrt.reading_files import open_file
from loadtrt.recognizing import HEAD_BYTES, recognized
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from io import BufferedReader

    import numpy.typing as npt

    from loadtrt.load.tensors import Arrays, TensorSpec

    Array = npt.NDArray[Any]

_DATA = (".npy", ".npz", ".pb", ".bin", ".raw", ".dat", ".data")
_NO_FILES = ("lfs", "annex", "html", "refusal")  # which stand where a file should be
_FORM = "write random, zeros, FILE.npz, NAME:FILE (.npy, .npz, .pb or raw bytes), or a folder of such files"


@dataclass(slots=True)
class _Read:
    """What was read for one tensor, in order.

    arrays: (whether it is an item of a batch, the array).
    files: how many of them each file held.
    """

    arrays: list[tuple[bool, Array]] = field(default_factory=list)
    files: list[tuple[str, int]] = field(default_factory=list)


def read_inputs(
    inputs: Mapping[str, TensorSpec], sources: Sequence[str], free_bytes: int | None, batch: int | None
) -> InputSets:
    """The input sets of files: see the module. batch, and errors: as for `make_input_sets`."""
    reader = _Reader(inputs, free_bytes, batch)
    for source in sources:
        for text in _parts(source, inputs):
            reader.read(text)
    return reader.input_sets(" ".join(sources))


def _parts(source: str, inputs: Mapping[str, TensorSpec]) -> list[str]:
    """The parts of trtexec's NAME:FILE,NAME2:FILE2; file names may have commas, and names of inputs quotes around."""
    names = "|".join(re.escape(name) for name in sorted(inputs, key=len, reverse=True))
    parts = re.split(rf",(?=(?:'(?:{names})'|(?:{names})):)", source) if names else [source]
    return [re.sub(rf"^'({names})':", r"\1:", part) if names else part for part in parts]


class _Reader:
    def __init__(self, inputs: Mapping[str, TensorSpec], free_bytes: int | None, batch: int | None) -> None:
        self._inputs, self._free, self._batch = inputs, free_bytes, batch
        self._found = {name: _Read() for name in inputs}
        self._notes: list[str] = []

    def read(self, source: str) -> None:
        # Tensor names may contain colons ("input:0"): the longest name that fits is meant.
        names = [name for name in self._inputs if source.startswith(f"{name}:")]
        if names:
            name = max(names, key=len)
            path = source[len(name) + 1 :]
            for file in self._samples(Path(path)) if os.path.isdir(path) else [path]:
                self._file(str(file), name)
        elif os.path.isdir(source) and not source.endswith(".npz"):
            self._folder(Path(source))
        elif os.path.exists(source) or source.endswith(".npz"):
            self._file(source, None)
        elif ":" in source:
            named_tensor(source.partition(":")[0], self._inputs, f"--inputs {source}")
        elif os.path.splitext(source)[1] in _DATA:
            open_file(source, "inputs")  # says why it cannot be read
        else:
            raise UsageError(f"--inputs {source}: {_FORM}")

    def input_sets(self, sources: str) -> InputSets:
        """All sets. Raises UsageError where an input has no array, or not as many as others."""
        arrays = {name: self._whole(name, read) for name, read in self._found.items()}
        sets = max(map(len, arrays.values()), default=1)
        for name, found in arrays.items():
            if not found:
                missing = f"no file holds input {self._inputs[name]}"
                raise UsageError(f"--inputs {sources}: {missing}: give files for every input")
            if len(found) not in (1, sets):
                most = max(arrays, key=lambda item: len(arrays[item]))
                counts = f"{len(found)} arrays for {name} but {sets} for {most}"
                raise UsageError(f"--inputs {sources}: {counts}: give as many, or 1")
        origins = {
            name: InputOrigin("files", len(arrays[name]), files=tuple(read.files)) for name, read in self._found.items()
        }
        made: list[Arrays] = [{name: found[k % len(found)] for name, found in arrays.items()} for k in range(sets)]
        return InputSets(made, origins, tuple(self._notes))

    def _whole(self, name: str, read: _Read) -> list[Array]:
        """The arrays of a tensor, items put together to batches."""
        if not any(is_item for is_item, _ in read.arrays):
            return [array for _, array in read.arrays]
        tensor, batch = self._inputs[name], self._batch or 1
        items = [item for is_item, array in read.arrays for item in ([array] if is_item else array)]
        count = -(-len(items) // batch)
        self._take(count * tensor.nbytes)
        rest = ", the last filled from the beginning" if len(items) % batch else ""
        held = f"{plural(len(items), 'array')} of {list(tensor.shape[1:])}"
        self._notes.append(f"{shortened(name)}: {held} in {plural(count, 'request')} of batch {batch}{rest}")
        return [
            np.stack([np.asarray(items[(first + place) % len(items)]) for place in range(batch)])
            for first in range(0, len(items), batch)
        ]

    def _take(self, nbytes: int) -> None:
        """Count bytes before they are taken. Raises EngineError where they are not free."""
        require_room(nbytes, self._free)
        if self._free is not None:
            self._free -= nbytes

    def _folder(self, folder: Path) -> None:
        """The samples in a folder: its files, then its folders' files, in the order of their names."""
        files = self._samples(folder, or_folders=True)
        below = sorted((path for path in folder.iterdir() if path.is_dir()), key=_natural)
        for each in below:
            files += self._samples(each, or_folders=True)
        if not files:
            raise UsageError(_no_inputs(folder))
        for file in files:
            self._file(str(file), None)

    def _samples(self, folder: Path, *, or_folders: bool = False) -> list[Path]:
        """The files of a folder in the order of their names, without outputs (as beside input_0.pb) and hidden ones."""
        try:
            paths = sorted((path for path in folder.iterdir() if path.is_file()), key=_natural)
        except OSError as error:
            raise UsageError(f"cannot read inputs {folder}: {error.strerror}") from None
        files = [path for path in paths if path.suffix in _DATA and not re.match(r"\.|output_\d+\.", path.name)]
        if not files and not or_folders:
            raise UsageError(_no_inputs(folder))
        return files

    def _file(self, file: str, name: str | None) -> None:
        """Read one file. name: the input that it is for; None where the file or its name says."""
        what = "inputs" if name is None else f"input {name}"
        with open_file(file, what, pipes=True, takes=None) as opened:
            try:
                head = opened.peek(HEAD_BYTES)
            except OSError as error:
                raise UsageError(f"cannot read {what} {file}: {error.strerror}") from None
            kind, instead = recognized(head[:HEAD_BYTES]) or ("", None)
            if kind == "zip" and not zipfile.is_zipfile(file):
                kind, instead = "", "a zip archive that is cut short"
            if kind == "zip":
                self._npz(file, name, opened, instead or "")
            elif file.endswith(".npz") and name is None:
                what_else = f"it is {instead}" if instead else "write one with numpy.savez(file, NAME=array)"
                raise UsageError(f"{file} is not an .npz: {what_else}")
            elif kind in _NO_FILES or (kind != "npy" and file.endswith((".npy", ".npz"))):
                raise not_an_array(file, instead or "not numpy's; write it with numpy.save or numpy.savez")
            else:
                proto = read_proto(file) if kind != "npy" and file.endswith(".pb") else None
                tensor = self._meant(file, name, "" if proto is None else proto.name)
                batched = may_be_items(tensor, self._batch)
                if kind == "npy":
                    array = read_npy(file, tensor, head, opened, self._take, batched=batched)
                elif proto is not None:
                    array = proto_array(file, tensor, proto, self._take, batched=batched)
                else:
                    array = read_raw(file, tensor, opened, self._take, instead, batched=batched)
                self._keep(file, tensor, array)

    def _npz(self, file: str, name: str | None, opened: BufferedReader, instead: str) -> None:
        """The arrays of an .npz, each for the input of its name.

        name: the one input that the file is for.
        instead: what the file is by its first bytes.
        """
        before = {known: len(read.arrays) for known, read in self._found.items()}
        try:
            with zipfile.ZipFile(opened) as archive:
                members = {
                    member.filename.removesuffix(".npy"): member
                    for member in archive.infolist()
                    if member.filename.endswith(".npy")
                }
                for key, member in members.items():
                    tensor = self._member_of(file, key, list(members), name)
                    if tensor is None:
                        continue
                    with archive.open(member) as start, archive.open(member) as data:
                        header, batched = start.read(MOST_HEADER_BYTES), may_be_items(tensor, self._batch)
                        array = read_npy(file, tensor, header, data, self._take, batched=batched, kind="an .npz")
                        self._keep(file, tensor, array)
        except (LoadtrtError, MemoryError):
            raise
        except Exception as error:  # zipfile lets a dozen types pass for what is damaged or encrypted
            raise UsageError(f"{file} is damaged or not an .npz: {' '.join(str(error).split())}") from None
        if not members:
            raise not_an_array(file, instead)
        self._repeat(file, before)

    def _member_of(self, file: str, key: str, keys: Sequence[str], name: str | None) -> TensorSpec | None:
        """The input that an array of an .npz is for; None for one that is not asked for. name: as for `_npz`."""
        if name is not None:
            if key != name and name not in keys and len(keys) > 1:
                raise UsageError(f"{file} has no array '{name}': it has {', '.join(keys)}")
            return self._inputs[name] if key == name or len(keys) == 1 else None
        if keys == ["arr_0"] and len(self._inputs) == 1:  # numpy.savez without a name
            return next(iter(self._inputs.values()))
        return named_tensor(key, self._inputs, file)

    def _repeat(self, file: str, before: Mapping[str, int]) -> None:
        """Let an array that an .npz has once serve all of the sets in it, as other files may have more. Raises
        UsageError where one has as many as neither 1 nor all."""
        held = {name: self._found[name].arrays[count:] for name, count in before.items()}
        if any(is_item for arrays in held.values() for is_item, _ in arrays):
            return  # how many sets that makes is known in the end
        sets = max(map(len, held.values()), default=0)
        for name, arrays in held.items():
            if len(arrays) not in (0, 1, sets):
                raise UsageError(
                    f"{file} holds {len(arrays)} sets of {name} but {sets} of another input: give as many, or 1"
                )
            self._found[name].arrays += arrays * (sets - 1) if len(arrays) == 1 else []

    def _meant(self, file: str, name: str | None, inside: str = "") -> TensorSpec:
        """The input that a file is for. inside: a name that the file itself has."""
        if name is not None:
            return self._inputs[name]
        base = os.path.splitext(os.path.basename(file))[0]
        for exact in (base, inside):
            if exact in self._inputs:
                return self._inputs[exact]
        numbered = re.fullmatch(r"input_(\d{1,6})", base)
        by_number = list(self._inputs)[int(numbered[1]) : int(numbered[1]) + 1] if numbered else []
        found = by_number if by_number and file.endswith(".pb") else self._named_in(base) or by_number
        if not found and len(self._inputs) == 1:
            found = list(self._inputs)
        if len(found) == 1:
            return self._inputs[found[0]]
        raise UsageError(
            f"--inputs {file} does not say for which input it is ({', '.join(self._inputs) or 'there is none'}): write "
            f"NAME:{file}, or name the file for its input"
        )

    def _named_in(self, base: str) -> list[str]:
        """The inputs whose name a file's name begins or ends with, of these the longest; signs may be written as _."""
        found = []
        for name in self._inputs:
            plain = re.sub(r"\W", "_", name)
            either = f"(?:{re.escape(name)}|{re.escape(plain)})"
            if re.fullmatch(rf"{either}(?:[_.-][\w.-]+)?|[\w.-]+[_.-]{either}", base):
                found.append(name)
        return [name for name in found if len(name) == max(map(len, found))]

    def _keep(self, file: str, tensor: TensorSpec, array: Array) -> None:
        """Keep an array that fits as sets or as items."""
        wanted, read = array_shape(tensor), self._found[tensor.name]
        if array.shape == wanted:
            found = [(False, array)]
        elif array.shape[1:] == wanted:
            found = [(False, np.asarray(each)) for each in array]
        elif array.shape == wanted[1:]:
            found = [(True, array)]
        else:
            found = [(True, np.asarray(each)) for each in array]
        read.arrays += found
        read.files.append((file, len(found)))
        if len(read.arrays) > MOST_SETS:
            raise UsageError(f"{file} holds {len(read.arrays)} sets of {tensor.name}: give at most {MOST_SETS}")


def _no_inputs(folder: Path) -> str:
    return f"{folder} is a folder without inputs: put files there that end in {', '.join(_DATA)}"


def _natural(path: Path) -> list[tuple[int, str]]:
    """By which names with numbers are sorted: "10" after "9"."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]
