"""The loader's name of a library, which its file need not have."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from loadtrt.engines.flavour import require_plugins
from loadtrt.engines.shared_library import soname
from loadtrt.errors import UsageError
from shared_libraries import library_named


def loaded() -> dict[str, str]:
    """Libraries of C and C++ that this process has loaded, by the name under which the loader finds them."""
    ctypes.CDLL("libm.so.6")
    files = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
    return {name: file for file in files for name in ("libc.so.6", "libm.so.6") if Path(file).name == name}


def test_it_is_that_of_the_loader() -> None:
    """Of real libraries."""
    assert loaded()
    for name, file in loaded().items():
        assert soname(file, "--plugins", "") == name


def test_the_file_may_have_another_name(tmp_path: Path) -> None:
    """And a file that is cut short has none."""
    file = library_named(tmp_path / "x", "libnvinfer_lean.so.11")
    assert soname(str(file), "--plugins", "") == "libnvinfer_lean.so.11"
    whole = file.read_bytes()
    for length in range(4, len(whole) - len("libnvinfer_lean.so.11") - 1):
        file.write_bytes(whole[:length])
        assert soname(str(file), "--plugins", "") == ""


@pytest.mark.parametrize(("name", "words"), [
    ("libnvinfer_dispatch.so.10", "has no plugins: name the library that has the operators$"),
    ("libnvinfer_lean.so.10", "has no plugins: name the .*; --lean-library is for the lean runtime$"),
])  # fmt: skip
def test_runtimes_are_no_plugins(name: str, words: str, tmp_path: Path) -> None:
    """In one sentence, before TensorRT is there."""
    file = library_named(tmp_path / "p.so", name)
    with pytest.raises(UsageError, match=rf"^--plugins {file} is {name}, which {words}"):
        require_plugins([str(file)])


def test_text_is_no_library(tmp_path: Path) -> None:
    """Nor is anything else that is not ELF."""
    file = tmp_path / "p.so"
    file.write_text("no library")
    with pytest.raises(UsageError, match=rf"^--plugins {file} is not a shared library: name the library that"):
        require_plugins([str(file)])
    require_plugins([str(library_named(file, "libmine.so"))])
