"""The ensemble command: folders and submissions joined, bad input named, stopped runs continued."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from sartorius import ensemble
from sartorius.errors import InputError
from sartorius.formats.submission import write_submission
from sartorius.fusion.joined_folder import JoinedFolder
from sartorius.fusion.sources import SubmissionSource
from sartorius.postprocess.saved import from_saved
from sartorius.rescoring.saved import postprocess_of, to_save
from sartorius.running import wiring
from sartorius.structures import rle
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import Detections, DetectionsFolder
from tests.fusion.members_of import found, write_folder
from tests.rescoring.size_filter import larger_than
from tests.rewritten import discs, written

Run = Callable[..., JoinedFolder]
BOX = [10, 10, 30, 20]


def make_image(name: str, *boxes: list[float], score: float = 0.8, cell_type: int = 0) -> Detections:
    return replace(found(list(boxes), [score] * len(boxes), [cell_type] * len(boxes)), image_id=name)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "joined"


@pytest.fixture
def run(output: Path) -> Run:
    def program(members: Any, *overrides: str) -> JoinedFolder:
        with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
            cfg = compose("ensemble", overrides=[f"output={output}", *overrides])
        cfg.members = members
        return ensemble.main(cfg)

    return program


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    a = write_folder(tmp_path / "a", make_image("p1", BOX), make_image("p2"))
    b = write_folder(tmp_path / "b", make_image("p1", BOX, [40, 2, 50, 9], score=0.6), make_image("p2", BOX))
    return [str(a), str(b)]


def loaded(output: Path) -> dict[str, Detections]:
    return {one.image_id: one for one in DetectionsFolder(output / "detections")}


@pytest.mark.parametrize("fusion", ["wbf", "vote", "nms"])
def test_two_folders(run: Run, two: list[str], output: Path, fusion: str, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(two, f"fusion={fusion}")
    joined = loaded(output)
    assert (outcome.joined, outcome.kept, outcome.skipped) == (2, 0, {})
    assert {name: len(one) for name, one in joined.items()} == {"p1": 2, "p2": 1}
    np.testing.assert_allclose(joined["p1"].agreement, [1, 1 / 2], rtol=1e-6)
    if fusion != "nms":
        np.testing.assert_allclose(joined["p1"].scores, [(0.8 + 0.6) / 2, 0.6 / 2], rtol=1e-6)
    assert "2 images of 2 members joined" in capsys.readouterr().out
    meta = DetectionsFolder(output / "detections").meta
    assert meta["ensemble"]["members"] == {"0": [two[0]], "1": [two[1]]}
    assert meta["ensemble"]["weights"] == {"0": [1, 1, 1], "1": [1, 1, 1]}
    assert len(from_saved(meta["postprocess"], None, "here")(joined["p1"])) == 2


def test_folds_are_one_member(run: Run, tmp_path: Path, output: Path) -> None:
    folds = [write_folder(tmp_path / f"f{k}", make_image(f"p{k}", BOX)) for k in range(2)]
    other = write_folder(tmp_path / "other", make_image("p0", BOX), make_image("p1"))
    run({"unet": [str(fold) for fold in folds], "other": str(other)}, "weights={other: {shsy5y: 3, default: 1}}")
    joined = loaded(output)
    np.testing.assert_allclose(joined["p0"].scores, 0.8, rtol=1e-6)
    np.testing.assert_allclose(joined["p1"].scores, 0.8 * 1 / (1 + 3), rtol=1e-6)
    with pytest.raises(InputError, match=r"members.unet: image p0 is in .*f0 and in .*other: folds share no image"):
        run({"unet": [str(folds[0]), str(other)]})


def test_a_submission_joins(run: Run, tmp_path: Path, output: Path) -> None:
    a = write_folder(tmp_path / "a", make_image("p1", BOX, cell_type=2), make_image("p2"))
    start = 60 * 10 + 10 + 1
    text = " ".join(f"{start + 60 * row} 20" for row in range(10))
    write_submission(tmp_path / "theirs.csv", {"p1": [text, "1 5 61 5"], "p2": []})
    run({"a": str(a), "theirs": str(tmp_path / "theirs.csv")}, "submissions.score=0.4")
    joined = loaded(output)["p1"]
    np.testing.assert_allclose(joined.boxes, [BOX, [0, 0, 5, 2]])
    np.testing.assert_allclose(joined.scores, [(0.8 + 0.4) / 2, 0.4 / 2], rtol=1e-6)
    assert joined.cell_types.tolist() == [2, 2]
    (tmp_path / "theirs.csv").write_text("id,predicted\np1,1 5\np2,2400 9\n")
    with pytest.raises(InputError, match=r"theirs.csv: line 3: image p2: a run past the end"):
        run({"a": str(a), "theirs": str(tmp_path / "theirs.csv")}, "overwrite=true")


def test_a_submission_written_column_by_column_is_warned_of(tmp_path: Path) -> None:
    turned = written(rle.parse(discs(520, 704), 520, 704), "written column by column")
    write_submission(tmp_path / "theirs.csv", {"p1": turned, "p2": []})
    with pytest.warns(UserWarning, match="theirs.csv: the masks seem to be written column by column"):
        SubmissionSource(tmp_path / "theirs.csv", score=0.5, mask_size=8, cell_type=None)


def test_submissions_alone_need_a_postprocess(run: Run, tmp_path: Path, output: Path) -> None:
    write_submission(tmp_path / "x.csv", {"p1": ["1 5 705 5"]})
    with pytest.raises(InputError, match="postprocess=default"):
        run([str(tmp_path / "x.csv")])
    run([str(tmp_path / "x.csv")], "postprocess=default", "submissions.cell_type=cort")
    one = loaded(output)["p1"]
    assert (one.height, one.width) == (520, 704) and one.cell_types.tolist() == [2]


def test_members_of_different_images(run: Run, tmp_path: Path, output: Path) -> None:
    a = write_folder(tmp_path / "a", make_image("p1", BOX), make_image("p2", BOX))
    b = write_folder(tmp_path / "b", make_image("p2", BOX), make_image("p3", BOX))
    members = [str(a), str(b)]
    with pytest.raises(InputError, match=r"members.0 lacks 1 of 3 images \(p3\); take images=common"):
        run(members)
    run(members, "images=common")
    assert set(loaded(output)) == {"p2"}
    assert run(members, "images=all").kept == 1
    with pytest.raises(InputError, match="holds 2 detections of other images; .*overwrite=true to delete them"):
        run(members, "images=common")
    assert run(members, "images=common", "overwrite=true").kept == 1 and set(loaded(output)) == {"p2"}
    run(members, "images=all")
    np.testing.assert_allclose(loaded(output)["p1"].agreement, 1, err_msg="of the members that looked")
    with pytest.raises(InputError, match="images: expected one of same, common, all, got 'some'"):
        run(members, "images=some")


def test_bad_members(run: Run, two: list[str], tmp_path: Path) -> None:
    empty = write_folder(tmp_path / "empty")
    other = write_folder(tmp_path / "names", replace(make_image("p1"), cell_type_names=("x",)), names=("x",))
    large = write_folder(tmp_path / "large", replace(make_image("p1"), width=61), replace(make_image("p2"), width=61))
    for members, message in (
        ([], "members: none given"),
        ([str(tmp_path)], "no meta.json in it"),
        ([*two, str(empty)], "empty holds no detections"),
        ([*two, 3], "members.2: expected a folder or csv"),
        ([*two, f"{two[0]}/../a"], "members.2: .*a is member 0 already; to count it twice give weights="),
        ([*two, str(other)], r"has the cell types \('shsy5y', 'astro', 'cort'\), .*names has \('x',\)"),
        ([*two, str(large)], "image p1: 61x40 pixels in .*large, 60x40 in .*a: not the same image"),
    ):
        with pytest.raises(InputError, match=message):
            run(members)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("weights=[1]", "weights: 1 for 2 members"),
        ("weights={c: 1}", "no member is called c; there are 0, 1"),
        ("weights=[-1,1]", "weights.0: expected numbers of 0 or more, got -1"),
        ("weights=[{mouse: 1},1]", "weights.0: no cell type mouse"),
        ("weights=[0,{astro: 0, default: 1}]", "no member has a weight above 0 for astro"),
        ("min_score=2", "min_score: expected a number from 0 to 1"),
        ("image_type=most", "image_type: expected one of each, majority"),
        ("fusion.mask_iou=-1", "fusion.mask_iou"),
        ("fusion.class_agnostic=often", "fusion.class_agnostic: expected true or false"),
    ],
)
def test_bad_settings(run: Run, two: list[str], override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(two, override)


def test_a_corrupt_file_is_named_or_skipped(run: Run, two: list[str], output: Path) -> None:
    (Path(two[0]) / "p1.npz").write_bytes(b"half a file")
    (Path(two[1]) / "p2.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"a/p1.npz: not a readable detections file.*; .*b/p2.npz: not a readable"):
        run(two)
    assert not loaded(output)
    DetectionsFolder(two[1]).write(make_image("p2", BOX))
    outcome = run(two, "on_error=skip")
    assert outcome.joined == 2 and list(outcome.skipped) == ["p1"] and "a/p1.npz" in outcome.skipped["p1"][0]
    np.testing.assert_allclose(loaded(output)["p1"].agreement, 1)
    assert DetectionsFolder(output / "detections").meta["skipped"] == outcome.skipped
    (Path(two[1]) / "p1.npz").write_bytes(b"")
    again = run(two, "on_error=skip")
    assert set(loaded(output)) == {"p2"} and len(again.problems) == 2, "p1 was made of a file that is gone"
    for member in two:
        DetectionsFolder(member).write(make_image("p1", BOX))
    assert run(two, "on_error=skip").skipped == {} == DetectionsFolder(output / "detections").meta["skipped"]


def test_skipping_does_not_hide_what_is_wrong_with_others(run: Run, two: list[str], tmp_path: Path) -> None:
    (Path(two[0]) / "p1.npz").write_bytes(b"half a file")
    large = write_folder(tmp_path / "large", replace(make_image("p1"), width=61), replace(make_image("p2"), width=61))
    with pytest.raises(InputError, match="image p1: 61x40 pixels in .*large, 60x40 in .*b"):
        run([*two, str(large)], "on_error=skip")


def test_a_submission_alone_does_not_know_the_size(run: Run, tmp_path: Path, output: Path) -> None:
    a = write_folder(tmp_path / "a", make_image("p1", BOX), make_image("p2", BOX))
    write_submission(tmp_path / "theirs.csv", {"p1": ["1 5"], "p2": ["1 5"]})
    (a / "p1.npz").write_bytes(b"half a file")
    outcome = run([str(a), str(tmp_path / "theirs.csv")], "on_error=skip")
    assert outcome.joined == 1 and set(loaded(output)) == {"p2"} and len(outcome.problems) == 1


def test_numbers_that_are_none_are_named(run: Run, tmp_path: Path) -> None:
    bad, image = write_folder(tmp_path / "a", make_image("p1", BOX)), make_image("p1", BOX)
    arrays = {name: vars(image)[name] for name in ("image_id", "boxes", "cell_types", "masks", "cell_type_names")}
    size = (image.height, image.width)
    np.savez(bad / "p1.npz", version=2, size=size, scores=np.array([np.nan], np.float32), **arrays)
    with pytest.raises(InputError, match=r"p1.npz: score of detection 1 of 1: expected a number from 0 to 1, got nan"):
        run([str(bad)])


def test_a_stopped_run_goes_on(run: Run, two: list[str], output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = DetectionsFolder.write, []

    def stopping(self: DetectionsFolder, one: Detections) -> Path:
        if written:
            raise KeyboardInterrupt
        written.append(one.image_id)
        return write(self, one)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DetectionsFolder, "write", stopping)
        run(two)
    assert set(loaded(output)) == {"p1"}
    outcome = run(two)
    assert (outcome.joined, outcome.kept) == (1, 1) and set(loaded(output)) == {"p1", "p2"}
    later = (output / "detections" / "p1.npz").stat().st_mtime + 10
    os.utime(Path(two[0]) / "p1.npz", (later, later))
    assert run(two).joined == 1, "a member predicted p1 anew"


def test_other_settings_are_not_mixed(run: Run, two: list[str], output: Path) -> None:
    run(two)
    with pytest.raises(InputError, match="holds 2 detections of other members or settings.*overwrite=true"):
        run(two, "fusion=nms")
    assert run(two, "fusion=nms", "overwrite=true").joined == 2
    assert run(two, "fusion=nms", "overwrite=true").kept == 2, "a stopped run goes on by the same command"
    meta = json.loads((output / "detections" / "meta.json").read_text())
    assert meta["ensemble"]["fusion"]["_target_"].endswith("NMS")


def test_a_filter_is_saved_and_those_of_members_are_not(run: Run, two: list[str], output: Path, tmp_path: Path) -> None:
    """Both members have a cell of 20 x 10 pixels in p1, the second one another of 10 x 7."""
    larger_than(10 * 7).save(tmp_path / "filter.npz")
    member = DetectionsFolder(two[0])
    member.write_meta(**{**member.meta, "filter": to_save(str(tmp_path / "filter.npz"), CELL_TYPES)})
    for override, cells in (("filter=none", 2), (f"filter={tmp_path / 'filter.npz'}", 1)):
        run(two, override)
        meta, joined = DetectionsFolder(output / "detections").meta, loaded(output)["p1"]
        assert len(joined) == 2 and len(postprocess_of(meta, None, "saved", "here")(joined)) == cells
    assert meta["filter"]["file"] == str(tmp_path / "filter.npz")
    larger_than(1, ("a",)).save(tmp_path / "filter.npz")
    with pytest.raises(InputError, match="filter.npz: cell types shsy5y, astro, cort, the filter was trained on a"):
        run(two, f"filter={tmp_path / 'filter.npz'}")


def test_members_that_know_fewer_cell_types(run: Run, two: list[str], output: Path, tmp_path: Path) -> None:
    """A member that cannot tell a cell type has no say on its cells; its own types are found by their names."""
    both = make_image("p1", BOX, [40, 2, 50, 9], cell_type=1)
    few = replace(both, cell_types=np.array([0, 1]), cell_type_names=("cort", "shsy5y"))
    some = write_folder(tmp_path / "some", few, make_image("p2", BOX), names=("cort", "shsy5y"))
    replace(make_image("p2", BOX), cell_type_names=("cort", "shsy5y")).save(some)
    whole = write_folder(
        tmp_path / "whole", replace(both, cell_types=np.array([2, 1])), make_image("p2", [2, 2, 9, 9], cell_type=1)
    )
    for members in ([str(whole), str(some)], [str(some), str(whole)]):
        run(members, "overwrite=true")
        joined = loaded(output)
        assert joined["p1"].cell_type_names == CELL_TYPES
        types = dict(zip(joined["p1"].boxes[:, 0].tolist(), joined["p1"].cell_types.tolist(), strict=True))
        assert types[10] == 2 and types[40] in (0, 1)
        alone = joined["p2"].select(joined["p2"].cell_types == 1)
        np.testing.assert_allclose(alone.scores, [0.8], rtol=1e-6, err_msg="of the one that knows astro")
        other = joined["p2"].select(joined["p2"].cell_types == 2)
        np.testing.assert_allclose(other.scores, [0.8 / 2], rtol=1e-6)


def test_the_postprocess_that_is_saved(run: Run, two: list[str], output: Path) -> None:
    types = {"default": 0.5, "cort": 0.7}
    for overrides, mask in ((["calibrate=true"], 0.5), (["postprocess.mask.threshold.cort=0.7"], types)):
        run(two, *overrides, "overwrite=true")
        assert DetectionsFolder(output / "detections").meta["postprocess"]["mask"]["threshold"] == mask


def test_images_that_a_member_was_trained_on_stay_known(run: Run, two: list[str]) -> None:
    DetectionsFolder(two[0]).write_meta(trained_on={"p2": "train/p2.png", "p9": "train/p9.png"})
    assert run(two).meta["trained_on"] == {"p2": "train/p2.png"}  # what evaluate and tune warn of
    DetectionsFolder(two[0]).write_meta()
    assert run(two).meta["trained_on"] == {}
