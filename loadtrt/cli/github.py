"""`--github`: what a command found as annotations and as the summary of a step of GitHub Actions."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from loadtrt.asked.reading import FIELDS
from loadtrt.cli.delivery import show
from loadtrt.errors import UsageError
from loadtrt.files import reason, require_writable
from loadtrt.printing import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.report.document import Section
    from loadtrt.report.gates import Case
    from loadtrt.report.result_files import Result

SUMMARY = "GITHUB_STEP_SUMMARY"
_untold: set[str] = set()  # names the summary's file where --github was given and nothing was told yet
GITHUB_HELP = str(FIELDS["github"].description)


def require_summary(wanted: bool | None) -> None:
    """Raise UsageError, before anything is measured, where --github is `wanted` and there is no file for a summary."""
    _untold.clear()
    if not wanted:
        return
    if not os.environ.get(SUMMARY):
        raise UsageError(
            f"--github is for a step of GitHub Actions, and ${SUMMARY} names no file here: leave --github out, or set "
            "that variable to a file"
        )
    require_writable(f"--github: ${SUMMARY}", os.environ[SUMMARY])
    _untold.add(os.environ[SUMMARY])


def tell_failure(sentence: str) -> None:
    """Tell GitHub, on stderr, why a command with --github ended before it had a result."""
    if _untold:
        from loadtrt.report.annotations import command

        _untold.clear()
        show(f"{command('error', 'loadtrt', sentence)}\n", sys.stderr)


def tell_result(result: Result, code: int, json_file: str | None) -> None:
    """Tell GitHub of a result. code: exit code of the command."""
    from loadtrt.report.gates import cases_of, subject_of
    from loadtrt.report.sections import sections_of

    kept = "" if json_file in (None, "-") else str(json_file)
    tell(subject_of(result), cases_of(result, code), list(sections_of(result, kept, "result")), json_file)


def tell(subject: str, cases: Sequence[Case], document: Sequence[Section], json_file: str | None) -> None:
    """Write annotations to stdout, or to stderr where stdout is the file of --json, and append the document to the
    step's summary. A summary that cannot be written is said, and changes nothing else."""
    from loadtrt.report.annotations import MOST_SUMMARY_BYTES, annotation_lines, summary

    _untold.clear()
    lines = "".join(f"{line}\n" for line in annotation_lines(subject, cases))
    show(lines, sys.stderr if json_file == "-" else sys.stdout)
    try:
        with open(os.environ[SUMMARY], "ab") as file:
            taken = file.tell()
            text = summary(document, MOST_SUMMARY_BYTES - taken - 1)
            if text:
                file.write((("\n" if taken else "") + text).encode("utf-8", "replace"))
    except OSError as error:
        say(f"the summary for GitHub was not written to {os.environ[SUMMARY]}: {reason(error)}")
        return
    if not text:
        say(f"GitHub takes 1 MiB of summary a step, and {os.environ[SUMMARY]} has no room for this one")
