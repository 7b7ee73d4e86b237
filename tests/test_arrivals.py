"""Due instants: what the processes promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loadtrt.errors import UsageError
from loadtrt.load.arrivals import due_instants

SECOND = 1_000_000_000


def test_constant_arrivals_never_drift() -> None:
    """t_k = k / rate, also for the millionth."""
    due = due_instants("constant", 300.0, 3600 * SECOND, 0, seed=1)
    assert len(due) == 300 * 3600
    assert due[-1] == round((len(due) - 1) * SECOND / 300)


def test_poisson_counts_have_the_mean_and_variance_of_poisson() -> None:
    """Counts in disjoint windows have mean = variance = rate · window; gaps are exponential (CV 1)."""
    due = due_instants("poisson", 1000.0, 400 * SECOND, 0, seed=3)
    counts = np.bincount(due // SECOND, minlength=400)
    assert abs(counts.mean() - 1000) < 4 * math.sqrt(1000 / 400)
    assert 0.75 < counts.var() / 1000 < 1.3
    gaps = np.diff(due)
    assert abs(gaps.std() / gaps.mean() - 1) < 0.01


def test_the_same_seed_draws_the_same_instants() -> None:
    """Seeds decide; another seed draws others; a longer schedule begins with the shorter."""
    first = due_instants("poisson", 700.0, 2 * SECOND, 0, seed=5)
    assert np.array_equal(first, due_instants("poisson", 700.0, 2 * SECOND, 0, seed=5))
    assert not np.array_equal(first[:100], due_instants("poisson", 700.0, 2 * SECOND, 0, seed=6)[:100])


def test_both_time_and_number_are_met() -> None:
    """Whichever is later: all instants within the duration, and at least so many requests."""
    assert len(due_instants("constant", 100.0, SECOND, 250, seed=1)) == 250
    assert len(due_instants("constant", 100.0, 5 * SECOND, 250, seed=1)) == 500
    assert len(due_instants("poisson", 100.0, SECOND, 250, seed=1)) == 250
    assert due_instants("poisson", 100.0, 5 * SECOND, 1, seed=1)[-1] < 5 * SECOND


def test_what_does_not_fit_in_memory_is_refused() -> None:
    """One sentence instead of a frozen machine."""
    with pytest.raises(UsageError, match="too many to draw"):
        due_instants("poisson", 1e6, 3600 * SECOND, 0, seed=1)
