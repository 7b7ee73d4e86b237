"""Models made on the spot: nothing is downloaded."""
