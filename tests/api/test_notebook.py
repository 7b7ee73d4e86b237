"""A notebook, executed by nbclient in a kernel of its own, where an event loop is running."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient

if TYPE_CHECKING:
    from pathlib import Path

ENGINE = "simulated:service=5ms,clock=virtual"
LONG = "engine='simulated:service=1ms', warmup=0, duration='10h'"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a kernel of this interpreter, whatever is installed for the user."""
    folder = tmp_path / "jupyter" / "kernels" / "here"
    folder.mkdir(parents=True)
    command = f'["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    (folder / "kernel.json").write_text(f'{{"argv": {command}, "display_name": "here", "language": "python"}}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    return "here"


def _executed(kernel: str, folder: Path, *cells: str, interrupts: bool = False) -> list[list[Any]]:
    """The outputs of each cell. interrupts: the kernel is interrupted once a file "measuring" is there."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])  # type: ignore[no-untyped-call]
    client = NotebookClient(notebook, timeout=600, kernel_name=kernel, resources={"metadata": {"path": str(folder)}})
    done = threading.Event()

    def interrupt() -> None:
        while not (folder / "measuring").exists() and not done.wait(0.05):
            pass
        if not done.is_set():
            os.kill(int((folder / "measuring").read_text()), signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    if interrupts:
        watcher.start()
    try:
        client.execute()
    finally:
        done.set()
        if interrupts:
            watcher.join()
    return [cell["outputs"] for cell in notebook["cells"]]


def _printed(outputs: list[Any]) -> str:
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


def test_a_result_shows_itself(kernel: str, tmp_path: Path) -> None:
    """As HTML and as Markdown, and with a short repr for what has neither; no other output, no warning."""
    (shown,) = _executed(kernel, tmp_path, f"import loadtrt\nloadtrt.run(engine={ENGINE!r}, warmup=0, requests=500)")
    (output,) = shown
    data = output["data"]
    assert set(data) == {"text/html", "text/markdown", "text/plain"}
    assert data["text/html"].startswith('<div class="loadtrt"')
    assert "latency p50" in data["text/markdown"]
    assert data["text/plain"] == "RunResult(outcome='completed', valid=True)"


def test_functions_and_twins_work_where_a_loop_is_running(kernel: str, tmp_path: Path) -> None:
    """The loop is usable after the functions, and meanwhile with the twins."""
    options = f"engine={ENGINE!r}, warmup=0, requests=100"
    *_, waited, awaited, table = _executed(
        kernel,
        tmp_path,
        "import asyncio, loadtrt\nassert asyncio.get_running_loop().is_running()",
        f"run = loadtrt.run({options})\nawait asyncio.sleep(0)\nprint(run.model.ok)",
        f"both = await asyncio.gather(loadtrt.run_async({options}), loadtrt.run_async({options}, contexts=2))\n"
        "print([run.model.ok for run in both])",
        "run.to_pandas('records')",
    )
    assert (_printed(waited), _printed(awaited)) == ("100\n", "[100, 100]\n")
    assert "latency_ns" in table[0]["data"]["text/html"]


@pytest.mark.parametrize("call", ["loadtrt.run", "await loadtrt.run_async"])
def test_an_interrupt_of_the_kernel_gives_back_what_was_measured(call: str, kernel: str, tmp_path: Path) -> None:
    """Of a cell that waits, and of one that awaits: the cell goes on with the result, and so do the next ones."""
    tells = (
        "import os, loadtrt\n"
        "from loadtrt.runs.maker import Maker\n"
        "make = Maker.run\n"
        "def run(self, config, on_tick=None, *given, **more):\n"
        "    def tick(phase, elapsed_ns, submitted, completed):\n"
        "        if phase == 'measure' and completed and not os.path.exists('measuring'):\n"
        "            with open('part', 'w') as file: file.write(str(os.getpid()))\n"
        "            os.rename('part', 'measuring')\n"
        "    return make(self, config, tick, *given, **more)\n"
        "Maker.run = run\n"
    )
    cells = (tells, f"result = {call}({LONG})\nprint(result.outcome, result.model.ok > 0)", "print(result.valid)")
    _, interrupted, after = _executed(kernel, tmp_path, *cells, interrupts=True)
    assert _printed(interrupted) == "interrupted True\n"
    assert _printed(after) in ("True\n", "False\n")
