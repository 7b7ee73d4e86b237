"""Two profiles layer by layer: what is matched with what, and that no time is lost or counted twice."""

from __future__ import annotations

import gzip
import math
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from loadtrt.engines.layers import parse_layers
from loadtrt.measure.layer_comparison import LayerComparison, LayerRow, compare_passes
from loadtrt.measure.layer_kinds import kind_of
from loadtrt.measure.layers import Layer, LayerTensor
from loadtrt.measure.profile import ProfilePass, Samples

DATA = Path(__file__).parent / "data"
NODES = [f"n{number}" for number in range(12)]


def profile(*layers: tuple[Layer, float]) -> ProfilePass:
    """One inference of layers with their times in ns."""
    samples = Samples()
    samples.add((layer.name, time_ns) for layer, time_ns in layers)
    return samples.to_pass("graph", [layer for layer, _ in layers], None)


def holding(*nodes: str, kind: str = "CaskConvolution", name: str | None = None) -> Layer:
    return Layer(" + ".join(nodes) if name is None else name, kind, nodes=nodes)


def shaped(name: str, kind: str, *shape: int) -> Layer:
    tensor = LayerTensor("t", "fp32", "", shape)
    return Layer(name, kind, inputs=(tensor,), outputs=(tensor,))


def reformat(target: str, way: str = "Input") -> Layer:
    return Layer(f"Reformatting CopyNode for {way} Tensor 0 to {target}", "Reformat")


def names(row: LayerRow) -> tuple[list[str], list[str]]:
    return [layer.name for layer in row.a.layers], [layer.name for layer in row.b.layers]


def compare(a: list[Layer], b: list[Layer]) -> LayerComparison:
    return compare_passes(*(profile(*((layer, 1.0) for layer in side)) for side in (a, b)))


def googlenet(precision: str) -> tuple[Layer, ...]:
    """What TensorRT 8.6 on an H100 said of GoogLeNet, batch 16."""
    return parse_layers(gzip.decompress((DATA / f"googlenet86_{precision}.layers.json.gz").read_bytes()).decode())


_some_layers = st.builds(
    Layer,
    name=st.sampled_from(["", "a", "b", "a [profile 1]", *(reformat(name).name for name in ("a", "", "n0 + n1"))]),
    type=st.sampled_from(["", "Conv", "CaskConvolution", "Reformat", "kgen"]),
    inputs=st.sampled_from([(), (LayerTensor("x", "fp16", "", (1, 3)),), (LayerTensor("x", "fp16", "", (7,)),)]),
    nodes=st.one_of(st.just(()), st.lists(st.sampled_from(NODES), max_size=4).map(tuple)),
)
_passes = st.lists(st.tuples(_some_layers, st.integers(0, 10**6)), max_size=12).map(lambda layers: profile(*layers))
_held = st.lists(st.lists(st.sampled_from(NODES), max_size=4), max_size=8)
_cuts = st.sets(st.integers(1, len(NODES) - 1))


def _fused(cuts: set[int], kind: str = "Conv") -> list[Layer]:
    """The model's nodes in a row, each run between two cuts fused into one layer."""
    ends = [0, *sorted(cuts), len(NODES)]
    return [holding(*NODES[start:end], kind=kind) for start, end in pairwise(ends)]


@given(_passes, _passes)
def test_no_time_and_no_layer_is_lost(a: ProfilePass, b: ProfilePass) -> None:
    """Σ rows = Σ kinds = layers_ns on each side, and each layer is in exactly one row, whatever the layers are."""
    found = compare_passes(a, b)
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
    found = compare_passes(a, a)
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

    assert told(compare_passes(a, b), swapped=False) == told(compare_passes(b, a), swapped=True)


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


def test_fusion_that_differs_is_many_to_many() -> None:
    """A fuses conv1, relu1 and conv2; B has two layers: one row, and its time is theirs together."""
    a = profile((holding("conv1", "relu1", "conv2"), 90.0), (holding("pool"), 5.0))
    b = profile((holding("conv1", "relu1"), 20.0), (holding("conv2"), 25.0), (holding("pool"), 10.0))
    first, second = compare_passes(a, b).rows
    assert names(first) == (["conv1 + relu1 + conv2"], ["conv1 + relu1", "conv2"])
    assert (first.speedup, first.saved_ns, first.matched_by) == (2.0, 45.0, "nodes")
    assert (second.speedup, second.saved_ns) == (0.5, -5.0)


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


def test_reformats_are_rows_of_their_own_that_say_whom_they_serve() -> None:
    """All reformats of a layer are one row, on whichever side of it they stand; one side may have none. What a fast
    layer loses to them stays visible: conv alone is 5 × as fast, and with its reformat 5/3 ×."""
    conv, pool = holding("conv", "relu"), holding("pool", kind="CaskPooling")
    a = profile((conv, 50.0), (reformat("pool"), 3.0), (pool, 9.0), (reformat("pool", "Output"), 4.0))
    b = profile((reformat("conv + relu"), 20.0), (conv, 10.0), (pool, 9.0), (reformat("pool", "Output"), 5.0))
    found = compare_passes(a, b)
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


def test_reformats_whose_layer_is_not_there_are_matched_by_name() -> None:
    """The network's own tensors are no layers; nor is a name that only looks like a reformat's."""
    layers = [Layer("Reformatting CopyNode for Network Input data", "Reformat"), reformat("gone")]
    found = compare(layers, layers[::-1])
    assert [(row.matched_by, row.serves) for row in found.rows] == [("name", None)] * 2


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
    found = compare_passes(
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


def test_a_layer_that_ran_in_some_inferences_counts_for_all() -> None:
    """time_ns is total / inferences: 30 ns in one of three inferences is 10 ns an inference."""
    samples = Samples()
    for inference in ([("always", 5.0)], [("always", 5.0), ("branch", 30.0)], [("always", 5.0)]):
        samples.add(inference)
    a = samples.to_pass("plain", [], 12.0)
    found = compare_passes(a, profile((Layer("always"), 5.0)))
    assert [row.a.time_ns for row in found.rows] == [5.0, 10.0]
    assert (found.a.layers_ns, found.speedup, found.saved_ns) == (15.0, 3.0, 10.0)


def test_whole_inferences_are_compared_where_both_were_measured() -> None:
    """inference_speedup = a / b of the inferences without the profiler, and None where one is not known."""
    known, unknown = (Samples().to_pass("graph", [], inference_ns) for inference_ns in (30.0, None))
    half = Samples().to_pass("graph", [], 15.0)
    assert compare_passes(known, half).inference_speedup == 2.0
    assert compare_passes(known, unknown).inference_speedup is None
    assert compare_passes(unknown, unknown).speedup is None


def test_json_gives_the_same_comparison_back() -> None:
    """validate(dump(c)) = c, and what the schema does not know is refused."""
    found = compare_passes(
        profile((holding("a", "b"), 3.0), (reformat("a + b"), 1.0)), profile((holding("a"), 2.0), (Layer("z"), 0.0))
    )
    assert LayerComparison.model_validate_json(found.model_dump_json()) == found
    assert found.schema_version == "loadtrt.layers/1"
    with pytest.raises(ValidationError, match="extra"):
        LayerComparison.model_validate({**found.model_dump(), "colour": "red"})


@pytest.mark.parametrize("shared", ["nodes", "name", "signature", "nothing"])
def test_two_thousand_layers_take_less_than_a_second(shared: str) -> None:
    """Whatever it is that layers have in common, and also where it is nothing."""

    def side(label: str) -> ProfilePass:
        layers = []
        for place in range(2000):
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

    a, b = side("a"), side("b")
    began = process_time()
    found = compare_passes(a, b)
    assert process_time() - began < 1
    assert sum(row.matched_by == shared for row in found.rows) == {"nodes": 1, "name": 2000, "nothing": 0}.get(
        shared, math.ceil(2000 / 7)
    )


@pytest.mark.parametrize(
    ("kind", "types"),
    [
        ("convolution", "CaskConvolution CaskGemmConvolution CaskJitConv Conv FusedConv QLinearConv correlation conv"),
        ("deconvolution", "CaskDeconvolutionV2 ConvTranspose Deconvolution"),
        ("matmul", "gemm Gemm FusedMatMul CaskGemmMatrixMultiply MatrixMultiply QLinearMatMul FullyConnected"),
        ("pooling", "CaskPooling MaxPool GlobalAveragePool pool"),
        ("reformat", "Reformat ReorderInput ReorderOutput MemcpyFromHost"),
        ("no-op", "NoOp Identity"),
        ("softmax", "CaskSoftMaxV2 Softmax SoftMax"),
        ("LRN", "LRN CaskLRN"),
        ("normalization", "LayerNormalization SkipLayerNormalization BatchNormalization"),
        ("elementwise", "PointWiseV2 ElementWise Add Mul"),
        ("activation", "Relu LeakyRelu Sigmoid QuickGelu Clip Activation"),
        ("attention", "MultiHeadAttention Attention fmha"),
        ("quantize", "QuantizeLinear DequantizeLinear"),
        ("cast", "Cast ConvertToHalf"),
        ("plugin", "PluginV2 PluginV3"),
        ("concat", "Concat Concatenation"),
    ],
)
def test_engines_words_for_one_kind(kind: str, types: str) -> None:
    """TensorRT's types and ONNX Runtime's operators become one word."""
    assert {type_: kind_of(Layer("x", type_)) for type_ in types.split()} == dict.fromkeys(types.split(), kind)


@pytest.mark.parametrize("type_", ["kgen", "Myelin", "wait", "NonMaxSuppression", "MyOwnOp"])
def test_kinds_that_are_not_known_stay_as_they_are(type_: str) -> None:
    """kind_of is the identity on what it does not know."""
    assert kind_of(Layer("x", type_)) == type_


def test_reformats_are_known_by_name_where_types_are_not_told() -> None:
    """Engines of LAYER_NAMES_ONLY tell no types: "" but for what TensorRT calls a reformat."""
    assert [kind_of(layer) for layer in (Layer(reformat("x").name), Layer("x input reformatter 1"), Layer("x"))] == [
        "reformat",
        "reformat",
        "",
    ]


def test_googlenet_in_fp32_and_fp16_of_tensorrt_8_6() -> None:
    """Recorded on an H100: every layer of FP32 that computes finds its partner in FP16 by nodes, one against one.
    Reformats are apart, and what is alone is reformats that say whom they serve."""
    a, b = (profile(*((layer, 1000.0) for layer in googlenet(precision))) for precision in ("fp32", "fp16"))
    found = compare_passes(a, b)
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
