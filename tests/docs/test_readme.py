"""README.md as a package index shows it: the built wheel's description, rendered as PyPI renders it."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import html5lib
import pytest
from readme_renderer import markdown

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and a source distribution, built without a network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def description(built: Path) -> str:
    """The long description, in Markdown."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = metadata.get_payload(decode=True)
    assert isinstance(text, bytes)
    return text.decode()


def test_no_link_and_no_picture_is_dead_on_an_index(description: str) -> None:
    """An index has no file but the description: each address is a whole one or a heading of the page."""
    page = markdown.render(description)
    assert page is not None
    tree: Element = html5lib.parse(page, namespaceHTMLElements=False)
    ids = {element.attrib["id"] for element in tree.iter() if "id" in element.attrib}
    headings = {f"#{name}" for each in ids for name in (each, each.removeprefix("user-content-"))}
    addresses = [element.attrib[name] for element in tree.iter() for name in ("href", "src") if name in element.attrib]
    dead = [
        address for address in addresses if not address.startswith(("https://", "http://")) and address not in headings
    ]
    assert dead == []
    assert not [row for row in tree.iter("tbody") if not "".join(row.itertext()).strip()]  # a table of pictures alone


def test_what_was_a_link_names_a_file_of_the_source_distribution(built: Path, description: str) -> None:
    """Every link's text is still there, with the file that it led to, which the source distribution has."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    readme = (ROOT / "README.md").read_text()
    links = [
        (text, address.partition("#")[0]) for text, address in LINK.findall(re.sub(r"!\[[^\]]*\]\([^)]*\)", "", readme))
    ]
    here = [(text, path) for text, path in links if path and "://" not in path]
    assert here
    for text, path in here:
        assert path in files, path
        assert (path if text == path else f"{text} ({path})") in description
    assert "](docs/" not in description
