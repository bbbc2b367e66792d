from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sartorius.errors import InputError
from sartorius.postprocess.saved import from_saved, merge, to_file, to_saved, without_none

SAVED = {
    "_target_": "sartorius.postprocess.Postprocess",
    "score": {"cort": 0.5, "default": 0.2},
    "mask": 0.45,
    "box_nms": 0.7,
    "mask_nms": 0.1,
    "min_area": 75,
}


def test_changes_lie_on_top_of_what_was_saved() -> None:
    post = from_saved(SAVED, {"score": {"cort": 0.6, "astro": None}, "overlap": "iom", "mask": None}, "here")
    assert post.score == {"cort": 0.6, "default": 0.2} and post.overlap == "iom" and post.mask == 0.45
    assert from_saved(SAVED, None, "here").score == SAVED["score"]


def test_a_number_becomes_the_default_of_the_types_not_named() -> None:
    assert from_saved(SAVED, {"mask": {"astro": 0.3}}, "here").mask == {"default": 0.45, "astro": 0.3}


def test_a_whole_postprocess_replaces_what_was_saved() -> None:
    assert from_saved({"anything": 1}, {**SAVED, "mask": 0.2}, "here").mask == 0.2


def test_what_cannot_be_used_says_what_to_do() -> None:
    for saved, message in (
        (None, "nothing|no post-processing was saved with it; choose one with postprocess=default"),
        ({**SAVED, "_target_": "os.system"}, "its post-processing is os.system"),
        ({**SAVED, "colour": 1}, "unknown post-processing settings colour"),
        ({"mask": 0.5}, "incomplete post-processing"),
        ({**SAVED, "mask": 7}, "postprocess.mask: expected"),
    ):
        with pytest.raises(InputError, match=message):
            from_saved(saved, None, "here")


def test_merge_and_without_none() -> None:
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}, "d": 4}) == {"a": {"b": 1, "c": 3}, "d": 4}
    assert without_none({"a": {"b": None}, "c": 0, "d": None, "e": False}) == {"c": 0, "e": False}


def test_a_file_stands_in_for_what_was_saved(tmp_path: Path) -> None:
    post = from_saved(SAVED, {"overlap": "iom"}, "here")
    to_file(tmp_path / "postprocess.yaml", post, "two\nlines")
    assert (tmp_path / "postprocess.yaml").read_text().startswith("# two\n# lines\n_target_: sartorius.postprocess.P")
    changes = {"file": str(tmp_path / "postprocess.yaml"), "mask": {"cort": 0.6, "astro": None}}
    read = from_saved({"anything": 1}, changes, "here")
    assert read == replace(post, mask={"default": 0.45, "cort": 0.6})
    assert from_saved(to_saved(post), None, "here") == post
    for text, message in (
        ("a: [", "bad.yaml: not valid YAML"),
        ("- 1", "bad.yaml: expected settings such as"),
        ("score: 0.5", "bad.yaml: incomplete post-processing"),
        ("colour: 1", "bad.yaml: unknown post-processing settings colour"),
        ("_target_: os.system", "bad.yaml: its post-processing is os.system"),
    ):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            from_saved(SAVED, {"file": str(tmp_path / "bad.yaml")}, "here")
    with pytest.raises(InputError, match="absent.yaml: no such file; .*sartorius.tune"):
        from_saved(SAVED, {"file": str(tmp_path / "absent.yaml")}, "here")
