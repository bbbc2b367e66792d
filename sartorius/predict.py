"""Predict on any images: `python -m sartorius.predict checkpoint=runs/<run>/checkpoints/best.ckpt images=folder`.

`model=two_stage model.first=<checkpoint or folder of detections> model.second=<crop segmenter's checkpoint>`, in place
of `checkpoint=`, segments each box of a first model anew; `model=joined "model.members={a: A.ckpt, b: B.ckpt}"` joins
several models as `ensemble` does. A bundle of `export` may stand for any checkpoint.

Writes `<output>/detections/` (for evaluate, submit and the stages after them) and, in the formats of `write=`, the
cells that the post-processing keeps: label images, tables and overlays unless others are named. `convert` writes
further ones later.

`trainer=ddp` shares the images out among all GPUs, with the same result.

`tta=flips | d4 | scales` predicts several views of each image; with `tta.fuse=null` the detections of each view, in the
image's own coordinates, go to `<output>/detections_<view>/`, for `ensemble` to join.

The same command with the same `output=` continues a stopped prediction. Images that cannot be read are named together;
`on_error=skip` leaves them out and ends with exit code 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from sartorius.running import building
from sartorius.running.commands import command
from sartorius.running.distributed import run_on_devices
from sartorius.running.predicting import Prediction, build_images, build_predictions, load_model, run_left
from sartorius.structures.next_step import print_next

if TYPE_CHECKING:
    from sartorius.data.loading.images import ImagesDataModule
    from sartorius.modules.base import SegmentationModule

_LISTED = 10  # problems that are printed


def predict(module: SegmentationModule, images: ImagesDataModule, predictions: Sequence[Prediction]) -> list[Path]:
    """Apply the module to all images once for each prediction; returns the folders of detections."""
    from sartorius.inference.tta import seen_in

    for prediction in predictions:
        if prediction.view is not None:
            module.change_windows(partial(seen_in, view=prediction.view))
        run_left(module, images, prediction.trainer)
    return [prediction.folder for prediction in predictions]


@command("predict", skipped=len)
@run_on_devices("predict")
def main(cfg: DictConfig) -> dict[str, str]:
    """Build the objects of the config and the checkpoint, and predict; returns the problems of skipped images."""
    building.seed_everything(cfg.seed)
    module = load_model(cfg)
    images = build_images(cfg, module)
    predictions = build_predictions(cfg, module, images)
    folders = predict(module, images, predictions)
    _tell(images, folders, cfg, predictions[0].view is None)
    return images.problems


def _tell(images: ImagesDataModule, folders: Sequence[Path], cfg: DictConfig, joined: bool) -> None:
    for problem in list(images.problems.values())[:_LISTED]:
        print(f"skipped: {problem}")
    done = len(images.images) - len(images.left)
    earlier = f", {done} of them by an earlier run" if done else ""
    lost = f" and {len(images.problems)} skipped" if images.problems else ""
    count = f"{len(images.images)} images{earlier}{lost}"
    if joined:
        print(f"{count}: {', '.join(['detections', *cfg.write])} in {cfg.output}")
        print_next("submit", {"detections": folders[0], "output": "submission.csv"})
    else:
        print(f"{count}: detections of each view in {', '.join(map(str, folders))}")
        print_next("ensemble", {"members": folders, "output": "joined"})


if __name__ == "__main__":
    main()
