"""Errors by cause. Each message is one sentence: what is wrong, where, and what to do.

The command line prints the message on stderr and exits with `exit_code`, without a traceback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

EXIT_INVALID = 97  # the numbers are not the engine's alone, as where the load generator was the bottleneck
EXIT_UNDECIDED = 98  # the sample is too small for a verdict on an objective
EXIT_MISSED = 99  # an objective is missed (k6's code for a threshold)
EXIT_INTERRUPTED = 130


def nearest(word: str, words: Iterable[str], otherwise: str, cutoff: float = 0.6) -> str:
    """ "did you mean 'name'?", where one of `words` is similar to `word`; else `otherwise`."""
    import difflib

    near = difflib.get_close_matches(word, list(words), n=1, cutoff=cutoff)
    return f"did you mean '{near[0]}'?" if near else otherwise


class LoadtrtError(Exception):
    """Base of every error that loadtrt raises on purpose."""

    exit_code = 1


class UsageError(LoadtrtError):
    """A wrong option or configuration key, or a file that is missing or damaged."""

    exit_code = 2


class EngineError(LoadtrtError):
    """The engine cannot serve: a plan that does not load, a shape outside its profiles, a failing enqueue."""

    exit_code = 3


class CudaError(EngineError):
    """A CUDA call failed.

    call: the function.
    status: the name of the status, such as cudaErrorMemoryAllocation.
    explanation: CUDA's text for the status.
    """

    def __init__(self, call: str, status: str, explanation: str) -> None:
        super().__init__(f"{call} failed with {status}: {explanation}")
        self.call = call
        self.status = status
