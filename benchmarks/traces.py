"""The processor time that it takes to read a trace, and the memory that it takes at most.

    python -m benchmarks.traces [--rows 10000000] [--folder /tmp]

One process for each form: seconds with a column, dates as in Azure's traces (also packed by gzip), ms since 1970, JSONL
as Mooncake's. Ten million rows need 2 GB of the folder.
"""

from __future__ import annotations

import argparse
import gzip
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.load.trace import read_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_EPOCH_NS = 1_700_000_000 * 10**9
_PIECE = 100_000
_AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
_BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
_MOONCAKE = '{"timestamp": %d, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48, 49]}\n'


def _date(ns: int) -> str:
    text = str(np.datetime64(ns, "ns"))
    return f"{text[:10]} {text[11:27]},1000,50\r\n"


# Name of the file: header, and the line of an instant, in ns from the first.
FORMS: dict[str, tuple[str, Callable[[int], str]]] = {
    "seconds.csv": (_BURST, lambda ns: f"{ns / 1e9:.3f},ChatGPT,472,18,490,Conversation log\n"),
    "dates.csv": (_AZURE, lambda ns: _date(_EPOCH_NS + ns)),
    "dates.csv.gz": (_AZURE, lambda ns: _date(_EPOCH_NS + ns)),
    "ms.csv": ("t\n", lambda ns: f"{(_EPOCH_NS + ns) // 10**6}\n"),
    "mooncake.jsonl": ("", lambda ns: _MOONCAKE % (ns // 10**6)),
}


def _lines(rows: int, name: str) -> Iterator[bytes]:
    header, write = FORMS[name]
    yield header.encode()
    random, now = np.random.default_rng(1), 0
    for _ in range(0, rows, _PIECE):
        instants = now + np.cumsum(random.integers(0, 200_000, _PIECE))
        now = int(instants[-1])
        yield "".join(map(write, instants.tolist())).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        began = time.process_time()
        trace = read_trace(given.read)
        took = time.process_time() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(f"{Path(given.read).name:16}{len(trace.instants):>12,} rows  {took:5.1f} s  {peak} MiB", flush=True)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for name in FORMS:
            file = Path(folder) / name
            with gzip.open(file, "wb", 1) if name.endswith(".gz") else file.open("wb") as opened:
                opened.writelines(_lines(given.rows, name))
            subprocess.run([sys.executable, "-m", "benchmarks.traces", "--read", str(file)], check=True)
            file.unlink()


if __name__ == "__main__":
    main()
