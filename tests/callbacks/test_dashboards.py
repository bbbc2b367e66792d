"""The content that loggers get: fixed images, a table, files, throughput."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl

from sartorius.callbacks.artifacts import Artifacts
from sartorius.callbacks.checkpoint_io import AtomicCheckpointIO
from sartorius.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from sartorius.callbacks.competition_score import CompetitionScore
from sartorius.callbacks.fixed_images import BEST, WORST, FixedImages
from sartorius.callbacks.image_table import COLUMNS, ImageTable
from sartorius.callbacks.overlays import Overlays
from sartorius.callbacks.prediction_writer import PredictionWriter
from sartorius.callbacks.run_record import RunRecord
from sartorius.callbacks.scored_images import ScoredImages
from sartorius.callbacks.throughput import Throughput, peak_megabytes
from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.errors import InputError
from sartorius.postprocess.saved import read_file, to_saved
from sartorius.running import building
from sartorius.train import train
from sartorius.visualise.overlays import stretched
from tests.callbacks.board import Board
from tests.doubles import toy_config
from tests.postprocess.pipelines import pipeline

POST = pipeline(score=0.1, mask=0.5, box_nms=0.9, mask_nms=0.5, min_area=0)


@dataclass
class Shown:
    folder: Path
    board: Board
    data: SupervisedDataModule
    trainer: pl.Trainer
    scored: CompetitionScore
    fixed: FixedImages


def fit(
    root: Path, folder: Path, epochs: int = 2, resume: Path | None = None, loggers: Any = None,
    more: Sequence[pl.Callback] = (), **options: Any,
) -> Shown:  # fmt: skip
    scored, fixed, board = CompetitionScore(), FixedImages(1, True), Board()
    callbacks: list[pl.Callback] = [
        ScoredImages(POST), scored, PredictionWriter(folder / "detections"), Overlays(folder / "overlays", images=1),
        fixed, ImageTable(2), RunRecord(folder, None, {}),
        Artifacts(folder, folder / "detections", ["model", "postprocess", "predictions"]), Throughput(),
        BestCheckpoint(folder, "best", "val/map", mode="max", enable_version_counter=False),
        LastCheckpoint(folder), *more,
    ]  # fmt: skip
    data = SupervisedDataModule(root, batch_size=2, fold=0, n_folds=3)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=[board] if loggers is None else loggers, callbacks=callbacks,
        log_every_n_steps=1, plugins=[AtomicCheckpointIO()], enable_model_summary=False, enable_progress_bar=False,
        **options,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        train(building.build_module(toy_config()), data, trainer, resume)
    return Shown(folder, board, data, trainer, scored, fixed)


@pytest.fixture(scope="module")
def shown(tiny_competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return fit(tiny_competition, tmp_path_factory.mktemp("shown"))


def test_the_same_images_at_every_validation(shown: Shown) -> None:
    table = pd.read_csv(shown.folder / "per_image.csv").set_index("image_id")
    types = [why for why in shown.fixed.chosen.values() if why not in (WORST, BEST)]
    assert sorted(types) == sorted(table.cell_type.unique())  # the first of each
    assert set(shown.board.cells) == {f"images/{image_id}" for image_id in shown.fixed.chosen}
    steps = {tuple(step for step, _ in views) for views in shown.board.cells.values()}
    assert len(steps) == 1
    assert len(steps.pop()) == 2  # validations of the fit; that of the best checkpoint is not one
    # the toy module says the same at each validation but for its score
    chosen = table.average_precision[list(shown.fixed.chosen)]
    assert (chosen.min(), chosen.max()) == (table.average_precision.min(), table.average_precision.max())


def test_a_view_holds_truth_and_prediction(shown: Shown) -> None:
    table = pd.read_csv(shown.folder / "per_image.csv").set_index("image_id")
    for key, views in shown.board.cells.items():
        row, view = table.loc[key.removeprefix("images/")], views[-1][1]
        assert len(view.truth) == row.cells
        assert len(view.prediction) == len(view.scores) == row.predictions
        assert view.image.shape == (48, 64)
        assert view.image.dtype == stretched(view.image).dtype == np.uint8
        assert f"average precision {row.average_precision:.3f}" in view.caption


def test_a_resumed_run_goes_on_with_its_images(tiny_competition: Path, tmp_path: Path) -> None:
    first = fit(tiny_competition, tmp_path, epochs=1)
    state = dict(first.fixed.chosen)
    del state[next(iter(state))]  # what it would not choose again
    first.fixed.chosen = dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first.trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    second = fit(tiny_competition, tmp_path, epochs=2, resume=tmp_path / "last.ckpt")
    assert set(second.board.cells) == {f"images/{image_id}" for image_id in state}


def test_the_table_is_that_of_the_run(shown: Shown) -> None:
    columns, data = shown.board.tables["images_best"]
    assert columns == COLUMNS
    found = pd.DataFrame([row[:-1] for row in data], columns=columns[:-1]).set_index("image_id").sort_index()
    wanted = pd.read_csv(shown.folder / "per_image.csv").set_index("image_id").sort_index()
    assert found.index.tolist() == wanted.index.tolist()
    assert found.average_precision.tolist() == wanted.average_precision.tolist()
    assert found["true_positives_50"].tolist() == wanted.true_positives_50.tolist()
    assert [row[2] for row in data] == sorted(row[2] for row in data)
    previews = [row[-1] for row in data if row[-1] is not None]
    assert [preview.shape for preview in previews] == [(48 + 40, 2 * 64 + 8, 3)] * 2


def test_files_are_linked_with_the_scores(shown: Shown) -> None:
    files = {name: [path.name for path in paths] for name, (_, paths, _) in shown.board.files.items()}
    assert files == {
        "model": ["best.ckpt"],
        "postprocess": ["postprocess.yaml"],
        "predictions": ["detections", "metrics.json", "per_image.csv"],
    }
    assert shown.board.files["model"][2]["val/map"] == shown.scored.result.metrics["val/map"]
    assert read_file(shown.folder / "postprocess.yaml") == to_saved(POST)


def test_throughput_of_each_epoch(shown: Shown) -> None:
    own = {k.removeprefix("throughput/"): v for k, v in shown.board.metrics.items() if k.startswith("throughput/")}
    known = {"images_per_second", "cells_per_second", "seconds_per_batch", "waiting", "memory_mb"}
    assert set(own) == known  # no GPU here
    assert {len(values) for values in own.values()} == {2}
    for k in range(2):
        value = {name: values[k][1] for name, values in own.items()}
        images = len(shown.data.train_dataloader().dataset)  # type: ignore[arg-type]
        seconds = images / value["images_per_second"]
        assert seconds == pytest.approx(value["seconds_per_batch"] * len(shown.data.train_dataloader()), rel=1e-4)
        assert 0 <= value["waiting"] <= 1
        assert 10 < value["memory_mb"] <= (peak_megabytes() or 0) * (1 + 1e-6)  # logged in float32


def test_nothing_is_done_for_loggers_that_show_nothing(tiny_competition: Path, tmp_path: Path) -> None:
    shown = fit(tiny_competition, tmp_path, epochs=1, loggers=False)
    assert shown.fixed.chosen == {}
    assert not (tmp_path / "postprocess.yaml").exists()


def test_bad_options_name_their_key() -> None:
    with pytest.raises(InputError, match="artifacts.kinds: no weights; choose of model, postprocess,"):
        Artifacts("x", "y", ["model", "weights"])
