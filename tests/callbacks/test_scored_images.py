"""The seam of validation: each image once, in the order of the callbacks, post-processed where it is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn

from sartorius.callbacks.scored_images import ImageCallback, ScoredImage, ScoredImages, Validation
from sartorius.data.dataset import Batch, Target
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances
from tests.postprocess.pipelines import pipeline

CELLS = Instances.from_masks(np.ones((1, 8, 8), bool), [0])


class Noting(ImageCallback):
    """Notes what it is handed; `asks` for the row of each image."""

    def __init__(self, notes: list[Any], name: str, asks: bool = False) -> None:
        self.notes, self.name, self.asks = notes, name, asks

    def on_scoring_start(self, validation: Validation) -> None:
        self.notes.append((self.name, "start", validation.in_fit))

    def on_scored_image(self, validation: Validation, image: ScoredImage) -> None:
        self.notes.append((self.name, image.image_id, image.average_precision if self.asks else None))

    def on_scoring_end(self, validation: Validation) -> None:
        self.notes.append((self.name, "end", validation.in_fit))


def validate(asks: bool, fn: TrainerFn = TrainerFn.FITTING, sanity: bool = False) -> tuple[list[Any], int]:
    """Two images in one batch; returns the notes of two callbacks, and how many images were post-processed."""
    notes: list[Any] = []
    calls: list[str] = []
    postprocess = pipeline(score=0.1, mask=0.5, box_nms=1.0, mask_nms=1.0, min_area=0)

    def counted(detections: Detections) -> Any:
        calls.append(detections.image_id)
        return postprocess(detections)

    seam, callbacks = ScoredImages(counted), [Noting(notes, "a", asks), pl.Callback(), Noting(notes, "b", asks)]
    state = SimpleNamespace(fn=fn)
    trainer: Any = SimpleNamespace(sanity_checking=sanity, state=state, callbacks=[*callbacks, seam])
    seam.setup(trainer, pl.LightningModule(), "fit")
    seam.on_validation_epoch_start(trainer, pl.LightningModule())
    targets = [Target.from_instances(name, k, CELLS) for k, name in enumerate("xy")]
    found = [Detections.from_instances(name, CELLS, np.ones(1), 28, CELL_TYPES) for name in "xy"]
    batch = Batch([torch.zeros(1, 8, 8, dtype=torch.uint8)] * 2, targets)
    seam.on_validation_batch_end(trainer, pl.LightningModule(), found, batch, 0)
    seam.on_validation_epoch_end(trainer, pl.LightningModule())
    return notes, len(calls)


def test_each_image_once_in_the_order_of_the_callbacks() -> None:
    notes, processed = validate(asks=True)
    images = [(name, image_id, 1.0) for image_id in "xy" for name in "ab"]
    assert notes == [("a", "start", True), ("b", "start", True), *images, ("a", "end", True), ("b", "end", True)]
    assert processed == 2


def test_nothing_is_post_processed_that_nobody_asks_for() -> None:
    notes, processed = validate(asks=False, fn=TrainerFn.VALIDATING)
    assert len(notes) == 2 * 4
    assert notes[0] == ("a", "start", False)
    assert processed == 0


def test_the_sanity_check_hands_over_nothing() -> None:
    assert validate(asks=True, sanity=True) == ([], 0)


def test_an_image_of_no_known_type_and_a_batch_that_does_not_fit() -> None:
    image: Any = ScoredImage(None, Target.from_instances("x", 0, CELLS), None, None)  # type: ignore[arg-type]
    assert image.cell_type == "unknown"
    seam: Any = ScoredImages(lambda detections: detections)  # type: ignore[arg-type, return-value]
    trainer = SimpleNamespace(sanity_checking=False, callbacks=[])
    seam.on_validation_epoch_start(trainer, None)
    with pytest.raises(ValueError, match="argument"):
        seam.on_validation_batch_end(trainer, None, [], Batch([None], [image.target]), 0)
