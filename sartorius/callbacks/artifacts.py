"""The files of a run, linked to it where its loggers keep files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning import LightningModule, Trainer

from sartorius.callbacks.checkpoints import unscored_checkpoint
from sartorius.callbacks.scored_images import ImageCallback, Validation
from sartorius.errors import InputError
from sartorius.loggers.protocol import FileLogger, loggers_with
from sartorius.loggers.tolerant import SuppressErrors
from sartorius.postprocess.finalise import Postprocess
from sartorius.postprocess.saved import to_file

KINDS = ("model", "postprocess", "predictions")


class Artifacts(ImageCallback):
    """Files for the loggers that keep some, handed over when the best checkpoint has been validated after a fit; the
    model alone, at its end, of a fit without validation.

    model: the checkpoint. postprocess: the thresholds that it was scored with, as `<folder>/postprocess.yaml`, which
    `postprocess.file=` reads. predictions: the detections, with the run's metrics.json and per_image.csv. Each is
    marked with the run's scores. Without such a logger it does nothing.

    folder: of the run. detections: the folder of detections. kinds: those of KINDS that are handed over.
    """

    def __init__(self, folder: str | Path, detections: str | Path, kinds: Sequence[str]) -> None:
        if unknown := sorted({*kinds} - {*KINDS}):
            raise InputError(f"callbacks.artifacts.kinds: no {', '.join(unknown)}; choose of {', '.join(KINDS)}")
        self.folder, self.detections, self.kinds = Path(folder), Path(detections), tuple(kinds)

    def on_scoring_end(self, validation: Validation) -> None:
        """Hand them over; nothing during a fit."""
        loggers = loggers_with(validation.trainer, FileLogger)
        if validation.in_fit or not validation.trainer.is_global_zero or not loggers:
            return
        scores = {} if validation.result is None else validation.result.metrics
        for kind in self.kinds:
            paths: list[Path] = []
            with SuppressErrors(f"callbacks.artifacts ({kind})", "It is not linked to the run", OSError):
                paths = self._paths(kind, validation)
            for logger in loggers if paths else ():
                logger.log_files(kind, kind, paths, scores)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand over the model of a fit without validation."""
        checkpoint = unscored_checkpoint(trainer)
        for logger in loggers_with(trainer, FileLogger) if checkpoint and "model" in self.kinds else ():
            logger.log_files("model", "model", [Path(checkpoint)], {})

    def _paths(self, kind: str, validation: Validation) -> list[Path]:
        if kind == "model":
            paths = [Path(validation.trainer.ckpt_path)] if validation.trainer.ckpt_path else []
        elif kind == "predictions":
            paths = [self.detections, self.folder / "metrics.json", self.folder / "per_image.csv"]
        elif validation.result is None or not isinstance(validation.finalise, Postprocess):
            return []
        else:
            paths = [self.folder / "postprocess.yaml"]
            to_file(paths[0], validation.finalise, "The settings that the run's detections were scored with.")
        return [path for path in paths if path.exists()]
