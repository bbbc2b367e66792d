"""The false-positive filter behind saved post-processing, and its entry in the meta.json of detections and in bundles.

`predict` and `ensemble` save the filter with their detections, its content and not only its name, so that a folder that
is moved keeps it; `evaluate` and `submit` apply it by default. Commands that decide about single cells by other means
(`tune`, `fit_filter`, `pseudo_label`) leave it out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sartorius.errors import InputError
from sartorius.postprocess import Postprocess
from sartorius.postprocess.saved import from_saved
from sartorius.rescoring.filter import FalsePositiveFilter
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import DetectionsFolder

KEY = "filter"  # of meta.json, and name of the step
NONE, SAVED = "none", "saved"


def with_filter(postprocess: Postprocess, fitted: FalsePositiveFilter | None) -> Postprocess:
    """Append the filter to the post-processing as its last step; None appends nothing."""
    return postprocess if fitted is None else Postprocess(None, **{**postprocess.steps, KEY: fitted})


def to_save(file: str | None, cell_type_names: Sequence[str]) -> dict[str, str] | None:
    """Make the entry of meta.json for a filter's file: its path, and its bytes in base64; None for `none` and None.

    Raises InputError for a file that is missing or no filter, and one that was trained on other cell types.
    """
    if file in (None, NONE):
        return None
    path = Path(str(file))
    FalsePositiveFilter.load(path).check_types(cell_type_names, str(path))
    return {"file": str(path.resolve()), "content": base64.b64encode(path.read_bytes()).decode("ascii")}


def entry_of(
    chosen_filter: str | None, metadata: Mapping[str, Any], cell_type_names: Sequence[str], source: str
) -> dict[str, str] | None:
    """Make the entry of a trained model's filter: that of its metadata for `saved`, else as `to_save`; None for none.

    Raises InputError, naming `source`, for an entry that holds no filter or one of other cell types.
    """
    if chosen_filter != SAVED:
        return to_save(chosen_filter, cell_type_names)
    entry: dict[str, str] | None = metadata.get(KEY)
    if (fitted := from_entry(entry, source)) is not None:
        fitted.check_types(cell_type_names, source)
    return entry


def from_entry(entry: Mapping[str, Any] | None, source: str) -> FalsePositiveFilter | None:
    """Read the filter of an entry that `to_save` made; None without one.

    Raises InputError, naming `source`, for an entry that holds no filter.
    """
    if not entry:
        return None
    try:
        content = base64.b64decode(entry["content"], validate=True)
    except (AttributeError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InputError(
            f"{source}: the filter saved with it cannot be read ({error!r}); give filter=FILE.npz or filter=none"
        ) from error
    return FalsePositiveFilter.from_bytes(content, f"{source}: filter {entry.get('file')}")


def postprocess_of(
    meta: Mapping[str, Any], changes: Mapping[str, Any] | None, chosen_filter: str | None, source: str
) -> Postprocess:
    """Build the post-processing of detections with this meta.json, the filter as its last step.

    changes: of its post-processing, see `from_saved`. chosen_filter: `saved` for that of meta.json, if any, a file of
    `fit_filter` instead, or `none` (or None). Raises InputError as `from_saved`, `from_entry` and
    `FalsePositiveFilter.load` do.
    """
    postprocess = from_saved(meta.get("postprocess"), changes, source, meta.get("cell_types", CELL_TYPES))
    if chosen_filter == SAVED:
        return with_filter(postprocess, from_entry(meta.get(KEY), source))
    return with_filter(postprocess, None if chosen_filter in (None, NONE) else FalsePositiveFilter.load(chosen_filter))


def print_saved_filters(folders: Sequence[str | Path], chosen_filter: str | None) -> None:
    """Print the filter in the meta.json of each folder of detections, if `chosen_filter` is `saved`."""
    for folder in folders if chosen_filter == SAVED else ():
        if entry := DetectionsFolder(folder).meta.get(KEY):
            print(f"{folder}: its filter, {entry.get('file')}, drops false positives; filter=none leaves it out")
