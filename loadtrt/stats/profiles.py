"""Profiles: a profiler's times summed by layer; and two profiles layer by layer: the layers of B that do the work of
each layer of A, and their times.

`layer_matching` says which layers belong together. Conservation: on each side, Σ over rows of time_ns = Σ over kinds
= layers_ns of its pass, whatever was matched with what.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from loadtrt.results import Model, Result
from loadtrt.results.engine_info import Layer, kind_of, nodes_in_name
from loadtrt.results.profile_result import LayerTimes, Mode, ProfilePass
from loadtrt.stats.layer_matching import Group, MatchedBy, match_layers
from loadtrt.stats.sample_size import least_samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from loadtrt.results.profile_result import ProfileResult


class Samples:
    """Layer times as a profiler reports them, an inference at a time. A name that comes twice is two layers."""

    def __init__(self) -> None:
        self.inferences = 0
        self._times: dict[tuple[str, int], list[float]] = {}

    def add(self, inference: Iterable[tuple[str, float]]) -> None:
        """One inference: names and ns in the order they ran in."""
        seen: dict[str, int] = {}
        for name, time_ns in inference:
            place = seen[name] = seen.get(name, -1) + 1
            self._times.setdefault((name, place), []).append(time_ns)
        self.inferences += 1

    def to_pass(self, mode: Mode, layers: Sequence[Layer], whole_ns: Sequence[float] = ()) -> ProfilePass:
        """The times joined with `layers` by name; without layers, names give the nodes.

        mode: how inferences were launched.
        layers: layers of the engine, if known.
        whole_ns: durations of inferences without the profiler.
        """
        known: dict[tuple[str, int], Layer] = {}
        seen: dict[str, int] = {}
        for layer in layers:
            place = seen[layer.name] = seen.get(layer.name, -1) + 1
            known[layer.name, place] = layer
        whole = math.fsum(time for times in self._times.values() for time in times)
        return ProfilePass(
            mode=mode,
            inferences=self.inferences,
            layers=tuple(
                _layer_times(
                    known.get(key) or Layer(key[0], nodes=() if layers else nodes_in_name(key[0])),
                    np.array(times),
                    whole,
                )
                for key, times in self._times.items()
            ),
            layers_ns=whole / self.inferences if self.inferences else 0.0,
            inference_ns=math.fsum(whole_ns) / len(whole_ns) if whole_ns else None,
            whole=len(whole_ns),
        )


def _layer_times(layer: Layer, times: npt.NDArray[np.float64], whole: float) -> LayerTimes:
    total = float(times.sum())
    enough = len(times) >= least_samples(0.99)
    return LayerTimes(
        layer=layer,
        count=len(times),
        total_ns=total,
        average_ns=total / len(times),
        median_ns=float(np.median(times)),
        p99_ns=float(np.quantile(times, 0.99, method="inverted_cdf")) if enough else None,
        share=total / whole if whole else 0.0,
    )


class RowLayer(Model):
    """A layer in a row.

    name: name of the layer.
    type: the engine's type.
    kind: loadtrt's kind.
    precision: precision of the layer.
    time_ns: mean over all inferences of the pass.
    """

    name: str
    type: str
    kind: str
    precision: str
    time_ns: float


class RowSide(Model):
    """One side of a row: its layers in the order in which they ran, none where only the other side has layers."""

    layers: tuple[RowLayer, ...]
    time_ns: float


class LayerRow(Model):
    """Layers of A and the layers of B that do the same work.

    a, b: the layers of each side.
    speedup: a / b; None where either takes no time.
    saved_ns: a − b.
    matched_by: how the layers were matched; None where one side has none.
    serves: for reformats, the index in `rows` of the layers they serve.
    """

    a: RowSide
    b: RowSide
    speedup: float | None
    saved_ns: float
    matched_by: MatchedBy | None
    serves: int | None


class KindTimes(Model):
    """All layers of a kind; times are ns an inference.

    kind: loadtrt's kind; "" for layers of which only names are known.
    a_layers, b_layers: number of layers of each side.
    a_ns, b_ns: their times.
    speedup: a / b; None where either takes no time.
    saved_ns: a − b.
    """

    kind: str
    a_layers: int
    b_layers: int
    a_ns: float
    b_ns: float
    speedup: float | None
    saved_ns: float


class ProfiledEngine(Model):
    """What was profiled, and whether to the end. Fields are those of EngineInfo and ProfileResult; runtime: flavour and
    version."""

    name: str
    device: str
    runtime: str
    batch: int
    mode: dict[str, str]
    outcome: Literal["completed", "interrupted", "failed"]
    failure: str | None


class PassTotals(Model):
    """A pass without its layers' times. Other fields are those of ProfilePass.

    engine: what was profiled; None where it is not known, as in trtexec's files.
    typed: False where only names of the layers are known. Kinds, except reformats, and precisions are unknown then.
    """

    engine: ProfiledEngine | None
    mode: Mode | None
    inferences: int
    layers: int
    typed: bool
    layers_ns: float
    inference_ns: float | None


class LayerComparison(Result):
    """Passes A and B layer by layer.

    a, b: the passes.
    speedup, saved_ns: of the sums over layers, which include the profiler's own time for each layer.
    inference_speedup: of whole inferences without the profiler; None where one was not measured.
    rows: matched layers in the order of A; layers of B alone come after the layers that ran before them in B.
    kinds: times by kind, the largest first.
    """

    schema_version: Literal["loadtrt.layers/1"] = "loadtrt.layers/1"
    a: PassTotals
    b: PassTotals
    speedup: float | None
    saved_ns: float
    inference_speedup: float | None
    rows: tuple[LayerRow, ...]
    kinds: tuple[KindTimes, ...]


def compare_profiles(a: ProfileResult | ProfilePass, b: ProfileResult | ProfilePass) -> LayerComparison:
    """Compare the first passes of the same mode; else the first pass of each, as trtexec's files name no mode.

    Every layer is in exactly one row, and times are ns an inference.
    """
    passes = [(side,) if isinstance(side, ProfilePass) else side.passes for side in (a, b)]
    pairs = [(one, other) for one in passes[0] for other in passes[1]]
    one, other = next((pair for pair in pairs if pair[0].mode == pair[1].mode), pairs[0])
    sides = (_row_layers(one), _row_layers(other))
    groups = match_layers(*([times.layer for times in profile.layers] for profile in (one, other)))
    places = {group: place for place, group in enumerate(groups)}
    return LayerComparison(
        a=_totals(one, a),
        b=_totals(other, b),
        speedup=_speedup(one.layers_ns, other.layers_ns),
        saved_ns=one.layers_ns - other.layers_ns,
        inference_speedup=_speedup(one.inference_ns, other.inference_ns),
        rows=tuple(_row(group, sides, places[group.serves] if group.serves else None) for group in groups),
        kinds=_kinds(*sides),
    )


def _row_layers(profile: ProfilePass) -> list[RowLayer]:
    # average_ns leaves out inferences in which the layer did not run: its sum over layers would not be layers_ns.
    inferences = max(profile.inferences, 1)
    return [
        RowLayer(
            name=times.layer.name,
            type=times.layer.type,
            kind=kind_of(times.layer),
            precision=times.layer.precision,
            time_ns=times.total_ns / inferences,
        )
        for times in profile.layers
    ]


def _row(group: Group, sides: Sequence[Sequence[RowLayer]], serves: int | None) -> LayerRow:
    layers = [tuple(sides[side][member.place] for member in group.members if member.side == side) for side in (0, 1)]
    a, b = (RowSide(layers=chosen, time_ns=_sum(chosen)) for chosen in layers)
    return LayerRow(
        a=a,
        b=b,
        speedup=_speedup(a.time_ns, b.time_ns),
        saved_ns=a.time_ns - b.time_ns,
        matched_by=group.matched_by,
        serves=serves,
    )


def _kinds(a: Sequence[RowLayer], b: Sequence[RowLayer]) -> tuple[KindTimes, ...]:
    by_kind: dict[str, tuple[list[RowLayer], list[RowLayer]]] = {}
    for side, layers in enumerate((a, b)):
        for layer in layers:
            by_kind.setdefault(layer.kind, ([], []))[side].append(layer)
    kinds = [
        KindTimes(
            kind=kind,
            a_layers=len(in_a),
            b_layers=len(in_b),
            a_ns=_sum(in_a),
            b_ns=_sum(in_b),
            speedup=_speedup(_sum(in_a), _sum(in_b)),
            saved_ns=_sum(in_a) - _sum(in_b),
        )
        for kind, (in_a, in_b) in by_kind.items()
    ]
    return tuple(sorted(kinds, key=lambda item: (-(item.a_ns + item.b_ns), item.kind)))


def _totals(profile: ProfilePass, result: ProfileResult | ProfilePass) -> PassTotals:
    return PassTotals(
        engine=None if isinstance(result, ProfilePass) else _engine(result),
        mode=profile.mode,
        inferences=profile.inferences,
        layers=len(profile.layers),
        typed=not profile.layers or any(times.layer.type for times in profile.layers),
        layers_ns=profile.layers_ns,
        inference_ns=profile.inference_ns,
    )


def _engine(result: ProfileResult) -> ProfiledEngine:
    engine = result.engine
    return ProfiledEngine(
        name=engine.name,
        device=engine.device,
        runtime=f"{engine.flavour} {engine.version}",
        batch=engine.batch,
        mode=dict(engine.mode),
        outcome=result.outcome,
        failure=result.failure,
    )


def _sum(layers: Iterable[RowLayer]) -> float:
    return math.fsum(layer.time_ns for layer in layers)


def _speedup(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None
