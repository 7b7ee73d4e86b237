"""Which column of a trace's file holds its instants, by the names of all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadtrt.errors import UsageError
from loadtrt.load.instants import NoInstantError, Texts, read_instants
from loadtrt.printing import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

# Columns that hold instants by their names, where a file has several: the first of these that it has.
_INSTANTS = (
    *("timestamp", "arrival_time", "arrival_timestamp", "arrived_at", "start_time", "created_at", "datetime"),
    *("time", "ts"),
)
# A unit at the end of such a name; `time_ms` may as well be how long a request took.
_UNIT = re.compile(r"(?<!^time)(_(unix|epoch|utc|n?s|[mµu]s|sec|seconds|(milli|micro|nano)(s|sec|seconds)?))+$")
# Azure's functions (2021) are logged at their end, in seconds: they arrived `duration` earlier.
AZURE_FUNCTIONS = frozenset({"app", "func", "end_timestamp", "duration"})
# Mooncake's are in ms. Qwen's traces have these keys with others, and are in seconds.
MOONCAKE = frozenset({"timestamp", "input_length", "output_length", "hash_ids"})


def choose(file: str, names: Sequence[str], column: str | None) -> str:
    """The name of the column that holds instants.

    names: of all columns or keys of the trace in `file`.
    column: the one that the user chose, None where the names tell.

    Raises UsageError where the user's is none of them, and where they do not tell.
    """
    if any(map(_is_date, names if column is None else [column])):
        raise UsageError(
            f"trace {file} has no instants in its first column, and no names of columns above: write instants there, "
            "such as 2023-11-16 18:17:03.98, or a line of names"
        )
    listed = shortened(", ".join(names), 400)
    if column is not None and column not in names:
        raise UsageError(f"trace {file} has no column '{shortened(column)}': use one of {listed}")
    if column is not None or len(names) == 1:
        return column or names[0]
    if set(names) == AZURE_FUNCTIONS:
        return "end_timestamp"
    plain = {_plain(name): name for name in reversed(names)}
    known = next((name for name in _INSTANTS if name in plain), None)
    if known is None:
        raise UsageError(f"trace {file} has the columns {listed}: choose one with --trace-column")
    if known == "time" and "date" in plain:
        raise UsageError(
            f"trace {file} has a column of dates and one of times: write both into one, or choose one by --trace-column"
        )
    return plain[known]


def _plain(name: str) -> str:
    """A name as in _INSTANTS: startTimeMillis and "Start time (ms)" are start_time."""
    words = re.sub(r"[^a-z0-9µ]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()).strip("_")
    return _UNIT.sub("", words)


def _is_date(text: str) -> bool:
    """Whether a text is a date or a time of day."""
    return ":" in text and is_instant(text)


def is_instant(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        try:
            read_instants(Texts.of([text.strip()]))
        except NoInstantError:
            return False
    return True
