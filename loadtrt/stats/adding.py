"""How much the requests of several workers are worth together, and how well the sum of their numbers is known.

Where workers are independent of each other, of requests n_i with the effective sample sizes N_i,

    t(N) = Σ t(N_i)  (low, high) = Σ x_i ∓ √(Σ (x_i − end_i)²)        t(N) = N²/(N + 100)

Arrivals that come in clusters meet all workers at the same time (`Load.clustered`), and their errors go together. So do
those under round-robin, where all get every N-th of the same arrivals, a moment apart: they have the same number of
requests, and are busy at the same times. The standard deviation of a sum is at most the sum of those of its parts, as
where errors go together:

    1/√N = Σ (n_i/n)/√N_i        (low, high) = Σ x_i ∓ Σ |x_i − end_i|

N: the effective sample size of all requests, from those of the workers (stats/verdict.py), for the verdict and the
intervals of quantiles. Short runs estimate N_i too large: t corrects that for each worker. A worker that saw too few
requests for an N_i adds none to the first, and in the second its requests are worth one, as no sample is worth less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtrt.stats.verdict import size_trusted_as, trusted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Ends = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Adding:
    """How sizes and ends of workers add up, see above. together: whether their errors go together."""

    together: bool

    def size(self, parts: Iterable[tuple[int, float | None]]) -> float:
        """Effective sample size of all.

        parts: of each worker (requests, their effective sample size); None or 0 where that is not known.
        """
        of_workers = [(requests, size or 0.0) for requests, size in parts if requests]
        if not any(size for _, size in of_workers):
            return 0.0
        if not self.together:
            return size_trusted_as(math.fsum(trusted(size) for _, size in of_workers if size))
        total = sum(requests for requests, _ in of_workers)
        return math.fsum(requests / total / math.sqrt(max(size, 1.0)) for requests, size in of_workers) ** -2

    def ends(self, parts: Sequence[tuple[float, float | None, float | None]]) -> Ends:
        """The ends of the interval of a sum of numbers (value, low, high); None for one that is not known."""
        total, ends = math.fsum(value for value, _, _ in parts), []
        for side, sign in ((1, -1), (2, 1)):
            known = [abs(part[0] - end) for part in parts if (end := part[side]) is not None]
            width = math.fsum(known) if self.together else math.hypot(*known)
            ends.append(total + sign * width if len(known) == len(parts) else None)
        return ends[0], ends[1]
