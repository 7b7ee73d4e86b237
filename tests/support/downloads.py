"""What tests compare with and pip does not install: wheels of TensorRT's bindings and of trex, the schemas of Grafana
and of Kubernetes.

`make downloads` runs this module as a program. It puts what is not there yet into .venv/downloads, once in the life of
.venv, and says on stderr what cannot be had. Tests themselves use no network: they skip what is not there.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parents[2] / ".venv" / "downloads"
# What npm installs, by the folder that it goes into.
NODE = {
    "schema": ("@grafana/schema@13.2.3", "typescript@5.9.3"),  # 26 MB
    "kubernetes": ("@kubernetes-models/prometheus-operator@6.0.0", "kubernetes-models@5.1.0"),  # 29 MB
}
_PATIENCE_S = 300


class UnavailableError(Exception):
    """This program cannot be had here, and why."""


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel: `module` is a flavour's name in loadtrt, `package` the wheel's name on PyPI."""

    module: str
    version: str
    package: str

    def __str__(self) -> str:
        return f"{self.module}-{self.version}"

    @property
    def folder(self) -> Path:
        """Its files. Raises UnavailableError where they are not here."""
        return _require(self._place, f"{self.package} {self.version}")

    @property
    def _place(self) -> Path:
        return FOLDER / f"{self.package}-{self.version}-{sys.implementation.cache_tag}"

    def download(self) -> None:
        """Download it, if it is not here yet. Raises UnavailableError."""
        if self._place.is_dir():
            return
        with tempfile.TemporaryDirectory(dir=FOLDER) as name:
            options = ["--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--retries=1"]
            command = [sys.executable, "-m", "pip", "download", *options, "--timeout=20", f"--dest={name}"]
            done = _run([*command, f"{self.package}=={self.version}"])
            files = list(Path(name).glob("*.whl"))
            if done.returncode or not files:
                causes = re.findall(r"connection broken by .*|(?<=^ERROR: ).*", done.stderr, re.MULTILINE)
                cause = [*causes, done.stderr][0][:200]
                raise UnavailableError(f"pip cannot download {self.package}=={self.version}: {cause}")
            with zipfile.ZipFile(files[0]) as archive:
                archive.extractall(Path(name) / "unpacked")  # pip's own download from the index
            (Path(name) / "unpacked").rename(self._place)


TREX = Wheel("trex", "0.1.5", "trt-engine-explorer")


def node_modules(name: str) -> Path:
    """The folder of that name with what npm has installed for NODE[name]. Raises UnavailableError where it is not here.

    name: "schema" has @grafana/schema and tsc, "kubernetes" Kubernetes' resources and prometheus-operator's.
    """
    return _require(FOLDER / name / "node_modules", NODE[name][0])


def download_node(name: str) -> None:
    """Download NODE[name] by npm, if it is not here yet. Raises UnavailableError."""
    if (FOLDER / name).is_dir():
        return
    packages = NODE[name]
    npm = shutil.which("npm")
    if npm is None:
        raise UnavailableError(f"npm is not installed, and gets {packages[0]}: apt-get install npm")
    with tempfile.TemporaryDirectory(dir=FOLDER) as temporary:
        folder = Path(temporary) / name
        folder.mkdir()
        (folder / "package.json").write_text("{}")  # or npm would install into a folder above
        done = _run([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", *packages], folder)
        if done.returncode:
            raise UnavailableError(f"npm cannot download {packages[0]}: {done.stderr[-400:]}")
        folder.rename(FOLDER / name)


def _run(command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer in {_PATIENCE_S} s")


def _require(place: Path, what: str) -> Path:
    if not place.is_dir():
        raise UnavailableError(f"{what} is not downloaded: make downloads")
    return place


def main() -> None:
    """Download everything, all at the same time."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
    from test_contract import TABLE

    FOLDER.mkdir(parents=True, exist_ok=True)
    works: list[Callable[[], None]] = [partial(download_node, name) for name in NODE]
    works += [wheel.download for wheel in (*TABLE, TREX)]
    with ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(work) for work in works]:
            try:
                future.result()
            except (UnavailableError, OSError) as error:
                print(f"{error}; tests that need it are skipped", file=sys.stderr)


if __name__ == "__main__":
    main()
