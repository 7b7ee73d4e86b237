"""A CUDA driver that makes green contexts of a GPU's SMs, beside the runtime of fake_cuda."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cuda.bindings

from loadtrt.cuda import partitions
from loadtrt.cuda.runtime import DeviceProperties

if TYPE_CHECKING:
    import pytest

    from fake_cuda import FakeCuda

STATUSES = {1: "CUDA_ERROR_INVALID_VALUE", 2: "CUDA_ERROR_OUT_OF_MEMORY", 801: "CUDA_ERROR_NOT_SUPPORTED"}
H200 = DeviceProperties(0, "Fake H200", (9, 0), 132, 141 << 30, "0")
MODULES = ("cuda.lane", "cuda.stream", "cuda.memory", "cuda.partitions")


class Status(int):
    """A result of the driver."""

    @property
    def name(self) -> str:
        return STATUSES[int(self)]


class FakeDriver:
    """The functions that partitions need, strict in their order.

    sms: of the GPU. step: groups have multiples of so many SMs, and `least` or more. most: groups of one split at most.
    failing: the function that fails, with `status`, once `after` calls of it have worked.
    made: SMs of each green context that was made, in order; alive: handles of those that are not destroyed.
    libraries: the code of each that was loaded, empty once it is unloaded; launched: see cuLaunchKernel.
    used: numbers of the splits whose groups green contexts are made of; parts of several splits overlap.
    owner: the green context of each stream, both by handle.
    """

    def __init__(self, cuda_runtime: FakeCuda, monkeypatch: pytest.MonkeyPatch, *, sms: int = 132) -> None:
        self.cuda, self.sms, self.step, self.most, self.least = cuda_runtime, sms, 8, 15, 1
        self.failing, self.after, self.status = "", 0, 2
        self.made: list[int] = []
        self.alive: dict[int, int] = {}
        self.owner: dict[int, int] = {}
        self.splits, self.used = 0, set[int]()
        self.libraries: list[bytes] = []
        self.launched: list[tuple[int, ...]] = []
        cuda_runtime.install(monkeypatch, *MODULES)
        monkeypatch.setattr(cuda.bindings, "driver", self, raising=False)
        monkeypatch.delenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", raising=False)
        # A cache of its own, which ends with the test.
        monkeypatch.setattr(partitions, "_driver", cache(partitions._driver.__wrapped__))

    CUdevResourceType = int

    def _status(self, name: str) -> Status:
        if name == self.failing:
            self.after -= 1
            return Status(self.status if self.after < 0 else 0)
        return Status(0)

    def cuGetErrorString(self, status: int) -> tuple[int, bytes]:  # noqa: N802  # CUDA's name, as those below
        return 0, b"out of memory" if status == 2 else b"operation not supported"

    def cuDeviceGet(self, index: int) -> tuple[Status, int]:  # noqa: N802
        return self._status("cuDeviceGet"), index

    def cuDeviceGetDevResource(self, gpu: int, kind: int) -> tuple[Status, Any]:  # noqa: N802
        assert (gpu, kind) == (0, 1)
        return self._status("cuDeviceGetDevResource"), _resource(self.sms)

    def cuDevSmResourceSplitByCount(  # noqa: N802
        self, count: int, whole: Any, flags: int, least: int
    ) -> tuple[Status, list[Any], int, Any]:
        """As the driver does: sizes are rounded up, and what was not made is of the type INVALID."""
        assert count > 0
        assert flags == 0
        total = whole.sm.smCount
        if least > total:
            return Status(1), [], 0, None
        size = -(-max(least, self.least) // self.step) * self.step
        made = min(count, total // size, self.most)
        self.splits += 1
        groups = [_resource(size) if place < made else _resource(0, 0) for place in range(count)]
        rest = _resource(total - made * size)
        for group in (*groups, rest):
            group.split = self.splits
        return self._status("cuDevSmResourceSplitByCount"), groups, made, rest

    def cuDevResourceGenerateDesc(self, groups: list[Any], count: int) -> tuple[Status, Any]:  # noqa: N802
        assert [group.type for group in groups] == [1] * count
        assert len({id(group) for group in groups}) == count
        self.used |= {group.split for group in groups}
        return self._status("cuDevResourceGenerateDesc"), _resource(sum(group.sm.smCount for group in groups))

    def cuGreenCtxCreate(self, description: Any, gpu: int, flags: int) -> tuple[Status, int]:  # noqa: N802
        assert (gpu, flags) == (0, 1)
        status = self._status("cuGreenCtxCreate")
        handle = -1 - len(self.made)
        if not status:
            self.made.append(description.sm.smCount)
            self.alive[handle] = description.sm.smCount
        return status, handle

    def cuGreenCtxStreamCreate(self, green: int, flags: int, priority: int) -> tuple[Status, int]:  # noqa: N802
        assert flags == 1
        assert green in self.alive
        status = self._status("cuGreenCtxStreamCreate")
        if status:
            return status, 0
        handle = self.cuda.call("cudaStreamCreate")
        self.owner[handle], self.cuda.priorities[handle] = green, priority
        return status, handle

    def cuStreamGetGreenCtx(self, stream: int) -> tuple[Status, int]:  # noqa: N802
        return self._status("cuStreamGetGreenCtx"), self.owner.get(stream, 0)

    def cuGreenCtxGetDevResource(self, green: int, kind: int) -> tuple[Status, Any]:  # noqa: N802
        assert kind == 1
        return self._status("cuGreenCtxGetDevResource"), _resource(self.alive[green])

    CUfunction = CUkernel = CUstream = int
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)

    def cuLibraryLoadData(self, code: bytes, *_: Any) -> tuple[Status, int]:  # noqa: N802
        assert code.endswith(b"}\n\0")
        self.libraries.append(code)
        return self._status("cuLibraryLoadData"), len(self.libraries)

    def cuLibraryGetKernel(self, library: int, name: bytes) -> tuple[Status, int]:  # noqa: N802
        assert b".entry " + name + b"(" in self.libraries[library - 1]
        return self._status("cuLibraryGetKernel"), {b"spin": 1, b"rest": 2}[name]

    def cuKernelSetAttribute(self, attribute: int, value: int, kernel: int, gpu: int) -> tuple[Status]:  # noqa: N802
        assert (attribute, value, kernel, gpu) == (8, self.cuda.attributes["shared"], 1, 0)
        return (self._status("cuKernelSetAttribute"),)

    def cuLaunchKernel(self, kernel: int, *launch: Any) -> tuple[Status]:  # noqa: N802
        """Notes the kernel, its blocks, threads, shared memory, stream and nanoseconds."""
        blocks, _, _, threads, _, _, shared, stream, parameters, _ = launch
        self.launched.append((kernel, blocks, threads, shared, stream, parameters[0][0]))
        return (self._status("cuLaunchKernel"),)

    def cuLibraryUnload(self, library: int) -> tuple[Status]:  # noqa: N802
        assert self.libraries[library - 1]
        self.libraries[library - 1] = b""
        return (self._status("cuLibraryUnload"),)

    def cuGraphKernelNodeGetParams(self, node: int) -> tuple[Status, Any]:  # noqa: N802
        return self._status("cuGraphKernelNodeGetParams"), SimpleNamespace(ctx=self.cuda.nodes[node][2])

    def cuGreenCtxDestroy(self, green: int) -> tuple[Status]:  # noqa: N802
        left = [stream for stream, owner in self.owner.items() if owner == green and stream in self.cuda.alive]
        assert not left, "a green context was destroyed before its streams"
        del self.alive[green]
        return (self._status("cuGreenCtxDestroy"),)


def _resource(sms: int, kind: int = 1) -> Any:
    return SimpleNamespace(type=kind, sm=SimpleNamespace(smCount=sms))
