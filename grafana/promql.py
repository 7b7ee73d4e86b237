"""PromQL about one run: the same words in every query of every dashboard.

A Prometheus keeps a histogram of times either as classic series (_bucket, _sum, _count) or, where it scrapes native
histograms, as one series without a suffix. Each query about a histogram asks for both: a native one where there is one,
which is the more accurate, or else the classic ones.
"""

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
        return mean_of(f"{add}({self.rate(part + '_seconds')})", spent, counted)

    def quantile(self, part: str, rank: float) -> str:
        """A quantile of a histogram of times, s, interpolated within its buckets."""
        native, classic = f"sum({self.rate(part + '_seconds')})", f"sum by (le) ({self.rate(part + '_seconds_bucket')})"
        return f"({quantile_of(rank, native)} or {quantile_of(rank, classic)})"

    def buckets(self, part: str) -> str:
        """A histogram of times for a heat map: a native one, or else the classic buckets, never both."""
        native, classic = f"sum({self.rate(part + '_seconds')})", f"sum by (le) ({self.rate(part + '_seconds_bucket')})"
        return f"{native} or ({classic} unless on () {native})"


def quantile_of(rank: float, histogram: str) -> str:
    """A quantile of a native histogram, or of classic buckets."""
    return f"histogram_quantile({rank:g}, {histogram})"


def mean_of(native: str, spent: str, counted: str) -> str:
    """The mean of a native histogram, or else of a classic one's sum and count."""
    return f"({over(f'histogram_sum({native})', f'histogram_count({native})')} or {over(spent, counted)})"


def over(numerator: str, denominator: str) -> str:
    """Their ratio, without a point where nothing was counted: stacked or summed, 0/0 would swallow its neighbours."""
    return f"({numerator}) / ({denominator} > 0)"
