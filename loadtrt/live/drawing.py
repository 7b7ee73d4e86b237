"""Numbers as characters: columns of eighths of a block, bars, histograms; and all of it in ASCII."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.histogram import bounds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_EIGHTHS = 8
_UPWARDS = {True: " ▁▂▃▄▅▆▇█", False: " _.-=+*##"}
_TRANSLATED = str.maketrans("·→…×≈°µ–✓✗▴━─▕", "|>~x~ u-+x^=-|")  # one for one: styles keep their places
_LEAST_SPREAD = 0.1  # of the middle: a narrow histogram stays a peak


def ascii_of(text: str) -> str:
    """The same in ASCII; what has no likeness there becomes a question mark."""
    return text.translate(_TRANSLATED).encode("ascii", "replace").decode("ascii")


def columns(values: Sequence[float | None], height: int, top: float, *, unicode: bool = True) -> list[str]:
    """`height` lines, the uppermost first, with a column for each value from 0 to `top`; None is left blank.

    A value above 0 is seen: it has an eighth of a line at least.
    """
    glyphs, scale = _UPWARDS[unicode], height * _EIGHTHS
    filled = [0 if not value or top <= 0 else min(max(round(value / top * scale), 1), scale) for value in values]
    return [
        "".join(glyphs[min(max(eighths - base, 0), _EIGHTHS)] for eighths in filled)
        for base in range((height - 1) * _EIGHTHS, -1, -_EIGHTHS)
    ]


def bar(share: float, width: int) -> tuple[str, str]:
    """A bar of `width` characters: the part of it that is `share`, in [0, 1], and the rest."""
    done = round(min(max(share, 0.0), 1.0) * width)
    return "━" * done, "─" * (width - done)


def span_of(histogram: Sequence[tuple[int, int]], tail: float) -> tuple[float, float]:
    """(low, high) in ns that hold all but a `tail` of a Histogram's counts at either end, as (bucket, count) pairs in
    order, and not narrower than a peak can be seen in. Needs a count."""
    buckets, counts = np.array(histogram, np.int64).T
    lows, widths = bounds_of(buckets)
    reached = np.cumsum(counts)
    first = int(np.searchsorted(reached, tail * reached[-1], side="right"))
    last = int(np.searchsorted(reached, (1 - tail) * reached[-1]))
    low, high = float(lows[first]), float(lows[last] + widths[last])
    lacking = max(_LEAST_SPREAD * (low + high) / 2 - (high - low), 0.0)
    return max(low - lacking / 2, 0.0), high + lacking / 2


def binned(histogram: Sequence[tuple[int, int]], low: float, high: float, count: int) -> list[float]:
    """How many values fall in each of `count` equal parts of [low, high) ns; a bucket's are spread evenly over it."""
    buckets, counts = np.array(histogram, np.int64).T
    lows, widths = bounds_of(buckets)
    reached = np.cumsum(counts)
    instants = np.stack([lows, lows + widths], axis=1).reshape(-1)
    grown = np.stack([reached - counts, reached], axis=1).reshape(-1)
    parts = np.diff(np.interp(np.linspace(low, high, count + 1), instants, grown))
    found: list[float] = parts.round(6).tolist()  # no count is made of rounding errors
    return found
