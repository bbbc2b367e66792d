"""Draw a plot once as SVG in the page's colours and, for the disk, as PNG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartorius.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito, "Color Universal Design" (2008): told apart with any colour vision, on white and on black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8A8A8A")
SIZE = (4.6, 3.2)  # inches: text of 9 points stays legible where a phone shows the plot 360 pixels wide
_INK = "#010203"  # stands for the page's text colour, and is black enough for a PNG
_STYLE: Any = {
    "svg.fonttype": "none",  # letters, not outlines of letters: a third of the size, and they can be searched
    "svg.hashsalt": "sartorius",
    "text.parse_math": False,  # a run may be called a$b$
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
}


@dataclass(frozen=True)
class Plot:
    """One drawing: `name` of its file, `alt` describes it in words, `svg` is an element of a page.

    inches: its width; a wide one has more room on the page.
    """

    name: str
    title: str
    alt: str
    svg: str
    inches: float = SIZE[0]


def draw(
    name: str, title: str, alt: str, paint: Callable[[Axes], object], folder: Path | None,
    size: tuple[float, float] = SIZE,
) -> Plot:  # fmt: skip
    """Paint one panel; with a folder also as `<folder>/<name>.png`, under its title. Same paint, same bytes.

    size: inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # the place of the legend is searched for; on a busy machine matplotlib warns of the time that takes
        warnings.filterwarnings("ignore", 'Creating legend with loc="best"')
        figure = Figure(figsize=size)  # margins by hand: layout engines draw each plot three times
        axes = figure.add_axes((0.135, 0.14, 0.85, 0.83))
        paint(axes)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        svg = _svg(figure, name, alt)
        if folder is not None:
            left, bottom, width, height = axes.get_position(original=True).bounds
            axes.set_position((left, bottom, width, height - 0.06))
            axes.set_title(title, fontsize=10)
            with atomic_path(folder / f"{name}.png") as temporary:
                figure.savefig(temporary, dpi=150)
    return Plot(name, title, alt, svg, size[0])


def _svg(figure: Figure, name: str, alt: str) -> str:
    """Return the figure as an element: no fixed size, no background, unique identifiers, in the page's text colour."""
    from markupsafe import escape

    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", text)
    for identifier in sorted(used, key=len, reverse=True):  # two plots of a page may share them
        text = re.sub(rf'(id="|href="#|url\(#){re.escape(identifier)}(?=["\)])', rf"\g<1>{name}-{identifier}", text)
    head = re.search(r'viewBox="[^"]+"', text)
    box = head[0] if head is not None else ""
    body = text[text.index(">") + 1 :].replace(_INK, "currentColor")
    body = re.sub(r"<[^>]*>", _rounded, re.sub(r"\n\s*", "\n", body))
    return f'<svg role="img" aria-label="{escape(alt)}" {box} xmlns:xlink="http://www.w3.org/1999/xlink">{body.strip()}'


def _rounded(tag: re.Match[str]) -> str:
    """Round the numbers of a tag to a hundredth of a point, an invisible step; text between tags is left alone."""
    return re.sub(r"(\d\.\d{2})\d+", r"\1", tag[0])


def colours(names: Sequence[str]) -> dict[str, str]:
    """Choose a colour for each name, by its place; they repeat after seven."""
    return {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(names)}
