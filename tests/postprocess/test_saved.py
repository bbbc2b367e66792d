from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sartorius.errors import InputError
from sartorius.postprocess import Postprocess
from sartorius.postprocess.saved import changed, from_saved, read_file, to_file, to_saved
from tests.postprocess.pipelines import pipeline, saved

SAVED = saved(score={"cort": 0.5, "default": 0.2}, mask=0.45, box_nms=0.7, mask_nms=0.1, min_area=75)


def settings(post: Postprocess) -> Any:
    return to_saved(post)


def test_changes_lie_on_top_of_what_was_saved() -> None:
    post = settings(from_saved(SAVED, {"score": {"threshold": {"cort": 0.6}}, "mask_nms": {"overlap": "iom"}}, "here"))
    assert post["score"]["threshold"] == {"cort": 0.6, "default": 0.2} and post["mask"]["threshold"] == 0.45
    assert post["mask_nms"] == {**SAVED["mask_nms"], "overlap": "iom"}
    assert settings(from_saved(SAVED, None, "here")) == SAVED == settings(from_saved(SAVED, {}, "here"))


def test_null_leaves_a_step_out_and_a_class_adds_one() -> None:
    piece = {"_target_": "sartorius.postprocess.LargestPiece"}
    post = from_saved(SAVED, {"min_area": None, "largest_piece": piece}, "here")
    assert [*post.steps] == [*(name for name in pipeline().steps if name != "min_area"), "largest_piece"]
    order = ["score", "mask", "largest_piece", "overlaps", "types", "max_detections", "box_nms", "mask_nms"]
    assert [*from_saved(SAVED, {"min_area": None, "largest_piece": piece, "order": order}, "").steps] == order
    with pytest.raises(InputError, match=r"postprocess.order: expected each of types, score, .* once, got \['score'\]"):
        from_saved(SAVED, {"order": ["score"]}, "here")


def test_a_number_is_the_default_of_the_types_not_named() -> None:
    post = settings(from_saved(SAVED, {"mask": {"threshold": {"astro": 0.3}}}, "here", ["astro"]))
    assert post["mask"]["threshold"] == {"default": 0.45, "astro": 0.3}
    post = settings(from_saved(SAVED, {"score": {"threshold": 0.3}}, "here"))
    assert post["score"]["threshold"] == 0.3, "for all types"
    post = settings(from_saved(SAVED, {"score": {"threshold": {"cort": None, "BV2": 0.1}}}, "here", ["BV2"]))
    assert post["score"]["threshold"] == {"default": 0.2, "BV2": 0.1}


def test_a_whole_postprocess_replaces_what_was_saved() -> None:
    assert settings(from_saved({"anything": 1}, {**SAVED, "min_area": None}, "here")).keys() == SAVED.keys() - {
        "min_area"
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"scor": {"threshold": 0.5}},
            "postprocess.scor: the post-processing of here has no such step, only types",
        ),
        ({"scor": None}, "postprocess.scor: the post-processing of here has no such step"),
        (
            {"fill_holes": {"size": 3}},
            "postprocess.fill_holes: .* no such step, .*; add one with postprocess",
        ),
        ({"score": {"treshold": 0.5}}, "postprocess.score.treshold: Score has no such setting, only threshold"),
        (
            {"score": {"threshold": {"crot": 0.5}}},
            "score.threshold.crot: no such cell type; there are cort, default",
        ),
        ({"score": 0.5}, "postprocess.score: expected settings of the step or null, got 0.5"),
        ({"mask": {"threshold": 7}}, "postprocess.mask.threshold: expected"),
        ({"overlaps": {"pixels": 7}}, "postprocess.overlaps.pixels: Overlaps has no such setting, it has none"),
    ],
)
def test_a_mistyped_change_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_saved(SAVED, changes, "here")


@pytest.mark.parametrize(
    ("post", "message"),
    [
        (None, "here: no post-processing was saved with it; choose one with postprocess=default"),
        ({**SAVED, "_target_": "os.system"}, "here: its post-processing is os.system"),
        ({"score": 0.5, "mask": 0.5}, "here: postprocess.score: expected the settings of a step, got 0.5; choose"),
        ({"score": {"_target_": "sartorius.postprocess.Score"}}, "postprocess.score: incomplete settings .*threshold"),
        ({"x": {"_target_": "os.system", "command": "true"}}, "refused, os.system is no step of sartorius.postprocess"),
        ({"x": {"_target_": "sartorius.postprocess.finalise.Postprocess"}}, "refused, .*Postprocess is no step"),
        ({"x": {"_target_": "sartorius.postprocess.steps.np"}}, "refused, .*np is no step"),
        ({"x": {"_target_": "sartorius.postprocess.paste.paste_masks"}}, "refused, .*paste_masks is no step"),
        ({"x": {"_target_": "sartorius.postprocess.absent.Step"}}, "there is no sartorius.postprocess.absent"),
        ({"x": {"_target_": "sartorius.postprocessing.Step"}}, "refused, sartorius.postprocessing.Step is no step"),
        ({"x": {"_target_": "sartorius.postprocess.saved.to_file", "path": "x"}}, "refused, .*to_file is no step"),
        ({"x": {"_target_": "sartorius.rescoring.filter.FalsePositiveFilter"}}, "refused, .*Filter is no step"),
        ({"x": {"_target_": "sartorius.postprocess.step.Step"}}, "refused, .*step.Step is no step"),
        ({"x": {"_target_": "sartorius.postprocess.steps.\0.Score"}}, "there is no sartorius.postprocess.steps"),
        ({"x": {"_target_": ["os.system"]}}, "refused, .* is no step"),
        ({"x": {**SAVED["overlaps"], "_args_": ["x"]}}, "postprocess.x._args_: Overlaps has no such setting"),
        ({"order": 5}, "here: postprocess.order: expected names of steps or null, got 5"),
        ({"order": [[], {}]}, "postprocess.order: expected each of"),
        ([1], r"here: expected the settings of post-processing by step, got \[1\]"),
    ],
)
def test_what_cannot_be_used_says_what_to_do(post: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_saved(post, None, "here")


def test_a_file_stands_in_for_what_was_saved(tmp_path: Path) -> None:
    post = from_saved(SAVED, {"mask_nms": {"overlap": "iom"}}, "here")
    path = tmp_path / "postprocess.yaml"
    to_file(path, post, "two\nlines")
    assert path.read_text().startswith("# two\n# lines\nformat_version: 2\n_target_: sartorius.postprocess.P")
    assert read_file(path) == to_saved(post)
    changes = {"file": str(path), "mask": {"threshold": {"cort": 0.6}}}
    values, source = changed({"anything": 1}, changes, "here", ["cort"])
    assert source == str(path) and from_saved(to_saved(post), None, "here") == post
    assert values == {**to_saved(post), "mask": {**SAVED["mask"], "threshold": {"default": 0.45, "cort": 0.6}}}
    for text, message in (
        ("a: [", "bad.yaml: not valid YAML"),
        ("- 1", "bad.yaml: expected steps of post-processing"),
        ("score: 0.5", "bad.yaml: format version 1, this program reads 2"),
        ("format_version: 2\ncolour: 1", "bad.yaml: postprocess.colour: expected the settings of a step"),
        ("format_version: 2\n_target_: os.system", "bad.yaml: its post-processing is os.system"),
    ):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            from_saved(SAVED, {"file": str(tmp_path / "bad.yaml")}, "here")
    with pytest.raises(InputError, match="absent.yaml: no such file; .*sartorius.tune"):
        from_saved(SAVED, {"file": str(tmp_path / "absent.yaml")}, "here")
