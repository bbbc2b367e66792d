"""The filter behind post-processing, and its entry in the meta.json of detections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sartorius.errors import InputError
from sartorius.postprocess.saved import from_saved
from sartorius.rescoring.saved import from_entry, postprocess_of, to_save, with_filter
from sartorius.structures.cell_types import CELL_TYPES
from tests.fusion.members_of import POST, found
from tests.rescoring.size_filter import larger_than

SMALL_AND_LARGE = found([[2, 2, 6, 6], [10, 10, 30, 20]], [0.9, 0.8])


@pytest.fixture
def file(tmp_path: Path) -> str:
    larger_than(50).save(tmp_path / "filter.npz")
    return str(tmp_path / "filter.npz")


def saved(**entries: Any) -> dict[str, Any]:
    """A meta.json as it is read back."""
    return dict(json.loads(json.dumps({"postprocess": POST, **entries})))


def test_a_saved_filter_is_used_unless_another_is_named(file: str, tmp_path: Path) -> None:
    meta = saved(filter=to_save(file, CELL_TYPES))
    larger_than(4 * 4 - 1).save(tmp_path / "other.npz")
    Path(file).unlink()
    counts = {
        which: len(postprocess_of(meta, None, which, "here")(SMALL_AND_LARGE))
        for which in ("saved", "none", None, str(tmp_path / "other.npz"))
    }
    assert list(counts.values()) == [1, 2, 2, 2]
    assert postprocess_of(meta, None, "saved", "here")(SMALL_AND_LARGE).source.tolist() == [1]
    assert meta["filter"]["file"] == file


def test_changes_come_before_the_filter(file: str) -> None:
    meta = saved(filter=to_save(file, CELL_TYPES))
    assert len(postprocess_of(meta, {"score": {"threshold": 0.85}}, "saved", "here")(SMALL_AND_LARGE)) == 0
    assert len(postprocess_of(meta, {"score": {"threshold": 0.85}}, "none", "here")(SMALL_AND_LARGE)) == 1


@pytest.mark.parametrize("meta", [saved(), saved(filter=None)])
def test_without_a_saved_filter_every_cell_stays(meta: dict[str, Any], file: str) -> None:
    post = from_saved(POST, None, "")
    assert to_save("none", ("any",)) is None and to_save(None, ("any",)) is None
    assert with_filter(post, from_entry(None, "here")) is post
    assert len(postprocess_of(meta, None, "saved", "here")(SMALL_AND_LARGE)) == 2
    assert list(postprocess_of(meta, None, file, "here").steps) == [*post.steps, "filter"]
    with pytest.raises(InputError, match="here: no post-processing was saved"):
        postprocess_of({}, None, "saved", "here")


@pytest.mark.parametrize("entry", ["filter.npz", {"file": "a.npz"}, {"content": "no base 64!"}, {"content": 3}])
def test_an_entry_that_cannot_be_read(entry: Any) -> None:
    with pytest.raises(InputError, match="here: the filter saved with it cannot be read .*filter=none"):
        postprocess_of(saved(filter=entry), None, "saved", "here")


def test_content_that_is_no_filter() -> None:
    with pytest.raises(InputError, match="here: filter a.npz: not a readable filter"):
        postprocess_of(saved(filter={"file": "a.npz", "content": "aGVsbG8="}), None, "saved", "here")


def test_a_filter_of_other_cell_types_is_not_saved(file: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cell types a, b, the filter was trained on shsy5y, astro, cort"):
        to_save(file, ("a", "b"))
    with pytest.raises(InputError, match="no such file"):
        to_save(str(tmp_path / "none.npz"), CELL_TYPES)
