"""The report verb on folders of every kind: what the page holds, and what it says that it lacks."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from sartorius import report
from sartorius.data.competition.folder import Competition
from sartorius.errors import InputError
from sartorius.formats.submission import write_submission
from sartorius.metrics.functional import image_row
from sartorius.postprocess.saved import from_saved
from sartorius.reports import curves, plots
from sartorius.reports.figures import Plot
from sartorius.running import settings, wiring
from sartorius.structures.detections import Detections, DetectionsFolder
from tests.reports.elements import Page
from tests.reports.folders import POST, write_run, write_scores

PICTURES = ["astro00", "astro02", "cort01", "cort03", "shsy5y02"]
OTHERS = ["astro01", "cort02", "shsy5y01"]
Write = Callable[..., Page]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Run the verb in this process with overrides; returns the page. Plots are left empty unless `drawn`."""
    monkeypatch.chdir(tmp_path)

    def undrawn(name: str, title: str, alt: str, paint: object, folder: Path | None) -> Plot:
        return Plot(name, title, alt, "<svg></svg>")

    def program(*overrides: str, drawn: bool = False, run: Any = "???") -> Page:
        for module in () if drawn else (curves, plots):
            monkeypatch.setattr(module, "draw", undrawn)
        with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
            cfg = compose("report", overrides=["bootstrap.samples=200", *overrides])
        if run != "???":
            cfg.run = run
        return Page(Path(report.main(cfg)))

    return program


def rows_of(folder: Path, root: Path, images: list[str]) -> tuple[np.ndarray, list[str]]:
    """Rows and types by the metric's own code."""
    truth, found, post = Competition(root), DetectionsFolder(folder / "detections"), from_saved(POST, None, "test")
    rows = [image_row(k, post(found.load(p)).instances, truth.runs(p)) for k, p in enumerate(images)]
    return np.array(rows), [truth.cell_type(p) for p in images]


def test_a_training_run(write: Write, tiny_competition: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", tiny_competition, PICTURES)
    rows, types = rows_of(folder, tiny_competition, PICTURES)
    expected: Any = write_scores(folder, rows, PICTURES, types)
    found = write(f"run={folder}", drawn=True)
    assert found.path == folder / "report.html"
    assert f"{expected['competition_map']:.3f}" in found.text
    low, high = expected["competition_map_interval_astro"]
    assert f"{expected['competition_map_astro']:.3f}" in found.text and 0 < low <= high
    assert found.html.count('<figure class="card"') == 5
    hits, predictions, cells = (int(rows[:, k].sum()) for k in (1, -2, -1))
    assert f"{hits} of {cells}, IoU above 0.50" in found.text and f"{predictions - hits} of {predictions}" in found.text
    for anchor in ("top", "images", "scores", "curves", "cells", "every", "config"):
        assert found.having(id=anchor), anchor
    names = {"losses", "loss_parts", "scores", "scores_by_type", "learning_rate", "thresholds", "images"}
    names |= {"confidence", "calibration", "areas_astro", "areas_cort", "areas_shsy5y"}
    assert {path.stem for path in (folder / "plots").iterdir()} == names
    assert {f"plot-{name}" for name in names} <= {str(tag.get("id")) for _, tag in found.tags}
    assert "Not shown, or to know" not in found.text, "nothing is missing"
    assert "data.root" in found.text and "0123456789 with changes" in found.text and "seconds an epoch" in found.text
    again = write(f"run={folder}", "plots=false", drawn=True)
    assert again.html == found.html, "the same run gives the same bytes"


def test_nothing_comes_from_elsewhere(write: Write, tiny_competition: Path, tmp_path: Path) -> None:
    found = write(f"run={write_run(tmp_path / 'run', tiny_competition, PICTURES[:2])}", "plots=false", drawn=True)
    for tag, attributes in found.tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    assert not re.search(r"@import|url\((?!#)", found.html)
    images = [a for t, a in found.tags if t == "img"]
    assert images and all(image["alt"] for image in images)
    (policy,) = [a for t, a in found.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy["content"]).startswith("default-src 'none'")


def test_what_stands_in_the_files_is_escaped(write: Write, tiny_competition: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run<b>", tiny_competition, PICTURES[:2])
    (folder / "config.yaml").write_text(
        f"data: {{root: '{tiny_competition}'}}\nbad: '<script>alert(1)</script>'\n'\"><b': 1\n"
    )
    (folder / "detections" / "astro02.npz").unlink()
    found = write(f"output={tmp_path}/page.html", run={"<img src=x onerror=1>": str(folder)})
    assert found.html.count("<script") == 1 and "<img src=x" not in found.html
    assert (
        "<script>alert(1)</script>" in found.text and "<img src=x onerror=1>" in found.text and "run<b>" in found.text
    )


def test_two_runs_of_the_same_images(write: Write, tiny_competition: Path, tmp_path: Path) -> None:
    ours = write_run(tmp_path / "x" / "fold0", tiny_competition, PICTURES)
    theirs = write_run(tmp_path / "y" / "fold0", tiny_competition, [*PICTURES, "astro03"], seed=3)
    empty = DetectionsFolder(theirs / "detections")
    nothing = empty.load("cort01")
    empty.write(nothing.select([]))
    found = write(f"run=[{ours},{theirs}]")
    assert found.path == Path("runs/report/report.html")
    assert "x/fold0 against y/fold0" in found.text
    a, types = rows_of(ours, tiny_competition, PICTURES)
    b, _ = rows_of(theirs, tiny_competition, PICTURES)
    change = np.mean([(q[1:11] / (q[11] + q[12] - q[1:11])).mean() - (p[1:11] / (p[11] + p[12] - p[1:11])).mean()
                      for p, q in zip(a, b, strict=True)])  # fmt: skip
    assert f"{change:+.4f}" in found.text and change < 0
    assert len([one for one in found.having(name="view") if one["type"] == "radio"]) == 2
    assert found.html.count('<figure class="card"') == 6
    assert "not predicted by this run" in found.text, "astro03 is only in the second"
    assert "Settings that differ" in found.text and len(types) == 5
    assert all(found.having(id=f"plot-{name}") for name in ("against_1", "confidence_0", "confidence_1"))


def test_folds_are_scored_together(write: Write, tiny_competition: Path, tmp_path: Path) -> None:
    first = write_run(tmp_path / "fold0", tiny_competition, PICTURES)
    second = write_run(tmp_path / "fold1", tiny_competition, OTHERS)
    found = write(f"run=[{first},{second}]", "plots=false", "output=both", "gallery.images=4")
    rows = [rows_of(f, tiny_competition, p)[0] for f, p in ((first, PICTURES), (second, OTHERS))]
    of_image = [(r[1:11] / max(r[11] + r[12], 1)).mean() for r in np.concatenate(rows)]
    assert len(of_image) == 8 and "share no image" in found.text
    joined = np.concatenate(rows)
    score = np.mean([(r[1:11] / (r[11] + r[12] - r[1:11])).mean() if r[11] + r[12] else 1 for r in joined])
    assert found.having(class_="tiles") and f"{score:.3f}" in found.text
    assert not found.having(name="view") and found.html.count('<figure class="card"') == 4
    assert "4 of 8 images, the worst and the best" in found.text
    assert found.path == Path("both/report.html") and not (tmp_path / "both" / "plots").exists()


def test_a_page_without_a_gallery(write: Write, tiny_competition: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "toy", tiny_competition, PICTURES)
    settings.check(wiring.compose("report", [f"run={run}", "gallery.images=0"]), "report")
    found = write(f"run={run}", "gallery.images=0", f"data.root={tiny_competition}")
    assert found.html.count('<figure class="card"') == 0 and "Scores of the field" in found.text


def test_images_that_cannot_be_read(write: Write, tiny_competition: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", tiny_competition, PICTURES)
    rows, types = rows_of(folder, tiny_competition, PICTURES)
    expected: Any = write_scores(folder, rows, PICTURES, types)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(str(tiny_competition), str(tmp_path / "gone")))
    found = write(f"run={folder}")
    assert "the images cannot be read" in found.text and "data.root=" in found.text
    assert not found.having(id="gallery") and f"{expected['competition_map']:.3f}" in found.text
    assert write(f"run={folder}", f"data.root={tiny_competition}").having(id="gallery")
    with pytest.raises(InputError, match="elsewhere: not found"):
        write(f"run={folder}", f"data.root={tmp_path}/elsewhere")


def test_scores_that_are_no_longer_true_are_said(write: Write, tiny_competition: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", tiny_competition, PICTURES[:2])
    (folder / "metrics.json").write_text('{"competition_map": 0.75, "epochs": 0}')
    assert "metrics.json holds mAP 0.750000" in write(f"run={folder}").text


def test_a_folder_of_evaluate_keeps_its_thresholds(write: Write, tiny_competition: Path, tmp_path: Path) -> None:
    of = write_run(tmp_path / "run", tiny_competition, PICTURES, curves=False)
    evaluated = tmp_path / "evaluated"
    (evaluated / ".hydra").mkdir(parents=True)
    (evaluated / ".hydra" / "config.yaml").write_text(
        f"detections: [{of}/detections]\nfilter: null\npostprocess: {{score: {{threshold: {{default: 1.0}}}}}}\n"
        f"bootstrap: {{samples: 1}}\ndata: {{root: {tiny_competition}}}\n"
    )
    table = pd.DataFrame({"image_id": PICTURES[:2], "cell_type": "astro", "average_precision": 0.0})
    table.to_csv(evaluated / "per_image.csv", index=False)
    found = write(f"run={evaluated}")
    assert found.html.count('<figure class="card"') == 2, "those that it scored"
    assert "no metrics.csv with numbers" in found.text
    false = [one for one in found.having(class_="false") if "d" in one]
    assert not false and found.having(class_="m0"), "nothing reaches a score of 1, so that all cells are missed"


def test_a_submission_that_was_evaluated(write: Write, tiny_competition: Path, tmp_path: Path) -> None:
    truth = Competition(tiny_competition)
    csv = tmp_path / "s.csv"
    write_submission(csv, {"cort01": list(truth.record("cort01").annotations), "astro02": []})
    (tmp_path / "e" / ".hydra").mkdir(parents=True)
    (tmp_path / "e" / ".hydra" / "config.yaml").write_text(
        f"predictions: {csv}\nbootstrap: {{samples: 1}}\ndata: {{root: {tiny_competition}}}\n"
    )
    found = write(f"run={tmp_path / 'e'}")
    assert "0.500" in found.text and "Confusion" not in found.text, "one perfect image, one missed; no types"
    assert not found.having(id="plot-confidence")


def test_images_without_truth(
    write: Write, tiny_competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "predicted"
    written = DetectionsFolder(folder / "detections")
    written.write_meta(
        cell_types=["shsy5y", "astro", "cort"], mask_size=28, postprocess=POST, images=f"{tiny_competition}/test"
    )
    truth = Competition(tiny_competition)
    cells = truth.instances("cort01")
    written.write(Detections.from_instances("test00", cells, np.full(len(cells), 0.9)))
    found = write(f"run={folder}")
    assert "no annotated cells: no scores" in found.text and found.html.count('<figure class="card') == 2
    assert not found.having(name="missed") and found.having(name="hit")
    assert "no curves" in found.text and "training loss" not in found.text
    assert "next: python -m sartorius.submit " in capsys.readouterr().out, "without labels there is nothing to tune on"


def test_nothing_was_found_and_nothing_is_there(write: Write, tiny_competition: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", tiny_competition, ["cort03"], curves=False)
    found = DetectionsFolder(folder / "detections")
    found.write(found.load("cort03").select([]))
    shown = write(f"run={folder}")
    assert "1.000" in shown.text, "no cells and no prediction"
    assert shown.having(id="gallery") and not shown.having(id="plot-calibration")


def test_bad_options(write: Write, tiny_competition: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", tiny_competition, ["cort01"], curves=False)
    with pytest.raises(InputError, match="run=.*nowhere: no such folder"):
        write("run=nowhere")
    with pytest.raises(InputError, match="name at least one"):
        write("run=[]")
    with pytest.raises(InputError, match=r"gallery.quality=0: expected"):
        write(f"run={folder}", "gallery.quality=0")
    with pytest.raises(InputError, match="named twice"):
        write(f"run=[{folder},{folder}]")
    other = DetectionsFolder(folder / "detections")
    other.write(Detections.empty("cort01", 64, 48))
    with pytest.raises(InputError, match="image cort01: .*the predictions are of another image"):
        write(f"run={folder}")


def test_metrics_json_alone(write: Write, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({"competition_map": 0.25, "cells": 7, "images": 3}))
    found = write(f"run={tmp_path}", "plots=false")
    assert "0.250" in found.text and "7" in found.text and not found.having(id="images")


def predicted(folder: Path, root: Path, sizes: dict[str, int], **meta: object) -> Path:
    """Detections as `predict` leaves them: of each image so many of astro03's 4 cells, the last of another type."""
    written = DetectionsFolder(folder / "detections")
    written.write_meta(cell_types=["shsy5y", "astro", "cort"], mask_size=28, postprocess=POST, **meta)
    cells = Competition(root).instances("astro03")
    types = np.where(np.arange(len(cells)) == 3, 2, cells.cell_types)
    every = Detections.from_instances("x", replace(cells, cell_types=types), np.array([0.9, 0.8, 0.7, 0.6]))
    for image_id, count in sizes.items():
        written.write(replace(every.select(range(count)), image_id=image_id))
    return folder


def test_predictions_without_truth(write: Write, tiny_competition: Path, tmp_path: Path, capsys: Any) -> None:
    images = tmp_path / "images"
    shutil.copytree(tiny_competition / "test", images)
    shutil.copy(images / "test00.png", images / "late.png")
    (images / "damaged.png").write_bytes((images / "test00.png").read_bytes()[:60])
    (images / "gone.png").write_bytes((images / "damaged.png").read_bytes())
    counts = {"test00": 4, "test01": 0, "gone": 2, "away": 1}
    folder = predicted(tmp_path / "p", tiny_competition, counts, skipped={"damaged": "cut off <b>"})
    found = write(f"detections={folder}", f"images={images}", "plots=false")
    assert found.path == folder / "report.html" and "no scores" not in found.text and "no curves" not in found.text
    cards = {card["data-name"]: card for card in found.having(class_="card")}
    assert {name: str(card["class"])[5:] for name, card in cards.items()} == {
        "away": "unreadable", "damaged": "bad", "gone": "unreadable", "late": "bad", "test00": "", "test01": "empty",
    }  # fmt: skip
    confluence = Competition(tiny_competition).instances("astro03").foreground().mean()
    full = cards["test00"]
    assert (full["data-cells"], full["data-mean"]) == ("4", "0.75")
    assert float(str(full["data-confluence"])) == pytest.approx(confluence, rel=1e-5)
    for text in (f"4 cells (3 astro, 1 cort), confluence {confluence:.0%}, mean score 0.75", "no cells", "cut off <b>",
                 "not predicted", "1 empty, 2 bad", "gone.png: ", "not among the images"):  # fmt: skip
        assert text in found.text, text
    assert len([path for path in found.having(class_="hit") if "d" in path]) == 3
    assert {"cells", "fewest", "confluent", "sparse", "sure", "unsure", "marked", "name"} == {
        str(option.get("value")) for tag, option in found.tags if tag == "option"
    }
    assert "next: python -m sartorius.convert" in capsys.readouterr().out
    same = write(f"detections={folder}/detections", f"images={images}", "plots=false", "output=other.html")
    assert same.html == found.html


def test_predictions_need_their_images(write: Write, tiny_competition: Path, tmp_path: Path) -> None:
    folder = predicted(tmp_path / "p", tiny_competition, {"test00": 2})
    with pytest.raises(InputError, match="does not tell its images; give their folder with images="):
        write(f"detections={folder}")
    with pytest.raises(InputError, match="no such file or folder of images"):
        write(f"detections={folder}", f"images={tmp_path}/gone")
    with pytest.raises(InputError, match=r"run=None, detections=None: expected one of them"):
        write()
    with pytest.raises(InputError, match="expected one of them"):
        write(f"run={folder}", f"detections={folder}")
    with pytest.raises(
        InputError, match=r"1 images \(test00, ...\), none of which is among 12 images \(astro00, ...\)"
    ):
        write(f"detections={folder}", f"images={tiny_competition}/train")
    (tmp_path / "large").mkdir()
    Image.fromarray(np.zeros((96, 64), np.uint8)).save(tmp_path / "large" / "test00.png")
    with pytest.raises(InputError, match="image test00: 64x96 pixels, its cells are of 64x48; the predictions are of"):
        write(f"detections={folder}", f"images={tmp_path}/large")
    (folder / "detections" / "test00.npz").unlink()
    with pytest.raises(InputError, match=r"detections=.*: no detections in it; `predict` writes them"):
        write(f"detections={folder}")
    with pytest.raises(InputError, match="no meta.json in it, so not a folder of detections"):
        write(f"detections={tmp_path}")


def test_several_predictions_of_the_same_images(write: Write, tiny_competition: Path, tmp_path: Path) -> None:
    test = tiny_competition / "test"
    folders = [predicted(tmp_path / n, tiny_competition, {"test00": k, "test01": k}, images=str(test))
               for n, k in (("a", 2), ("b", 4))]  # fmt: skip
    found = write(f"detections=[{folders[0]},{folders[1]}]", "plots=false")
    assert {card["data-cells"] for card in found.having(class_="card")} == {"3"}, "the mean of 2 and 4"
    assert {tag.get("value") for tag in found.having(name="view")} == {"0", "1"}
    assert "cells, a" in found.text and "cells, b" in found.text


@pytest.mark.parametrize("images", ["same", "[astro00]"])
def test_images_of_other_commands_are_no_folder(
    write: Write, tiny_competition: Path, tmp_path: Path, images: str
) -> None:
    """`ensemble` and `evaluate` have an option of that name which chooses among images."""
    folder = write_run(tmp_path / "run", tiny_competition, PICTURES[:2], curves=False)
    (folder / "config.yaml").write_text(f"images: {images}\ndata: {{root: {tiny_competition}}}\n")
    found = write(f"run={folder}", "plots=false")
    assert found.html.count('<figure class="card"') == 2 and found.having(name="missed")
