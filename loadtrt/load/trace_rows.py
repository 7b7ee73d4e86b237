"""The rows of a trace's file: CSV, columns between blanks, logs, JSONL and JSON, packed by gzip or not, by blocks."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.errors import UsageError
from loadtrt.load.instants import DATE_AND_TIME, Texts
from loadtrt.load.trace_blocks import LONGEST_LINE, blocks_of, first_line, opened_trace, written_lines
from loadtrt.load.trace_columns import AZURE_FUNCTIONS, MOONCAKE, choose, is_instant
from loadtrt.printing import shortened
from loadtrt.reading_files import MOST_RESULT_BYTES
from loadtrt.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_BATCH_ROWS = 1 << 16  # of Python's own readers
# A log's line begins with its date, or holds it in brackets, as web servers' do.
_LOG = re.compile(rf"\[\d\d/[A-Z][a-z]{{2}}/\d{{4}}:[^\]]*\]|(?:^|(?<=\s))\[?{DATE_AND_TIME}\]?(?=\s+\S)".encode())
_TIME = rb"\s*\[?(?:(?:\d{4}[-/]\d\d[-/]\d\d[T ]+)?\d\d:\d\d:\d\d|\d{8}T\d{6})"
_PLACES = rb",(?:\d{3}){1,3}(?!\d)"  # ms, µs or ns
# An instant alone, with or without a comma in its seconds; and one whose comma may as well begin a column.
_COMMA_OF_SECONDS = re.compile(_TIME + rb"(?:" + _PLACES + rb")?\s*(?:[A-Z]{1,3}|[+-]\d\d:?\d\d)?\]?\s*")
_COMMA_OF_EITHER = re.compile(_TIME + _PLACES)
_DATE_BEFORE_TIME = re.compile(rb"(?<!\S)\d{4}[-/]\d\d[-/]\d\d\s+(?=\d\d:)")  # one cell between blanks


@dataclass(slots=True)
class Batch:
    """Instants of rows, as they are written.

    texts: of the instants.
    before: of durations by which the instants are to be earlier; None without.
    place_of: where a text stands, by its index: file and line, or number of the item.
    """

    texts: Texts
    place_of: Callable[[int], str]
    before: Texts | None = None


@dataclass(slots=True)
class Rows:
    """The rows of the trace in `file`.

    column: name of the column or key, None where the file tells.
    chosen: the one that is read, "" where there are no names; known once rows have been read, as is
    commas: whether a comma divides the seconds of instants, as in 10:00:00,250.
    keys: all names that the file has.
    """

    file: str
    column: str | None = None
    chosen: str = ""
    commas: bool = False
    keys: frozenset[str] = field(default_factory=frozenset)

    def batches(self) -> Iterator[Batch]:
        """Raises UsageError for what cannot be read, or has no such column."""
        with opened_trace(self.file) as opened:
            try:
                blocks = blocks_of(self.file, opened)
                for line, block in blocks:
                    first, skipped = first_line(block)
                    if first:
                        rest = chain([(line + skipped, block.split(b"\n", skipped)[-1])], blocks)
                        yield from self._rows(first.decode("utf-8"), rest)
            except UnicodeDecodeError:
                why = "it is not text in UTF-8; convert text with `iconv -f LATIN1 -t UTF-8`"
                raise UsageError(f"trace {self.file} is neither CSV nor JSONL: {why}") from None
            except csv.Error as error:
                raise UsageError(f"trace {self.file} is neither CSV nor JSONL: {error}") from None
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise UsageError(f"trace {self.file} is a damaged gzip file: {error}: fetch it again") from None
            except OSError as error:
                raise UsageError(f"cannot read trace {self.file}: {error.strerror or error}") from None

    def _rows(self, first: str, blocks: Iterator[tuple[int, bytes]]) -> Iterator[Batch]:
        if first.lstrip().startswith("{"):
            return self._of_json_lines(blocks)
        if "\0" in first:
            raise UsageError(f"trace {self.file} is neither CSV nor JSONL: it is binary data")
        date = _LOG.search(first.encode())
        if date and (date.start() == 0 or not is_instant(first.split(maxsplit=1)[0])):
            return self._of_log(blocks)
        if re.match(r"\s*\[\s*([\[{\"'\d.-]|$)", first) and not is_instant(first):
            return self._of_json(blocks)
        unquoted = re.sub(r'"[^"]*"', "", first)
        comma = bool(_COMMA_OF_EITHER.match(first.encode()))
        delimiter = max(";\t|," if comma else ",;\t|", key=unquoted.count)
        head = next(blocks)
        blocks, lines = chain([head], blocks), written_lines(1, head[1], 0)[1]
        words = [re.sub(rb'"[^"]*"', b'""', line).split() for line in lines[:2]]
        whole = any(is_instant(line.decode("utf-8", "replace")) for line in lines[:2])
        if delimiter not in unquoted and not whole and min(map(len, words)) > 1:
            return self._between_blanks(first, blocks)
        if delimiter not in unquoted or all(map(_COMMA_OF_SECONDS.fullmatch, lines)):
            delimiter = "\t"  # one column: any comma is of the seconds
            self.commas = any(map(_COMMA_OF_EITHER.match, lines))
        elif delimiter == "," and all(map(_COMMA_OF_EITHER.match, lines)):
            either = "a comma after its seconds, of a fraction or a column: quote its instants, or write a header"
            raise UsageError(f"trace {self.file} has {either}")
        return self._of_csv(first, blocks, delimiter)

    def _of_csv(self, first: str, blocks: Iterator[tuple[int, bytes]], delimiter: str) -> Iterator[Batch]:
        csv.field_size_limit(LONGEST_LINE)
        head = next(csv.reader([first], delimiter=delimiter))
        places, skip = self._places(head)
        for line, block in blocks:
            if b'"' in block:  # a cell may hold delimiters and ends of lines
                yield from self._of_quoted(chain([(line, block)], blocks), delimiter, places, skip, len(head))
                return
            yield from self._of_cells(line, block, delimiter, places, skip, len(head))
            skip = 0

    def _too_many(self, line: int, cells: int, most: int) -> UsageError:
        return UsageError(
            f"{self.file}:{line} has {cells} cells, where the first line has {most}: write as many, and in quotes "
            "those that hold a delimiter, such as the comma of a date's seconds"
        )

    def _of_quoted(
        self, blocks: Iterable[tuple[int, bytes]], delimiter: str, places: Sequence[int], skip: int, most: int
    ) -> Iterator[Batch]:
        numbers = iter(blocks)
        start, block = next(numbers)
        rest = chain([block], (block for _, block in numbers))
        lines = (line for block in rest for line in block.decode("utf-8").removesuffix("\n").split("\n"))
        rows = csv.reader(_without_comments(lines), delimiter=delimiter)
        numbered = ((start - 1 + rows.line_num, row) for row in islice(rows, skip, None) if row)
        while batch := list(islice(numbered, _BATCH_ROWS)):
            for line, row in batch:
                if len(row) > most and any(row[most:]):
                    raise self._too_many(line, len(row), most)
            cells = [[row[place] if place < len(row) else "" for _, row in batch] for place in places]
            yield self._batch(cells, [line for line, _ in batch])

    def _of_cells(
        self, first: int, block: bytes, delimiter: str, places: Sequence[int], skip: int, most: int
    ) -> Iterator[Batch]:
        """The batch of a block of CSV without quotes: cells are found by the places of delimiters and ends of lines."""
        data = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(data == ord("\n"))
        starts = np.concatenate([[0], ends[:-1] + 1])
        ends = ends - ((ends > starts) & (data[ends - 1] == ord("\r")))
        kept = np.flatnonzero((ends > starts) & (data[starts] != ord("#")))[skip:]
        if not len(kept):
            return
        starts, ends = starts[kept], ends[kept]
        marks = np.flatnonzero(data == ord(delimiter))
        before, behind = np.searchsorted(marks, starts), np.searchsorted(marks, ends)
        empty_last = data[ends - 1] == ord(delimiter)
        if (wrong := behind - before - empty_last >= most).any():
            index = int(np.argmax(wrong))
            raise self._too_many(first + int(kept[index]), int(behind[index] - before[index]) + 1, most)
        marks = np.concatenate([marks, [0]])
        cells = []
        for place in places:
            begins = np.where(
                before + place <= behind, starts if not place else marks[_least(before + place - 1, marks)] + 1, ends
            )
            stops = np.where(before + place < behind, marks[_least(before + place, marks)], ends)
            cells.append(Texts(data, begins, stops))
        yield Batch(cells[0], lambda index: f"{self.file}:{first + int(kept[index])}", *cells[1:])

    def _batch(self, cells: list[list[Any]], lines: Sequence[int]) -> Batch:
        texts = [Texts.of(column) for column in cells]
        return Batch(texts[0], lambda index: f"{self.file}:{lines[index]}", *texts[1:])

    def _between_blanks(self, first: str, blocks: Iterator[tuple[int, bytes]]) -> Iterator[Batch]:
        # A date and its time of day are one instant, whether the header has two names for them or one.
        names = re.sub(r"\bdate\s+(?=time\b)", "", first, flags=re.IGNORECASE).split()
        places, skip = self._places(names)
        place = places[0]
        for line, block in blocks:
            numbers, lines = written_lines(line, block, skip)
            skip = 0
            rows = [text.split(maxsplit=place + 2) for text in lines]
            for number, text in zip(numbers, lines, strict=True) if place else ():
                if (cells := len(_DATE_BEFORE_TIME.sub(b"", text).split())) > len(names):
                    raise self._too_many(number, cells, len(names))
            yield self._batch([[_joined(row[place : place + 2]) for row in rows]], numbers)

    def _of_log(self, blocks: Iterator[tuple[int, bytes]]) -> Iterator[Batch]:
        if self.column is not None:
            raise UsageError(f"trace {self.file} is a log without columns: remove --trace-column")
        for line, block in blocks:
            numbers, lines = written_lines(line, block, 0)
            found = [_LOG.search(text) for text in lines]
            yield self._batch(
                [[match[0] if match else text for match, text in zip(found, lines, strict=True)]], numbers
            )

    def _of_json_lines(self, blocks: Iterator[tuple[int, bytes]]) -> Iterator[Batch]:
        for line, block in blocks:
            if self.chosen and (texts := self._of_flat_objects(block)):
                yield self._batch([texts], range(line, line + len(texts)))
                continue
            numbers, lines = written_lines(line, block, 0)
            try:
                items = _json(b"[" + b",".join(lines) + b"]")
            except (ValueError, RecursionError):
                items = []
            if len(items) != len(lines):  # something is wrong with one of them: which?
                items = [self._item(number, text) for number, text in zip(numbers, lines, strict=True)]
            if lines:
                yield self._of_items(items, [f"{self.file}:{number}" for number in numbers])

    def _of_flat_objects(self, block: bytes) -> list[bytes]:
        """The instants of lines that are an object each without another in it, found by their key in a twentieth of the
        time that parsing takes; none where that cannot be told so."""
        lines, key = block.count(b"\n"), json.dumps(self.chosen).encode()
        marks = {b"{": lines, b"}": lines, b"\n{": lines - 1, b"}\n": lines, key: lines, b"\\": 0}
        if not block.startswith(b"{") or any(block.count(mark) != count for mark, count in marks.items()):
            return []
        texts = re.findall(re.escape(key) + rb"\s*:\s*(\"[^\"]*\"|[^\s,}\"]+)\s*[,}]", block)
        return [text.strip(b'"') for text in texts] if len(texts) == lines else []

    def _item(self, number: int, text: bytes) -> Any:
        try:
            return _json(text)
        except UnicodeDecodeError:
            raise
        except (ValueError, RecursionError):
            raise UsageError(f"{self.file}:{number} is not JSON: write one object a line") from None

    def _of_json(self, blocks: Iterator[tuple[int, bytes]]) -> Iterator[Batch]:
        line, block = next(blocks)
        pieces = bytearray(block)
        for _, block in blocks:
            pieces += block
            if len(pieces) > MOST_RESULT_BYTES:
                many = format_bytes(MOST_RESULT_BYTES)
                raise UsageError(f"trace {self.file} is JSON of more than {many}: write one object a line")
        try:
            items = _json(bytes(pieces))
        except json.JSONDecodeError as error:
            raise UsageError(f"{self.file}:{line - 1 + error.lineno} is not JSON: {error.msg}") from None
        except RecursionError:
            raise UsageError(f"{self.file}:{line} is not JSON: it is nested too deep") from None
        if not items:
            return
        if not isinstance(items[0], dict):  # the instants themselves
            items = [{"": item} for item in items]
            if self.column is not None:
                raise UsageError(f"trace {self.file} has no keys, and so no '{self.column}': remove --trace-column")
        places = [f"item {number} of {self.file}" for number in range(1, len(items) + 1)]
        yield self._of_items(items, places)

    def _of_items(self, items: list[Any], places: list[str]) -> Batch:
        for item, place in zip(items, places, strict=True):
            if not isinstance(item, dict):
                raise UsageError(f'{place} is not a JSON object: write one a line, such as {{"time": 1.25}}')
            if not self.keys:
                self._choose(list(item))
            if self.chosen not in item:
                raise UsageError(f"{place} has no '{shortened(self.chosen)}': write it on every line")
        values = [item[self.chosen] for item in items]
        nested = next((place for value, place in zip(values, places, strict=True) if isinstance(value, dict | list)), 0)
        if nested:
            where = f" under '{shortened(self.chosen)}'" if self.chosen else ""
            has = f"an object or a list{where} in the place of an instant"
            raise UsageError(f'{nested} has {has}: write one flat object a line, such as {{"time": 1.25}}')
        texts = Texts.of([value if isinstance(value, str) else json.dumps(value) for value in values])
        return Batch(texts, places.__getitem__)

    def _places(self, cells: list[str]) -> tuple[list[int], int]:
        """(places of the columns that are read, how many lines of header there are) by the first line's cells."""
        if is_instant(cells[0]):
            if self.column is not None:
                lacks = f"no header, and so no column '{self.column}'"
                raise UsageError(f"trace {self.file} has {lacks}: remove --trace-column")
            return [0], 0
        names = [name.strip() for name in cells]
        self._choose(names)
        places = [names.index(self.chosen)]
        if self.column is None and set(names) == AZURE_FUNCTIONS:
            places.append(names.index("duration"))
        return places, 1

    def _choose(self, names: list[str]) -> None:
        self.keys = frozenset(names)
        self.chosen = choose(self.file, names, self.column)

    @property
    def in_ms(self) -> bool:
        """Whether the file's own definition says that its instants are in ms."""
        return self.keys == MOONCAKE and self.chosen == "timestamp"

    @property
    def several(self) -> bool:
        """Whether one of several columns was chosen here."""
        return self.column is None and len(self.keys) > 1


def _least(places: Any, marks: Any) -> Any:
    return np.minimum(places, len(marks) - 1)


def _without_comments(lines: Iterable[str]) -> Iterator[str]:
    """The lines, blank where they are comments; in a cell of several lines none is."""
    quoted = False
    for line in lines:
        yield "\n" if line.startswith("#") and not quoted else f"{line}\n"
        quoted ^= bool(line.count('"') % 2)


def _joined(words: list[bytes]) -> bytes:
    """A date and its time of day, which a blank parts; else the first word."""
    if len(words) > 1 and re.fullmatch(rb"\d{4}[-/]\d\d[-/]\d\d", words[0]):
        return b" ".join(words)
    return words[0] if words else b""


def _json(text: bytes) -> Any:
    """With numbers as they are written, as floats are inexact. Raises ValueError and RecursionError."""
    return json.loads(text.decode("utf-8"), parse_float=str, parse_int=str)
