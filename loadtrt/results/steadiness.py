"""Whether a run was a steady state: fields of run.json."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from loadtrt.results.frozen import Model

_Count = Annotated[int, Field(ge=0)]
_Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SlowPart(Model):
    """A part of the run in which the engine fell behind the load (stats/steady.py).

    start_ns, end_ns: its approximate bounds, ns from the start of measuring.
    served_per_s: requests served per second within it.
    expected_per_s: requests that arrived per second within it; in a closed loop and offline, the rate of the whole run.
    over_ns: when the backlog was gone, ns from the start of measuring; None if never, or not known.
    """

    start_ns: int
    end_ns: int
    served_per_s: _Positive
    expected_per_s: _Positive
    over_ns: int | None = None


class Stall(Model):
    """Times in which requests waited and none completed (stats/steady.py).

    start_ns: start of the longest stall, ns from the start of measuring.
    longest_ns: duration of the longest stall.
    times: number of stalls.
    total_ns: duration of all stalls together.
    late: requests that the stalls delayed.
    host: loadtrt itself stood still in the longest stall, not the engine.
    """

    start_ns: int
    longest_ns: _Count
    times: _Count
    total_ns: _Count
    late: _Count
    host: bool


class Steadiness(Model):
    """Whether the measured time was a steady state (stats/steady.py).

    None in a field: too few requests to decide, or, except for overloaded, slow and stall, a load that is not steady
    by design.

    transient_ns: initial transient, ns from the start of measuring (MSER-5); 0 for none.
    transient_ratio: latency in the transient over latency after it; None without a transient.
    drift_ratio: fitted latency at the end over that at the beginning; None where noise explains the difference.
    overloaded: until the end, requests arrived faster than they were served.
    slow: the part in which the engine fell behind; None for none.
    stall: times without any completion; None for none.
    """

    transient_ns: int | None = None
    transient_ratio: float | None = None
    drift_ratio: float | None = None
    overloaded: bool | None = None
    slow: SlowPart | None = None
    stall: Stall | None = None
