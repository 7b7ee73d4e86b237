"""SVG as text: elements, escaped whatever is in them, and numbers as short as a pixel allows."""

from __future__ import annotations

import html

from loadtrt.report.formatting import printable, shortened

CHARACTER = 6.6  # px of a character of the charts' 11 px text, on average, in a wide font


def escaped(text: object) -> str:
    """Text for HTML or SVG, also within attributes. What steers a terminal or is no character stands as in Python."""
    return html.escape(printable(str(text)), quote=True)


def element(tag: str, *children: str, **attributes: float | str | None) -> str:
    """<tag attribute="…">children</tag>. children: markup; attributes: text and numbers, with _ for -, and none for
    None; class_ is class."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{short(value) if isinstance(value, int | float) else escaped(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{named}>{''.join(children)}</{tag}>" if children else f"<{tag}{named}/>"


def short(number: float) -> str:
    """A coordinate to a tenth of a pixel."""
    return f"{number:.1f}".removesuffix(".0") if abs(number) >= 0.05 else "0"


def label(text: str, x: float, y: float, class_: str = "", anchor: str | None = None) -> str:
    """Text with its base line at (x, y). anchor: start (None), middle, end."""
    return element("text", escaped(text), x=x, y=y, class_=class_ or None, text_anchor=anchor)


def hint(text: str) -> str:
    """What a pointer that rests on the element around it shows, without a script."""
    return element("title", escaped(text))


def width_of(text: str) -> float:
    """About how many px a label takes."""
    return CHARACTER * len(text)


def cut(text: str, width: float) -> str:
    """The text where it fits in `width` px; else with its middle left out."""
    return shortened(text, max(int(width / CHARACTER), 3))
