"""Profiles and comparisons of profiles as text."""

from __future__ import annotations

import gzip
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loadtrt.asked.config import RunConfig
from loadtrt.engines.plan_facts import parse_layers
from loadtrt.report.layer_comparison_sections import compared_profiles
from loadtrt.report.plain import TABLE_WIDTH, plain
from loadtrt.report.profile_sections import profile as profile_sections
from loadtrt.results.engine_info import EngineInfo, Layer, LayerTensor
from loadtrt.results.profile_result import ProfilePass, ProfileResult
from loadtrt.stats.profiles import Samples, compare_profiles

if TYPE_CHECKING:
    from collections.abc import Sequence

DATA = Path(__file__).parents[1] / "data"
CONV = Layer("conv1 + relu1", "CaskConvolution", "sm80_xmma", precision="fp16", nodes=("conv1", "relu1"))
POOL = Layer("pool", "CaskPooling", precision="fp32", nodes=("pool",))
REFORMAT = Layer("Reformatting CopyNode for Input Tensor 0 to conv1 + relu1", "Reformat")
NOTHING = Layer("reshape", "NoOp")


def profile_text(result: ProfileResult, **options: Any) -> str:
    return plain(list(profile_sections(result, "x.json", **options)))


def comparison_text(*arguments: Any, **options: Any) -> str:
    return plain(list(compared_profiles(*arguments, **options)))


def profile(*layers: tuple[Layer, float], inferences: int = 1, whole_ns: Sequence[float] = ()) -> ProfilePass:
    """Layers and their times in ns, the same in every inference. whole_ns: of inferences without the profiler."""
    samples = Samples()
    for _ in range(inferences):
        samples.add((layer.name, time_ns) for layer, time_ns in layers)
    return samples.to_pass("graph", [layer for layer, _ in layers], whole_ns)


def result(*passes: ProfilePass, engine: EngineInfo | None = None, **more: Any) -> ProfileResult:
    """A profile of net.plan, or of another engine. more: other fields, such as the notes."""
    found = {
        "loadtrt": "0",
        "started": "",
        "command": (),
        "config": RunConfig.of(engine="x"),
        "environment": {},
        "notes": (),
    }
    return ProfileResult.model_validate({**found, "engine": engine or net(), "passes": passes, **more})


def net(**changes: Any) -> EngineInfo:
    """net.plan on an H100."""
    return replace(
        EngineInfo("tensorrt", "net.plan", "tensorrt", "10.16", "NVIDIA H100", "", 16, (), mode={"graph": "yes"}),
        **changes,
    )


def compared_results(a: ProfileResult, b: ProfileResult) -> str:
    """The comparison of their first passes."""
    return comparison_text(compare_profiles(a, b), "a.json", "b.json")


def compared(a: ProfilePass, b: ProfilePass, top: int | None = None) -> str:
    return comparison_text(compare_profiles(a, b), "a.plan", "b.plan", top=top)


def googlenet(precision: str) -> ProfilePass:
    """Recorded layers of TensorRT 8.6, batch 16, with made-up times: by how much a layer writes, twice that in FP32."""
    text = gzip.decompress((DATA / f"googlenet86_{precision}.layers.json.gz").read_bytes()).decode()
    layers = parse_layers(text)
    halves = {"fp16": 200}
    return profile(*((layer, math.prod(layer.outputs[0].shape) / halves.get(layer.precision, 100)) for layer in layers))


def test_a_profile() -> None:
    """The whole text: hottest first with "#" for the order they ran in, what took no time in one line, by type."""
    layers = ((REFORMAT, 100_000.0), (CONV, 600_000.0), (NOTHING, 0.0), (POOL, 300_000.0))
    found = result(profile(*layers, inferences=500, whole_ns=(1_000_000.0, 1_500_000.0)), notes=("mind this",))
    assert profile_text(found) == (
        """
net.plan on NVIDIA H100 (tensorrt 10.16): layers
  batch 16 · graph yes

graph: layers 1.00 ms in sum (500 inferences), inference 1.25 ms without
  profiler (2 inferences)
at least 250 µs (20.0 %) of an inference is outside its layers: starting them,
  and gaps between them

#  type         precision  average  median     p99   share    sum  layer
2  convolution  fp16        600 µs  600 µs  600 µs  60.0 %   60 %  conv1 + relu1
4  pooling      fp32        300 µs  300 µs  300 µs  30.0 %   90 %  pool
1  reformat                 100 µs  100 µs  100 µs  10.0 %  100 %  input 0 of conv1 + relu1
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
    assert compared(profile(*a, whole_ns=(900_000.0,)), profile(*b, whole_ns=(450_000.0,))) == (
        """
Two profiles, layer by layer
  A  a.plan: graph, 4 layers, 1 inference
  B  b.plan: graph, 6 layers, 1 inference
  B is 2.00× as fast as A: inference without profiler 900 µs → 450 µs, 450 µs
    saved
  sum of layers under the profiler: 750 µs → 500 µs, 250 µs saved, 1.50× as fast
  A, B: batch, device and runtime are unknown, and may differ
  slower in B: 1 row of what both have, by 60.0 µs in all
  reformats take 0 ns in A and 40.0 µs in B: 40.0 µs of what other layers save
    go there
  rows matched: 2 by the model's nodes, 1 by name, 1 only by type and shapes (≈)

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
    ("whole_ns", "words"),
    [
        (2_000_000.0, "at least 1.00 ms (50.0 %) of an inference is outside its layers"),
        (800_000.0, "the layers' sum is 200 µs (25.0 %) more: what the profiler adds, unless layers ran side by side"),
        (1_004_000.0, "the layers' sum is an inference, but for 4.00 µs (0.4 %)"),
    ],
)
def test_what_the_difference_to_a_whole_inference_means(whole_ns: float, words: str) -> None:
    """inference − layers: time outside layers where positive, the profiler's own (or overlap) where negative, nothing
    to explain within 1 %."""
    text = profile_text(result(profile((CONV, 1_000_000.0), whole_ns=(whole_ns,))))
    assert f"without profiler (1 inference) {words}" in " ".join(text.split())


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
        "\n2  convolution  fp16       7.00 µs  7.00 µs  70.0 %  70 %  conv1 + relu1\n2 more layers: 3.00 µs, 30.0 %\n"
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
    """Plans of LAYER_NAMES_ONLY have no types and precisions: no such columns, and one unknown kind."""
    text = profile_text(result(profile((Layer("a"), 3000.0), (Layer(""), 1000.0))))
    assert "#  average   median   share    sum  layer\n1  3.00 µs  3.00 µs  75.0 %   75 %  a\n" in text
    assert "  100 %  (no name)\n" in text
    assert "\nunknown       2  4.00 µs  100.0 %\n" in text


def test_nothing_timed() -> None:
    """A pass without layers, and a comparison with it, say so."""
    assert profile_text(result(profile())).endswith("\nno layer was timed\n")
    text = compared(profile(), profile((CONV, 1000.0)))
    assert "the speed-up is unknown: in one of the two no layer took time" in text
    assert "only in B: 1.00 µs" in text


def test_slower_and_in_another_mode() -> None:
    """B below 1 × loses time, of which reformats eat no gain; passes of different modes are said to be. Without whole
    inferences the sums over layers must do, and are called that."""
    plain = profile((CONV, 3000.0), (REFORMAT, 1000.0)).model_copy(update={"mode": "plain"})
    text = compared(profile((CONV, 1000.0)), plain)
    lost = "sum of layers under the profiler: 1.00 µs → 4.00 µs, 3.00 µs lost, 0.25× as fast "
    assert lost in " ".join(text.split())
    assert "B is" not in text
    assert "reformats take" not in text
    assert "A ran as graph and B as plain" in text
    assert "A ran" not in compared(plain, plain)


def test_the_headline_is_of_whole_inferences() -> None:
    """The profiler adds 10 µs to each of two layers: 20 µs → 10 µs are 2 ×, whatever the sums over layers say. Where
    one side's inference is not known the other's is still told."""
    a = profile((CONV, 20_000.0), (POOL, 20_000.0), whole_ns=(20_000.0,))
    b = profile((CONV, 15_000.0), (POOL, 15_000.0), whole_ns=(10_000.0,))
    text = " ".join(compared(a, b).split())
    assert " B is 2.00× as fast as A: inference without profiler 20.0 µs → 10.0 µs, 10.0 µs saved " in text
    assert " sum of layers under the profiler: 40.0 µs → 30.0 µs, 10.0 µs saved, 1.33× as fast " in text
    text = compared(a, b.model_copy(update={"inference_ns": None}))
    assert "B is" not in text
    assert "\n  inference of A: 20.0 µs without profiler\n" in text


def test_what_differs_between_engines_is_named() -> None:
    """Device, runtime, batch and each setting, where both tell; nothing where they are the same."""
    a = result(profile((CONV, 1000.0)))
    cpu = net(name="b.onnx", device="AMD EPYC", flavour="onnxruntime", version="1.31", batch=4, mode={"threads": "2"})
    text = compared_results(a, result(profile((CONV, 9000.0)), engine=cpu))
    assert "\n  A  a.json: net.plan, batch 16, graph, 1 layer, 1 inference\n" in text
    assert "\n  B  b.json: b.onnx, batch 4, graph, 1 layer, 1 inference\n" in text
    assert (
        "  different: device NVIDIA H100 / AMD EPYC · runtime tensorrt 10.16 / onnxruntime 1.31 · batch 16 / 4 · graph "
        "yes / – · threads – / 2\n" in text.replace("\n    ", " ")
    )
    assert "\n  batches differ in size, and times are of whole batches\n" in text
    same = compared_results(a, a)
    assert "differ" not in same
    assert "unknown" not in same


def test_what_nobody_knows_may_differ() -> None:
    """A file of trtexec tells neither batch nor device: the text says so, of the side that it is."""
    a = result(profile((CONV, 1000.0)))
    text = comparison_text(compare_profiles(a, a.passes[0]), "a.json", "b.json")
    assert "\n  B: batch, device and runtime are unknown, and may differ\n" in text


def test_profiles_that_ended_early() -> None:
    """Interrupted and failed ones say so, alone at the end, and in a comparison of the side that it is."""
    found = profile((CONV, 1000.0))
    whole, stopped = result(found), result(found, outcome="interrupted")
    broken = result(found, outcome="failed", failure="the GPU\nis lost")
    assert "until then" not in profile_text(whole) + compared_results(whole, whole)
    assert profile_text(stopped).endswith("\n\nINTERRUPTED\n")
    shown = "    shown: what was timed until then\n"
    assert profile_text(broken).endswith("\n\nFAILED\n✗ the GPU\\nis lost\n" + shown)
    assert profile_text(result(outcome="failed", failure="no")).endswith("\n\nFAILED\n✗ no\n")
    text = compared_results(stopped, broken)
    assert "\n  A: interrupted, what was timed until then is shown\n" in text
    assert "\n  B: failed (the GPU\\nis lost), what was timed until then is shown\n" in text


UNTYPED = (Layer("conv1 + relu1", nodes=("conv1", "relu1")), Layer(REFORMAT.name), Layer("pool", nodes=("pool",)))


@pytest.mark.parametrize("swapped", [False, True])
def test_a_side_that_tells_only_names(swapped: bool) -> None:
    """Types are the other side's, its precision is "?", and what is by type is left out: the sentence on reformats, the
    table. A hint says what would tell more."""
    typed = profile((CONV, 9000.0), (POOL, 3000.0))
    untyped = profile(*((layer, 2000.0) for layer in UNTYPED))
    sides = (untyped, typed) if swapped else (typed, untyped)
    text = compared(*sides)
    precision = "?→fp16" if swapped else "fp16→?"
    assert f"  {precision}     convolution  conv1 + relu1\n" in text
    assert "reformats take" not in text
    assert "\ntype  " not in text
    letter = "A" if swapped else "B"
    told = f"{letter} has only names of layers, so types and reformats are not compared: `loadtrt compare "
    assert f"{told}--layer-info-{letter.lower()} FILE` takes its layer information" in text.replace("\n    ", " ")
    by_loadtrt = compared_results(*map(result, sides))
    assert f"{told.split('`', maxsplit=1)[0]}profile a plan of detailed" in by_loadtrt.replace("\n    ", " ")
    assert "only names" not in compared(typed, typed)
    assert "\ntype  " in compared(typed, typed)


def test_a_precision_that_is_not_known() -> None:
    """Of one layer of a side that has types: "?", alone or beside what another layer of the row tells; nothing where
    neither side tells."""
    told = Layer("a + b", "Conv", precision="fp32", nodes=("a", "b"))
    first, second = Layer("a", "Conv", precision="fp16", nodes=("a",)), Layer("b", nodes=("b",))
    assert "fp32→fp16,?  convolution  a + b (1 → 2)\n" in compared(
        profile((told, 5.0)), profile((first, 2.0), (second, 1.0))
    )
    untold = replace(told, precision="")
    assert "  fp32→?     " in compared(profile((told, 5.0)), profile((untold, 2.0)))
    assert "?" not in compared(profile((untold, 5.0)), profile((untold, 2.0)))


def test_control_characters_do_not_reach_the_terminal() -> None:
    """A line feed would break a row, an escape steer the terminal, and half a surrogate pair end the program: in names,
    types, nodes, tactics, notes, and engines they are written as in Python, and there are no more lines for them."""

    def text(name: str) -> str:
        layer = Layer(name, f"T{name}", f"t{name}", nodes=(name, "b"))
        passes = profile((layer, 5.0), (replace(layer, name="idle"), 0.0)), profile((POOL, 1.0))
        found = [result(one, engine=net(name=name), notes=(name,)) for one in passes]
        compared = comparison_text(compare_profiles(*found), name, "b.json")
        return profile_text(found[0], nodes=True) + compared + compared_results(found[0], found[0])

    vile = text("a\n\x1b[2J\x9b\u2028\ud800")
    assert all(line.isprintable() for line in vile.split("\n"))
    assert vile.count(r"a\n\x1b[2J\x9b\u2028\ud800") == text("a;").count("a;")
    assert vile.count("\n") == text("a;").count("\n")


def test_googlenet_fits_the_terminal() -> None:
    """What TensorRT 8.6 calls layers is up to 240 columns long; no line is longer than the tables' width."""
    a, b = googlenet("fp32"), googlenet("fp16")
    text = profile_text(result(a)) + compared(a, b)
    assert max(map(len, text.splitlines())) <= TABLE_WIDTH
    assert "\n19  convolution  fp32" in text
    assert "inception_3b/1x1 +" in text
