"""Speed, on the machine at hand. Nothing here is a test: tests never assert a wall time."""
