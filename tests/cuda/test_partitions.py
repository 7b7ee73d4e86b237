"""Partitions of a GPU's SMs: how large they are, what is refused, and that nothing of them is left."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import cuda.bindings
import pytest

from fake_cuda import FakeCuda
from fake_driver import H200, FakeDriver
from loadtrt.cuda import partitions
from loadtrt.cuda.partitions import Partitions, Share, split
from loadtrt.errors import CudaError, EngineError

if TYPE_CHECKING:
    from loadtrt.cuda.runtime import DeviceProperties


def _alone(count: int, sms: int | str | None = None, device: DeviceProperties = H200) -> Partitions:
    """The partitions of a run of one model."""
    return split(device, {"": Share(count, sms)})[""]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    return FakeDriver(FakeCuda(), monkeypatch)


@pytest.mark.parametrize(
    ("count", "asked", "given"),
    [(2, None, 64), (3, None, 40), (4, None, 32), (8, None, 16), (15, None, 8), (1, 8, 8), (1, 20, 24), (4, 16, 16)],
)
def test_shares_are_equal_and_as_large_as_they_can_be(
    driver: FakeDriver, count: int, asked: int | None, given: int
) -> None:
    """Law: without --sms no larger share is possible, with it the share is that or the next that the GPU has."""
    made = _alone(count, asked)
    assert driver.made == [given] * count
    assert made.text == f"{count} of {given} SMs"
    made.close()
    made.close()
    assert driver.alive == {}


@pytest.mark.parametrize("step", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("sms", [16, 60, 84, 132, 148])
def test_no_larger_share_is_left_out(monkeypatch: pytest.MonkeyPatch, sms: int, step: int) -> None:
    """Law: whatever the GPU's steps, shares of one more step would be too many."""
    driver = FakeDriver(FakeCuda(), monkeypatch, sms=sms)
    driver.step, driver.most = step, sms
    device = H200.__class__(0, "Fake", (9, 0), sms, 1 << 30, "0")
    for count in range(2, sms // step + 1):
        made = _alone(count, device=device)
        assert count * made.sms <= sms < count * (made.sms + step)
        made.close()


@pytest.mark.parametrize(("sms"), [None, 132])
def test_one_partition_of_all_sms_is_the_gpu(driver: FakeDriver, sms: int | None) -> None:
    """Law: nothing is made for it, so it works with every driver; its streams are plain."""
    made = _alone(1, sms)
    assert (driver.made, made.text) == ([], "1 of 132 SMs")
    made.stream_maker(0)().close()
    assert driver.owner == {}


def test_contexts_take_partitions_in_turn(driver: FakeDriver) -> None:
    """Law: context i is on partition i modulo N, with all its streams."""
    made = _alone(3)
    streams = [made.stream_maker(context)() for context in (0, 1, 2, 3, 4, 3)]
    assert [driver.owner[int(stream)] for stream in streams] == [-1, -2, -3, -1, -2, -1]
    for stream in streams:
        stream.close()
    made.close()
    assert (driver.alive, driver.cuda.alive) == ({}, set())


@pytest.mark.parametrize(
    ("count", "sms", "words"),
    [
        (100, None, "--partitions 100 are too many: the 132 SMs of Fake H200 make 15 partitions of 8 SMs at most"),
        (16, None, "--partitions 16 are too many: the 132 SMs of Fake H200 make 15 partitions of 8 SMs at most"),
        (4, 40, "--partitions 4 are too many: the 132 SMs of Fake H200 make 3 partitions of 40 SMs at most"),
        (1, 7, "--sms 7 is too few: partitions of Fake H200 have 8 SMs at least"),
        (1, 130, "the largest partition of Fake H200 has 128 SMs, or all 132 as --sms 132"),
        (1, 4096, "--sms 4096 is too many: the largest partition of Fake H200 has 128 SMs, or all 132 as --sms 132"),
        (2, 130, "--sms 130 is too many: the largest partition of Fake H200 has 128 SMs"),
    ],
)
def test_what_the_gpu_cannot_give_is_said_with_what_it_can(
    driver: FakeDriver, count: int, sms: int | None, words: str
) -> None:
    """Law: one sentence with the limit, which holds: what it names can be had."""
    with pytest.raises(EngineError, match=f"{re.escape(words)}$"):
        _alone(count, sms)
    assert driver.made == []
    most = {name: int(number) for number, name in re.findall(r"(\d+) (partitions|SMs)", words.partition(":")[2])}
    if sms is None:
        _alone(most["partitions"]).close()


def test_a_gpu_without_partitions_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: where not even one is possible, no number is proposed."""
    driver = FakeDriver(FakeCuda(), monkeypatch, sms=4)
    with pytest.raises(EngineError, match="makes no partitions of its 4 SMs: leave --partitions and --sms out"):
        _alone(2, device=H200.__class__(0, "Fake", (7, 5), 4, 1 << 30, "0"))
    assert driver.made == []


_STEPS = (
    *("cuDeviceGet", "cuDeviceGetDevResource", "cuDevSmResourceSplitByCount", "cuDevResourceGenerateDesc"),
    "cuGreenCtxCreate",
)


@pytest.mark.parametrize(("name", "after"), [*((name, 0) for name in _STEPS), *((name, 3) for name in _STEPS[3:])])
def test_a_failure_at_any_step_leaves_nothing(driver: FakeDriver, name: str, after: int) -> None:
    """Law: what was made is destroyed. Where CUDA refuses partitions, the sentence has its words, what may be why, and
    a way out; other errors are told as they are."""
    driver.failing, driver.after, driver.status = name, after, 801
    with pytest.raises(
        EngineError, match=rf"Fake H200 makes no partitions.*{name}.*NOT_SUPPORTED.*MPS or MIG.*leave out"
    ):
        _alone(8)
    assert len(driver.made) == after
    driver.after, driver.status = after, 2
    with pytest.raises(CudaError, match=rf"^{name} failed with CUDA_ERROR_OUT_OF_MEMORY: out of memory$"):
        _alone(8)
    assert driver.alive == {}


def test_every_partition_is_destroyed_although_one_fails(driver: FakeDriver) -> None:
    """Law: an error of one is raised once all have been destroyed."""
    made = _alone(4)
    driver.failing = "cuGreenCtxDestroy"
    with pytest.raises(CudaError, match="cuGreenCtxDestroy"):
        made.close()
    assert driver.alive == {}


def test_mps_percentages_are_refused(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: SMs that another setting overrides are not told as given; 100 overrides nothing."""
    monkeypatch.setenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "50")
    with pytest.raises(EngineError, match=r"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=50 overrides .*: unset it"):
        _alone(2)
    monkeypatch.setenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "100")
    _alone(2).close()
    assert driver.made == [64, 64]


def test_old_bindings_are_told(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: names that the bindings lack are noticed before anything is made."""

    class Old:
        def __getattr__(self, name: str) -> Any:
            if name == "cuGreenCtxStreamCreate":
                raise AttributeError(name)
            return getattr(driver, name)

    monkeypatch.setattr(cuda.bindings, "driver", Old())
    with pytest.raises(EngineError, match=r"cuda-bindings 12.9 or newer: pip install"):
        _alone(2)
    assert driver.made == []


def test_an_old_driver_is_told(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a function that the installed driver lacks, which the bindings tell by a RuntimeError, is one sentence."""

    def missing(*_: Any) -> None:
        raise RuntimeError('Function "cuDeviceGetDevResource" not found')

    monkeypatch.setattr(driver, "cuDeviceGetDevResource", missing)
    monkeypatch.setattr("loadtrt.cuda.partitions.versions", lambda: ("12.2", "13.0"))
    with pytest.raises(EngineError, match=r"a driver of CUDA 12.5 or newer, and this one is of CUDA 12.2: update it"):
        _alone(2)
    assert driver.made == []


def test_the_real_bindings_have_the_names() -> None:
    """Law: what is called exists in the bindings that tests have, with as many parameters."""
    real = partitions._driver()
    expected = {
        "cuDeviceGet": 1,
        "cuDeviceGetDevResource": 2,
        "cuDevSmResourceSplitByCount": 4,
        "cuDevResourceGenerateDesc": 2,
        "cuGreenCtxCreate": 3,
        "cuGreenCtxStreamCreate": 3,
        "cuGreenCtxDestroy": 1,
        "cuGreenCtxGetDevResource": 2,
    }
    assert set(expected) == set(partitions._NEEDED)
    for name, count in expected.items():
        signature = (getattr(real, name).__doc__ or "").partition("\n")[0]
        assert signature.startswith(f"{name}("), signature
        assert signature.count(",") == count - 1, signature
    assert int(real.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM) == partitions._SM
    assert int(real.CUstream_flags.CU_STREAM_NON_BLOCKING) == partitions._NON_BLOCKING
    assert int(real.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM) == partitions._DEFAULT_STREAM
    assert {"type", "sm"} <= set(dir(real.CUdevResource()))
    assert real.CUdevResource().sm.smCount == 0
