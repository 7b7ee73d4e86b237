"""What mkdocs does besides: README, CONTRIBUTING and CHANGELOG become pages, the public names of loadtrt have a page of
their own, and a build fails that would have a reader's browser ask another host for a file."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import loadtrt

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LOG = logging.getLogger("mkdocs.loadtrt")  # a warning fails a build with --strict
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")
ASSET = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=\"?((?:https?:)?//[^\"\s>]+)")
LIST = re.compile(r"^(?![-*|] |\d+\. |\s|$).*\n(?:[-*]|\d+\.) ", re.MULTILINE)
CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
ITEM = re.compile(r"([-*] |\d+\. )(?=\S)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that docs/ does not hold."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=_as_page((ROOT / name).read_text())))
    files.append(File.generated(config, "api.md", content=api_page()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Links out of docs/ lead to the pages that those files have become; other files are named alone."""
    for found in LIST.finditer(CODE.sub("", markdown)):
        LOG.warning("%s: a list needs a blank line before it: %r", page.file.src_uri, found[0])
    return OUTSIDE.sub(_as_text, _indented(markdown))


def on_post_build(config: MkDocsConfig) -> None:
    """Whether the site is whole without other hosts."""
    for file in sorted(Path(config.site_dir).rglob("*.html")):
        for address in ASSET.findall(file.read_text()):
            LOG.warning("%s would fetch %s", file.name, address)


def api_page() -> str:
    """A heading for each public name, under which mkdocstrings writes its signature and docstring."""
    names = [name for name in getattr(loadtrt, "__all__", ("run",)) if not name.startswith("_")]
    functions = [name for name in names if name.islower()]
    classes = [name for name in names if name not in functions]
    parts = ["# Public names", "All of `loadtrt`; what is not here may change at any time."]
    for title, group in (("Functions", functions), ("Configurations, results and errors", classes)):
        if group:
            parts += [f"## {title}", *(f"::: loadtrt.{name}" for name in group)]
    return "\n\n".join(parts) + "\n"


def _indented(markdown: str) -> str:
    """What belongs to an item of a list, four spaces deep: GitHub takes as many as the marker is wide, mkdocs four."""
    lines, width, fenced = [], 0, False
    for line in markdown.splitlines():
        fenced ^= line.startswith("```")
        item = None if fenced else ITEM.match(line)
        if item:
            width = len(item[1])
        elif line.strip() and not line.startswith(" " * width):
            width = 0
        lines.append(line if item or not line.strip() or not width else " " * 4 + line[width:])
    return "\n".join(lines)


def _as_page(text: str) -> str:
    """A file of the repository's root as one of docs/."""
    return LINK.sub(
        lambda link: link[1].removeprefix("docs/") if link[1].startswith("docs/") else f"../{link[1]}", text
    )


def _as_text(link: re.Match[str]) -> str:
    """A link to a file outside docs/."""
    text, path, anchor = link.groups("")
    if path in PAGES:
        return f"[{text}]({PAGES[path]}{anchor})"
    return text if path.endswith(text.strip("`")) else f"{text} (`{path}`)"
