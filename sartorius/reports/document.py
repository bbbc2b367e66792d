"""A page: one HTML file with everything in it, whose policy forbids the browser any network access."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from sartorius.reports.figures import Plot

if TYPE_CHECKING:
    from jinja2 import Template

    from sartorius.reports.gallery import Card

FILES = ("page.html.j2", "page.css", "page.js")  # beside this module, in the installed package too
Value = str | int | float | None


@dataclass(frozen=True)
class Table:
    """A table of a page: a line a row, text left and numbers right. shares: 0..1 a cell, drawn as its background."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    note: str = ""
    sortable: bool = False
    shares: Sequence[Sequence[float | None]] = field(default_factory=list)

    @property
    def numeric(self) -> list[bool]:
        """Whether a column holds numbers and nothing else but gaps, for each column; the first names the line."""
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.columns)
        given = [[value for value in column if value is not None] for column in columns]
        return [k > 0 and all(isinstance(value, int | float) for value in values) for k, values in enumerate(given)]


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading: plots, then tables, which `fold` folds away under these words."""

    anchor: str
    title: str
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    fold: str = ""


@dataclass(frozen=True)
class Gallery:
    """The images of a page. available: how many there are. views: names of the runs that can be switched between.

    types: cell types to choose from. labelled: annotated cells are shown too. counted: images without truth are
    counted, and can be sorted by that.
    """

    cards: Sequence[Card] = ()
    available: int = 0
    views: Sequence[str] = ()
    types: Sequence[str] = ()
    labelled: bool = False
    counted: bool = False
    folds: bool = False


@dataclass(frozen=True)
class Document:
    """The content of a page. facts: of each unit (a run), by name. names: of the units.

    tiles: the numbers at the top, (value, caption, small print). notes: what to know. top: tables below them. configs:
    folded tables at the end.
    """

    title: str
    facts: Sequence[Mapping[str, str]]
    tiles: Sequence[tuple[str, str, str]] = ()
    notes: Sequence[str] = ()
    top: Sequence[Table] = ()
    sections: Sequence[Section] = ()
    configs: Sequence[Table] = ()
    names: Sequence[str] = ()
    gallery: Gallery = field(default_factory=Gallery)

    def html(self) -> str:
        """Return the page's text; the same content gives the same text."""
        from markupsafe import Markup

        css, js = (_text(name) for name in ("page.css", "page.js"))
        return _template().render(
            {**vars(self), **vars(self.gallery)},
            many=len(self.names) > 1,
            css=Markup(css + _layer_css(len(self.gallery.views))),
            js=Markup(js),
            js_hash=base64.b64encode(hashlib.sha256(js.encode()).digest()).decode("ascii"),  # no other script runs
        )


def _template() -> Template:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": shown, "svg": Markup}
    environment.tests["number"] = lambda value: isinstance(value, int | float)
    return environment.from_string(_text("page.html.j2"))


def _text(name: str) -> str:
    return resources.files("sartorius.reports").joinpath(name).read_text(encoding="utf-8")


def _layer_css(views: int) -> str:
    """Write CSS that shows the chosen view's layers and marks the annotated cells that it misses."""
    rules = []
    for k in range(views):
        view = f'[data-view="{k}"]'
        rules += [
            f"{view} path:is(.hit,.false,.open):not(.r{k}){{display:none}}",
            f"{view} .truth.m{k}{{stroke:var(--miss);stroke-dasharray:4 2.5;stroke-linecap:butt}}",
            f"{view}:not(.show-missed) .truth.m{k}{{display:none}}",
            f"{view}:not(.show-truth) .truth:not(.m{k}){{display:none}}",
            f"{view} .of-view:not(.v{k}){{display:none}}",
        ]
    return "\n".join(rules)


def shown(value: Any) -> str:
    """Format a value for a table: fractions with three digits, a missing value as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else re.sub(r"\.0$", "", f"{value:.1f}")
    return str(value)
