"""docs/python.md: every example is run, in order, in one namespace, and prints what the page shows."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _examples() -> list[tuple[str, str]]:
    """(code, what it prints) of each example: the text block that follows it, if any."""
    blocks = BLOCK.findall(PAGE.read_text())
    return [
        (code, blocks[place + 1][1] if blocks[place + 1 : place + 2] and blocks[place + 1][0] == "text" else "")
        for place, (language, code) in enumerate(blocks)
        if language == "python"
    ]


def _run(code: str, namespace: dict[str, Any]) -> str:
    """Run a cell as a notebook does, which may await; returns what it prints."""
    printed = io.StringIO()
    made = compile(code, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    with contextlib.redirect_stdout(printed):
        done = eval(made, namespace)  # noqa: S307  # the page is ours
        if inspect.iscoroutine(done):
            asyncio.run(done)
    return printed.getvalue()


def test_every_example_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own."""
    monkeypatch.chdir(tmp_path)
    examples = _examples()
    assert len(examples) >= 10
    assert len(re.findall(r"^```(?!python$|text$)\S", PAGE.read_text(), re.MULTILINE)) == 0
    namespace: dict[str, Any] = {}
    check = doctest.OutputChecker().check_output
    for code, shown in examples:
        printed = _run(code, namespace)
        assert check(shown, printed, doctest.ELLIPSIS), f"{code}\nprints\n{printed}"
