"""Which layers of two engines do the same: what is matched with what, and by what."""

from __future__ import annotations

import gzip
import math
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layer_sides import NODES, compare, holding, names, profile, reformat, shaped
from loadtrt.engines.plan_facts import parse_layers
from loadtrt.results.layer import Layer
from loadtrt.stats.profiles import compare_profiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from loadtrt.results.profile_result import ProfilePass
    from loadtrt.stats.profiles import LayerComparison

DATA = Path(__file__).parents[1] / "data"
_held = st.lists(st.lists(st.sampled_from(NODES), max_size=4), max_size=8)
_cuts = st.sets(st.integers(1, len(NODES) - 1))


def googlenet(precision: str) -> tuple[Layer, ...]:
    """What TensorRT 8.6 on an H100 said of GoogLeNet, batch 16."""
    return parse_layers(gzip.decompress((DATA / f"googlenet86_{precision}.layers.json.gz").read_bytes()).decode())


def _fused(cuts: set[int], kind: str = "Conv") -> list[Layer]:
    """The model's nodes in a row, each run between two cuts fused into one layer."""
    ends = [0, *sorted(cuts), len(NODES)]
    return [holding(*NODES[start:end], kind=kind) for start, end in pairwise(ends)]


@given(_cuts, _cuts)
def test_rows_are_the_finest_that_hold_the_same_nodes(a: set[int], b: set[int]) -> None:
    """Where each node is in one layer of either side, both sides of a row hold the same nodes, and there are as many
    rows as there are runs between cuts that both fusions have."""
    found = compare(_fused(a), _fused(b))
    for row in found.rows:
        ours, theirs = (" + ".join(side).split(" + ") for side in names(row))
        assert ours == theirs
        assert row.matched_by == "nodes"
    assert len(found.rows) == len(a & b) + 1


@given(_held, _held)
def test_a_layer_of_which_the_other_side_has_a_node_is_not_alone(a: list[list[str]], b: list[list[str]]) -> None:
    """However nodes are spread over layers, none is alone that the other side has a node of."""
    sides = [
        [holding(*nodes, kind=f"kind{place % 2}", name=f"{label}{place}") for place, nodes in enumerate(side)]
        for label, side in (("a", a), ("b", b))
    ]
    found = compare(*sides)
    alone = {layer.name for row in found.rows if not row.matched_by for layer in (*row.a.layers, *row.b.layers)}
    for own, other in (sides, sides[::-1]):
        there = {node for layer in other for node in layer.nodes}
        assert not alone & {layer.name for layer in own if there & set(layer.nodes)}


def test_siblings_may_be_fused_in_another_order() -> None:
    """TensorRT calls a horizontal fusion after its tactic's order of the siblings: the nodes are the same."""
    (row,) = compare([holding("1x1", "3x3")], [holding("3x3", "1x1")]).rows
    assert (names(row), row.matched_by) == ((["1x1 + 3x3"], ["3x3 + 1x1"]), "nodes")


def test_shared_nodes_do_not_tie_the_network_into_one_row() -> None:
    """TensorRT names one node in several layers. Layers with equal nodes of a kind are rows, however they overlap."""
    chain = [holding("a", "b"), holding("b", "c"), holding("c", "d")]
    assert [names(row) for row in compare(chain, chain).rows] == [([layer.name],) * 2 for layer in chain]
    both = [holding("fc", name="fc"), holding("fc", kind="NoOp", name="reshape_after_fc")]
    assert [names(row) for row in compare(both, both[::-1]).rows] == [([layer.name],) * 2 for layer in both]


def test_what_has_no_equal_joins_the_row_it_shares_most_with() -> None:
    """B's extra layer holds two nodes of the second row and one of the first: it is part of the second's time."""
    a = [holding("a", "b"), holding("c", "d")]
    extra = holding("b", "c", "d", kind="PointWiseV2", name="extra")
    found = compare(a, [*a, extra])
    assert [names(row) for row in found.rows] == [(["a + b"], ["a + b"]), (["c + d"], ["c + d", "extra"])]


def test_of_rows_it_shares_as_much_with_it_joins_its_own_sides_first() -> None:
    """The choice is the same whichever side is called A, though their orders differ."""
    first, second, extra = holding("a", "b"), holding("c", "d"), holding("b", "c", name="extra")
    a, b = [first, second], [second, first, extra]
    assert [names(row) for row in compare(a, b).rows] == [(["a + b"], ["a + b"]), (["c + d"], ["c + d", "extra"])]
    assert [names(row) for row in compare(b, a).rows] == [(["c + d", "extra"], ["c + d"]), (["a + b"], ["a + b"])]


def test_reformats_whose_layer_is_not_there_are_matched_by_name() -> None:
    """The network's own tensors are no layers; and what only looks like a reformat serves none: another name, or a
    layer with nodes of the model in it."""
    layers = [Layer("Reformatting CopyNode for Network Input data", "Reformat"), reformat("gone")]
    layers += [Layer("gone too"), Layer("Reformatting CopyNode for a party to gone too", "Reformat")]
    found = compare(layers, layers[::-1])
    assert [(row.matched_by, row.serves) for row in found.rows] == [("name", None)] * 4
    layers = [holding("conv"), holding("x", name=reformat("conv").name)]
    assert [(row.matched_by, row.serves) for row in compare(layers, layers[::-1]).rows] == [("nodes", None)] * 2


def test_reformats_of_tensorrt_7() -> None:
    """Law: "conv input reformatter 0" serves "conv"."""
    found = compare([Layer("conv input reformatter 0"), Layer("conv")], [Layer("conv")])
    assert [(*names(row), row.serves) for row in found.rows] == [
        (["conv input reformatter 0"], [], 1),
        (["conv"], ["conv"], None),
    ]


def test_a_profiles_suffix_is_no_part_of_a_name() -> None:
    """Layers of optimization profile 1 are called "conv [profile 1]"; they are those of another plan's profile 0."""
    a = [Layer("conv"), reformat("conv"), holding("x", "y")]
    b = [Layer("conv [profile 1]"), Layer(f"{reformat('conv').name} [profile 1]"), holding("x", "y [profile 1]")]
    assert [(row.matched_by, row.serves) for row in compare(a, b).rows] == [
        ("name", None),
        ("served layer", 0),
        ("nodes", None),
    ]


def test_names_that_repeat_are_matched_in_order() -> None:
    """The k-th layer of a name with the k-th, and what one side has more often stays alone."""
    found = compare_profiles(
        profile((Layer("x"), 1.0), (Layer("x"), 2.0)), profile((Layer("x"), 4.0), (Layer("x"), 8.0), (Layer("x"), 16.0))
    )
    assert [(row.a.time_ns, row.b.time_ns) for row in found.rows] == [(1.0, 4.0), (2.0, 8.0), (0.0, 16.0)]


@given(*(st.lists(st.sampled_from("xyz"), max_size=9) for _ in range(2)))
def test_signatures_are_matched_by_a_longest_common_subsequence(a: list[str], b: list[str]) -> None:
    """As many pairs as the recursion of the longest common subsequence says, equal in kind, and never crossing; of
    several such, the same ones whichever side is called A."""

    @cache
    def longest(i: int, j: int) -> int:
        if not i or not j:
            return 0
        if a[i - 1] == b[j - 1]:
            return longest(i - 1, j - 1) + 1
        return max(longest(i - 1, j), longest(i, j - 1))

    sides = [[shaped(f"{n}{place}", kind, 1, 3) for place, kind in enumerate(side)] for n, side in (("a", a), ("b", b))]
    found = compare(*sides)
    pairs = [(row.a.layers[0], row.b.layers[0]) for row in found.rows if row.matched_by == "signature"]
    assert len(pairs) == longest(len(a), len(b))
    assert all(ours.type == theirs.type for ours, theirs in pairs)
    assert [ours.name for ours, _ in pairs] == sorted(ours.name for ours, _ in pairs)
    assert [theirs.name for _, theirs in pairs] == sorted(theirs.name for _, theirs in pairs)
    assert sorted(names(row) for row in found.rows) == sorted(names(row)[::-1] for row in compare(*sides[::-1]).rows)


def test_signatures_need_shapes_and_the_same_ones() -> None:
    """Kinds and shapes must both be equal and known; engines may call a type differently."""
    a = [shaped("a1", "CaskConvolution", 1, 3), shaped("a2", "kgen", 1, 8), Layer("a3", "kgen"), shaped("a4", "", 4)]
    b = [shaped("b1", "FusedConv", 1, 3), shaped("b2", "kgen", 1, 9), Layer("b3", "kgen"), shaped("b4", "", 4)]
    assert [names(row) for row in compare(a, b).rows if row.matched_by] == [(["a1"], ["b1"])]


def test_rows_are_in_the_order_that_layers_ran_in() -> None:
    """A's order; what is only in B comes after the layer that ran before it there, at the front before all."""
    a = [Layer("first"), Layer("only a"), Layer("last")]
    b = [Layer("b0"), Layer("last"), Layer("b2"), Layer("first"), Layer("b1")]
    order = [(*ours, *theirs)[0] for ours, theirs in map(names, compare(a, b).rows)]
    assert order == ["b0", "first", "b1", "only a", "last", "b2"]


@pytest.mark.parametrize("shared", ["nodes", "name", "signature", "nothing"])
def test_effort_grows_with_the_layers_and_not_with_their_pairs(shared: str) -> None:
    """Eight times as many layers take less than 16 times as many lines of Python, where pairs would take 64 times as
    many, whatever it is that layers have in common, and also where it is nothing."""

    def side(label: str, count: int) -> ProfilePass:
        layers = []
        for place in range(count):
            own = f"{label}{place}"
            match shared:
                case "nodes":  # overlapping, so that they are one component
                    layers.append(holding(f"n{place}", f"n{place + 1}", own, name=own))
                case "name":
                    layers.append(Layer(f"x{place}"))
                case "signature":
                    layers.append(shaped(own, f"{label if place % 7 else ''}{place % 5}", 1, 3))
                case _:
                    layers.append(Layer(own))
        return profile(*((layer, 1.0) for layer in layers))

    few, _ = _traced(side("a", 250), side("b", 250))
    many, found = _traced(side("a", 2000), side("b", 2000))
    assert many < 16 * few
    assert sum(row.matched_by == shared for row in found.rows) == {"nodes": 1, "name": 2000, "nothing": 0}.get(
        shared, math.ceil(2000 / 7)
    )


def _traced(a: ProfilePass, b: ProfilePass) -> tuple[int, LayerComparison]:
    """The comparison, and the lines of Python that it took: the same number on any host."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        found = compare_profiles(a, b)
    finally:
        sys.settrace(before)
    return lines, found


def test_googlenet_in_fp32_and_fp16_of_tensorrt_8_6() -> None:
    """Recorded on an H100: every layer of FP32 that computes finds its partner in FP16 by nodes, one against one.
    Reformats are apart, and what is alone is reformats that say whom they serve."""
    a, b = (profile(*((layer, 1000.0) for layer in googlenet(precision))) for precision in ("fp32", "fp16"))
    found = compare_profiles(a, b)
    computing = [row for row in found.rows if any(layer.precision for layer in row.a.layers)]
    assert len(computing) == sum(bool(times.layer.precision) for times in a.layers) == 57
    for row in computing:
        assert row.matched_by == "nodes"
        (ours,), (theirs,) = row.a.layers, row.b.layers
        assert ours.kind == theirs.kind
    alone = [row for row in found.rows if row.matched_by is None]
    assert alone
    assert all(row.serves is not None for row in alone)
    (reformats,) = (kind for kind in found.kinds if kind.kind == "reformat")
    assert (reformats.a_layers, reformats.b_layers) == (13, 18)
