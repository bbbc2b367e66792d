from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn

from sartorius.callbacks.pixel_report import PixelReport
from sartorius.data.dataset import Batch, Target
from sartorius.errors import InputError
from sartorius.structures.instances import Instances
from tests.doubles import ToyModule
from tests.toy_segmenter import TestedData, ToySegmenter


class Logged:
    """What a LightningModule would log, with foreground."""

    device = "cpu"

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.foreground: list[torch.Tensor] = []

    def log_dict(self, values: dict[str, float], **_: Any) -> None:
        self.values |= values


def target(index: int, *columns: slice, kind: str = "astro") -> Target:
    """An image of 4 x 8 pixels with a cell over each of the columns."""
    masks = np.zeros((len(columns), 4, 8), bool)
    for mask, part in zip(masks, columns, strict=True):
        mask[:, part] = True
    cells = Instances.from_masks(masks, [1] * len(masks)) if columns else Instances.empty(4, 8)
    return Target.from_instances(f"p{index}", index, cells, kind)


def column(part: slice) -> torch.Tensor:
    foreground = torch.full((4, 8), 0.1)
    foreground[:, part] = 0.9
    return foreground


def report(
    folder: Path,
    images: list[tuple[Target, torch.Tensor]],
    fn: TrainerFn = TrainerFn.VALIDATING,
    sanity: bool = False,
) -> tuple[PixelReport, dict[str, float]]:
    callback: Any = PixelReport(folder)
    trainer = SimpleNamespace(sanity_checking=sanity, state=SimpleNamespace(fn=fn), is_global_zero=True)
    module = Logged()
    callback.on_validation_epoch_start(trainer, module)
    for number, (truth, foreground) in enumerate(images):
        module.foreground = [foreground]
        callback.on_validation_batch_end(trainer, module, [], Batch([], [truth]), number)
    callback.on_validation_epoch_end(trainer, module)
    return callback, module.values


def test_means_over_images_and_pooled_pixels(tmp_path: Path) -> None:
    # overlapping cells over columns 0 to 3: their union counts
    images = [
        (target(0, slice(0, 3), slice(2, 4)), column(slice(0, 4))),
        (target(1, slice(0, 1)), column(slice(4, 6))),
    ]
    _, logged = report(tmp_path, images)
    assert logged == pytest.approx(
        {
            "val/iou": (1 + 0) / 2,
            "val/dice": (1 + 0) / 2,
            "val/pooled_iou": 16 / (16 + 4 + 8),
            "val/pooled_dice": 32 / (32 + 4 + 8),
            "val/pixel_accuracy": (1 + 5 / 8) / 2,
            "val/bce": -(np.log(0.9) * (1 + 5 / 8) + np.log(0.1) * 3 / 8) / 2,
            "val/confluence_error": (0 + 1 / 8) / 2,
        }
    )


def test_the_table_of_the_best_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [(target(4, slice(0, 4), kind="cort"), column(slice(0, 4))), (target(1), column(slice(0, 2)))]
    callback, _ = report(tmp_path, images)
    table = pd.read_csv(tmp_path / "pixels_val.csv")
    pd.testing.assert_frame_equal(table, callback.table)
    assert table.image_id.tolist() == ["p1", "p4"]
    assert table.cell_type.tolist() == ["astro", "cort"]
    assert table.confluence_predicted.tolist() == [2 / 8, 4 / 8]
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    assert all(name in printed for name in ("all", "astro", "cort"))


def test_validation_within_a_fit_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, logged = report(tmp_path, [(target(0), column(slice(0, 4)))], TrainerFn.FITTING)
    assert logged["val/iou"] == 0
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out == ""


def test_the_test_stage_has_its_own_names(tmp_path: Path) -> None:
    _, logged = report(tmp_path, [(target(0), column(slice(0, 0)))], TrainerFn.TESTING)
    assert logged["test/iou"] == logged["test/dice"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["pixels_test.csv"]


def test_no_images_and_sanity_checks_log_nothing(tmp_path: Path) -> None:
    assert report(tmp_path, [])[1] == {}
    assert report(tmp_path, [(target(0), column(slice(0, 1)))], sanity=True)[1] == {}
    assert not list(tmp_path.iterdir())


def test_unknown_cell_type_and_wrong_number_of_images(tmp_path: Path) -> None:
    callback, _ = report(tmp_path, [(target(0, kind=""), column(slice(0, 1)))])
    assert callback.table.cell_type.tolist() == ["unknown"]
    trainer, module = SimpleNamespace(sanity_checking=False), Logged()
    with pytest.raises(ValueError, match="argument"):
        callback.on_validation_batch_end(trainer, module, [], Batch([], [target(0)]), 0)  # type: ignore[arg-type]


def run(root: Path, folder: Path, module: pl.LightningModule, **options: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[PixelReport(folder)], **options,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # where there are many cores Lightning misses workers
        data = TestedData(root, batch_size=3, fold=0, n_folds=4)
        trainer.fit(module, data)
        trainer.test(module, data, verbose=False)
    return trainer


def test_in_a_trainer(tiny_competition: Path, tmp_path: Path) -> None:
    trainer = run(tiny_competition, tmp_path, ToySegmenter(150))
    assert trainer.callback_metrics["test/iou"] == 1
    assert len(pd.read_csv(tmp_path / "pixels_test.csv")) == 2
    assert not (tmp_path / "pixels_val.csv").exists()


def test_a_module_without_foreground_is_named_before_training(tiny_competition: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ToyModule does not; leave the report out with callbacks=default"):
        run(tiny_competition, tmp_path, ToyModule(), num_sanity_val_steps=1)
