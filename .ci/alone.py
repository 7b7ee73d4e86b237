"""Run a command, and fail if it leaves files outside its temporary folders or asks for another machine.

    .ci/alone.py COMMAND...

The command gets an empty home, an empty folder for temporary files and, where that is permitted, a network of its own
that has the loopback interface alone: the kernel counts what it has no route for. Where it is not permitted, a line on
stderr says so. What the command prints stays last where all is well.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

KEPT = ("pytest-of-",)  # folders that pytest itself removes after three runs
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
NETWORK = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--net", "--map-root-user")


def main() -> int:
    if sys.argv[1] == "--inside":
        return _inside(Path(sys.argv[2]), sys.argv[3:])
    with tempfile.TemporaryDirectory(prefix="alone-") as folder:
        home, temporary, unrouted = (Path(folder, name) for name in ("home", "tmp", "unrouted"))
        home.mkdir()
        temporary.mkdir()
        before = _untracked()
        own = not subprocess.run([*NETWORK, "true"], capture_output=True, check=False).returncode
        if not own:
            print("no network of its own is permitted here: connections are not counted", file=sys.stderr)
        within = [*NETWORK, sys.executable, __file__, "--inside", str(unrouted)] if own else []
        environment = {**os.environ, "HOME": str(home), "TMPDIR": str(temporary)}
        code = subprocess.run([*within, *sys.argv[1:]], env=environment, check=False).returncode
        left = [str(path) for path in (*home.rglob("*"), *temporary.iterdir()) if not path.name.startswith(KEPT)]
        left += sorted(_untracked() - before)
        asked = int(unrouted.read_text()) if own else 0
    if left:
        print("files were left:", *left[:20], sep="\n  ", file=sys.stderr)
    if asked:
        print(f"other machines were asked for {asked} times", file=sys.stderr)
    return code or bool(left or asked)


def _inside(unrouted: Path, command: list[str]) -> int:
    """Run a command with the loopback interface up, and write how often no route was found."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack_from("16sH", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))
    before = _unrouted()
    code = subprocess.run(command, check=False).returncode
    unrouted.write_text(str(_unrouted() - before))
    return code


def _unrouted() -> int:
    names, values = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:")]
    of_v6 = [line.split() for line in Path("/proc/net/snmp6").read_text().splitlines()]
    return int(values[names.index("OutNoRoutes")]) + sum(
        int(count) for name, count in of_v6 if name == "Ip6OutNoRoutes"
    )


def _untracked() -> set[str]:
    listed = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True)  # noqa: S607
    return set(listed.stdout.splitlines())


if __name__ == "__main__":
    sys.exit(main())
