"""Parts of an engine that is open: the input sets of their size, and the way of submitting that is best for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from fake_cuda import FakeCuda
from loadtrt.asked.config import RunConfig
from loadtrt.cuda.completion_queue import CompletionQueue
from loadtrt.cuda.lane import Lane, LanePart
from loadtrt.cuda.stream import Stream
from loadtrt.engines.engine import Shares, Spins, Submits
from loadtrt.engines.simulated import SimulatedEngine
from loadtrt.load.tensors import TensorSpec
from loadtrt.loop import device as loop
from loadtrt.loop.requests import view_of
from loadtrt.runs.narrowed import Narrowed, Part
from ways_of_submitting import Ways

if TYPE_CHECKING:
    from loadtrt.sizing.rig import Rig


def _queue(monkeypatch: pytest.MonkeyPatch) -> tuple[CompletionQueue, FakeCuda]:
    """Two lanes of two sizes with three input sets each, whose inputs are at 1, 2, … 6."""
    cuda = FakeCuda()
    cuda.install(monkeypatch, "cuda.lane", "cuda.stream", "cuda.memory")
    enqueue = cuda.step("enqueue")

    def part(first: int) -> LanePart:
        tensors = [TensorSpec("x", True, "uint8", (1 << 20,), 1 << 20), TensorSpec("y", False, "uint8", (8,), 8)]
        addresses = [{"x": first + number} for number in range(3)]
        return LanePart(tensors, lambda *_: None, lambda on: not enqueue(on), lambda: "", addresses)

    lanes = [Lane([part(1), part(4)], 2, stream=Stream(), graph=True, copies=True) for _ in range(2)]
    clock: Any = SimpleNamespace(anchor=1, anchor_ns=0, host_ns_per_ms=1e6, take_anchor=lambda: None)
    return CompletionQueue(lanes, clock), cuda


@pytest.mark.parametrize("way", [0, 1])
def test_a_size_is_launched_with_its_own_input_sets(way: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: what `loop.device.launch` enqueues for input set k of a part is what the whole engine enqueues for
    first + k, on each lane and slot, by each way."""
    queue, _ = _queue(monkeypatch)
    queue.use(way)
    whole: Any = SimpleNamespace(
        batches=(1, 8), parts=((), ()), spins=lambda: queue.arrays, turn=len, error_of=len, submit=len
    )
    noted: list[tuple[int, ...]] = []

    def enqueued(device: Any, lane: int, inputs: int) -> list[tuple[int, ...]]:
        def note(*arguments: int) -> int:
            noted.append(arguments)
            return 0

        names = ("launch", "record", "wait", "copy_in", "copy_out")
        noted.clear()
        assert loop.launch(view_of(device)._replace(**dict.fromkeys(names, note)), lane, inputs) == 0
        device.place[loop.PLACE_CELLS * lane + loop.SLOT] ^= 1  # this slot again
        return list(noted)

    for first, batch in ((0, 1), (3, 8)):
        part = Narrowed(whole, Part(1, 2, batch), [{}] * 6)
        assert isinstance(part, Spins)
        assert len(part.input_sets) == 3
        for lane in range(2):
            for _ in range(2):
                for inputs in range(3):
                    assert enqueued(part.spins(), lane, inputs) == enqueued(queue.arrays, lane, first + inputs) != []
                assert queue.arrays is not None
                queue.arrays.place[loop.PLACE_CELLS * lane + loop.SLOT] ^= 1


def test_a_part_of_an_engine_that_cannot_spin_does_not() -> None:
    """Nor has it several ways of submitting."""
    part = Narrowed(SimulatedEngine(contexts=2), Part(1, 1), [{}])
    assert part.spins() is None
    assert (len(part.ways), part.way) == (0, None)


def test_each_part_has_the_way_that_is_best_for_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """One lane is served faster apart, two lanes as graphs: each part tries once, keeps its way in later runs whatever
    others used meanwhile, and its results say which way and by how much."""
    config = RunConfig.of(engine="simulated:null", contexts=2, requests=20, warmup="100ms", quiet=True)
    made: list[Ways] = []

    def opening(model: Any, *_: Any) -> Any:
        made.append(Ways(model, {"graph": 50, "apart": 100}, graph=200))
        return made[0]

    monkeypatch.setattr("loadtrt.runs.opened.open_engine", opening)
    rig.open(config)
    maker = cast("Any", rig)._maker
    seen = []
    for part, settings in (((1, 2), {"contexts": 1}), (None, {}), ((1, 2), {"contexts": 1}), (None, {})):
        tried = len(made[0].used)
        result = maker.run(config.with_model(**settings), part=part)
        engine = result.model.engine
        seen.append((engine.mode["submit"], dict(engine.submit_rates), len(made[0].used) - tried))
    alone, both = {"graph": 5_000, "apart": 10_000}, {"graph": 25_000, "apart": 20_000}
    assert [way for way, _, _ in seen] == ["apart", "graph"] * 2
    assert [rates for _, rates, _ in seen] == [pytest.approx(rates, rel=0.01) for rates in (alone, both)] * 2
    assert [count for _, _, count in seen] == [10, 10, 1, 1]
    assert isinstance(made[0], Submits)


def test_a_part_says_when_to_look_as_the_whole_does(rig: Rig) -> None:
    """So that it can be driven beside other models; an engine that does not say is looked at all the time."""
    rig.open(RunConfig.of(engine="simulated:service=5ms,clock=virtual", contexts=2, quiet=True))
    (opened,) = cast("Any", rig)._maker.models.values()
    whole = opened.engine
    part = Narrowed(whole, Part(1, 1), [{}])
    assert isinstance(part, Shares)
    whole.submit(0, 0)
    assert part.next_look(soon=True) == whole.next_look(soon=True) == 5_000_000
    assert (part.clock, part.wakeup) == (whole.clock, None)
    bare = Narrowed(cast("Any", SimpleNamespace(parts=(), batches=())), Part(1, 1), [{}])
    assert (bare.next_look(soon=True), bare.clock, bare.wakeup) == (0, None, None)
