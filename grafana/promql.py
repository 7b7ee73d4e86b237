"""PromQL about one run: the same words in every query of every dashboard."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """Whose series: matchers that select one run. shift: an offset modifier, " offset 5s", to look at it at another
    time. Names are without the prefix loadtrt_."""

    matchers: str
    shift: str = ""

    def now(self, name: str, *more: str) -> str:
        """The series, with more matchers."""
        return f"loadtrt_{name}{{{','.join((self.matchers, *more))}}}{self.shift}"

    def rate(self, name: str, *more: str) -> str:
        """A counter's rate a second over Grafana's interval: the shortest that a rate can be taken over."""
        return f"rate(loadtrt_{name}{{{','.join((self.matchers, *more))}}}[$__rate_interval]{self.shift})"

    def mean(self, part: str, by: str = "") -> str:
        """The mean of a histogram of times, s, for each set of the labels `by`; by sums and counts, so exact."""
        add = f"sum by ({by}) " if by else "sum"
        spent, counted = (f"{add}({self.rate(f'{part}_seconds_{end}')})" for end in ("sum", "count"))
        return over(spent, counted)

    def quantile(self, part: str, rank: float) -> str:
        """A quantile of a histogram of times, s, interpolated within its buckets."""
        return f"histogram_quantile({rank:g}, sum by (le) ({self.rate(part + '_seconds_bucket')}))"


def over(numerator: str, denominator: str) -> str:
    """Their ratio, without a point where nothing was counted: stacked or summed, 0/0 would swallow its neighbours."""
    return f"({numerator}) / ({denominator} > 0)"
