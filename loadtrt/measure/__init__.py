"""Records → numbers. Pure: numpy alone."""
