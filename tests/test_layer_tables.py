"""Profiles and comparisons of profiles as text."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.engines.layers import parse_layers
from loadtrt.measure.facts import EngineInfo
from loadtrt.measure.layer_comparison import compare_passes
from loadtrt.measure.layers import Layer, LayerTensor
from loadtrt.measure.profile import ProfilePass, ProfileResult, Samples
from loadtrt.report.layer_columns import WIDTH, short_names
from loadtrt.report.layer_tables import comparison_text, profile_text

DATA = Path(__file__).parent / "data"
CONV = Layer("conv1 + relu1", "CaskConvolution", "sm80_xmma", precision="fp16", nodes=("conv1", "relu1"))
POOL = Layer("pool", "CaskPooling", precision="fp32", nodes=("pool",))
REFORMAT = Layer("Reformatting CopyNode for Input Tensor 0 to conv1 + relu1", "Reformat")
NOTHING = Layer("reshape", "NoOp")


def profile(*layers: tuple[Layer, float], inferences: int = 1, inference_ns: float | None = None) -> ProfilePass:
    """Layers and their times in ns, the same in every inference."""
    samples = Samples()
    for _ in range(inferences):
        samples.add((layer.name, time_ns) for layer, time_ns in layers)
    return samples.to_pass("graph", [layer for layer, _ in layers], inference_ns)


def result(*passes: ProfilePass, notes: tuple[str, ...] = ()) -> ProfileResult:
    engine = EngineInfo("tensorrt", "net.plan", "tensorrt", "10.16", "NVIDIA H100", "", 16, ())
    return ProfileResult(
        loadtrt="0", started="", command=(), config={}, environment={}, engine=engine, passes=passes, notes=notes
    )


def compared(a: ProfilePass, b: ProfilePass, top: int | None = None) -> str:
    return comparison_text(compare_passes(a, b), "a.plan", "b.plan", top=top)


def googlenet(precision: str) -> ProfilePass:
    """Recorded layers of TensorRT 8.6, batch 16, with made-up times: by how much a layer writes, twice that in FP32."""
    text = gzip.decompress((DATA / f"googlenet86_{precision}.layers.json.gz").read_bytes()).decode()
    layers = parse_layers(text)
    times = [
        (layer, math.prod(layer.outputs[0].shape) / 100 / (2 if layer.precision == "fp16" else 1)) for layer in layers
    ]
    return profile(*times)


def test_a_profile() -> None:
    """The whole text: hottest first with "#" for the order they ran in, what took no time in one line, by type."""
    layers = ((REFORMAT, 100_000.0), (CONV, 600_000.0), (NOTHING, 0.0), (POOL, 300_000.0))
    found = result(profile(*layers, inferences=500, inference_ns=1_250_000.0), notes=("mind this",))
    assert profile_text(found) == (
        """
net.plan on NVIDIA H100 (tensorrt 10.16) · batch 16
graph: layers 1.00 ms in sum, inference 1.25 ms without profiler (500 inferences)
  250 µs (20.0 %) of an inference is outside its layers: starting them, and gaps between them

#  type               average  median     p99   share    sum  layer
2  convolution  fp16   600 µs  600 µs  600 µs  60.0 %   60 %  conv1 + relu1
4  pooling      fp32   300 µs  300 µs  300 µs  30.0 %   90 %  pool
1  reformat            100 µs  100 µs  100 µs  10.0 %  100 %  input 0 of conv1 + relu1
1 layer took no time: 1 no-op

type         layers    time   share
convolution       1  600 µs  60.0 %
pooling           1  300 µs  30.0 %
reformat          1  100 µs  10.0 %
no-op             1    0 ns   0.0 %

note: mind this
"""
    )


def test_a_comparison() -> None:
    """The whole text: by what changed most, with regressions among it, then what one side has alone, then by type."""
    fused = Layer("conv1 + relu1", "CaskConvolution", precision="fp32", nodes=("conv1", "relu1"))
    conv, relu = (Layer(name, "CaskConvolution", precision="fp16", nodes=(name,)) for name in ("conv1", "relu1"))
    added = Layer("Reformatting CopyNode for Input Tensor 0 to conv1", "Reformat")
    x, y = (Layer(name, "Relu", inputs=(LayerTensor("t", "", "", (1, 8)),)) for name in "xy")
    a = ((fused, 600_000.0), (POOL, 100_000.0), (x, 50_000.0), (NOTHING, 0.0))
    b = ((added, 40_000.0), (conv, 200_000.0), (relu, 50_000.0), (POOL, 160_000.0), (y, 50_000.0), (NOTHING, 0.0))
    assert compared(profile(*a, inference_ns=900_000.0), profile(*b, inference_ns=600_000.0)) == (
        """
A  a.plan: graph, 4 layers, 750 µs in sum; inference 900 µs without profiler
B  b.plan: graph, 6 layers, 500 µs in sum; inference 600 µs without profiler
B is 1.50× as fast as A: layers 750 µs → 500 µs, 250 µs saved; whole inferences 1.50×
  slower in B: 1 row of what both have, by 60.0 µs in all
  reformats take 0 ns in A and 40.0 µs in B: 40.0 µs of what other layers save go there
  rows matched: 2 by the model's nodes, 1 by name, 1 by type and shapes alone (≈)

      A        B     saved  speed-up  precision  type         layer
 600 µs   250 µs    350 µs     2.40×  fp32→fp16  convolution  conv1 + relu1 (1 → 2)
 100 µs   160 µs  −60.0 µs     0.62×  fp32       pooling      pool
50.0 µs  50.0 µs      0 ns     1.00×             activation   ≈ x
(n → m): n layers of A do what m of B do

only in B: 40.0 µs
   time  type      layer
40.0 µs  reformat  for conv1 + relu1

1 row took no time on either side

type         layers        A        B     saved  speed-up
convolution   1 → 2   600 µs   250 µs    350 µs     2.40×
pooling       1 → 1   100 µs   160 µs  −60.0 µs     0.62×
activation    1 → 1  50.0 µs  50.0 µs      0 ns     1.00×
reformat      0 → 1     0 ns  40.0 µs  −40.0 µs         –
no-op         1 → 1     0 ns     0 ns      0 ns         –
all           4 → 6   750 µs   500 µs    250 µs     1.50×
"""
    )


@pytest.mark.parametrize(
    ("inference_ns", "words"),
    [
        (2_000_000.0, "1.00 ms (50.0 %) of an inference is outside its layers"),
        (800_000.0, "200 µs (25.0 %) more than an inference: what the profiler adds"),
        (1_004_000.0, "an inference is its layers: 4.00 µs (0.4 %) apart"),
    ],
)
def test_what_the_difference_to_a_whole_inference_means(inference_ns: float, words: str) -> None:
    """inference − layers: time outside layers where positive, the profiler's own (or overlap) where negative."""
    assert words in profile_text(result(profile((CONV, 1_000_000.0), inference_ns=inference_ns)))


def test_every_pass_has_a_line_and_the_first_one_the_tables() -> None:
    """Where the inference was not measured nothing is said of it."""
    text = profile_text(result(profile((CONV, 2000.0)), profile((POOL, 3000.0))))
    assert "graph: layers 2.00 µs in sum (1 inference)\ngraph: layers 3.00 µs in sum (1 inference)\n\n" in text
    assert "convolution" in text
    assert "pooling" not in text


def test_top_sums_up_the_rest() -> None:
    """The shares that are shown and the rest are 100 %; the types are of all layers."""
    text = profile_text(result(profile((POOL, 1000.0), (CONV, 7000.0), (REFORMAT, 2000.0))), top=1)
    assert (
        "\n2  convolution  fp16  7.00 µs  7.00 µs  70.0 %  70 %  conv1 + relu1\n2 more layers: 3.00 µs, 30.0 %\n"
        in text
    )
    assert "\npooling           1  1.00 µs  10.0 %" in text


def test_top_holds_for_each_part_of_a_comparison() -> None:
    """Of what both have, of what is only in A, and of what is only in B: the N that matter most, a sum of the rest."""

    def side(label: str, scale: float) -> ProfilePass:
        names = (*"xyz", *(f"{label}{number}" for number in range(3)))
        return profile(*((Layer(name), scale * (place + 1)) for place, name in enumerate(names)))

    text = compared(side("a", 10_000.0), side("b", 20_000.0), top=2)
    assert "\n30.0 µs  60.0 µs  −30.0 µs     0.50×  z\n20.0 µs  40.0 µs  −20.0 µs     0.50×  y\n" in text
    assert "\n1 more row: −10.0 µs saved\n" in text
    assert "\nonly in A: 150 µs\n   time  layer\n60.0 µs  a2\n50.0 µs  a1\n1 more row: 40.0 µs\n" in text
    assert "\nonly in B: 300 µs\n  time  layer\n120 µs  b2\n100 µs  b1\n1 more row: 80.0 µs\n" in text


def test_percentiles_that_the_sample_does_not_support_are_not_shown() -> None:
    """Without any p99 its column goes and a line says what it takes; a median that a file does not tell goes too."""
    few = profile((CONV, 1000.0), (POOL, 1000.0))
    text = profile_text(result(few))
    assert " average   median   share    sum  layer\n" in text
    assert "\nno p99: it takes 459 inferences\n" in text
    untold = [times.model_copy(update={"median_ns": None}) for times in few.layers]
    assert " average   share    sum  layer\n" in profile_text(result(few.model_copy(update={"layers": tuple(untold)})))
    mixed = (few.layers[0].model_copy(update={"p99_ns": 1500.0}), few.layers[1])
    assert "1.00 µs        –  50.0 %" in profile_text(result(few.model_copy(update={"layers": mixed})))


def test_nodes_and_tactics_stand_under_their_layers() -> None:
    """Nodes where the name does not say them already; tactics in full; neither unless asked for."""
    renamed = Layer("conv2_nchwc", "Conv", nodes=("conv2",))
    found = result(profile((CONV, 3000.0), (renamed, 2000.0), (POOL, 1000.0)))
    plain, detailed = (profile_text(found, nodes=nodes).splitlines() for nodes in (False, True))
    under = ["      nodes: conv1, relu1", "      tactic: sm80_xmma", "      nodes: conv2"]
    assert [line for line in detailed if line not in plain] == under
    assert [line for line in detailed if line not in under] == plain
    assert detailed.index(under[0]) == next(place for place, line in enumerate(plain) if "conv1 + relu1" in line) + 1


def test_names_alone_make_a_table_too() -> None:
    """Plans of LAYER_NAMES_ONLY have no types and precisions: no such columns, and one kind that is not told."""
    text = profile_text(result(profile((Layer("a"), 3000.0), (Layer(""), 1000.0))))
    assert "#  average   median   share    sum  layer\n1  3.00 µs  3.00 µs  75.0 %   75 %  a\n" in text
    assert "  100 %  (no name)\n" in text
    assert "\nnot told       2  4.00 µs  100.0 %\n" in text


def test_nothing_timed() -> None:
    """A pass without layers, and a comparison with it, say so."""
    assert profile_text(result(profile())).endswith("\nno layer was timed\n")
    text = compared(profile(), profile((CONV, 1000.0)))
    assert "no speed-up can be told: in one of them no layer took time" in text
    assert "only in B: 1.00 µs" in text


def test_slower_and_in_another_mode() -> None:
    """B below 1 × loses time, of which reformats eat no gain; passes of different modes are said to be."""
    plain = profile((CONV, 3000.0), (REFORMAT, 1000.0)).model_copy(update={"mode": "plain"})
    text = compared(profile((CONV, 1000.0)), plain)
    assert "B is 0.25× as fast as A: layers 1.00 µs → 4.00 µs, 3.00 µs lost\n" in text
    assert "reformats take" not in text
    assert "A ran as graph and B as plain" in text
    assert "A ran" not in compared(plain, plain)


@given(st.lists(st.text("ab/ +", min_size=1, max_size=40), max_size=20, unique=True), st.integers(5, 30))
def test_short_names_are_told_apart(names: list[str], width: int) -> None:
    """Different names have different texts, each with the name's beginning and end, and no longer than the width unless
    another name would look the same."""
    short = short_names(names, width)
    assert len(set(short.values())) == len(names)
    for name, text in short.items():
        if "…" in text:
            head, tail = text.split("…")
            assert name.startswith(head)
            assert name.endswith(tail)
            assert len(text) < len(name)
        else:
            assert text == name
        if len(text) > width:
            assert short_names([name], width)[name] in {
                short_names([other], width)[other] for other in names if other != name
            }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Reformatting CopyNode for Output Tensor 1 to conv", "output 1 of conv"),
        ("Reformatting CopyNode for Network Input data", "network input data"),
        ("Reformatting CopyNode for a party", "Reformatting CopyNode for a party"),
        ("/model/layers.11/self_attn/q_proj/MatMul", "/model/layers.1…/q_proj/MatMul"),
    ],
)
def test_how_names_are_shortened(name: str, text: str) -> None:
    """Reformats by whom they serve; long names in the middle."""
    assert short_names([name], max(30, len(text))) == {name: text}


def test_names_that_differ_in_the_middle_keep_what_differs() -> None:
    """Ten layers of a transformer, cut to 30 columns, would all be "/model/layers.1…/q_proj/MatMul": they get as many
    columns more as it takes, and the others none."""
    names = [f"/model/layers.{number}/self_attn/long_names/of/modules/q_proj/MatMul" for number in range(8, 20)]
    short = short_names(names, 30)
    assert len(set(short.values())) == 12
    assert [len(short[name]) for name in names] == [30] * 2 + [36] * 10


def test_googlenet_fits_the_terminal() -> None:
    """What TensorRT 8.6 calls layers is up to 240 columns long; no line is longer than the tables' width."""
    a, b = googlenet("fp32"), googlenet("fp16")
    text = profile_text(result(a)) + compared(a, b)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\n19  convolution  fp32" in text
    assert "inception_3b/1x1 +" in text
