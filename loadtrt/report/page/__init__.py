"""Pages: results → sections of words, tables and charts → HTML or Markdown. Pure functions."""
