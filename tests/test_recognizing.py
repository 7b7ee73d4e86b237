"""Files that are not what they are named for: each says what it is, whoever reads it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import re
import tarfile
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import helper

from command_line import loadtrt
from loadtrt.errors import UsageError
from loadtrt.reading_files import open_file, read_bytes
from loadtrt.recognizing import recognized
from onnx_files import save

if TYPE_CHECKING:
    from pathlib import Path

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"7" * 64 + b"\nsize 52428800\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body></body></html>\n"


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.zeros(3))
    return file.getvalue()


def _zip(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"\x80\x02}q\x00.")  # of no instant: two processes collect one test
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.onnx"))
    return file.getvalue()


STRANGE = [
    (POINTER, "lfs", "a Git LFS pointer to 50"),
    (b"\xef\xbb\xbf" + POINTER, "lfs", "git lfs pull"),
    (b"/annex/objects/SHA256E-s4--77.onnx\n", "annex", "git annex get"),
    (PAGE, "html", "a web page"),
    (b"\n <!-- hub -->\n<HTML>", "html", "download the file itself"),
    (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "x">', "html", "a web page"),
    (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "xml", "server's error message"),
    (b"Entry not found", "refusal", "(Entry not found)"),
    (b'{"error":"Repository not found"}', "refusal", "download the file again"),
    ("a,b\n".encode("utf-16"), "utf-16", "iconv -f UTF-16"),
    (gzip.compress(b"x" * 5000, mtime=0), "gzip", "`gunzip`"),
    (gzip.compress(_tar(), mtime=0), "gzip", "`tar -xzf`"),
    (lzma.compress(b"x"), "xz", "`xz -d`"),
    (bz2.compress(b"x"), "bzip2", "`bunzip2`"),
    (_tar(), "tar", "`tar -xf`"),
    (_npz(), "zip", "an .npz"),
    (_zip("archive/data.pkl"), "zip", "PyTorch"),
    (_zip("metadata.json"), "zip", "Keras"),
    (_zip("model.onnx"), "zip", "whose first file is model.onnx; unpack it first with `unzip`"),
    (pickle.dumps({"weights": [1.0]}), "pickle", "a Python pickle"),
    (b"\x89HDF\r\n\x1a\n", "hdf5", "HDF5"),
    (b"\x89PNG\r\n\x1a\n", "image", "numpy.save"),
]


@pytest.mark.parametrize(("data", "kind", "words"), STRANGE)
def test_what_a_file_is(tmp_path: Path, data: bytes, kind: str, words: str) -> None:
    """A reader says what the file is and what to do; one that takes this kind gets all of its bytes."""
    file = tmp_path / "file"
    file.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        read_bytes(file, "model", 1 << 20)
    assert str(caught.value).startswith(f"cannot read model {file}: it is ")
    assert words in str(caught.value)
    with open_file(file, "model", takes=(kind,)) as opened:
        assert opened.read() == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08\x09\x12\x07pytorch",
        b'name: "t"\n',
        b"time,n\n1,2\n",
        b'{"schema_version": 7}',
        b"[1]",
        b"\x0a\x04name",
        b"\x80",
    ],
)
def test_what_readers_take_is_not_taken_for_another(data: bytes) -> None:
    assert recognized(data) is None


def _caffe(folder: Path) -> list[str]:
    data = 'input: "data"\ninput_shape { dim: 1 dim: 3 dim: 8 dim: 8 }\n'
    layer = 'layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 2 } }\n'
    (folder / "net.prototxt").write_text(data + layer.replace("2 }", "2 kernel_size: 3 }"))
    return ["build", "-o", str(folder / "o.plan"), "--deploy", str(folder / "net.prototxt")]


def _network(folder: Path) -> str:
    node = helper.make_node("Relu", ["x"], ["y"])
    return save(folder / "m.onnx", [node], {"x": (1, [2, 3])}, {"y": (1, [2, 3])}, {})


@pytest.mark.parametrize(
    ("data", "words"), [(POINTER, "a Git LFS pointer"), (PAGE, "a web page"), (gzip.compress(b"x", mtime=0), "gunzip")]
)
def test_every_kind_of_file(tmp_path: Path, data: bytes, words: str) -> None:
    """Models, weights, networks, results, configurations, traces and inputs alike."""
    file = tmp_path / "file"
    file.write_bytes(data)
    onnx = tmp_path / "page.onnx"
    onnx.write_bytes(data)
    build = ["build", _network(tmp_path), "--int8", "-o", str(tmp_path / "o.plan")]
    null = ["run", "--engine", "simulated:null"]
    lines = [
        ["inspect", str(onnx)],
        ["run", "--engine", str(onnx), "--on", "onnxruntime"],
        ["inspect", str(file)],
        ["build", str(onnx), "-o", str(tmp_path / "o.plan")],
        [*_caffe(tmp_path), "--model", str(file)],
        ["build", "-o", str(tmp_path / "o.plan"), "--deploy", str(file)],
        [*build, "--calibration-cache", str(file)],
        [*build, "--timing-cache", str(file)],
        ["report", str(file)],
        ["run", "--config", str(file)],
    ]
    lines += [] if words == "gunzip" else [[*null, "--trace", str(file)]]
    for line in lines:
        done = loadtrt(*line)
        assert done.returncode == 2, line
        assert words in done.stderr, (line, done.stderr)
        assert done.stderr.count("\n") == 1, (line, done.stderr)


def test_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    """As in a hub's cache of which the blobs were removed."""
    (tmp_path / "model.onnx").symlink_to("../blobs/a1")
    with pytest.raises(UsageError, match=r"model\.onnx: it is a link to \.\./blobs/a1, which is missing"):
        open_file(tmp_path / "model.onnx", "model")


def test_a_folder_with_an_engine_names_it(tmp_path: Path) -> None:
    """As a repository of models for Triton, or a snapshot of a hub."""
    file = tmp_path / "resnet" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    with pytest.raises(UsageError, match="resnet: Is a directory"):
        open_file(tmp_path / "resnet", "model")
    file.write_bytes(b"")
    with pytest.raises(
        UsageError, match=f"resnet: it is a folder; name the file in it, such as {re.escape(str(file))}"
    ):
        open_file(tmp_path / "resnet", "model")
