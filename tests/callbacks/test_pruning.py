from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sartorius.callbacks.pruning import Pruning
from sartorius.errors import InputError
from sartorius.sweeps.members import was_pruned
from sartorius.sweeps.search import Search, open_storage

SPACE = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}


class Scored(pl.LightningModule):
    """Its score after epoch e is `slope` * (e + 1)."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope, self.weight = slope, nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.weight * batch).sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("score", self.slope * (self.current_epoch + 1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, trial: int, slope: float, epochs: int = 4) -> pl.Trainer:
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1)
    pruning = Pruning(folder, folder / "study.journal", trial, pruner, "score")
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, callbacks=[pruning], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=1,
    )  # fmt: skip
    loader: Any = DataLoader(torch.ones(2, 1))
    trainer.fit(Scored(slope), loader, loader)
    return trainer


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_a_run_without_prospects_is_stopped(tmp_path: Path) -> None:
    search = Search(tmp_path / "study.journal", SPACE, "max", 0, 10, {})
    (first, _), (second, _), (third, _) = search.ask(3)
    assert fit(tmp_path, first, 1.0).current_epoch == 4
    assert not was_pruned(tmp_path)
    search.study.tell(first, 4.0)
    assert search.trials()[first].intermediate_values == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}

    assert fit(tmp_path, second, 0.5).current_epoch == 1
    assert was_pruned(tmp_path)
    assert search.trials()[second].intermediate_values == {1: 0.5}

    (tmp_path / "pruned.json").unlink()
    assert fit(tmp_path, third, 0.5, epochs=1).current_epoch == 1  # it is over, so nothing was stopped
    assert not was_pruned(tmp_path)


def test_without_a_search(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"study\.journal: no such search; sweep=optuna goes with -m"):
        fit(tmp_path, 0, 1.0)


def test_the_search_lies_in_one_file(tmp_path: Path) -> None:
    Search(tmp_path / "study.journal", SPACE, "min", 0, 10, {}).ask(1)
    study = optuna.load_study(study_name="sweep", storage=open_storage(tmp_path / "study.journal"))
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert len(study.trials) == 1
