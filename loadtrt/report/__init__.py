"""Results as text. *_sections.py make a result's document (document.py: sections of blocks); plain.py, markdown.py and
html.py write any document; the other modules export results in formats of other programs. formats.py lists the formats
of `loadtrt report`.
"""
