"""What a file is by its first bytes, where it is not what it is named for: the one place that knows.

Every file that a user names is opened by `reading_files.open_file`, which asks here, or by a reader that takes anything
and asks here once it cannot use what it has read.
"""

from __future__ import annotations

import re
import struct
import zlib
from contextlib import suppress

from loadtrt.printing import shortened
from loadtrt.units import format_bytes

HEAD_BYTES = 4096  # what is looked at; less is enough for most
_COMPRESSED = {
    b"\x1f\x8b\x08": ("gzip", "gunzip"),
    b"\xfd7zXZ\0": ("xz", "xz -d"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -d"),
    b"7z\xbc\xaf\x27\x1c": ("7z", "7z x"),
}
_BEGINNINGS = {
    b"\x93NUMPY": ("npy", "a numpy array (.npy): give it to --inputs, as NAME:FILE.npy"),
    b"\x89HDF": ("hdf5", "an HDF5 file, such as Keras writes; convert it to ONNX"),
    b"GGUF": ("gguf", "GGUF, the weights of llama.cpp; export the model to ONNX"),
    b"\x89PNG": ("image", "a PNG image; decode it, and save the pixels with numpy.save"),
    b"\xff\xd8\xff": ("image", "a JPEG image; decode it, and save the pixels with numpy.save"),
    b"%PDF": ("pdf", "a PDF document; name the file itself"),
    b"PAR1": ("parquet", "a Parquet file; write it as CSV, with pandas.read_parquet(FILE).to_csv(OTHER)"),
    b"ARROW1": ("arrow", "an Arrow file; write it as CSV, with pandas.read_feather(FILE).to_csv(OTHER)"),
    b"SQLite format 3": ("sqlite", "an SQLite database; write the table as CSV, with `sqlite3 -csv`"),
}
FAILURE = "a failure"
# What a file holds, by how it begins, after a byte order mark and blanks. The first that fits counts.
CONTENTS = {
    "a plan": rb"[fvp]trt",
    "an archive": rb"PK\x03\x04",
    "a run": rb'\{\s*"schema_version":\s*"loadtrt\.run/',
    "starts of a run": rb'\{\s*"schema_version":\s*"loadtrt\.repeat/',
    "a sweep": rb'\{\s*"schema_version":\s*"loadtrt\.sweep/',
    "a search for capacity": rb'\{\s*"schema_version":\s*"loadtrt\.capacity/',
    "a measurement of interference": rb'\{\s*"schema_version":\s*"loadtrt\.interference/',
    "a plan of a fleet": rb'\{\s*"schema_version":\s*"loadtrt\.fleet/',
    "a plan of several models": rb'\{\s*"schema_version":\s*"loadtrt\.placement/',
    "a profile": rb'\{\s*"schema_version":\s*"loadtrt\.profile/',
    "a comparison": rb'\{\s*"schema_version":\s*"loadtrt\.(comparison|layers)/',
    FAILURE: rb'\{\s*"schema_version":\s*"loadtrt\.failure/',
    "a result of another loadtrt": rb'\{\s*"schema_version":\s*"loadtrt\.',
    "facts of a build": rb'\{\s*"schema_version":\s*1,\s*"loadtrt_version"',
    "a trace for Perfetto": rb'\{\s*"displayTimeUnit"',
    "JSON of trtexec": rb'\[\s*\{\s*"(startEnqMs|startInMs|latencyMs|count|averageMs|name)"|\{\s*"Layers"',
    "JSON": rb"[{\[]",
    "a table of results": rb"file,kind,number,",
    "a histogram log": rb"#\[[^\n]*\n#\[Histogram log",
    "OpenMetrics": rb"# (HELP|TYPE) ",
    "HTML": rb"(?i)<!doctype html|<html",
    "XML": rb"<\?xml|<testsuite",
    "a log of TensorRT": rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ",
    "an INT8 calibration cache": rb"TRT-\d",
    "an ONNX model": rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42]",  # ir_version, then the next field of a model
    "binary data": rb"(?s).*\0",
    "text": rb"(?s).",
}
_PAGE = re.compile(
    rb"\s*(?:<!--.*?-->\s*)*(?:<\?xml[^>]*>\s*)?<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_XML = re.compile(rb"\s*<(\?xml|Error>)")
# What GitHub and Hugging Face answer in the place of a file.
_REFUSAL = re.compile(
    rb"""(404: Not Found|(Entry|Repository) not found|Invalid username or password|Access to model|{"error":\s*")""",
    re.IGNORECASE,
)
_UTF_16 = re.compile(rb"\xff\xfe[\t-~]\0|\xfe\xff\0[\t-~]")
_POINTED_BYTES = re.compile(rb"^size (\d{1,18})\s*$", re.MULTILINE)


def recognized(head: bytes) -> tuple[str, str] | None:
    """(kind, what it is and what to do) of a file by its first HEAD_BYTES; None for what they do not tell.

    The words follow "it is". No kind is one that loadtrt reads as a model, a plan, Caffe's files, a result or YAML;
    a reader of traces may take "gzip", and one of inputs "zip" and "npy".
    """
    text = head.removeprefix(b"\xef\xbb\xbf")
    if text.startswith(b"version https://git-lfs"):
        size = _POINTED_BYTES.search(text)
        held = f" to {format_bytes(int(size[1]))}" if size else ""
        return "lfs", f"a Git LFS pointer{held}, not the file; fetch it with `git lfs pull`"
    if text.startswith((b"/annex/objects/", b"../.git/annex/", b".git/annex/")):
        return "annex", "a git-annex pointer, not the file; fetch it with `git annex get`"
    if _PAGE.match(text):
        return "html", "a web page, such as a sign-in or an error page; download the file itself (its raw form)"
    if _XML.match(text):
        told = "XML, such as a server's error message or OpenVINO's model"
        return "xml", f"{told}; download the file itself, or export ONNX"
    if _REFUSAL.match(text):
        line = shortened(text.split(b"\n", 1)[0].decode("utf-8", "replace").strip(), 60)
        return "refusal", f"a server's error message ({line}); download the file again, signed in"
    if _UTF_16.match(head):
        return "utf-16", "text in UTF-16, as PowerShell's > writes it; convert it with `iconv -f UTF-16 -t UTF-8`"
    if head.startswith(b"PK\x03\x04"):
        return "zip", _zip(head)
    for magic, (kind, tool) in _COMPRESSED.items():
        if head.startswith(magic):
            packed = kind == "gzip" and _is_tar(_unpacked(head))
            return kind, f"compressed ({kind}); unpack it first with `{'tar -xzf' if packed else tool}`"
    if _is_tar(head):
        return "tar", "a tar archive; unpack it first with `tar -xf`"
    for magic, (kind, words) in _BEGINNINGS.items():
        if head.startswith(magic):
            return kind, words
    if len(head) > 2 and head[0] == 0x80 and head[1] in range(2, 6) and head[2:3] in b"}]c\x95(\x8a":
        return "pickle", "a Python pickle, such as a PyTorch checkpoint; export the model to ONNX"
    if head[4:8] == b"TFL3":
        return "tflite", "a TensorFlow Lite model; convert it to ONNX"
    if head[8:9] == b"{" and struct.unpack_from("<Q", head)[0] < 1 << 32:
        return "safetensors", "safetensors, which hold weights but no network; export the model to ONNX"
    return None


def _zip(head: bytes) -> str:
    """What a zip archive holds, by the name of its first entry."""
    length = int(struct.unpack_from("<H", head.ljust(30, b"\0"), 26)[0])
    first = head[30 : 30 + length].decode("utf-8", "replace")
    last = first.rsplit("/", 1)[-1]
    if last.endswith(".npy"):
        return "an .npz of numpy's arrays; give it to --inputs"
    if last in ("data.pkl", "version", "byteorder", "constants.pkl", ".format_version") or "/code/" in first:
        return "a zip archive of PyTorch's, such as a checkpoint or TorchScript; export the model to ONNX"
    if last in ("metadata.json", "config.json", "model.weights.h5"):
        return "a zip archive of Keras' (.keras); convert the model to ONNX, with python -m tf2onnx.convert"
    if first == "[Content_Types].xml":
        return "a document of Office, such as a spreadsheet; save it as CSV"
    if first.isprintable() and first:
        return f"a zip archive, whose first file is {first}; unpack it first with `unzip`"
    return "a zip archive, such as TorchScript; unpack it first with `unzip`, or export the model to ONNX"


def _unpacked(head: bytes) -> bytes:
    """The beginning of what gzip has packed; empty where it is damaged."""
    with suppress(zlib.error):
        return zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
    return b""


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def content_of(head: bytes) -> str | None:
    """What a file holds that a command would write over, in words, by its first HEAD_BYTES; None for nothing."""
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((content for content, begins in CONTENTS.items() if re.match(begins, head)), None)
