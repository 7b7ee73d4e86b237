"""Rows, histograms and tallies of finished requests. Pure: numpy alone."""
