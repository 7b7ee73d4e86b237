"""A plan's file without TensorRT and without a GPU: its header, and the sidecar PLAN.json with the facts of its build.

Layout of the header (little endian). From trtexec's source: magic at 0, serialization version at 4, version at 24.
Observed on plans of TensorRT 8.6 and TensorRT-RTX 1.7, undocumented: section count at 8, file size at 16, and the
section table, at 32 (TensorRT) or 64 (RTX), of 24 bytes a section: tag, zero, offset, size. A section LEAN holds a lean
runtime: a shared library that the plan asks TensorRT to run. Version-compatible plans carry it.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadtrt.asked.faults import fault_words
from loadtrt.errors import UsageError
from loadtrt.reading_files import open_file, read_bytes
from loadtrt.recognizing import recognized
from loadtrt.results.precisions import HalfPrecision  # noqa: TC001  # pydantic reads it

Family = Literal["tensorrt", "rtx"]

_FAMILIES: dict[bytes, Family] = {b"ftrt": "tensorrt", b"vtrt": "rtx"}
_OLD_MAGIC = b"ptrt"  # TensorRT before 8.6
_TABLE_AT: dict[Family, int] = {"tensorrt": 32, "rtx": 64}
_HEAD_BYTES = 4096
_MOST_SIDECAR_BYTES = 16 << 20
_LEAN = b"LEAN"[::-1]  # tags are u32 written little endian
_RTX_TARGETS = {0x01: "7.5", 0x02: "8.0", 0x04: "8.6", 0x08: "8.9", 0x10: "12.0", 0x20: "12.1"}
_RTX_UNRESTRICTED = 0x7E  # what the builder writes when no target was chosen


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """What a plan's first bytes say.

    version: of the TensorRT that built it, four numbers.
    host_code_bytes: size of the lean runtime inside, 0 without one.
    compute_capabilities: GPUs that an RTX plan was built for, such as ("8.6", "12.0"); empty where it names none.
    """

    path: Path
    family: Family
    version: tuple[int, int, int, int]
    size_bytes: int
    host_code_bytes: int
    compute_capabilities: tuple[str, ...] = ()

    @property
    def carries_host_code(self) -> bool:
        """Whether the plan contains a lean runtime: it is version-compatible, and loading it runs that code."""
        return self.host_code_bytes > 0

    @property
    def sha256(self) -> str:
        """SHA-256 of the whole file, as 64 hex digits, read anew each time. Raises UsageError where it has gone."""
        return sha256(self.path)

    @property
    def version_text(self) -> str:
        """ "8.6.0.12"."""
        return ".".join(map(str, self.version))

    @property
    def built_by(self) -> str:
        """ "TensorRT 8.6.0.12" or "TensorRT-RTX 1.7.1.116"."""
        return f"{'TensorRT-RTX' if self.family == 'rtx' else 'TensorRT'} {self.version_text}"

    @property
    def engine_bytes(self) -> int:
        """The file without the lean runtime: about what the weights take."""
        return self.size_bytes - self.host_code_bytes


def looks_like_plan(path: str | Path) -> bool:
    """Whether the file begins like a plan, whatever its name ends in. False for what cannot be read."""
    return _beginning(path)[:4] in {*_FAMILIES, _OLD_MAGIC}


def looks_like_onnx(path: str | Path) -> bool:
    """Whether the file begins like an ONNX model, whatever its name ends in. False for what cannot be read."""
    return _begins_like_onnx(_beginning(path))


def _beginning(path: str | Path) -> bytes:
    try:
        if not Path(path).is_file():
            return b""
        with Path(path).open("rb") as file:
            return file.read(4)
    except (OSError, ValueError):
        return b""


def _begins_like_onnx(head: bytes) -> bool:
    """A protobuf whose first field is ModelProto's ir_version, followed by one of its other fields."""
    return len(head) > 2 and head[0] == 0x08 and 0 < head[1] < 64 and head[2] in b"\x12\x1a\x22\x28\x32\x3a\x42"


def read_header(path: str | Path) -> PlanHeader:
    """The header of the plan at `path`.

    Raises UsageError for a file that is missing, not readable, empty, cut short, followed by other bytes, of an unknown
    format version, or not a plan (the error names what it looks like).
    """
    path = Path(path)
    head, size = _read_head(path)
    family = _FAMILIES.get(head[:4])
    if family is None:
        raise UsageError(f"{path} is not a TensorRT plan: {_what_else(path, head)}")
    if len(head) < _TABLE_AT[family]:
        raise UsageError(f"plan {path} is cut short: it has {size} bytes, less than a header; copy or build it again")
    serialization, sections, declared = struct.unpack_from("<IIxxxxQ", head, 4)
    if serialization != 0:
        raise UsageError(
            f"plan {path} has serialization version {serialization}, and loadtrt knows only 0: "
            "rebuild it with a TensorRT that loadtrt supports (8.6, 10, 11 or RTX)"
        )
    if declared > size:
        raise UsageError(
            f"plan {path} is cut short: its header says {declared} bytes, the file has {size}; copy or build it again"
        )
    if declared < size:
        raise UsageError(
            f"plan {path} has {size - declared} bytes after its end: its header says {declared} bytes, the file has "
            f"{size}; copy or build it again"
        )
    return PlanHeader(
        path=path,
        family=family,
        version=(head[24], head[25], head[26], head[27]),
        size_bytes=size,
        host_code_bytes=_host_code_bytes(head, _TABLE_AT[family], sections),
        compute_capabilities=_targets(head) if family == "rtx" else (),
    )


def sha256(path: str | Path) -> str:
    """SHA-256 of the file's bytes, as 64 hex digits. Raises UsageError where it cannot be read."""
    with open_file(path, takes=None) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None


def _read_head(path: Path) -> tuple[bytes, int]:
    """The first bytes of the file, and its size."""
    with open_file(path, "plan", takes=None) as file:
        try:
            head, size = file.read(_HEAD_BYTES), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise UsageError(f"cannot read plan {path}: {error.strerror}") from None
    if not head:
        raise UsageError(f"plan {path} is empty: the program that wrote it failed; build or copy it again")
    return head, size


def _host_code_bytes(head: bytes, table: int, sections: int) -> int:
    """Bytes of the sections tagged LEAN."""
    total = 0
    for at in range(table, min(table + 24 * sections, len(head) - 23), 24):
        tag, _, _, size = struct.unpack_from("<4sIQQ", head, at)
        if tag == _LEAN:
            total += size
    return total


def _targets(head: bytes) -> tuple[str, ...]:
    mask = struct.unpack_from("<I", head, 32)[0]
    return () if mask == _RTX_UNRESTRICTED else tuple(name for bit, name in _RTX_TARGETS.items() if mask & bit)


def _what_else(path: Path, head: bytes) -> str:
    """What a file that is not a plan looks like, and what to do about it."""
    found = recognized(head)
    if found:
        return f"it is {found[1]}"
    if path.suffix.lower() in (".prototxt", ".caffemodel"):
        build = "loadtrt build --deploy FILE.prototxt --model FILE.caffemodel -o FILE.plan"
        return f"it is a file of Caffe; build a plan with `{build}`"
    if head[:4] == _OLD_MAGIC:
        return "it is a plan of a TensorRT older than 8.6; rebuild it with 8.6 or newer"
    if _begins_like_onnx(head):
        return "it is an ONNX model"
    wrapped = _metadata_bytes(head)
    if wrapped:
        return (
            f"it begins with {wrapped} bytes of metadata, as Ultralytics writes them, and a plan follows; "
            f"cut them off with `tail -c +{wrapped + 1}`"
        )
    text = all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head)
    kind = "it is a text file" if text else f"it begins with {head[:4]!r}, not with 'ftrt' or 'vtrt'"
    return f"{kind}; name the file that TensorRT's builder or trtexec wrote"


def _metadata_bytes(head: bytes) -> int:
    """Length of a 4-byte count and that many bytes of JSON before a plan; 0 where there is none."""
    if head[4:5] != b"{":
        return 0
    end = 4 + int(struct.unpack_from("<I", head)[0])
    if end + 4 > len(head):
        return 0
    try:
        json.loads(head[4:end])
    except ValueError:
        return 0
    return end if head[end : end + 4] in _FAMILIES else 0


_KEPT_BY_RUNS = {"model", "model_sha256", "options", "precision", "flavour", "flavour_version", "gpu", "build_ns"}


class SidecarTensor(BaseModel):
    """One input or output; `shape` has -1 where a profile leaves the size open, `rows` is as in TensorSpec."""

    model_config = ConfigDict(frozen=True)

    name: str
    input: bool
    dtype: str
    shape: tuple[int, ...]
    rows: int | None = None


class Sidecar(BaseModel):
    """The facts of a build that are kept in PLAN.json.

    options: those that differ from the defaults.
    precision: what was converted or allowed, in words.
    conversion: what became of the model in FP16; None where loadtrt did not convert it.
    gpu: the GPU that the plan was built on; "" where `targets` name others.
    load_ns: time to load TensorRT and its builder; 0 in files of older versions.
    build_ns: time of the builder.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    loadtrt_version: str
    model: str
    model_sha256: str
    options: dict[str, Any]
    precision: str
    conversion: HalfPrecision | None = None
    flavour: str
    flavour_version: str
    gpu: str
    targets: tuple[str, ...]
    tensors: tuple[SidecarTensor, ...]
    load_ns: int = Field(default=0, ge=0, lt=1 << 63)
    build_ns: int = Field(ge=0, lt=1 << 63)
    plan_sha256: str
    plan_bytes: int = Field(ge=0, lt=1 << 63)

    @property
    def kept(self) -> dict[str, Any]:
        """What a run keeps of the build."""
        return self.model_dump(mode="json", include=_KEPT_BY_RUNS)

    @property
    def rows(self) -> dict[str, int]:
        """By input, the rows of the table that its values index."""
        return {tensor.name: tensor.rows for tensor in self.tensors if tensor.rows is not None}


def sidecar_of(plan: Path) -> Path:
    """PLAN.json."""
    return plan.with_name(f"{plan.name}.json")


def read_sidecar(plan: Path, plan_sha256: str | None = None) -> Sidecar | None:
    """The sidecar of `plan`, None where there is none.

    Raises UsageError for one that cannot be read, and for one of another plan than that of `plan_sha256`.
    """
    file = sidecar_of(plan)
    try:
        if not file.exists():
            return None
        data = read_bytes(file, "sidecar", _MOST_SIDECAR_BYTES, pipes=False)
        sidecar = Sidecar.model_validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its JSON"
        raise UsageError(f"{file} is not the sidecar of a build: {where}: {fault_words(first)}") from None
    if plan_sha256 not in (None, sidecar.plan_sha256):
        raise UsageError(f"{file} is for another plan: its SHA-256 differs")
    return sidecar


def build_of(plan: Path, plan_sha256: str) -> tuple[Sidecar | None, tuple[str, ...]]:
    """The sidecar of a plan, None where there is none; a note where it is broken or another plan's. `plan_sha256`: of
    the plan as it is now."""
    try:
        return read_sidecar(plan, plan_sha256), ()
    except UsageError as error:
        return None, (f"what the plan was built from is not known: {error}",)
