"""`spin` as machine code, where numba is installed: about a tenth of a request's time in Python, and without the
interpreter's lock."""

from __future__ import annotations

import ctypes
import warnings
from functools import cache
from operator import ge
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from loadtrt import units
from loadtrt.errors import EngineError
from loadtrt.loop import device as of_device
from loadtrt.loop import requests as of_requests
from loadtrt.loop import routing as of_routing
from loadtrt.loop.device import Device, spin, spin_all

MOST_MODELS = 8  # that `spin_all` is compiled for: that takes 3 s a model up to here, and more beyond

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.loop.requests import State
    from loadtrt.loop.routing import Router

    Function = Callable[..., Any]
    Say = Callable[[str], None]

_STEPS = (
    *(of_requests.admit, of_requests.move, of_requests.take, of_requests.next_request, of_requests.sent),
    *(of_requests.finish, of_requests.write_row),
    *(of_device.clock, of_device.launch, of_device.complete, of_device.poll, of_device.receive, of_device.serve),
)
_ROUTING = (
    *(of_routing.moment, of_routing.outstanding, of_routing.of_two, of_routing.of_all),
    *(of_routing.chosen, of_routing.choose, of_routing.route),
)


_counts: set[int] = set()  # numbers of models that this process has `spin_all` for
_told: list[Say] = []  # who is told that something is compiled: one at most
_spent_ns = [0]


def tell_of_compiling(say: Say) -> None:
    """From now on `say` is told what is compiled, in a sentence, as it begins."""
    _told[:] = [say]


def compiled_ns() -> int:
    """How long this process has compiled so far, ns, without loading what was kept."""
    return _spent_ns[0]


def spinner(state: State, device: Device, router: Router | None = None) -> Callable[[int, int], int]:
    """`spin` of these arrays, or `spin_routed`, as `machine_code`."""
    device = _device_of(state, device)
    if router is None:
        code = machine_code(spin, _STEPS, (state, device, 0, 0), "the loop")
        return lambda soon, until: code((state, device, soon, until))
    router = _callable_arrays(router)
    arguments = state, router, device, 0, 0
    routed = machine_code(of_routing.spin_routed, (*_STEPS, spin, *_ROUTING), arguments, "the loop with routing")
    return lambda soon, until: routed((state, router, device, soon, until))


def spinner_of_all(states: Sequence[State], devices: Sequence[Device]) -> Callable[[int, int], int]:
    """`spin_all` of these arrays, as `machine_code`, for MOST_MODELS at most.

    It is compiled for 2, 4 or 8 models, and any number of them is driven by what this process has: a model that fails
    leaves nothing to compile to the others. Those that are lacking are OVER.
    """
    count = next(count for count in (*sorted(_counts), 2, 4, MOST_MODELS) if count >= len(states))
    n = np.zeros_like(states[0].n)
    n[of_requests.OVER], lacking = 1, count - len(states)
    all_states = (*states, *[states[0]._replace(n=n)] * lacking)
    called = tuple(map(_device_of, states, devices))
    arrays = all_states, (*called, *called[:1] * lacking)
    code = machine_code(spin_all, _STEPS, (*arrays, 0, 0), f"the loop for {count} models")
    _counts.add(count)
    return lambda soon, until: code((*arrays, soon, until))


def _device_of(state: State, device: Device) -> Device:
    n, of = state.n, device.n
    wanted = n[of_requests.LANE_COUNT] - 1, n[of_requests.PLACES] - 1, state.order.max()
    if any(map(ge, wanted, (of[of_device.LANES], of[of_device.BUFFER_SETS], of[of_device.SETS]))):
        raise IndexError("the load has more lanes, buffer sets or input sets than the engine")
    called: Device = _callable_arrays(device)
    return called


def _callable_arrays(arrays: Any) -> Any:
    """A Device or Router with C functions that compiled code takes."""
    return type(arrays)(*(_c_function()(field) if callable(field) else field for field in arrays))


def machine_code(function: Function, calls: tuple[Function, ...], arguments: tuple[Any, ...], what: str) -> Function:
    """Machine code of `function` for arguments of the types of these; it takes them as one tuple. Compiling takes
    seconds, once; numba is installed. Raises EngineError where this numba cannot compile it.

    calls: the functions that it calls, directly or not. All use constants of the modules of these and `units` alone.
    what: it is, for people.
    """
    from numba import __version__, typeof

    types = (typeof(arguments),)  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # functions as arguments are experimental
        try:
            return _compiled(_entry(function, calls, kept=True), types, what)
        except Exception:  # there is no folder to keep it in, it is full, or what is kept there is damaged
            try:
                return _compiled(_entry(function, calls, kept=False), types, what)
            except Exception as error:
                raise EngineError(
                    f"numba {__version__} cannot compile loadtrt's {function.__name__.strip('_')} "
                    f"({type(error).__name__}): pip install -U 'loadtrt[fast]', or set NUMBA_DISABLE_JIT=1 to run it "
                    "in Python"
                ) from error


def _compiled(entry: Any, types: tuple[Any, ...], what: str) -> Function:
    """Machine code of an `_entry`. Raises KeyError where code for other types was kept under these."""
    from numba.core.event import install_listener

    listener = _compiling()(what)
    with install_listener("numba:compile", listener):
        entry.compile(types)  # now, and not at its first call
    _spent_ns[0] += perf_counter_ns() - listener.began_ns if listener.began_ns else 0
    # numba's own dispatch would look at the types of all fields at each call: 0.13 ms, in which requests come due.
    code: Function = entry.overloads[types].entry_point
    return code


@cache
def _compiling() -> type:
    """What numba tells that it compiles, rather than load what was kept. It does so for each function that is called,
    too: the first one counts."""
    from numba.core.event import Listener

    class Compiling(Listener):
        def __init__(self, what: str) -> None:
            self.what, self.began_ns = what, 0

        def on_start(self, event: Any) -> None:
            if not self.began_ns:
                self.began_ns = perf_counter_ns()
                folder = event.data["dispatcher"].stats.cache_path
                kept = f"once; it is kept in {folder}" if folder else "in each process, as it cannot be kept"
                for say in _told:
                    say(f"compiling {self.what}, which takes seconds ({kept})")

        def on_end(self, _: Any) -> None: ...

    return Compiling


@cache
def is_compiled() -> bool:
    """Whether there is machine code: numba is installed, and was not told to make none (NUMBA_DISABLE_JIT)."""
    try:
        import numba
    except Exception:  # it is not there, or broken: beside another numpy it raises errors of any kind
        return False
    return not numba.config.DISABLE_JIT  # type: ignore[attr-defined]


@cache
def _entry(function: Function, calls: tuple[Function, ...], *, kept: bool) -> Any:
    """`function` as numba compiles it. kept: beside this file, or in the user's cache."""
    import numba

    for each in (*calls, function):
        _register(each)
    files = sorted({each.__code__.co_filename for each in (*calls, function)} | {str(units.__file__)})
    sources = crc32(b"".join(Path(file).read_bytes() for file in files))

    def entry(arguments: Any) -> Any:
        _ = sources  # numba keeps code by this file's time and by what is closed over here: other files may change
        return function(*arguments)

    return numba.njit(cache=kept, nogil=True)(entry)


@cache
def _register(function: Function) -> None:
    """Have compiled code call a function as machine code, too."""
    import numba

    numba.extending.register_jitable(function)


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
