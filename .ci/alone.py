"""Run a command, and fail if it leaves files outside its temporary folders or opens a connection beyond this machine.

    .ci/alone.py COMMAND...

The command gets an empty home and an empty folder for temporary files. strace, where it may be used, watches every
connect() of its processes; where it may not, a line on stderr says so. What the command prints stays last where all is
well.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which

LOOPBACK = re.compile(
    r'sin_addr=inet_addr\("(127\.[0-9.]+|0\.0\.0\.0)"\)|inet_pton\(AF_INET6, "(::1|::|::ffff:127\.[0-9.]+)"'
)
KEPT = ("pytest-of-",)  # the last three runs' folders, which pytest itself removes


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="alone-") as folder:
        home, temporary, log = (Path(folder, name) for name in ("home", "tmp", "connections"))
        home.mkdir()
        temporary.mkdir()
        before = _untracked()
        strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect", "-o", str(log)]
        watched = which("strace") is not None and not subprocess.run([*strace, "true"], check=False).returncode
        if not watched:
            print("strace cannot be used here: connections are not watched", file=sys.stderr)
        environment = {**os.environ, "HOME": str(home), "TMPDIR": str(temporary)}
        code = subprocess.run([*(strace if watched else ()), *sys.argv[1:]], env=environment, check=False).returncode
        left = [str(path) for path in (*home.rglob("*"), *temporary.iterdir()) if not path.name.startswith(KEPT)]
        left += sorted(_untracked() - before)
        away = [line for line in log.read_text(errors="replace").splitlines() if _leaves(line)] if watched else []
    for what, found in (("files were left", left), ("connections beyond this machine were opened", away)):
        if found:
            print(f"{what}:", *found[:20], sep="\n  ", file=sys.stderr)
    return code or bool(left or away)


def _untracked() -> set[str]:
    listed = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True)  # noqa: S607
    return set(listed.stdout.splitlines())


def _leaves(line: str) -> bool:
    return ("AF_INET" in line) and LOOPBACK.search(line) is None


if __name__ == "__main__":
    sys.exit(main())
