"""Two profiles layer by layer: the layers of B that do the work of each layer of A, and their times.

`layer_matching` says which layers belong together. Conservation: on each side, Σ over rows of time_ns = Σ over kinds
= layers_ns of its pass, whatever was matched with what.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from loadtrt.results import Model
from loadtrt.results.engine_info import kind_of
from loadtrt.results.profile_result import Mode, ProfilePass
from loadtrt.stats.layer_matching import Group, MatchedBy, match_layers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadtrt.results.profile_result import ProfileResult


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


class LayerComparison(Model):
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
    """Compare the first passes of the same mode; else the first pass of each, as trtexec's files name no mode."""
    passes = [(side,) if isinstance(side, ProfilePass) else side.passes for side in (a, b)]
    pairs = [(one, other) for one in passes[0] for other in passes[1]]
    one, other = next((pair for pair in pairs if pair[0].mode == pair[1].mode), pairs[0])
    result_a, result_b = (None if isinstance(side, ProfilePass) else side for side in (a, b))
    return compare_passes(one, other, result_a, result_b)


def compare_passes(
    a: ProfilePass, b: ProfilePass, result_a: ProfileResult | None = None, result_b: ProfileResult | None = None
) -> LayerComparison:
    """Compare two passes, with every layer in exactly one row and times in ns an inference.

    a, b: the passes.
    result_a, result_b: the profiles of the passes, which name what was profiled.
    """
    sides = (_row_layers(a), _row_layers(b))
    groups = match_layers(*([times.layer for times in profile.layers] for profile in (a, b)))
    places = {group: place for place, group in enumerate(groups)}
    return LayerComparison(
        a=_totals(a, result_a),
        b=_totals(b, result_b),
        speedup=_speedup(a.layers_ns, b.layers_ns),
        saved_ns=a.layers_ns - b.layers_ns,
        inference_speedup=_speedup(a.inference_ns, b.inference_ns),
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
    a, b = (_side(sides[side][member.place] for member in group.members if member.side == side) for side in (0, 1))
    return LayerRow(
        a=a,
        b=b,
        speedup=_speedup(a.time_ns, b.time_ns),
        saved_ns=a.time_ns - b.time_ns,
        matched_by=group.matched_by,
        serves=serves,
    )


def _side(layers: Iterable[RowLayer]) -> RowSide:
    chosen = tuple(layers)
    return RowSide(layers=chosen, time_ns=_sum(chosen))


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


def _totals(profile: ProfilePass, result: ProfileResult | None) -> PassTotals:
    return PassTotals(
        engine=_engine(result) if result else None,
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
