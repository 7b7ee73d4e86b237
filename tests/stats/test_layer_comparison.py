"""Two profiles layer by layer: no time is lost or counted twice, and what was profiled is kept."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from layer_sides import NODES, holding, names, profile, reformat, result
from loadtrt.results.layer import Layer, LayerTensor
from loadtrt.stats.profiles import LayerComparison, LayerRow, ProfiledEngine, Samples, compare_profiles

if TYPE_CHECKING:
    from loadtrt.results.profile_result import ProfilePass

_some_layers = st.builds(
    Layer,
    name=st.sampled_from(["", "a", "b", "a [profile 1]", *(reformat(name).name for name in ("a", "", "n0 + n1"))]),
    type=st.sampled_from(["", "Conv", "CaskConvolution", "Reformat", "kgen"]),
    inputs=st.sampled_from([(), (LayerTensor("x", "fp16", "", (1, 3)),), (LayerTensor("x", "fp16", "", (7,)),)]),
    nodes=st.one_of(st.just(()), st.lists(st.sampled_from(NODES), max_size=4).map(tuple)),
)
_passes = st.lists(st.tuples(_some_layers, st.integers(0, 10**6)), max_size=12).map(lambda layers: profile(*layers))


@given(_passes, _passes)
def test_no_time_and_no_layer_is_lost(a: ProfilePass, b: ProfilePass) -> None:
    """Σ rows = Σ kinds = layers_ns on each side, and each layer is in exactly one row, whatever the layers are."""
    found = compare_profiles(a, b)
    for whole, times, kinds in (
        (a, [row.a for row in found.rows], [(kind.a_ns, kind.a_layers) for kind in found.kinds]),
        (b, [row.b for row in found.rows], [(kind.b_ns, kind.b_layers) for kind in found.kinds]),
    ):
        assert math.fsum(side.time_ns for side in times) == pytest.approx(whole.layers_ns)
        assert math.fsum(ns for ns, _ in kinds) == pytest.approx(whole.layers_ns)
        placed = Counter((layer.name, layer.time_ns) for side in times for layer in side.layers)
        assert placed == Counter((layer.layer.name, layer.total_ns) for layer in whole.layers)
        assert sum(count for _, count in kinds) == len(whole.layers)
    assert all(row.saved_ns == row.a.time_ns - row.b.time_ns for row in found.rows)


@given(_passes)
def test_against_itself_nothing_changes(a: ProfilePass) -> None:
    """compare(a, a): every row has the same layers on both sides, nothing is saved, and each speed-up is 1 (or None for
    no time)."""
    found = compare_profiles(a, a)
    assert all(row.a == row.b and row.matched_by for row in found.rows)
    assert {found.speedup, *(row.speedup for row in found.rows), *(kind.speedup for kind in found.kinds)} <= {1.0, None}
    assert all(row.speedup for row in found.rows if row.a.time_ns)
    assert found.saved_ns == 0


@given(_passes, _passes)
def test_swapping_the_sides_swaps_the_result(a: ProfilePass, b: ProfilePass) -> None:
    """compare(b, a) has the rows of compare(a, b) with their sides exchanged, times saved negated."""

    def told(found: LayerComparison, swapped: bool) -> Counter[object]:
        def sides(row: LayerRow) -> tuple[object, ...]:
            pair = (row.a.model_dump_json(), row.b.model_dump_json(), row.saved_ns)
            return (pair[1], pair[0], -pair[2]) if swapped else pair

        served = [found.rows[row.serves] if row.serves is not None else None for row in found.rows]
        return Counter(
            (sides(row), row.matched_by, sides(target) if target else None)
            for row, target in zip(found.rows, served, strict=True)
        )

    assert told(compare_profiles(a, b), swapped=False) == told(compare_profiles(b, a), swapped=True)


def test_fusion_that_differs_is_many_to_many() -> None:
    """A fuses conv1, relu1 and conv2; B has two layers: one row, and its time is theirs together."""
    a = profile((holding("conv1", "relu1", "conv2"), 90.0), (holding("pool"), 5.0))
    b = profile((holding("conv1", "relu1"), 20.0), (holding("conv2"), 25.0), (holding("pool"), 10.0))
    first, second = compare_profiles(a, b).rows
    assert names(first) == (["conv1 + relu1 + conv2"], ["conv1 + relu1", "conv2"])
    assert (first.speedup, first.saved_ns, first.matched_by) == (2.0, 45.0, "nodes")
    assert (second.speedup, second.saved_ns) == (0.5, -5.0)


def test_reformats_are_rows_of_their_own_that_say_whom_they_serve() -> None:
    """All reformats of a layer are one row, on whichever side of it they stand; one side may have none. What a fast
    layer loses to them stays visible: conv alone is 5 × as fast, and with its reformat 5/3 ×."""
    conv, pool = holding("conv", "relu"), holding("pool", kind="CaskPooling")
    a = profile((conv, 50.0), (reformat("pool"), 3.0), (pool, 9.0), (reformat("pool", "Output"), 4.0))
    b = profile((reformat("conv + relu"), 20.0), (conv, 10.0), (pool, 9.0), (reformat("pool", "Output"), 5.0))
    found = compare_profiles(a, b)
    before, conv_row = found.rows[:2]
    assert conv_row.speedup == 5.0
    assert (before.a.time_ns + conv_row.a.time_ns) / (before.b.time_ns + conv_row.b.time_ns) == 5 / 3
    told = [(row.a.time_ns, row.b.time_ns, row.matched_by, row.serves) for row in found.rows]
    assert told == [
        (0.0, 20.0, None, 1),
        (50.0, 10.0, "nodes", None),
        (7.0, 5.0, "served layer", 3),
        (9.0, 9.0, "nodes", None),
    ]
    assert {kind.kind: kind.saved_ns for kind in found.kinds} == {
        "convolution": 40.0,
        "reformat": -18.0,
        "pooling": 0.0,
    }


def test_a_layer_that_ran_in_some_inferences_counts_for_all() -> None:
    """time_ns is total / inferences: 30 ns in one of three inferences is 10 ns an inference."""
    samples = Samples()
    for inference in ([("always", 5.0)], [("always", 5.0), ("branch", 30.0)], [("always", 5.0)]):
        samples.add(inference)
    a = samples.to_pass("plain", [], [12.0])
    found = compare_profiles(a, profile((Layer("always"), 5.0)))
    assert [row.a.time_ns for row in found.rows] == [5.0, 10.0]
    assert (found.a.layers_ns, found.speedup, found.saved_ns) == (15.0, 3.0, 10.0)


def test_whole_inferences_are_compared_where_both_were_measured() -> None:
    """inference_speedup = a / b of the inferences without the profiler, and None where one is not known."""
    known, unknown = (Samples().to_pass("graph", [], whole_ns) for whole_ns in ([30.0], []))
    half = Samples().to_pass("graph", [], [15.0])
    assert compare_profiles(known, half).inference_speedup == 2.0
    assert compare_profiles(known, unknown).inference_speedup is None
    assert compare_profiles(unknown, unknown).speedup is None


def test_what_was_profiled_is_kept() -> None:
    """Engine, device, runtime, batch, mode and how the profile ended, of each side whose profile tells."""
    one = profile((holding("a"), 3.0))
    found = compare_profiles(result(one, outcome="failed", failure="the GPU is lost"), one)
    assert found.a.engine == ProfiledEngine(
        name="a.plan",
        device="NVIDIA H100",
        runtime="tensorrt 10.16",
        batch=16,
        mode={"graph": "yes"},
        outcome="failed",
        failure="the GPU is lost",
    )
    assert found.b.engine is None


def test_a_side_is_typed_where_any_of_its_layers_is() -> None:
    """Names alone are no types; a pass without layers lacks none."""
    typed = profile((Layer("a"), 1.0), (holding("b"), 1.0))
    untyped = profile((Layer("a"), 1.0), (Layer(reformat("a").name), 1.0))
    found = [compare_profiles(side, side).a.typed for side in (typed, untyped, profile())]
    assert found == [True, False, True]


def test_json_gives_the_same_comparison_back() -> None:
    """validate(dump(c)) = c, and what the schema does not know is refused."""
    a = profile((holding("a", "b"), 3.0), (reformat("a + b"), 1.0))
    found = compare_profiles(result(a), profile((holding("a"), 2.0), (Layer("z"), 0.0)))
    assert LayerComparison.model_validate_json(found.model_dump_json()) == found
    assert found.schema_version == "loadtrt.layers/1"
    with pytest.raises(ValidationError, match="extra"):
        LayerComparison.model_validate({**found.model_dump(), "colour": "red"})
