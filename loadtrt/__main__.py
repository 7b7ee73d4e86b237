"""The entry point of `loadtrt` and of `python -m loadtrt`: nothing is imported before a signal has its sentence."""

import atexit
import gc
import os
import sys
from contextlib import suppress

from loadtrt.errors import EXIT_INTERRUPTED
from loadtrt.signals import SIGNALS, end_with_parent


def main() -> None:
    """Run the command line and exit. A signal while it is still being imported ends in a sentence, too."""
    # Pydantic looks for plugins in the metadata of every installed package, of which GPU hosts have hundreds.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # numpy's OpenBLAS would start a thread for each core, with 40 MB each, for nothing: loadtrt multiplies no matrices.
    # Where it cannot, it sends this process SIGINT.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with SIGNALS:
        try:
            end_with_parent()
            if sys.stdout is sys.__stdout__:  # the process's own, not one that a caller in Python put there
                atexit.register(gc.freeze)  # CPython would look for garbage in all that is left: 0.1 s
                from loadtrt.cli.streams import prepare

                prepare()
            from loadtrt.cli.main import main as run

            run()
        except KeyboardInterrupt:
            SIGNALS.over(EXIT_INTERRUPTED)
            with suppress(OSError, ValueError):  # the terminal has gone
                print("loadtrt: interrupted", file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)
        except SystemExit as end:
            SIGNALS.over(int(end.code or 0))
            raise


if __name__ == "__main__":
    main()
