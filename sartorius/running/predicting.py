"""A prediction over images, by whatever a command names as its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from sartorius.running.building import resolve_precision
from sartorius.running.wiring import instantiate

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer

    from sartorius.modules.base import SegmentationModule
    from sartorius.postprocess.finalise import Finalised
    from sartorius.structures.arrays import GreyImage


def build_predictor(trainer: DictConfig, callbacks: Sequence[Callback]) -> Trainer:
    """Build the trainer of a config, with these callbacks alone: no logger, no checkpoints, whatever the config."""
    resolve_precision(trainer)
    return instantiate(trainer, callbacks=list(callbacks), logger=False, enable_checkpointing=False)


def run_prediction(module: LightningModule, datamodule: LightningDataModule, trainer: Trainer) -> None:
    """Apply the module to the images, of which each process takes its share; the trainer's callbacks write the results.

    Returns when all processes are done. Raises KeyboardInterrupt when a person stops it.
    """
    try:
        trainer.predict(module, datamodule, return_predictions=False)
        trainer.strategy.barrier("predicted")
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None


def predict_image(module: SegmentationModule, image: GreyImage) -> Finalised:
    """Predict the cells of one grey image, uint8 [H, W], through the module's windows and its own post-processing."""
    import torch

    from sartorius.data.dataset import Batch, Target
    from sartorius.postprocess.saved import from_saved
    from sartorius.structures.instances import Instances

    target = Target.from_instances("image", 0, Instances.empty(*image.shape))
    trained = module.training
    with torch.inference_mode():
        batch = Batch([torch.from_numpy(image)[None].to(module.device)], [target])
        (detections,) = module.eval().predict_step(batch, 0)
    module.train(trained)
    return from_saved(module.hparams["postprocess"], None, "the module")(detections)
