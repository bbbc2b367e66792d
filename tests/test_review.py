"""The review verb: unlabelled images in order, predicted scores, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sartorius import review
from sartorius.data.competition.about import About
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.labelled_writer import Labelled, write_labelled
from sartorius.errors import InputError
from sartorius.labelling.review.table import COLUMNS
from sartorius.running import wiring
from sartorius.structures.detections import Detections, DetectionsFolder
from sartorius.structures.instances import Instances
from tests.reports.folders import POST, imperfect

Run = Callable[..., pd.DataFrame]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: review.main(wiring.compose("review", ["output=out", *overrides]))


def write(folder: Path, detections: list[Detections], **meta: Any) -> str:
    written = DetectionsFolder(folder)
    written.write_meta(cell_types=["shsy5y", "astro", "cort"], mask_size=28, postprocess=POST, **meta)
    for one in detections:
        written.write(one)
    return str(folder)


@pytest.fixture
def oof(tiny_competition: Path, tmp_path: Path) -> str:
    """Detections of all labelled images in two folds."""
    truth = Competition(tiny_competition)
    folders = [write(tmp_path / f"f{k}", [imperfect(truth, i) for i in truth.ids[k::2]]) for k in (0, 1)]
    return f"[{','.join(folders)}]"


@pytest.fixture
def predicted(tiny_competition: Path, tmp_path: Path) -> str:
    """New images with the cells of labelled ones: a copy of astro00's image, a bright one, one without cells."""
    truth = Competition(tiny_competition)
    (tmp_path / "new").mkdir()
    grey = truth.image("astro00")
    bright = np.clip(grey.astype(int) + 90, 0, 255).astype(np.uint8)
    for name, image in {"copy": grey, "bright": bright, "blank": np.full_like(grey, 30)}.items():
        Image.fromarray(image).save(tmp_path / "new" / f"{name}.png")
    found = [renamed(imperfect(truth, "cort02"), name) for name in ("copy", "bright")]
    found.append(Detections.empty("blank", 48, 64))
    return write(tmp_path / "predicted", found, images=str(tmp_path / "new"))


def renamed(detections: Detections, image_id: str) -> Detections:
    return replace(detections, image_id=image_id)


def test_order_scores_and_reasons(run: Run, oof: str, predicted: str, tiny_competition: Path, tmp_path: Path) -> None:
    table = run(f"detections={predicted}", f"oof={oof}", f"data.root={tiny_competition}")
    assert tuple(table) == COLUMNS and table["rank"].tolist() == [1, 2, 3]
    assert table.id.tolist() == ["blank", "bright", "copy"]
    by_id = table.set_index("id")
    assert by_id.distance["copy"] == 0 and by_id.file["copy"] == str(tmp_path / "new" / "copy.png")
    assert np.isnan(by_id.predicted_score["blank"]) and by_id.reason["blank"].startswith("no cells found")
    assert by_id.cells.to_dict() == {"blank": 0, "bright": 3, "copy": 3}
    seen = by_id.loc[["bright", "copy"]]
    assert ((seen.low <= seen.predicted_score) & (seen.predicted_score <= seen.high)).all()
    assert (seen.predicted_score - 0.5).abs().max() < 0.15  # cort02 scores one half
    assert pd.read_csv("out/review.csv").id.tolist() == table.id.tolist()
    about = json.loads(Path("out/review.json").read_text())
    assert about["images"] == 3 and about["calibration"]["images"] == 12 and not about["calibration"]["agreement"]


def test_the_scores_are_those_of_evaluate(oof: str, tiny_competition: Path) -> None:
    from sartorius.metrics.functional import average_precision_per_image, image_row
    from sartorius.postprocess.saved import from_saved
    from sartorius.running.reviewing import ModelPredictions

    truth, post = Competition(tiny_competition), from_saved(POST, None, "test")
    found = ModelPredictions({"a": oof[1:-1].split(",")}, "oof", truth).scores(truth)
    for image_id in truth.ids:
        cells = post(imperfect(truth, image_id)).instances
        expected = average_precision_per_image(image_row(0, cells, truth.instances(image_id))[None])[0]
        assert found[image_id] == pytest.approx(expected)


def test_cells_count_by_their_own_types_and_images_without_any_by_none(tmp_path: Path) -> None:
    """Perfect detections of a folder of own labels, which mixes types in an image."""
    from sartorius.running import scoring
    from sartorius.running.saved_cells import SavedCells

    masks = np.zeros((3, 48, 64), bool)
    for k in range(3):
        masks[k, 2:12, 4 + 20 * k : 16 + 20 * k] = True
    cells, types = Instances.from_masks(masks, [0, 0, 1]), ("shsy5y", "astro", "cort")
    grey, none = np.full((48, 64), 99, np.uint8), Instances.empty(48, 64)
    write_labelled(tmp_path / "mine", About(types), [Labelled("x", grey, cells), Labelled("blank", grey, none)])
    truth = Competition(tmp_path / "mine", types)
    found = Detections.from_instances("x", cells, np.full(3, 0.9, np.float32), cell_type_names=types)
    saved = SavedCells([write(tmp_path / "d", [found, Detections.empty("blank", 48, 64)])], truth=truth)
    once = {"samples": 2, "seed": 0, "level": 0.5}
    numbers = scoring.score(truth, scoring.from_detections(saved, truth, truth.ids), once).numbers
    assert (numbers["box_ap_shsy5y"], numbers["box_ap_astro"]) == (pytest.approx(1), pytest.approx(1))
    assert numbers["mask_ap"] == pytest.approx(1) and numbers["competition_map_astro"] is None
    assert numbers["competition_map_shsy5y"] == pytest.approx(1), "of x alone, whose cells are mostly of this type"


def test_several_models_disagree(run: Run, predicted: str, tiny_competition: Path, tmp_path: Path) -> None:
    truth = Competition(tiny_competition)
    other = [renamed(imperfect(truth, "cort02"), "copy"), Detections.empty("blank", 48, 64)]
    other.append(renamed(imperfect(truth, "shsy5y01"), "bright"))
    second = write(tmp_path / "second", other)
    table = run(f"detections={{a: {predicted}, b: {second}}}").set_index("id")
    assert table.disagreement["copy"] == 0 == table.disagreement["blank"]
    assert np.isnan(table.distance["blank"]) and table.reason["blank"] == "no cells found", "there is none before it"
    # of 2 and 3 cells one is the same, and another pair has an IoU of 13 / 17: hits at 6 of the 10 thresholds
    assert table.disagreement["bright"] == pytest.approx(1 - (6 * 2 / 3 + 4 * 1 / 4) / 10)
    assert table["rank"].to_dict() == {"blank": 1, "bright": 2, "copy": 3} and table.predicted_score.isna().all()
    assert "models disagree" in table.reason["bright"]
    with pytest.raises(InputError, match="'b' lacks 1 of the 3 images .bright.; predict the same images"):
        (tmp_path / "second" / "bright.npz").unlink()
        run(f"detections={{a: {predicted}, b: {second}}}")


def test_images_that_are_labelled_are_left_out(
    run: Run, predicted: str, tiny_competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = Competition(tiny_competition)
    write(tmp_path / "more", [imperfect(truth, "cort01")], images=str(tmp_path / "new"))
    table = run(f"detections=[{predicted},{tmp_path / 'more'}]", f"data.root={tiny_competition}", "show=1")
    assert sorted(table.id) == ["blank", "bright", "copy"]
    printed = capsys.readouterr().out
    assert "label next: the first 1 of 3 images" in printed and "1 images are labelled already" in printed
    assert f"next: python -m sartorius.correct images={tmp_path / 'new'} " in printed and "output=FOLDER" in printed


def test_another_image_of_a_labelled_one_s_name(
    run: Run, predicted: str, tiny_competition: Path, tmp_path: Path
) -> None:
    truth = Competition(tiny_competition)
    Image.fromarray(truth.image("cort01")[::-1]).save(tmp_path / "new" / "cort01.png")
    Image.fromarray(truth.image("cort00")).save(tmp_path / "new" / "cort00.png")
    more = write(tmp_path / "more", [imperfect(truth, name) for name in ("cort00", "cort01")])
    with pytest.warns(UserWarning, match=r"new/cort01\.png: has the name of .*train/cort01\.png") as caught:
        table = run(f"detections=[{predicted},{more}]", f"data.root={tiny_competition}")
    assert sorted(table.id) == ["blank", "bright", "copy"]
    assert not [one for one in caught if "cort00" in str(one.message)], "the same image"


def test_too_few_images_give_an_order_alone(
    run: Run, predicted: str, tiny_competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = Competition(tiny_competition)
    few = write(tmp_path / "few", [imperfect(truth, i) for i in truth.ids[:5]])
    table = run(f"detections={predicted}", f"oof={few}", f"data.root={tiny_competition}")
    assert table.predicted_score.isna().all() and table["rank"].tolist() == [1, 2, 3]
    assert "oof: cells in 5 images of 5 plate wells; predicting scores takes 8 images" in capsys.readouterr().out
    assert json.loads(Path("out/review.json").read_text())["calibration"] is None


def test_what_is_refused(run: Run, oof: str, predicted: str, tiny_competition: Path, tmp_path: Path) -> None:
    truth = Competition(tiny_competition)
    everything = write(tmp_path / "all", [imperfect(truth, i) for i in truth.ids])
    unknown = write(tmp_path / "unknown", [renamed(imperfect(truth, "cort02"), "copy")])
    gone = write(tmp_path / "gone", [imperfect(truth, "cort01"), renamed(imperfect(truth, "cort02"), "removed")])
    empty = write(tmp_path / "empty", [])
    root = f"data.root={tiny_competition}"
    for overrides, message in (
        ([], "detections=null: give predictions"),
        (
            [f"detections={predicted}", f"oof={oof}"],
            "needs the labels of its images; give their folder with data.root=",
        ),
        ([f"detections={predicted}", f"oof={{a: {oof}}}", root], "oof: of a, but detections= of model"),
        ([f"detections={everything}", root], "all 12 images are labelled"),
        ([f"detections={empty}"], "no detections in"),
        ([f"detections={unknown}"], "unknown: does not tell where its images are; give their folder with images="),
        ([f"detections={predicted}", f"images={tiny_competition}/test"], "test: 3 predicted images are not there"),
        ([f"detections={predicted}", f"oof={unknown}", root], "no labelled image 'copy'"),
        ([f"detections={predicted}", f"oof={gone}", root], "oof: .*/gone/?[a-z]*: .*no labelled image 'removed'; give"),
        (
            [f"detections={{a: {predicted}, b: {predicted}}}"],
            "detections: .*predicted.* is of 'a' and of 'b', which would",
        ),
        ([f"detections={tmp_path / 'new'}"], "no meta.json"),
    ):
        with pytest.raises(InputError, match=message):
            run(*overrides)
    assert not Path("out/review.csv").exists()
