"""`python -m loadtrt`."""

from loadtrt.cli.main import main

main()
