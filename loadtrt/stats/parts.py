"""Requests of several kinds, each kind by itself, and the batches that a batcher made of single ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.histogram import Histograms
from loadtrt.records.records import METRICS, Records
from loadtrt.results.breakdown import Batches, MixPart
from loadtrt.stats.summary import summarize

if TYPE_CHECKING:
    from collections.abc import Sequence


def mix_of(records: Records, parts: Sequence[tuple[str, float]], sets: int, steady: bool = True) -> list[MixPart]:
    """Each part of a mix by itself, from the kept records. parts: (name, weight) of each; sets: input sets of each;
    steady: the load."""
    rows = []
    for number, (name, weight) in enumerate(parts):
        chosen = Records(records.rows[records.inputs // sets == number])
        table = Histograms(len(METRICS))
        for metric, histogram in zip(METRICS, table.each, strict=True):
            histogram.add(metric.values(chosen))
        histograms = dict(zip((metric.name for metric in METRICS), table.each, strict=True))
        metrics = summarize(chosen, histograms, complete=True, steady=steady)
        rows.append(MixPart(name=name, offered_share=weight, requests=len(chosen.ok), metrics=metrics))
    return rows


def batches_of(records: Records, sizes: Sequence[int]) -> Batches | None:
    """The batches that were formed, from the kept records: requests of one lane that completed at one instant. sizes:
    what the engine computed for each input set. None: nothing was served."""
    ok = records.ok
    if not len(ok):
        return None
    order = np.lexsort((ok.lane, ok.completed))
    completed, lane, inputs = ok.completed[order], ok.lane[order], ok.inputs[order]
    first = np.flatnonzero(np.append(True, (np.diff(completed) != 0) | (np.diff(lane) != 0)))
    counts = np.diff(np.append(first, len(completed)))
    formed, times = np.unique(counts, return_counts=True)
    return Batches(
        counts=dict(zip(formed.tolist(), times.tolist(), strict=True)),
        mean=float(counts.mean()),
        padded=1 - float(counts.sum() / np.asarray(sizes)[inputs[first]].sum()),
    )
