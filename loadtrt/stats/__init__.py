"""Records → numbers, which are fields of results. Pure: numpy alone."""
