"""The command line in this process: what it prints and its exit code, without the half second that a process takes."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING
from unittest.mock import patch

from loadtrt.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


def loadtrt(*arguments: str | Path, folder: Path = ROOT) -> CompletedProcess[str]:
    """`python -m loadtrt ARGUMENTS` in `folder`. A fault in loadtrt is raised rather than told in one line."""
    command = ["loadtrt", *map(str, arguments)]
    written = BytesIO(), BytesIO()
    stdout, stderr = (TextIOWrapper(stream, "utf-8", write_through=True) for stream in written)
    code: str | int | None = None
    with _process(command, folder), redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return CompletedProcess(command, int(code or 0), *(stream.getvalue().decode() for stream in written))


@contextmanager
def _process(command: list[str], folder: Path) -> Iterator[None]:
    environment = {**os.environ, "LOADTRT_TRACEBACK": "1"}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with chdir(folder), patch.object(sys, "argv", command), patch.dict(os.environ, environment, clear=True):
        try:
            yield
        finally:  # a command ends with signals ignored and things to tell, as its process does
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for name, untold in (("loadtrt.cli.github", "_untold"), ("loadtrt.cli.outputs", "_awaited")):
                if (module := sys.modules.get(name)) is not None:
                    getattr(module, untold).clear()
