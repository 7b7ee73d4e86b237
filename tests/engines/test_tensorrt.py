"""Plans and their contexts: the adapter's contract with each flavour of TensorRT, which is a fake here."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

from fake_tensorrt import Shape, Tensor, batch_in_out
from loadtrt.errors import EngineError, UsageError
from tensorrt_bench import Bench, bench_of

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = 256 * 1024


def test_a_plan_is_loaded_driven_and_let_go(bench: Bench) -> None:
    """Law: in every flavour: shapes decided, contexts enqueue once everything is bound, and nothing is left behind:
    the engine goes after its contexts, the runtime last, streams are destroyed."""
    plan = bench.load(batch=16)
    assert [str(spec) for spec in plan.tensors] == ["data fp32[16,3,224,224]", "prob fp32[16,1000]"]
    assert [spec.nbytes for spec in plan.tensors] == [16 * 3 * 224 * 224 * 4, 16 * 1000 * 4]
    assert plan.batch == 16
    assert bench.world.streams == []
    context = plan.context(5)
    assert not context.enqueue(5)
    assert "Address is not set for data, prob" in context.reason()
    for spec in plan.tensors:
        context.bind(spec.name, ADDRESS)
    assert context.enqueue(5) is True
    assert context.output_shape("prob") == (16, 1000)
    assert context.capturable(5) is (True if plan.flavour.name == "tensorrt_rtx" else None)
    bench.world.events.clear()
    plan.close()
    plan.close()
    gc.collect()
    assert bench.world.events == ["context", "engine", "runtime"]
    with pytest.raises(EngineError, match="closed"):
        context.enqueue(5)


def test_each_part_of_a_mix_has_shapes_and_contexts_of_its_own(bench: Bench) -> None:
    """Law: a part's contexts have its shapes; the plan's tensors and batch are those of the largest part."""
    plan = bench.load(mix="16:0.5, 2:0.5")
    assert [part.batch for part in plan.parts] == [16, 2]
    assert [str(part.tensors[0]) for part in plan.parts] == ["data fp32[16,3,224,224]", "data fp32[2,3,224,224]"]
    assert (plan.batch, plan.tensors) == (16, plan.parts[0].tensors)
    for number, batch in enumerate((16, 2)):
        context = plan.context(5, number)
        assert context.output_shape("prob") == (batch, 1000)
        for spec in plan.parts[number].tensors:
            context.bind(spec.name, ADDRESS)
        assert context.enqueue(5) is True
        context.close()  # 8.6 has one profile here
    plan.close()


def test_a_part_that_does_not_fit_is_said(bench: Bench) -> None:
    """Law: a size outside the profile is one sentence, whichever part has it; nothing is left behind."""
    with pytest.raises(UsageError, match="size 4000 of dimension 0"):
        bench.load(mix="1:1, 4000:1")


def test_each_flavour_is_what_it_is(flavour: str, bench: Bench) -> None:
    """Law: memory comes from what the flavour can tell: engine statistics from 10.14 on, else the plan without its lean
    runtime; scratch memory by the new name, else the old."""
    plan = bench.load(batch=1)
    assert plan.context_bytes == (2048 if flavour == "8.6" else 4096)
    assert plan.weights_bytes == (plan.header.engine_bytes if flavour == "8.6" else 12345)
    assert plan.notes == ()
    assert plan.precision == ""
    plan.close()


@pytest.mark.parametrize(("version", "known"), [("10", 2048), ("11", None)])
def test_a_plan_of_86_in_a_newer_runtime(
    version: str, known: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Law: an answer of 0 with an error logged is none: the old name is asked, or the size is not known and said so."""
    plan = bench_of(version, monkeypatch, tmp_path, inner_86=True).load(batch=1)
    assert plan.context_bytes == known
    assert len(plan.notes) == (known is None)
    assert plan.weights_bytes == plan.header.engine_bytes
    plan.close()


def test_rtx_specialises_its_kernels_before_the_measurement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: on RTX a lane's context has EAGER kernels and no graph of RTX's own."""
    plan = bench_of("rtx", monkeypatch, tmp_path).load(batch=1)
    context = plan.context(5)
    config = context._context._config
    assert config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
    assert config.cuda_graph_strategy.name == "DISABLED"
    plan.close()


def test_contexts_share_a_profile_where_they_may(bench: Bench, flavour: str) -> None:
    """Law: from 10 on contexts share one profile; in 8.6 the second one is refused with the ways out."""
    plan = bench.load(batch=1)
    first = plan.context(5)
    if flavour == "8.6":
        with pytest.raises(
            EngineError, match=r"no more than 1 context at once.*PROFILE_SHARING_0806.*chosen by another"
        ):
            plan.context(6)
        first.close()
        plan.context(6)
    else:
        assert [plan.context(6).profile for _ in range(3)] == [0, 0, 0]
    plan.close()


def test_86_gives_each_context_a_profile_that_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: in 8.6 contexts take the wanted profile and then the free ones whose range holds the shapes; a closed
    context frees its profile."""
    tensors = batch_in_out(profiles=4)
    image = (3, 224, 224)
    tensors[0].ranges[2] = ((1, *image), (1, *image), (2, *image))  # too small for batch 16
    plan = bench_of("8.6", monkeypatch, tmp_path, tensors=tensors, profiles=4).load(batch=16, optimization_profile=1)
    contexts = [plan.context(5) for _ in range(3)]
    assert [context.profile for context in contexts] == [1, 0, 3]
    with pytest.raises(EngineError, match="no more than 3 contexts"):
        plan.context(5)
    contexts[1].close()
    assert plan.context(5).profile == 0
    plan.close()


@pytest.mark.parametrize(
    "world", [{"sharing": True}, {"tensors": [Tensor("x", (4, 8)), Tensor("y", (4,), is_input=False)]}]
)
def test_86_contexts_without_a_contest(world: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: in 8.6 plans built for sharing, and plans whose shapes are fixed, have as many contexts as asked for."""
    bench = bench_of("8.6", monkeypatch, tmp_path, **world)
    plan = bench.load(batch=4)
    assert len([plan.context(5) for _ in range(4)]) == 4
    plan.close()


def test_memory_for_another_context_runs_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: None from create_execution_context is an error with the number, the reason and the ways out."""
    plan = bench_of("10", monkeypatch, tmp_path, contexts_possible=1).load(batch=1)
    plan.context(5)
    with pytest.raises(EngineError, match=r"execution context number 2 .TensorRT says.*OutOfMemory.*fewer --contexts"):
        plan.context(5)
    plan.close()


def _shape_tensors() -> list[Tensor]:
    values: list[tuple[Shape, Shape, Shape]] = [((1, 1), (4, 4), (16, 16))]
    return [
        Tensor("x", (2, 8)),
        Tensor("size", (2,), dtype="INT32", host=True, values=values),
        Tensor("y", (2, 4), is_input=False),
        Tensor("shape", (2,), dtype="INT32", host=True, is_input=False),
    ]


def test_shape_tensors_are_bound_in_host_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: values of --shape-values and host outputs are bound by the adapter, so a lane binds the others alone."""
    bench.world.tensors = _shape_tensors()
    plan = bench.load(shape_values={"size": "8,9"})
    assert [spec.name for spec in plan.tensors if spec.shape_values] == ["size", "shape"]
    assert plan.batch == 2
    context = plan.context(5)
    for name in ("x", "y"):
        context.bind(name, ADDRESS)
    assert context.enqueue(5)
    assert context._kept[-2].tolist() == [8, 9]
    plan.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "size carries a shape.*--shape-values size:(4,4|N,N)"),
        ({"shape_values": {"size": "17,1"}}, "outside the plan's profile"),
        ({"shape_values": {"size": "1,2,3"}}, "has 2 values, not 3"),
        ({"shape_values": {"sizes": "1,2"}}, "did you mean 'size'"),
    ],
)
def test_bad_shape_values(bench: Bench, options: dict[str, Any], words: str) -> None:
    """Law: shape tensors need their values, in number and range, in every flavour (8.6 knows the first range only)."""
    bench.world.tensors = _shape_tensors()
    with pytest.raises(UsageError, match=words):
        bench.load(**options)


def test_buffers_are_as_large_as_their_layout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: bytes = ceil(elements × bits / 8), or padded elements × component for vectorised layouts, or TensorRT's
    bound where the data decide the shape."""
    tensors = [
        Tensor("chw4", (2, 3, 5, 5), dtype="INT8", vector=(1, 4, 1)),
        Tensor("hwc8", (2, 9, 5, 5), dtype="HALF", vector=(1, 8, 2)),
        Tensor("nibbles", (2, 3), dtype="INT4"),
        Tensor("long", (2,), dtype="INT64"),
        Tensor("brain", (2, 2), dtype="BF16"),
        Tensor("flag", (2, 3), dtype="BOOL"),
        Tensor("boxes", (2, -1, 4), is_input=False, data_decides=True, bound=4096),
    ]
    plan = bench_of("10", monkeypatch, tmp_path, tensors=tensors).load()
    assert {spec.name: spec.nbytes for spec in plan.tensors} == {
        "chw4": 2 * 4 * 25,
        "hwc8": 2 * 16 * 25 * 2,
        "nibbles": 3,
        "long": 16,
        "brain": 8,
        "flag": 6,
        "boxes": 4096,
    }
    assert plan.tensors[-1].shape == (2, -1, 4)
    plan.close()


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (Tensor("boxes", (2, -1), is_input=False, data_decides=True), "boxes.*only the data decide.*no upper bound"),
        (Tensor("odd", (2,), dtype="NEWTYPE"), "tensor odd has the type newtype.*update loadtrt"),
    ],
)
def test_buffers_that_cannot_be_sized(
    tensor: Tensor, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Law: no bound and an unknown type are errors that name the tensor; nothing is guessed."""
    with pytest.raises(EngineError, match=words):
        bench_of("10", monkeypatch, tmp_path, tensors=[Tensor("x", (2,)), tensor]).load()


def test_shapes_that_tensorrt_cannot_infer(bench: Bench) -> None:
    """Law: what infer_shapes leaves open is an error that names it."""
    bench.world.infer_missing = ["mystery"]
    with pytest.raises(EngineError, match="cannot infer shapes from mystery"):
        bench.load(batch=1)
    assert bench.world.streams == []


def test_addresses_that_tensorrt_refuses(bench: Bench) -> None:
    """Law: False from set_tensor_address is an error with the tensor, the address and TensorRT's reason."""
    plan = bench.load(batch=1)
    context = plan.context(5)
    with pytest.raises(EngineError, match=r"cannot bind data to address 0x101.*not aligned"):
        context.bind("data", 257)
    plan.close()
