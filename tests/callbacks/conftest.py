"""A finished run of the toy module, made once: what the callbacks left is looked at by several files."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from sartorius.callbacks.checkpoint_io import AtomicCheckpointIO
from sartorius.callbacks.checkpoints import LastCheckpoint
from sartorius.callbacks.competition_score import CompetitionScore
from sartorius.callbacks.overlays import Overlays
from sartorius.callbacks.prediction_writer import PredictionWriter
from sartorius.callbacks.progress import Progress
from sartorius.callbacks.run_record import RunRecord
from sartorius.callbacks.scored_images import ScoredImages
from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.loggers.csv import CSVLog
from sartorius.running import building
from sartorius.train import train
from tests.doubles import toy_config
from tests.postprocess.pipelines import pipeline


@dataclass
class Run:
    folder: Path
    metrics: dict[str, float]
    scored: CompetitionScore
    data: SupervisedDataModule
    hyper_parameters: dict[str, Any]


class Noted(CSVLog):
    """Keeps the hyper-parameters that a logger gets."""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.hyper_parameters = params


@pytest.fixture(scope="session")
def run(tiny_competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "toy"
    for old in ("detections/gone.npz", "overlays/gone.png"):  # of an earlier best checkpoint, of other images
        (folder / old).parent.mkdir(parents=True)
        (folder / old).touch()
    postprocess = pipeline(score=0.1, mask=0.5, box_nms=0.9, mask_nms=0.5, min_area=0)
    scored = CompetitionScore(instance_scores=True)
    callbacks: list[pl.Callback] = [
        ScoredImages(postprocess),
        scored,
        PredictionWriter(folder / "detections", {"fold": 0}),
        Overlays(folder / "overlays", images=2, every_n_epochs=2),
        RunRecord(folder, folder.parent / "leaderboard.csv", {"experiment": "toy", "fold": 0, "seed": 0}),
        Progress(),
        pl.callbacks.ModelCheckpoint(
            folder / "checkpoints", "best", "val/map", mode="max", enable_version_counter=False
        ),
        LastCheckpoint(folder / "checkpoints"),
    ]
    data = SupervisedDataModule(tiny_competition, batch_size=3, fold=0, n_folds=4)
    logger, module = Noted(folder / "metrics.csv"), building.build_module(toy_config())
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=logger, callbacks=callbacks,
        log_every_n_steps=1, plugins=[AtomicCheckpointIO()], enable_model_summary=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # where there are many cores Lightning misses workers
        metrics = train(module, data, trainer)
    return Run(folder, metrics, scored, data, logger.hyper_parameters)
