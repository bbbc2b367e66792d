from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from sartorius import evaluate, fit_filter, submit
from sartorius.data.competition.folder import Competition
from sartorius.errors import InputError
from sartorius.formats.submission import read_submission
from sartorius.rescoring.filter import FalsePositiveFilter
from sartorius.running import wiring
from sartorius.structures.detections import Detections, DetectionsFolder
from tests.postprocess.pipelines import saved

POST = saved(score=0.5, mask=0.5, box_nms=0.9, mask_nms=0.5, min_area=0)
SMALL = ("model.max_iter=10", "model.learning_rate=0.3", "model.min_samples_leaf=4", "bootstrap.samples=100")
Run = Callable[..., Any]


@pytest.fixture
def run(tiny_competition: Path, tmp_path: Path) -> Run:
    def program(verb: Any, *overrides: str) -> Any:
        with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
            name = verb.__name__.rpartition(".")[2]
            return verb.main(compose(name, overrides=[f"data.root={tiny_competition}", *overrides]))

    return program


@pytest.fixture
def folder(tiny_competition: Path, tmp_path: Path) -> Path:
    """The true cells, and beside each image's a thin false one with the same score."""
    truth, written = Competition(tiny_competition), DetectionsFolder(tmp_path / "detections")
    written.write_meta(cell_types=list(truth.cell_type_names), mask_size=28, postprocess=POST)
    for image_id in truth.ids:
        cells = truth.instances(image_id)
        true = Detections.from_instances(image_id, cells, np.full(len(cells), 0.8))
        box = np.array([[40, 30, 60, 32], [30, 40, 50, 42]], np.float32)
        masks = np.concatenate((true.masks, np.ones((2, 28, 28), np.float16)))
        written.write(
            Detections(
                image_id,
                cells.height,
                cells.width,
                np.concatenate((true.boxes, box)),
                np.full(len(cells) + 2, 0.8, np.float32),
                np.append(true.cell_types, [0, 0]),
                masks,
            )
        )
    return written.folder


def test_a_filter_is_trained_and_used(run: Run, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "filter.npz"
    numbers = run(fit_filter, f"detections={folder}", f"output={path}", "folds=4", *SMALL)
    assert numbers == json.loads(path.with_suffix(".json").read_text())
    assert numbers["images"] == 12 and numbers["threshold"] > 0
    plain, filtered = (numbers[key]["competition_map"] for key in ("unfiltered", "cross_fitted"))
    assert filtered > plain and numbers["difference"]["mean"] == pytest.approx(filtered - plain)
    report = f"output={tmp_path / 'report'}"
    before = run(evaluate, f"detections={folder}", report)["competition_map"]
    assert before == pytest.approx(plain)
    assert run(evaluate, f"detections={folder}", f"filter={path}", report)["competition_map"] > before
    csv = tmp_path / "s.csv"
    run(submit, f"detections={folder}", f"filter={path}", f"output={csv}", "data.root=null")
    rows = read_submission(csv)
    assert len(rows) == 12 and sum(map(len, rows.values())) < len(DetectionsFolder(folder).image_ids()) * 2 + 22


def test_a_filter_that_loses_is_not_written(run: Run, folder: Path, tmp_path: Path) -> None:
    """All cells are true here, and every one that a threshold drops is lost."""
    written = DetectionsFolder(folder)
    for image_id in written.image_ids():
        found = written.load(image_id)
        written.write(found.select(np.arange(len(found) - 2)))
    path = tmp_path / "filter.npz"
    path.write_bytes(b"of an earlier call")
    given = (f"detections={folder}", f"output={path}", "folds=4", "thresholds=[0.97]", *SMALL)
    with pytest.raises(InputError, match=r"filter.npz: not written, for it changes mAP by -0\.\d+ .* accept_loss=true"):
        run(fit_filter, *given)
    assert path.read_bytes() == b"of an earlier call" and not path.with_suffix(".json").exists()
    numbers = run(fit_filter, *given, "accept_loss=true")
    assert numbers["difference"]["mean"] < 0 and FalsePositiveFilter.load(path).threshold == 0.97


def test_bad_input(run: Run, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"detections=\[\]"):
        run(fit_filter)
    with pytest.raises(InputError, match="output=filter.pkl: expected"):
        run(fit_filter, f"detections={folder}", "output=filter.pkl")
    for folds in (2, 13):
        with pytest.raises(InputError, match=f"folds={folds}: the detections are of 12 plate wells, so 3 to 12 folds"):
            run(fit_filter, f"detections={folder}", f"folds={folds}", *SMALL)
    with pytest.raises(InputError, match="folds share no image"):
        run(fit_filter, f"detections=[{folder},{folder}]")
    empty = DetectionsFolder(tmp_path / "empty")
    empty.write_meta(cell_types=["shsy5y", "astro", "cort"], mask_size=28, postprocess=POST)
    with pytest.raises(InputError, match="no detections in it"):
        run(fit_filter, f"detections={empty.folder}")
    empty.write(Detections.empty("astro01", 10, 10))
    with pytest.raises(InputError, match="image astro01: .*another image"):
        run(fit_filter, f"detections={empty.folder}")
    with pytest.raises(InputError, match="different cell types"):
        other = DetectionsFolder(tmp_path / "other")
        other.write_meta(cell_types=["a"], mask_size=28, postprocess=POST)
        run(fit_filter, f"detections=[{folder},{other.folder}]")
    with pytest.raises(InputError, match="filter= .* goes with"):
        run(evaluate, "predictions=x.csv", "filter=y.npz")
