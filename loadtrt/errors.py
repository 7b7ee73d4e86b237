"""What can go wrong, by whose fault it is. Each error is one sentence: what is wrong, where, and what to do.

The command line prints the sentence on stderr and exits with `exit_code`; it never shows a traceback for these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

EXIT_INVALID = 97  # measured, but the measurement cannot be trusted (the generator was the bottleneck)
EXIT_UNDECIDED = 98  # measured, but too little to tell whether an objective is met
EXIT_MISSED = 99  # measured, and an objective is missed (k6's code for a threshold)
EXIT_INTERRUPTED = 130


def nearest(word: str, words: Iterable[str], otherwise: str, cutoff: float = 0.6) -> str:
    """ "did you mean 'name'?", where one of `words` is near; else that other sentence."""
    import difflib

    near = difflib.get_close_matches(word, list(words), n=1, cutoff=cutoff)
    return f"did you mean '{near[0]}'?" if near else otherwise


class LoadtrtError(Exception):
    """Base of every error that loadtrt raises on purpose."""

    exit_code = 1


class UsageError(LoadtrtError):
    """The caller's fault: an option, a configuration key, a file that is missing or not what it should be."""

    exit_code = 2


class EngineError(LoadtrtError):
    """The engine cannot serve: a plan that does not load, a shape outside its profiles, a failing enqueue."""

    exit_code = 3


class CudaError(EngineError):
    """A CUDA call failed. `call` is the function, `status` its status name (cudaErrorMemoryAllocation, ...)."""

    def __init__(self, call: str, status: str, explanation: str) -> None:
        super().__init__(f"{call} failed with {status}: {explanation}")
        self.call = call
        self.status = status
