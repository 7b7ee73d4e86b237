"""What docs/hooks.py adds to the site. `make site` builds it, strictly, where mkdocs is installed."""

from __future__ import annotations

import importlib.util
import logging
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import loadtrt

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, as mkdocs loads it."""
    spec = importlib.util.spec_from_file_location("loadtrt_docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.LOG, "propagate", True)
    return module


def test_every_public_name_has_an_entry(hooks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions first, then classes; names with an underscore are not public."""
    monkeypatch.setattr(loadtrt, "__all__", ["RunConfig", "__version__", "plan_capacity", "run"], raising=False)
    entries = [line for line in hooks.api_page().splitlines() if line.startswith((":::", "## "))]
    assert entries == [
        "## Functions",
        "::: loadtrt.plan_capacity",
        "::: loadtrt.run",
        "## Configurations, results and errors",
        "::: loadtrt.RunConfig",
    ]


def test_links_lead_to_the_sites_pages(hooks: Any) -> None:
    """From the pages that README, CONTRIBUTING and CHANGELOG become, and to them; others stay as they are, but that a
    file of the repository that the site does not have becomes its name."""
    page = SimpleNamespace(file=SimpleNamespace(src_uri="x.md"))

    def linked(markdown: str) -> str:
        shown: str = hooks.on_page_markdown(markdown, page, config=None, files=None)
        return shown

    of_readme = "[a](docs/live.md#gpu) ![b](docs/img/c.png) [d](CONTRIBUTING.md) [e](https://docs/f.md) [g](#docs/h)"
    shown = "[a](live.md#gpu) ![b](img/c.png) [d](contributing.md) [e](https://docs/f.md) [g](#docs/h)"
    assert linked(hooks._as_page(of_readme)) == shown
    assert linked("[a](../README.md#run) [b](../CONTRIBUTING.md)") == "[a](index.md#run) [b](contributing.md)"
    assert linked("[a job](../configs/job.yaml) [`job.yaml`](../configs/job.yaml)") == (
        "a job (`configs/job.yaml`) `job.yaml`"
    )
    assert linked(hooks._as_page("[a job](configs/job.yaml)")) == "a job (`configs/job.yaml`)"


@pytest.mark.parametrize(
    ("markdown", "warned"),
    [
        ("Instead\n- a\n", True),
        ("Instead:\n1. a\n", True),
        ("Instead\n\n- a\n- b\n", False),
        ("- a\n  b\n- c\n", False),
        ("```\nInstead\n- a\n```\n", False),
    ],
)
def test_a_list_that_would_be_a_paragraph_is_told(
    hooks: Any, caplog: pytest.LogCaptureFixture, markdown: str, warned: bool
) -> None:
    """GitHub takes a list without a blank line before it, mkdocs does not."""
    page = SimpleNamespace(file=SimpleNamespace(src_uri="x.md"))
    with caplog.at_level(logging.WARNING):
        hooks.on_page_markdown(markdown, page)
    assert bool(caplog.records) is warned


def test_what_belongs_to_an_item_is_four_spaces_deep(hooks: Any) -> None:
    """Code, fenced or indented, further paragraphs and lists; text after the list and code elsewhere stay."""
    page = SimpleNamespace(file=SimpleNamespace(src_uri="x.md"))
    text = "- a\n  b\n\n      code\n\n  c\n  - d\n\nend\n\n    code\n\n1. e\n\n   f\n\n```\n- g\n  h\n```\n  i"
    shown = (
        "- a\n    b\n\n        code\n\n    c\n    - d\n\nend\n\n    code\n\n1. e\n\n    f\n\n```\n- g\n  h\n```\n  i"
    )
    assert hooks.on_page_markdown(text, page) == shown


@pytest.mark.parametrize(
    ("tag", "fetched"),
    [
        ('<script src="https://unpkg.com/x.js"></script>', True),
        ('<link rel="stylesheet" href="//fonts.example/css?family=Roboto">', True),
        ("<img alt=x src=http://a.example/b.png>", True),
        ('<a href="https://grafana.com">Grafana</a>', False),
        ('<script src="assets/bundle.js"></script>', False),
    ],
)
def test_a_file_of_another_host_is_told(
    hooks: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path, tag: str, fetched: bool
) -> None:
    """A warning fails a strict build."""
    (tmp_path / "page.html").write_text(f"<html><body>{tag}</body></html>")
    with caplog.at_level(logging.WARNING):
        hooks.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))
    assert bool(caplog.records) is fetched


def test_every_extra_is_explained() -> None:
    """In a row of the page on installing."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = re.findall(r"^\| (`[^|]*) \|", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE)
    assert sorted(re.findall("`(.*?)`", " ".join(rows))) == sorted(extras)


def test_the_site_is_built_strictly() -> None:
    """A link, an anchor or a page that there is not is a warning."""
    text = (ROOT / "mkdocs.yml").read_text()
    told = yaml.safe_load(re.search(r"^validation:\n(?: .*\n)+", text, re.MULTILINE)[0])["validation"]  # type: ignore[index]
    assert {level for kinds in told.values() for level in kinds.values()} == {"warn"}
    assert "anchors" in told["links"]
    assert "mkdocs build --strict\n" in (ROOT / "Makefile").read_text()  # --quiet would drop warnings uncounted
