"""The declaration of the options that make a load: see asked/load.py."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from loadtrt.asked.declaring import LOADS, SEARCHES, Strict, option
from loadtrt.asked.fields import TEXT_OR_LIST, ArrivalRate, FileName, kept
from loadtrt.asked.load_options import ARRIVALS  # noqa: TC001  # pydantic reads it
from loadtrt.load.arrivals import parse_bursts, parse_stages

load_option = partial(option, group="Load", commands="sweep")


class LoadOptions(Strict):
    """The options that make a load."""

    arrivals: Literal[ARRIVALS] | None = load_option(  # type: ignore[valid-type]  # a tuple of the processes' names
        None,
        "How requests arrive: in a closed loop; by a constant, Poisson or gamma process at --rate or in --stages; as "
        "in a trace; or offline, all --requests at once.",
        commands=SEARCHES,
        shown_default="closed; with a rate poisson",
    )
    rate: ArrivalRate | None = load_option(
        None,
        "Requests due per second, in an open loop; --stages and --trace are scaled to this mean.",
        metavar="500/s",
    )
    burstiness: float | None = load_option(
        None,
        "Coefficient of variation of the gaps of gamma arrivals; 0 is constant, 1 is Poisson.",
        commands=LOADS,
        metavar="CV",
        ge=0,
        le=100,
        allow_inf_nan=False,
    )
    bursts: Annotated[str, kept(parse_bursts)] | None = load_option(
        None,
        "Bursts and pauses: 1s/4s makes all requests of --rate due within 1 s of each 5 s.",
        commands="sweep capacity",
        metavar="ON/OFF",
    )
    stages: Annotated[str, kept(parse_stages), TEXT_OR_LIST] | None = load_option(
        None, "Arrival rates one after the other.", commands=LOADS, metavar="'100/s:10s, ramp 100/s-500/s:1m'"
    )
    stages_loop: bool | None = load_option(
        None, "Begin the stages again until --duration and --requests are met.", shown_default="off"
    )
    trace: FileName | None = load_option(
        None,
        "Replay the instants of a file (CSV, JSONL, JSON or a log, also .gz); the first is due at once.",
        commands=LOADS,
        metavar="FILE",
    )
    trace_column: str | None = load_option(
        None, "Column or key of the trace that holds instants, where there are several.", commands=LOADS, metavar="NAME"
    )
    time_scale: float | None = load_option(
        None,
        "Factor on all times of the trace: 0.5 replays it twice as fast; 0.001, 1e-6 and 1e-9 read ms, µs and ns.",
        metavar="X",
        shown_default="1",
        ge=1e-9,
        le=1e9,
        allow_inf_nan=False,
    )
    trace_loop: bool | None = load_option(
        None, "Begin the trace again until --duration and --requests are met.", shown_default="off"
    )
