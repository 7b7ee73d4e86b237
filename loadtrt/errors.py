"""Errors by cause. Each message is one sentence: what is wrong, where, and what to do.

The command line prints the message on stderr and exits with `exit_code`, without a traceback.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EXIT_INVALID = 97  # the numbers are not the engine's alone, as where the load generator was the bottleneck
EXIT_UNDECIDED = 98  # the sample is too small for a verdict on an objective
EXIT_MISSED = 99  # an objective is missed (k6's code for a threshold)
EXIT_INTERRUPTED = 130
_LONGEST_WORD = 100  # characters of a word that is compared with others


def nearest(word: str, words: Iterable[str], otherwise: str, cutoff: float = 0.6) -> str:
    """ "did you mean 'name'?", where one of `words` is similar to `word`; else `otherwise`."""
    import difflib

    near = difflib.get_close_matches(word[:_LONGEST_WORD], list(words), n=1, cutoff=cutoff)
    return f"did you mean '{near[0]}'?" if near else otherwise


class LoadtrtError(Exception):
    """Base of every error that loadtrt raises on purpose. A long message, such as one that quotes a file, is cut in its
    middle."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        from loadtrt.printing import SENTENCE, shortened  # not before signals have their handlers

        super().__init__(shortened(message, SENTENCE))


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


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Let errors begin with what they are about, such as one of several models. what: "" where nothing needs a name."""
    try:
        yield
    except LoadtrtError as error:
        if what:
            error.args = (f"{what}: {error}",)
        raise


def shortage_of(error: BaseException) -> str | None:
    """The sentence for an error that means that the system gives this process no more memory, files or threads; None
    for other errors."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(shortage_of, error.exceptions)), None)
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number == errno.ENOMEM or _failed_to_load(error):
        return (
            "there is not enough memory: stop other programs, or raise the limit (ulimit -v, or the container's); a "
            "run needs less with a smaller --batch, fewer --input-sets or fewer --contexts"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return "too few files may be open at once: raise the limit, with ulimit -n 1024"
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "no more threads can be started: raise the limits of processes and memory (ulimit -u, ulimit -v)"
    return None


def _failed_to_load(error: BaseException) -> bool:
    """Whether the loader of libraries, or protobuf's C++, found no memory, which they tell by words alone."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ImportError) and "failed to map segment" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return str(error) == "Failed to serialize proto"
