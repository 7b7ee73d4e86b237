"""How far a predicted capacity is off by the sampling error of the service times that it was made of."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loadtrt.asked.load import Rate
from loadtrt.asked.reading import read_load
from loadtrt.records.histogram import Histogram
from loadtrt.sizing.scaling import sampling_error
from loadtrt.sizing.station import interpolated, station, work_of
from loadtrt.units import SECOND_NS

SAMPLES, MEAN_NS = 3000, 1e6


@pytest.mark.parametrize("busy", [0.15, 0.25, 0.5])
def test_a_rate_is_less_certain_than_p99_where_p99_hardly_depends_on_it(busy: float) -> None:
    """M/M/1: p99 is ln 100 / (μ − λ), and d ln p99 / d ln λ = ρ / (1 − ρ)."""
    alone = Histogram()
    alone.add(np.ceil(np.random.default_rng(1).exponential(MEAN_NS, SAMPLES)).astype(np.int64))
    work, mean_ns, _ = work_of(alone)
    served = SECOND_NS / mean_ns
    queue = station(1, 1, interpolated({1: served}), work)
    load = read_load({"rate": 1000.0})
    assert isinstance(load, Rate)
    bounds = [(round(math.log(100) / (served * (1 - busy)) * SECOND_NS), 0.01)]
    found = sampling_error(queue, alone, load, bounds, busy * served, 100_000, 7)
    of_p99 = math.sqrt(0.01 * 0.99 / SAMPLES) / (0.01 * math.log(100))
    expected = of_p99 * (1 - busy) / busy
    assert 0.8 * expected < found < 2 * math.hypot(expected, 1.5 / math.sqrt(SAMPLES / 6))
