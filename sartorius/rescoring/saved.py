"""Post-processing with the second-level filter behind it, and the filter as an entry of the meta.json of detections.

`predict` and `ensemble` save the filter with what they write, its content and not only its name, so that a folder that
is moved keeps it; `evaluate` and `submit` use it by default. Whoever decides about single cells by other means (`tune`,
`fit_filter`, `pseudo_label`) sees all of them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartorius.errors import InputError
from sartorius.postprocess import Finalised, Postprocess
from sartorius.postprocess.saved import from_saved
from sartorius.rescoring.filter import FalsePositiveFilter
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import Detections, DetectionsFolder

KEY = "filter"  # of meta.json
NONE, SAVED = "none", "saved"


@dataclass(frozen=True)
class Filtered:
    """Post-processing with the filter behind it: a callable that turns Detections into Finalised."""

    postprocess: Postprocess
    second_level: FalsePositiveFilter

    def __call__(self, detections: Detections) -> Finalised:
        """The cells of one image that are worth keeping."""
        return self.second_level(detections, self.postprocess(detections))


Finish = Postprocess | Filtered  # the cells of an image, from its detections


def to_save(file: str | None, cell_type_names: Sequence[str]) -> dict[str, str] | None:
    """The entry of meta.json for the filter in a file: its path, and its bytes in base64; None for `none` and None.

    Raises InputError for a file that is missing or no filter, and one that was trained on other cell types.
    """
    if file in (None, NONE):
        return None
    path = Path(str(file))
    FalsePositiveFilter.load(path).check_types(cell_type_names, str(path))
    return {"file": str(path.resolve()), "content": base64.b64encode(path.read_bytes()).decode("ascii")}


def with_saved(postprocess: Postprocess, entry: Mapping[str, Any] | None, source: str) -> Finish:
    """The post-processing with the filter of an entry that `to_save` made, or as it is where there is none.

    Raises InputError, naming `source`, for an entry that holds no filter.
    """
    if not entry:
        return postprocess
    try:
        content = base64.b64decode(entry["content"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InputError(
            f"{source}: the filter in its meta.json cannot be read ({error!r}); give filter=FILE.npz or filter=none"
        ) from error
    return Filtered(postprocess, FalsePositiveFilter.from_bytes(content, f"{source}: filter {entry.get('file')}"))


def finish_of(meta: Mapping[str, Any], changes: Mapping[str, Any] | None, which: str | None, source: str) -> Finish:
    """How the detections of a folder with this meta.json become cells.

    changes: of its post-processing, see `from_saved`. which: the filter behind it, `saved` for that of meta.json, if
    any, a file of `fit_filter` instead, or `none` (or None). Raises InputError as `from_saved`, `with_saved` and
    `FalsePositiveFilter.load` do.
    """
    postprocess = from_saved(meta.get("postprocess"), changes, source, meta.get("cell_types", CELL_TYPES))
    if which == SAVED:
        return with_saved(postprocess, meta.get(KEY), source)
    return postprocess if which in (None, NONE) else Filtered(postprocess, FalsePositiveFilter.load(str(which)))


def say_saved(folders: Sequence[str | Path], which: str | None) -> None:
    """Print, for each folder of detections, which filter of its meta.json will drop cells, if `which` is `saved`."""
    for folder in folders if which == SAVED else ():
        if entry := DetectionsFolder(folder).meta.get(KEY):
            print(f"{folder}: its filter, {entry.get('file')}, drops false positives; filter=none leaves it out")
