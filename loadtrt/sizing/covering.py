"""The fewest GPUs that carry several demands, of kinds that each carry so much of every demand: an integer program,

    minimize Σ n_k    with    Σ n_k · c_ki ≥ d_i for each demand i,    n_k = 0, 1, 2, …

Its linear program (n_k ≥ 0) gives a bound, by the simplex method on its dual: prices y ≥ 0 of the demands, with
y · c_k ≤ 1 for each kind, of which Σ y_i d_i is the greatest. Then numbers of GPUs are tried from that bound up, each
by a search in depth, which leaves a branch where the GPUs that are left cannot carry what is left at those prices.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_TINY = 1e-9  # of a demand, which rounding may leave
_MOST_LOOKS = 100_000  # branches for one number of GPUs: less than a second


class Cover(NamedTuple):
    """The fewest GPUs.

    counts: of each kind.
    proven: no fewer are enough; below their sum only where the search was given up, for very many kinds and GPUs.
    linear: how many parts of GPUs would be enough.
    """

    counts: list[int]
    proven: int
    linear: float


def fewest_gpus(carried: Sequence[Sequence[float]], demand: Sequence[float]) -> Cover:
    """The fewest GPUs; of choices with as few that with most of the first kinds.

    carried: of each kind, how much of each demand a GPU carries; each demand is carried by some kind.
    demand: above 0.
    """
    shares: Floats = np.array(carried, dtype=float) / np.array(demand, dtype=float)
    prices, counts = _linear(shares)
    linear = float(prices.sum())
    least = max(math.ceil(linear * (1 - _TINY)), 1)
    enough = [math.ceil(count * (1 - _TINY)) for count in counts]
    proven = least
    for gpus in range(least, sum(enough)):
        # One GPU of a kind that is worth less than 1 takes the rest of it from what the others have to spare.
        usable = np.flatnonzero(1 - shares @ prices <= gpus - linear + _TINY)
        search = _Search(shares[usable], prices)
        found = search.place(0, gpus, np.ones(shares.shape[1]))
        if found is not None:
            chosen = dict(zip(usable.tolist(), found, strict=True))
            return Cover([chosen.get(kind, 0) for kind in range(len(shares))], proven, linear)
        if search.looks and proven == gpus:
            proven = gpus + 1
    return Cover(enough, min(proven, sum(enough)), linear)


def _linear(shares: Floats) -> tuple[Floats, Floats]:
    """(prices of the demands, GPUs of each kind) of the linear program, with demands of 1.

    Bland's rule: the first column that gains enters, the first of the tightest rows leaves, so that it ends.
    """
    kinds, demands = shares.shape
    table = np.hstack([shares, np.eye(kinds), np.ones((kinds, 1))])
    gains = np.concatenate([-np.ones(demands), np.zeros(kinds + 1)])
    basis = list(range(demands, demands + kinds))
    while (entering := next((place for place, gain in enumerate(gains[:-1]) if gain < -_TINY), None)) is not None:
        column = table[:, entering]
        rows = [row for row in range(kinds) if column[row] > _TINY]
        leaving = min(rows, key=lambda row: (table[row, -1] / column[row], basis[row]))
        table[leaving] /= table[leaving, entering]
        for row in range(kinds):
            if row != leaving:
                table[row] -= table[row, entering] * table[leaving]
        gains -= gains[entering] * table[leaving]
        basis[leaving] = entering
    prices = np.zeros(demands)
    for row, place in enumerate(basis):
        if place < demands:
            prices[place] = table[row, -1]
    return prices, gains[demands:-1]


class _Search:
    """A search for a choice of a number of GPUs. looks: branches that may still be tried."""

    def __init__(self, shares: Floats, prices: Floats) -> None:
        self._shares, self._prices = shares, prices
        worth = shares @ prices
        self._most = [float(worth[place:].max()) for place in range(len(worth))]  # that a GPU of these kinds carries
        self.looks = _MOST_LOOKS

    def place(self, kind: int, gpus: int, left: Floats) -> list[int] | None:
        """GPUs of each kind from this one on, which carry what is left; None where there are none."""
        self.looks = max(self.looks - 1, 0)
        if (left <= _TINY).all():
            return [0] * (len(self._shares) - kind)
        if kind == len(self._shares) or not self.looks:
            return None
        if float(self._prices @ np.maximum(left, 0.0)) > gpus * self._most[kind] + _TINY:
            return None
        share = self._shares[kind]
        wanted = max((math.ceil(left[at] / share[at] - _TINY) for at in np.flatnonzero(share > 0)), default=0)
        most = max(min(gpus, wanted), 0)
        for count in range(most, -1, -1):
            after = self.place(kind + 1, gpus - count, left - count * share)
            if after is not None:
                return [count, *after]
            if not self.looks or kind == len(self._shares) - 1:
                break  # fewer of the last kind carry less
        return None
