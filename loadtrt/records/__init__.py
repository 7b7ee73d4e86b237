"""Rows, histograms and tallies of finished requests. Pure: only numpy."""
