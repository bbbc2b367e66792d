"""Rules that several tables share."""

from __future__ import annotations

from typing import Any

from sartorius.structures.rules import Rule, by_name, list_of, nothing, number, one_of, path, text, whole

# Rules by the end of a setting's key, `*` for any one part of it; the longest end counts. A key may be several with
# blanks between, a value the table of what is below. The first part of a key is the command.
Table = dict[str, Any]

COUNT = whole(1, 1_000_000)
PIXELS = whole(1, 65_536)
SEED = whole(0, 2**32 - 1)
WORKERS = whole(1, 256)
FOLD = whole(0, 1_000_000) | one_of("all") | nothing
MICROMETRES = number(0.001, 1000)  # of a pixel
SIZE = whole(0, 10_000_000)  # MB
PATHS: Rule = path | list_of(path)
EMPTY_OR_PATH = path | nothing
EMPTY_OR_PATHS = PATHS | nothing
WEIGHT = by_name(number(0, 1e6))  # of a member of an ensemble, or of its cells by type
IDS = text | list_of(text)  # of images
