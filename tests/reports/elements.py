"""A written page taken apart."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """A page's elements: tags with their attributes, and the text of it all."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.html = path, path.read_text()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def having(self, **attributes: str) -> list[dict[str, str | None]]:
        """The attributes of elements whose attributes (class_ for class) are or, for class, hold these."""
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [
            found
            for _, found in self.tags
            if all(value in (found.get(key) or "").split() if key == "class" else found.get(key) == value
                   for key, value in wanted.items())
        ]  # fmt: skip
