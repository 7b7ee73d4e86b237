"""Files and pipes that profiles are read from."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from layer_sides import each, profile_file, result
from loadtrt.errors import UsageError
from loadtrt.records.records import COLUMNS, Records
from loadtrt.report.result_files import SCHEMAS, Kind, ResultFile
from loadtrt.report.sides import holds_results, profile_of, read_side
from loadtrt.report.trtexec import times_json
from loadtrt.results.engine_info import Layer

PASS = each([Layer("conv")], "graph", 1000.0)


def test_a_profile_is_asked_of_what_was_profiled(tmp_path: Path) -> None:
    """The sentence names the file, and what would have one."""
    (tmp_path / "times.json").write_text(times_json(Records(np.zeros((3, len(COLUMNS)), np.int64)), 0, copies=True))
    (tmp_path / "profile.json").write_text(profile_file(PASS))
    with pytest.raises(UsageError, match=r"times is a run that was not profiled: .*loadtrt run --profile"):
        profile_of(read_side(tmp_path / "times.json"), "times")
    assert profile_of(read_side(tmp_path / "profile.json"), "profile") == result(PASS)


@pytest.mark.parametrize("kind", sorted(SCHEMAS.keys() - {Kind.RUN, Kind.PROFILE}))
def test_a_result_that_is_no_side_says_what_to_give(kind: Kind) -> None:
    """Each kind that loadtrt writes."""
    with pytest.raises(UsageError, match=f"^x.json is {kind}.*: give "):
        read_side(ResultFile(Path("x.json"), kind, "{}", {}))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"a": 1}', True),
        (b"[]", True),
        (b' \r\n\t[{"count": 3}]', True),
        (b'\xef\xbb\xbf{"a": 1}', True),
        (b"\xef\xbb\xbf\n\n[]", True),
        (b"ftrt\x00\x00", False),
        (b"\x08\x07\x12\x07pytorch", False),
        (b"", False),
        (None, False),
    ],
)
def test_files_of_results_are_told_from_engines(content: bytes | None, told: bool, tmp_path: Path) -> None:
    """JSON begins with a brace or a bracket, behind a byte order mark or blanks; plans and models do not, nor folders,
    nor what is not there."""
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    assert holds_results(file) is told
    assert not holds_results(tmp_path)


def test_pipes_hold_results_and_are_not_read(tmp_path: Path) -> None:
    """As in `loadtrt compare <(zcat p.json.gz) B`: asking takes nothing out, and waits for nobody who writes."""
    read, write = os.pipe()
    try:
        file = Path(f"/dev/fd/{read}")
        assert holds_results(file)
        with os.fdopen(write, "w") as writer:
            writer.write(profile_file(PASS))
        assert profile_of(read_side(file), "pipe") == result(PASS)
    finally:
        os.close(read)
    os.mkfifo(tmp_path / "nobody-writes")
    assert holds_results(tmp_path / "nobody-writes")
