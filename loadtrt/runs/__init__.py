"""One maker of runs, for every command and for Python."""
