"""Predict on any pictures: `python -m sartorius.predict checkpoint=runs/<run>/checkpoints/best.ckpt images=folder`.

Writes `<output>/detections/` (for evaluate, submit and the stages after them) and `<output>/overlays/`, a PNG for each
picture with the cells that the post-processing keeps.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from sartorius import wiring

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule, LightningModule, Trainer


def predict(module: LightningModule, datamodule: LightningDataModule, trainer: Trainer) -> None:
    """Run the module over the pictures; the trainer's callbacks write what comes out."""
    try:
        trainer.predict(module, datamodule, return_predictions=False)
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from None


@wiring.verb("predict")
def main(cfg: DictConfig) -> None:
    """Build the objects of the config and the checkpoint, and predict."""
    from sartorius.detections import DetectionsFolder

    checkpoint, images, output = Path(cfg.checkpoint), Path(cfg.images), Path(cfg.output)
    DetectionsFolder(output / "detections").check_empty()
    datamodule = wiring.instantiate(cfg.data)
    datamodule.setup("predict")  # bad pictures are named before a network is built
    wiring.seed_everything(cfg.seed)
    module, recipe = wiring.load_module(checkpoint, cfg.inference)
    from sartorius.postprocess.saved import from_saved

    postprocess = from_saved(recipe["postprocess"], wiring.plain(cfg.postprocess), str(checkpoint))
    about = {"checkpoint": str(checkpoint), "images": str(images)}
    callbacks = wiring.instantiate_all(
        cfg.callbacks, overlays={"postprocess": postprocess}, prediction_writer={"meta": about}
    )
    trainer = wiring.instantiate(cfg.trainer, callbacks=callbacks)
    predict(module, datamodule, trainer)
    print(f"{len(datamodule.pictures)} pictures: detections and overlays in {output}")


if __name__ == "__main__":
    main()
