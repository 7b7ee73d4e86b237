"""pip's line for a plan: of its own version, from what pyproject.toml admits; and whose a library is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from command_line import ROOT, loadtrt
from loadtrt.engines import installing
from loadtrt.engines.plan import PlanHeader
from tensorrt_bench import plan_bytes

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PYPI = [tuple(map(int, text.split("."))) for text in installing._VERSIONS.split()]
RTX = [tuple(map(int, text.split("."))) for text in installing._RTX_VERSIONS.split()]


def _header(version: tuple[int, ...], *, host_code: bool = False, rtx: bool = False) -> PlanHeader:
    numbers = (*version, *(7,) * (4 - len(version)))
    family = "rtx" if rtx else "tensorrt"
    return PlanHeader(Path("a.plan"), family, numbers, 1, 100 * host_code)  # type: ignore[arg-type]


def _requirements(line: str) -> tuple[str, Requirement]:
    """The extra of loadtrt in pip's line, and the other requirement."""
    found = re.fullmatch(r"pip install 'loadtrt\[([a-z0-9-]+)\]' '([^']+)'", line)
    assert found is not None, line
    return found[1], Requirement(found[2])


@pytest.mark.parametrize(("rtx", "version"), [*((False, each) for each in PYPI), *((True, each) for each in RTX)])
def test_the_line_installs_the_version_that_built_the_plan(version: tuple[int, ...], *, rtx: bool) -> None:
    """The extra asks for the same package, or a part of it, and takes that version."""
    extra, wanted = _requirements(installing.pip_line(_header(version, rtx=rtx)).line)
    (same,) = [need for text in EXTRAS[extra] if (need := Requirement(text)).name == wanted.name]
    text = ".".join(map(str, version))
    for full in (text, f"{text}.9"):
        assert wanted.specifier.contains(full)
        assert same.specifier.contains(full)
    assert not wanted.specifier.contains(f"{version[0]}.{version[1]}.{version[2] + 1}")
    assert ("NVIDIA's own index" in installing.pip_line(_header(version, rtx=rtx)).note) != rtx


@pytest.mark.parametrize(
    ("version", "host_code", "expected"),
    [
        ((8, 6, 0), False, "pip install 'loadtrt[cu12]' 'tensorrt==8.6.1.*'"),
        ((8, 6, 1), True, "pip install 'loadtrt[dispatch]' 'tensorrt-dispatch-cu13<11'"),
        ((10, 3, 0), True, "pip install 'loadtrt[dispatch]'"),
        ((10, 16, 1), True, "pip install 'loadtrt[dispatch]' 'tensorrt-dispatch-cu13>=10.16.1'"),
        ((11, 9, 0), False, "pip install 'loadtrt[tensorrt]' 'tensorrt-cu13==11.9.0.*'"),
    ],
)
def test_lines(version: tuple[int, ...], expected: str, *, host_code: bool) -> None:
    """8.6.0 is run by 8.6.1; a plan with a lean runtime by that version of dispatch or a newer one; what is newer than
    the list is pip's to find."""
    assert installing.pip_line(_header(version, host_code=host_code)).line == expected


@pytest.mark.parametrize(
    ("version", "rtx"), [((9, 2, 0), False), ((10, 13, 1), False), ((8, 7, 0), False), ((1, 2, 0), True)]
)
def test_what_is_on_no_index_has_no_line(version: tuple[int, ...], *, rtx: bool) -> None:
    found = installing.pip_line(_header(version, rtx=rtx))
    assert found.line == ""
    assert ".".join(map(str, version)) + " was not on PyPI" in found.note
    assert "pip install" not in installing.to_install(_header(version, rtx=rtx))


def test_the_lines_of_the_documentation_are_these() -> None:
    """One for each kind of plan."""
    page = (ROOT / "docs" / "install.md").read_text()
    plain = [_header(version) for version in ((11, 4, 0), (10, 16, 1), (10, 3, 0), (8, 6, 1))]
    for header in (*plain, _header((10, 16, 1), host_code=True), _header((1, 7, 1), rtx=True)):
        assert installing.pip_line(header).line in page


def test_inspect_prints_the_line(tmp_path: Path) -> None:
    """As it is pasted: quoted for a shell, on a line of its own."""
    (tmp_path / "a.plan").write_bytes(plan_bytes((11, 4, 0, 106)))
    lines = [line.strip() for line in loadtrt("inspect", "a.plan", folder=tmp_path).stdout.splitlines()]
    assert "to install  pip install 'loadtrt[tensorrt]' 'tensorrt-cu13==11.4.0.*'" in lines
    assert any(line.startswith("its libraries come from NVIDIA's own index") for line in lines)


@pytest.mark.parametrize(
    ("package", "library", "said"),
    [
        ("tensorrt_cu13_libs", "libnvinfer.so.11", "of tensorrt_cu13_libs 3.4, which comes from NVIDIA's own index"),
        ("tensorrt", "libnvinfer.so.8", "of tensorrt 3.4, which comes from NVIDIA's own index"),
        ("tensorrt-lean-cu13-libs", "libnvinfer_lean.so.11", "of tensorrt_lean_cu13_libs 3.4, which is on PyPI"),
        ("TensorRT_RTX_cu13.libs", "libtensorrt_rtx.so.1", "of tensorrt_rtx_cu13_libs 3.4, which is on PyPI"),
        ("another", "libnvinfer.so.11", "of no pip package: of the system, a container or an archive of NVIDIA's"),
    ],
)
def test_whose_a_library_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, library: str, said: str
) -> None:
    """By the files that pip recorded of its packages."""
    facts = tmp_path / "some-3.4.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 3.4\n")
    (facts / "RECORD").write_text(f"some/__init__.py,,\nsome/{library},,\n")
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / library).touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert installing.origin_of(tmp_path / "some" / library) == said
    assert installing.origin_of(None) == "of unknown origin"
