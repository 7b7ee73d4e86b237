"""Why a measurement is INVALID and what limited a run, each with evidence, cause and remedy. Pure functions."""
