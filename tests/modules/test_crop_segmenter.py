"""The crop segmenter: truth of crops, jitter, detections of given boxes, and a small training from start to end."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from sartorius.callbacks.crop_scores import CropScores, cell_scores
from sartorius.callbacks.run_record import RunRecord
from sartorius.callbacks.scored_images import ScoredImages
from sartorius.data.competition.cell_chunks import CellsDataModule
from sartorius.data.competition.folder import Competition
from sartorius.data.dataset import Batch, InstanceDataset, collate
from sartorius.errors import InputError
from sartorius.loggers.csv import CSVLog
from sartorius.modules.crop_segmenter import CropSegmenterModule
from sartorius.networks.cell_crops import CropNetwork
from sartorius.networks.checkpoints import FORMAT_VERSION, KEY
from sartorius.networks.encoders import PlainEncoder
from sartorius.networks.unet import UNet
from sartorius.train import train

PICTURES = ["astro00", "astro03", "cort03"]  # 2 cells that overlap, 4, none


class BoxItself(nn.Module):
    """Says that the cell fills its box, and that it has no neighbours."""

    def __init__(self, sure: float = 20.0) -> None:
        super().__init__()
        self.sure = nn.Parameter(torch.tensor(sure))

    def forward(self, crops: Tensor) -> Tensor:
        return self.sure * torch.cat((2 * crops[:, 1:] - 1, -torch.ones_like(crops[:, 1:])), dim=1)


def module(body: nn.Module | None = None, size: int = 32, **options: float) -> CropSegmenterModule:
    body = BoxItself() if body is None else body
    network = CropNetwork(body, size=size, margin=0.25, min_side=12, mean=128.0, std=11.0, prompt=True)
    values = {
        "jitter": 0.0,
        "loss_weights": {"loss_neighbours": 0.5},
        "low": 0.1,
        "mask_size": 28,
        "crops_at_once": 3,
        **options,
    }
    built = CropSegmenterModule(network, lambda groups: torch.optim.Adam(groups, 3e-3), **values)
    built.log = built.log_dict = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    return built


def batch(root: Path) -> Batch:
    dataset = InstanceDataset(Competition(root), PICTURES)
    return collate([dataset[k] for k in range(len(PICTURES))])


def test_truth_is_what_roi_align_gives_of_dense_masks(tiny_competition: Path) -> None:
    built, target = module(), batch(tiny_competition).targets[0]
    boxes = target.boxes + torch.tensor([0.4, -1.2, 1.7, 0.3])
    regions, chosen = built.network.regions(boxes), torch.tensor([0, 1])
    masks = torch.stack([(target.layers == k).any(dim=0) for k in target.ids.tolist()]).float()
    assert (masks[0] * masks[1]).sum() > 0  # they overlap
    rois = torch.cat((torch.zeros(2, 1), regions), dim=1)
    dense = roi_align(masks[None], rois, 32, 1.0, 0, aligned=True)
    union = roi_align(masks.amax(dim=0)[None, None], rois, 32, 1.0, 0, aligned=True)[:, 0]
    truth = built._truth([target], [chosen], [regions])
    for k in (0, 1):
        assert torch.allclose(truth[k, 0], dense[k, k], atol=1e-6)
        assert torch.allclose(truth[k, 1], (union[k] - dense[k, k]).clamp(min=0), atol=1e-6)
    assert built._truth([target], [chosen[:0]], [regions[:0]]).shape == (0, 2, 32, 32)


def test_only_the_chosen_cells_are_trained_on(tiny_competition: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, given, seen = module(), batch(tiny_competition), []
    given.targets[0].chosen = torch.tensor([1])
    given.targets[1].chosen = torch.zeros(0, dtype=torch.int64)
    network = built.network.forward
    monkeypatch.setattr(built.network, "forward", lambda crops: seen.append(len(crops)) or network(crops))
    assert built.training_step(given, 0).item() > 0
    given.targets[0].chosen = None
    built.training_step(given, 0)
    assert seen == [1 + 0 + 0, 2 + 0 + 0]


def test_no_cells_give_a_loss_of_zero_and_gradients(tiny_competition: Path) -> None:
    built, given = module(), batch(tiny_competition)
    loss = built.training_step(Batch(given.images[2:], given.targets[2:]), 0)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None for p in built.parameters())


def test_jitter_of_training_is_a_function_of_the_step(tiny_competition: Path) -> None:
    built, given = module(jitter=0.2), batch(tiny_competition)

    def loss(batch_idx: int) -> float:
        built.on_train_batch_start(given, batch_idx)
        return built.training_step(given, batch_idx).item()

    assert loss(0) == loss(0) != loss(1)


def test_given_boxes_are_a_function_of_seed_and_image(tiny_competition: Path) -> None:
    targets = batch(tiny_competition).targets
    built, again, other = module(jitter=0.1), module(jitter=0.1), module(jitter=0.1, seed=1)
    again.given_boxes(targets[1])
    assert torch.equal(built.given_boxes(targets[0]), again.given_boxes(targets[0]))
    assert not torch.equal(built.given_boxes(targets[0]), other.given_boxes(targets[0]))
    extent = (targets[0].boxes[:, 2:] - targets[0].boxes[:, :2]).repeat(1, 2)
    assert ((built.given_boxes(targets[0]) - targets[0].boxes).abs() <= 0.1 * extent + 1e-4).all()
    assert built.given_boxes(targets[2]).shape == (0, 4)


def test_detections_are_the_given_cells_in_their_order(tiny_competition: Path) -> None:
    built, given = module(size=64), batch(tiny_competition)
    with torch.no_grad():
        found = built.validation_step(given, 0)
    assert [len(detections) for detections in found] == [2, 4, 0]
    for detections, target in zip(found, given.targets, strict=True):
        assert detections.image_id == target.image_id
        assert detections.scores.tolist() == [1.0] * len(target)
        assert detections.cell_types.tolist() == target.cell_types.tolist()
        assert detections.masks.shape[1:] == (28, 28)
        cells = Competition(tiny_competition).instances(target.image_id)  # rectangles
        assert (cell_scores(detections, cells, target.boxes.numpy(), 0.5)[:, 0] > 0.97).all()
        assert np.abs(detections.boxes - target.boxes.numpy()).max(initial=0) < 1.5


def test_a_cell_in_which_nothing_is_seen_keeps_its_box(tiny_competition: Path) -> None:
    given = batch(tiny_competition)
    with torch.no_grad():
        (found, *_) = module(BoxItself(-20.0), low=1 - 1e-12).validation_step(given, 0)
    assert found.boxes.tolist() == given.targets[0].boxes.tolist()
    assert found.masks.max() == 0


def test_what_it_refuses(tiny_competition: Path) -> None:
    with pytest.raises(InputError, match="jitter=0.5: expected 0 to below 0.5"):
        module(jitter=0.5)
    with pytest.raises(InputError, match="needs boxes: predict with model=two_stage"):
        module().predict_step(batch(tiny_competition), 0)
    with pytest.raises(InputError, match="not finite on astro00, astro03, cort03: loss_cell nan"):
        module(BoxItself(float("nan"))).training_step(batch(tiny_competition), 0)


def test_overfit(tiny_competition: Path, tmp_path: Path) -> None:
    """Bright rectangles are learned within seconds, better than an ellipse; what a run leaves without the mAP."""
    torch.manual_seed(0)
    body = UNet(PlainEncoder(8, 2, "group", 2), 2, channels=[16, 8], norm="group", mean=0.0, std=1.0)
    built = module(body, size=16, jitter=0.1)
    del built.log, built.log_dict
    built.hparams.update(model=1, format_version=FORMAT_VERSION)
    scores = CropScores(tmp_path, 0.5)
    best = pl.callbacks.ModelCheckpoint(tmp_path, "best", "val/iou", mode="max", enable_version_counter=False)
    seam = ScoredImages(lambda detections: pytest.fail("nobody asks for cells after post-processing"))
    callbacks = [seam, scores, RunRecord(tmp_path, None, {}), best]
    trainer = pl.Trainer(
        max_epochs=8, accelerator="cpu", devices=1, callbacks=callbacks,
        logger=CSVLog(tmp_path / "metrics.csv"), log_every_n_steps=1, check_val_every_n_epoch=4, num_sanity_val_steps=1,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    data = CellsDataModule(tiny_competition, n_folds=4, cells_per_sample=4, batch_size=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # where there are many cores Lightning misses workers
        metrics = train(built, data, trainer)
    assert metrics["val/iou"] > metrics["val/iou_ellipse"] + 0.1
    assert metrics["val/iou"] == pytest.approx(scores.table.iou["all"])
    assert {"val/iou_astro", "val/iou_ellipse_cort", "val/dice", "val/crop_iou", "val/crop_dice", "val/loss"} <= {
        *metrics
    }
    curve = pd.read_csv(tmp_path / "metrics.csv")
    assert curve["val/iou"].count() == curve["val/dice"].count() == 2
    losses = curve["train/loss"].dropna()
    assert losses.iloc[-1] < losses.iloc[0]
    assert (tmp_path / "config.yaml").is_file()
    assert not (tmp_path / "metrics.json").exists()
    assert pd.read_csv(tmp_path / "crop_scores.csv").cell_type.tolist() == ["all", "astro", "cort", "shsy5y"]
    assert torch.load(best.best_model_path, weights_only=True)[KEY] == built.hparams
