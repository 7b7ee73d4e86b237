"""INT8 for builders that choose types themselves (TensorRT 8.6 and 10): an entropy calibrator with a cache file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt.cuda.memory import DeviceBuffer
from loadtrt.cuda.runtime import call, cudart
from loadtrt.errors import UsageError
from loadtrt.files import write_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadtrt.load.tensors import Arrays


def make_calibrator(module: Any, sets: Sequence[Arrays], batch: int, cache: Path | None) -> Any:
    """An instance of a subclass of the module's IInt8EntropyCalibrator2, which hands out `sets` once each.

    With `cache` there, its ranges are taken and no set is asked for; else the ranges that come out are written to it.
    TensorRT calls it in the building thread, whose device must be set. `close()` frees its device memory.
    """

    class Calibrator(module.IInt8EntropyCalibrator2):  # type: ignore[misc]  # a class only known at run time
        def __init__(self) -> None:
            module.IInt8EntropyCalibrator2.__init__(self)  # pybind11 wants its own constructor, not super()
            self.sets = iter(sets)
            self.buffers: dict[str, DeviceBuffer] = {}
            self.failure: Exception | None = None

        def get_batch_size(self) -> int:
            return batch

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            arrays = next(self.sets, None)
            if arrays is None:
                return None
            try:
                return [self._upload(name, arrays[name]) for name in names]
            except Exception as error:  # an exception here would end the process: C++ calls this
                self.failure = error
                return None

        def _upload(self, name: str, array: Any) -> int:
            if name not in self.buffers:
                self.buffers[name] = DeviceBuffer(array.nbytes)
            kind = cudart().cudaMemcpyKind.cudaMemcpyHostToDevice
            call("cudaMemcpy", self.buffers[name].address, array.ctypes.data, array.nbytes, kind)
            return self.buffers[name].address

        def read_calibration_cache(self) -> bytes | None:
            try:
                return cache.read_bytes() if cache is not None and cache.is_file() else None
            except OSError as error:
                self.failure = UsageError(f"cannot read calibration cache {cache}: {error.strerror}")
                return None

        def write_calibration_cache(self, data: Any) -> None:
            if cache is None:
                return
            try:
                write_file(cache, bytes(data), "calibration cache")
            except UsageError as error:
                self.failure = error

        def close(self) -> None:
            for buffer in self.buffers.values():
                buffer.close()

    return Calibrator()
