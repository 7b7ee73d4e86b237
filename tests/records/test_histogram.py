"""The log-linear histogram against plain arrays."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.records.histogram import BUCKETS, QUANTILE_ERROR, Histogram, bounds_of, bucket_of


def _bucket_by_shifts(value: int) -> int:
    """The definition: octave by octave, 128 equal buckets in each from 128 on."""
    shift = max(min(max(value, 0), (1 << 44) - 1).bit_length() - 8, 0)
    return shift * 128 + (min(max(value, 0), (1 << 44) - 1) >> shift)


values_ns = st.lists(st.integers(0, (1 << 44) - 1), min_size=1, max_size=200)


def _filled(values: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.add(np.array(values, np.int64))
    return histogram


def test_buckets_by_a_floats_bits_are_those_by_shifts_at_every_edge() -> None:
    """Around the lower bound of every bucket, and beyond both ends."""
    low, _ = bounds_of(np.arange(BUCKETS))
    edges = np.concatenate(
        [low + step for step in (-2, -1, 0, 1, 2)] + [np.array([-(1 << 62), (1 << 44) - 1, 1 << 44, 1 << 62])]
    )
    assert bucket_of(edges).tolist() == [_bucket_by_shifts(int(value)) for value in edges]
    assert bucket_of(np.arange(5000)).tolist() == [_bucket_by_shifts(value) for value in range(5000)]


@given(st.lists(st.integers(-(1 << 62), 1 << 62) | st.integers(0, (1 << 44) - 1), max_size=200))
def test_buckets_by_a_floats_bits_are_those_by_shifts(values: list[int]) -> None:
    """Of any int64, in an array of any shape that holds them."""
    array = np.array([values, values], np.int64)
    assert bucket_of(array).tolist() == [[_bucket_by_shifts(value) for value in values]] * 2


@given(values_ns)
def test_a_bucket_holds_its_values(values: list[int]) -> None:
    """low(b(v)) ≤ v < low(b(v)) + width(b(v)), and buckets ascend with values."""
    array = np.sort(np.array(values, np.int64))
    buckets = bucket_of(array)
    low, width = bounds_of(buckets)
    assert ((low <= array) & (array < low + width)).all()
    assert (np.diff(buckets) >= 0).all()
    assert buckets.max() < BUCKETS


@given(values_ns, st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_within_its_stated_error(values: list[int], rank: float) -> None:
    """|q̂ − q| ≤ q / 256 for the nearest-rank quantile q."""
    exact = sorted(values)[max(int(np.ceil(rank * len(values))), 1) - 1]
    (found,) = _filled(values).quantiles((rank,))
    assert abs(found - exact) <= exact * QUANTILE_ERROR


@given(values_ns, values_ns, values_ns)
def test_merging_is_associative_and_equals_recording_everything(a: list[int], b: list[int], c: list[int]) -> None:
    """(a + b) + c = a + (b + c) = all, in counts, sum, minimum and maximum."""
    left, right, tail = _filled(a), _filled(a), _filled(b)
    left.merge(_filled(b))
    left.merge(_filled(c))
    tail.merge(_filled(c))
    right.merge(tail)
    assert left.to_dict() == right.to_dict() == _filled(a + b + c).to_dict()


@given(values_ns)
def test_json_gives_the_same_histogram_back(values: list[int]) -> None:
    """from_dict(to_dict(h)) = h."""
    histogram = _filled(values)
    assert Histogram.from_dict(histogram.to_dict()).to_dict() == histogram.to_dict()


def test_beyond_five_hours_the_maximum_stays_exact() -> None:
    """Longer values share the last bucket; max is kept beside it."""
    histogram = _filled([1 << 50])
    assert (histogram.max, histogram.count, histogram.counts[-1]) == (1 << 50, 1, 1)
