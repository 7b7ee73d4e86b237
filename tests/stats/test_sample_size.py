"""How many samples weighted ones are worth."""

from __future__ import annotations

import numpy as np
import pytest

from loadtrt.stats.sample_size import kish_size


def test_weights_are_worth_as_many_as_vary_as_much() -> None:
    """The variance of a weighted mean of independent values is that of one over this number of them."""
    random = np.random.default_rng(1)
    for weights in (np.ones(7), np.array([5.0, 1, 1, 1]), random.exponential(1, 50)):
        shares = weights / weights.sum()
        means = random.standard_normal((20_000, len(weights))) @ shares
        assert kish_size(weights) == pytest.approx(1 / means.var(), rel=0.05)
        assert kish_size(7 * weights) == pytest.approx(kish_size(weights))


def test_a_count_is_a_weight_so_many_times() -> None:
    weights, counts = np.array([1.0, 3.0, 9.0]), np.array([4, 2, 1])
    assert kish_size(weights, counts) == pytest.approx(kish_size(np.repeat(weights, counts)))
    assert kish_size(np.zeros(3)) == 0
