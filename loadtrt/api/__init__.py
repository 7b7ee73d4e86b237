"""What Python programs and notebooks call: `loadtrt.run` and the other commands as functions."""
