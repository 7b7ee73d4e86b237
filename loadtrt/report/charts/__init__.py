"""Charts: pure functions from data to SVG, which the page's style sheet colours."""
