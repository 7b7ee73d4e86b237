"""`spin` as machine code, where numba is installed: about a tenth of a request's time in Python, and without the
interpreter's lock."""

from __future__ import annotations

import ctypes
import warnings
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from loadtrt.loop import device as of_device
from loadtrt.loop import requests as of_requests
from loadtrt.loop.device import Device, spin
from loadtrt.loop.requests import view_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.loop.requests import State

_COMPILED = (
    *(of_requests.admit, of_requests.move, of_requests.take, of_requests.next_request, of_requests.sent),
    *(of_requests.finish, of_requests.write_row),
    *(of_device.clock, of_device.launch, of_device.complete, of_device.poll, of_device.receive, spin),
)


def spinner(state: State, device: Device) -> Callable[[int], int]:
    """`spin` of these arrays until an instant: compiled where numba is installed."""
    compiled = _compiled()
    if compiled is None:
        return partial(spin, view_of(state), view_of(device))
    spin_compiled, c_function, type_of = compiled
    device = Device(*(c_function(field) if callable(field) else field for field in device))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # functions as arguments are experimental
        spin_compiled.compile((type_of(state), type_of(device), type_of(0)))  # now, and not at its first call
    return partial(spin_compiled, state, device)


def is_compiled() -> bool:
    """Whether `spinner` runs machine code."""
    return _compiled() is not None


@cache
def _compiled() -> tuple[Any, type, Callable[[Any], Any]] | None:
    """`spin` as numba compiles it at its first call (it is kept beside this file, or in the user's cache), the type of
    a C function that it takes, and what gives numba's type of a value. None where numba is not installed, or was told
    not to compile (NUMBA_DISABLE_JIT)."""
    try:
        import numba
        import numba.experimental.function_type  # without it no function is an argument
    except ImportError:
        return None
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return None
    integer = numba.types.int64

    class CFunction(numba.types.WrapperAddressProtocol):
        def __init__(self, function: Any) -> None:
            self._function = function  # kept alive
            self._address = ctypes.cast(function, ctypes.c_void_p).value or 0

        def __wrapper_address__(self) -> int:  # numba's name
            return self._address

        def signature(self) -> Any:
            return numba.types.int32(integer, integer, integer, integer)

    for function in _COMPILED:
        numba.extending.register_jitable(function)
    sources = crc32(b"".join(Path(str(module.__file__)).read_bytes() for module in (of_requests, of_device)))

    def entry(s: State, d: Device, until: int) -> int:
        # numba keeps code by this file's time and by what is closed over here: a change of other files is known by it.
        return spin(s, d, until) if sources else until

    try:
        return numba.njit(cache=True, nogil=True)(entry), CFunction, numba.typeof
    except RuntimeError:  # no folder to keep it in
        return numba.njit(nogil=True)(entry), CFunction, numba.typeof
