from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from sartorius.callbacks.checkpoints import LastCheckpoint
from sartorius.callbacks.early_stopping import EarlyStopping
from sartorius.data.competition.datamodule import SupervisedDataModule
from tests.doubles import ToyModule


class Falling(pl.Callback):
    """Logs a score that is worse in each epoch."""

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        module.log("score", -float(trainer.current_epoch), batch_size=1)


def fit(root: Path, folder: Path, patience: int, resume: bool = False) -> int:
    """Return the epochs that were trained in all."""
    trainer = pl.Trainer(
        max_epochs=20, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, limit_train_batches=1, limit_val_batches=1,
        callbacks=[Falling(), EarlyStopping("score", mode="max", patience=patience), LastCheckpoint(folder)],
    )  # fmt: skip
    path: Any = {"ckpt_path": folder / "last.ckpt", "weights_only": False} if resume else {}
    trainer.fit(ToyModule(), SupervisedDataModule(root, batch_size=2, fold=0, n_folds=4), **path)
    return trainer.current_epoch


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning", "ignore:.*the run was over")
def test_a_stopped_run_is_over_until_the_patience_is_longer(tiny_competition: Path, tmp_path: Path) -> None:
    assert fit(tiny_competition, tmp_path, patience=2) == 3
    assert fit(tiny_competition, tmp_path, patience=2, resume=True) == 3
    assert fit(tiny_competition, tmp_path, patience=4, resume=True) == fit(tiny_competition, tmp_path / "b", 4) == 5
