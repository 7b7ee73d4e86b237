"""What a run, sweep, capacity search, fleet plan and profile leave behind: the schemas of the files. Types alone."""
