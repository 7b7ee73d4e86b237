"""`spin` as machine code, where numba is installed: about a tenth of a request's time in Python, and without the
interpreter's lock."""

from __future__ import annotations

import ctypes
import warnings
from functools import cache, partial
from operator import ge
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from loadtrt import units
from loadtrt.errors import EngineError
from loadtrt.loop import device as of_device
from loadtrt.loop import requests as of_requests
from loadtrt.loop import routing as of_routing
from loadtrt.loop.device import Device, spin, spin_all
from loadtrt.loop.routing import Router, spin_routed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.loop.requests import State

_COMPILED = (
    *(of_requests.admit, of_requests.move, of_requests.take, of_requests.next_request, of_requests.sent),
    *(of_requests.finish, of_requests.write_row),
    *(of_device.clock, of_device.launch, of_device.complete, of_device.poll, of_device.receive, of_device.serve),
    *(of_routing.moment, of_routing.outstanding, of_routing.idle_since, of_routing.idle_longer),
    *(of_routing.chosen, of_routing.choose, of_routing.route),
    *(spin, spin_routed, spin_all),
)


def spinner(state: State, device: Device, router: Router | None = None) -> Callable[[int], int]:
    """`spin` of these arrays until an instant, or `spin_routed`, as machine code. Compiling takes seconds, once; numba
    is installed. Raises EngineError where this numba cannot compile it."""
    _require_places(state, device)
    return _made("spin", state, device) if router is None else _made("spin_routed", state, router, device)


def spinner_of_all(states: Sequence[State], devices: Sequence[Device]) -> Callable[[int], int]:
    """`spin_all` of these arrays, as `spinner`: compiled once for each number of models."""
    for state, device in zip(states, devices, strict=True):
        _require_places(state, device)
    return _made("spin_all", tuple(states), tuple(devices))


def _require_places(state: State, device: Device) -> None:
    n, of = state.n, device.n
    wanted = n[of_requests.LANE_COUNT] - 1, n[of_requests.PLACES] - 1, state.order.max()
    if any(map(ge, wanted, (of[of_device.LANES], of[of_device.BUFFER_SETS], of[of_device.SETS]))):
        raise IndexError("the load has more lanes, buffer sets or input sets than the engine")


def _made(name: str, *parts: Any) -> Callable[[int], int]:
    """A function of the loop, as machine code that has its arrays."""
    from numba import __version__, typeof

    arrays = tuple(map(_taken, parts))
    types = tuple(map(typeof, (*arrays, 0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # functions as arguments are experimental
        try:
            entry = _entry(name, kept=True)
            entry.compile(types)  # now, and not at its first call
        except Exception:  # there is no folder to keep it in, it is full, or what is kept there is damaged
            entry = _entry(name, kept=False)
            try:
                entry.compile(types)
            except Exception as error:
                raise EngineError(
                    f"numba {__version__} cannot compile loadtrt's loop ({type(error).__name__}): pip install -U "
                    "'loadtrt[fast]', or set NUMBA_DISABLE_JIT=1 to run the loop in Python"
                ) from error
    # numba's own dispatch would look at the types of all fields at each call: 0.13 ms, in which requests come due.
    return partial(entry.overloads[types].entry_point, *arrays)


def _taken(part: Any) -> Any:
    """A State, Router or Device, or a tuple of them, as compiled code takes it."""
    if type(part) is tuple:
        return tuple(map(_taken, part))
    return type(part)(*(_c_function()(field) if callable(field) else field for field in part))


@cache
def is_compiled() -> bool:
    """Whether there is machine code: numba is installed, and was not told to make none (NUMBA_DISABLE_JIT)."""
    try:
        import numba
    except Exception:  # it is not there, or broken: beside another numpy it raises errors of any kind
        return False
    return not numba.config.DISABLE_JIT  # type: ignore[attr-defined]


@cache
def _entry(name: str, *, kept: bool) -> Any:
    """A function of the loop as numba compiles it. kept: beside this file, or in the user's cache."""
    import numba

    for function in _COMPILED:
        numba.extending.register_jitable(function)
    modules = of_requests, of_device, of_routing, units
    sources = crc32(b"".join(Path(str(module.__file__)).read_bytes() for module in modules))

    # numba keeps code by this file's time and by what is closed over here: a change of other files is known by it.
    def of_one(s: State, d: Device, until: int) -> int:
        return spin(s, d, until) if sources else until

    def of_routed(s: State, r: Router, d: Device, until: int) -> int:
        return spin_routed(s, r, d, until) if sources else until

    def of_all(s: Any, d: Any, until: int) -> int:
        return spin_all(s, d, until) if sources else until

    return numba.njit(cache=kept, nogil=True)({"spin": of_one, "spin_routed": of_routed, "spin_all": of_all}[name])


@cache
def _c_function() -> type:
    """The type of a C function that compiled code takes."""
    import numba.experimental.function_type  # without it no function is an argument

    types = numba.types

    class CFunction(types.WrapperAddressProtocol):
        def __init__(self, function: Any) -> None:
            self._function = function  # kept alive
            self._address = ctypes.cast(function, ctypes.c_void_p).value or 0

        def __wrapper_address__(self) -> int:  # numba's name
            return self._address

        def signature(self) -> Any:
            return types.int32(*[types.int64] * 4)

    return CFunction
