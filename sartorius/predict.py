"""Predict on any images: `python -m sartorius.predict checkpoint=runs/<run>/checkpoints/best.ckpt images=folder`.

`model=two_stage model.first=<checkpoint or folder of detections> model.second=<crop segmenter's checkpoint>`, in place
of `checkpoint=`, segments each box of a first model anew. Writes `<output>/detections/` (for evaluate, submit and the
stages after them) and, in the formats of `write=`, the cells that the post-processing keeps: label images, tables and
overlays unless others are named. `convert` writes further ones later.

`trainer=ddp` shares the images out among all GPUs, with the same result.

`tta=flips | d4 | scales` predicts several views of each image; with `tta.fuse=null` the detections of each view, in the
image's own coordinates, go to `<output>/detections_<view>/`, for `ensemble` to join.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.running import building, outputs, wiring
from sartorius.running.commands import command
from sartorius.running.distributed import run_on_devices
from sartorius.running.predicting import Prediction, build_predictions, model_source, run_prediction
from sartorius.structures.next_step import print_next

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

    from sartorius.modules.base import SegmentationModule


def predict(
    module: SegmentationModule, datamodule: LightningDataModule, predictions: Sequence[Prediction]
) -> list[Path]:
    """Apply the module to all images once for each prediction; returns the folders of detections."""
    for prediction in predictions:
        if prediction.view is not None:
            module.use_windows(prediction.view)
        run_prediction(module, datamodule, prediction.trainer)
    return [prediction.folder for prediction in predictions]


def check_folder(cfg: DictConfig) -> None:
    """Raise InputError where the output holds detections or overlays of an earlier run."""
    from sartorius.structures.detections import DetectionsFolder

    output = Path(str(cfg.output))
    for folder in (output / "detections", *sorted(output.glob("detections_*"))):
        DetectionsFolder(folder).check_empty()
    if any(output.glob("overlays/*.png")):
        raise InputError(f"{output / 'overlays'}: holds overlays already; delete them or give another output=")


@command("predict", outputs.Output(outputs.run_folder, check=check_folder))
@run_on_devices("predict")
def main(cfg: DictConfig) -> None:
    """Build the objects of the config and the checkpoint, and predict."""
    model_source(cfg.checkpoint, wiring.plain(cfg.get("model")))  # before images are read
    output = Path(str(cfg.output))
    datamodule = wiring.instantiate(cfg.data)
    datamodule.setup("predict")  # bad images are named before a network is built
    building.seed_everything(cfg.seed)
    module, predictions = build_predictions(cfg, datamodule.images)
    folders = predict(module, datamodule, predictions)
    if predictions[0].view is None:
        print(f"{len(datamodule.images)} images: {', '.join(['detections', *cfg.write])} in {output}")
        print_next("submit", {"detections": folders[0], "output": "submission.csv"})
    else:
        print(f"{len(datamodule.images)} images: detections of each view in {', '.join(map(str, folders))}")
        print_next("ensemble", {"members": folders, "output": "joined"})


if __name__ == "__main__":
    main()
