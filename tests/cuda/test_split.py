"""One split of a GPU's SMs for several models: disjoint, as large as was asked for, and refused with the numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from fake_cuda import FakeCuda
from fake_driver import H200, FakeDriver
from loadtrt.cuda.partitions import Share, split
from loadtrt.errors import CudaError, EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtrt.cuda.partitions import Partitions


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    return FakeDriver(FakeCuda(), monkeypatch)


def _sizes(made: Mapping[str, Partitions]) -> dict[str, tuple[int, int]]:
    return {name: (one.count, one.sms) for name, one in made.items()}


@pytest.mark.parametrize(
    ("shares", "sizes"),
    [
        ({"a": Share(1, 32), "b": Share()}, {"a": (1, 32), "b": (1, 100)}),
        ({"b": Share(), "a": Share(1, 32), "c": Share()}, {"a": (1, 32), "b": (1, 100), "c": (1, 100)}),
        ({"a": Share(1, 64), "b": Share(1, 64)}, {"a": (1, 64), "b": (1, 64)}),
        ({"a": Share(1, 32), "b": Share(1, 100)}, {"a": (1, 32), "b": (1, 100)}),  # exactly what is left
        ({"a": Share(1, 68), "b": Share(2, 32)}, {"a": (1, 68), "b": (2, 32)}),
        ({"a": Share(1, 96), "b": Share(1, 32)}, {"a": (1, 96), "b": (1, 32)}),
        ({"a": Share(1, 16), "b": Share(1, 40), "c": Share()}, {"a": (1, 16), "b": (1, 40), "c": (1, 76)}),
        ({"a": Share(2, 16), "b": Share(1, 64)}, {"a": (2, 16), "b": (1, 64)}),
        ({"a": Share(1, 20), "b": Share()}, {"a": (1, 24), "b": (1, 108)}),  # numbers are rounded up
        ({"a": Share(1, "25%"), "b": Share(1, "25%")}, {"a": (1, 32), "b": (1, 32)}),  # shares are rounded down
        ({name: Share(1, "25%") for name in "abcd"}, dict.fromkeys("abcd", (1, 32))),
        ({"a": Share(1, "50%"), "b": Share(1, "50%")}, {"a": (1, 64), "b": (1, 64)}),
    ],
    ids=str,
)
def test_each_model_has_what_it_asked_for(
    driver: FakeDriver, shares: dict[str, Share], sizes: dict[str, tuple[int, int]]
) -> None:
    """Law: the driver splits once for all that is used; models without SMs of their own have what is left, all of it,
    together; the sum of what is apart is no more than there is."""
    made = split(H200, shares)
    assert _sizes(made) == sizes
    assert list(made) == list(shares)
    assert len(driver.used) == 1
    apart = sum(count * sms for name, (count, sms) in sizes.items() if shares[name].sms is not None)
    assert apart <= 132
    left = {sms for name, (_, sms) in sizes.items() if shares[name].sms is None}
    assert left <= {132 - apart}
    assert sorted(driver.made) == sorted(sms for count, sms in sizes.values() for _ in range(count))
    for one in made.values():
        one.close()
    assert driver.alive == {}


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        (
            {"a": Share(1, 96), "b": Share(1, 64)},
            "the models ask for more SMs than Fake H200 gives: a 96 + b 64 of 132 SMs, which one split makes 4 parts "
            "of 32 at most: lower --sms of one",
        ),
        ({"a": Share(1, 72), "b": Share(1, 64)}, "a 72 + b 64 of 132 SMs, which one split makes 15 parts of 8 at most"),
        ({"a": Share(3, 48), "b": Share()}, "a 3 × 48 of 132 SMs, which one split makes 2 parts of 48 at most"),
        ({"a": Share(1, 4), "b": Share()}, "--sms 4 is too few: partitions of Fake H200 for a have 8 SMs at least"),
        ({"a": Share(1, "3%"), "b": Share()}, "--sms 3%, which is 3 of 132 SMs, is too few"),
        ({"a": Share(1, 132), "b": Share()}, "--sms 132 is too many: the largest partition of Fake H200 for a has 128"),
    ],
    ids=str,
)
def test_what_cannot_be_is_told_with_the_numbers(driver: FakeDriver, shares: dict[str, Share], words: str) -> None:
    """Law: one sentence with what was asked for and what there is; nothing is left."""
    with pytest.raises(EngineError, match=re.escape(words)):
        split(H200, shares)
    assert (driver.made, driver.alive) == ([], {})


def test_a_model_for_which_nothing_is_left_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: no model is left without SMs."""
    driver = FakeDriver(FakeCuda(), monkeypatch, sms=128)
    device = H200.__class__(0, "Fake", (9, 0), 128, 1 << 30, "0")
    with pytest.raises(EngineError, match=r"no SMs of Fake are left for c: of 128 a has 2 × 32, b has 64; lower --sms"):
        split(device, {"a": Share(2, 32), "b": Share(1, 64), "c": Share()})
    assert driver.made == []


def test_steps_that_are_smaller_than_the_smallest_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: where parts have 4 SMs at least, in steps of 2, different sizes are multiples of 4: one split makes them."""
    driver = FakeDriver(FakeCuda(), monkeypatch, sms=46)
    driver.step, driver.least, driver.most = 2, 4, 46
    device = H200.__class__(0, "Fake", (8, 6), 46, 1 << 30, "0")
    assert _sizes(split(device, {"a": Share(1, 6), "b": Share(1, 4)})) == {"a": (1, 8), "b": (1, 4)}
    assert _sizes(split(device, {"a": Share(1, 6), "b": Share()})) == {"a": (1, 6), "b": (1, 40)}


@pytest.mark.parametrize("name", ["cuDevResourceGenerateDesc", "cuGreenCtxCreate", "cuGreenCtxGetDevResource"])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_failure_of_one_part_leaves_nothing(driver: FakeDriver, name: str, after: int) -> None:
    """Law: the parts of other models that were made are destroyed."""
    driver.failing, driver.after = name, after
    with pytest.raises(CudaError, match=name):
        split(H200, {"a": Share(2, 16), "b": Share(1, 64)})
    assert driver.alive == {}


@pytest.mark.parametrize("priority", [None, 0, -5])
def test_streams_of_a_part_have_the_priority(driver: FakeDriver, priority: int | None) -> None:
    """Law: on a part and without one alike."""
    made = split(H200, {"a": Share(1, 32), "b": Share()})
    whole = split(H200, {"": Share()})[""]
    for one in (*made.values(), whole):
        stream = one.stream_maker(0, priority)()
        assert driver.cuda.priorities[int(stream)] == (priority or 0)
        stream.close()


@pytest.mark.parametrize("parted", [True, False])
def test_a_stream_that_is_not_what_was_asked_for_is_an_error(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, parted: bool
) -> None:
    """Law: neither another priority nor a stream outside of its part is passed over, and the stream is destroyed."""
    made = split(H200, {"a": Share(1, 32), "b": Share()})["a"] if parted else split(H200, {"": Share()})[""]
    monkeypatch.setattr(driver.cuda, "clamped", -3)
    with pytest.raises(EngineError, match="CUDA made a stream of priority -3 where -5 was asked for: leave --priority"):
        made.stream_maker(0, -5)()
    assert driver.cuda.alive == set()
    if parted:
        monkeypatch.setattr(driver, "cuStreamGetGreenCtx", lambda _: (0, 0))
        with pytest.raises(EngineError, match="the driver made a stream outside of its partition"):
            made.stream_maker(0)()
        assert driver.cuda.alive == set()
