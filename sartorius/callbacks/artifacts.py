"""What a run made, linked to it where its loggers keep files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from sartorius.callbacks.competition_map import CompetitionMap, competition_map_of
from sartorius.callbacks.prediction_writer import PredictionWriter
from sartorius.errors import InputError
from sartorius.loggers.protocol import loggers_with
from sartorius.loggers.tolerant import Tolerance
from sartorius.postprocess.finalise import Postprocess
from sartorius.postprocess.saved import to_file

KINDS = ("model", "postprocess", "predictions")


class Artifacts(Callback):
    """Hands files to the loggers that keep some, when the best checkpoint has been validated after a fit.

    model: the checkpoint. postprocess: the thresholds that it was scored with, as `<folder>/postprocess.yaml`, which
    `postprocess.file=` reads. predictions: the folder of detections, with the run's metrics.json and per_image.csv.
    Each is marked with the run's scores. Nothing happens without such a logger.

    Args:
        folder: of the run.
        kinds: those of KINDS that are handed over.
    """

    def __init__(self, folder: str | Path, kinds: Sequence[str]) -> None:
        if unknown := sorted({*kinds} - {*KINDS}):
            raise InputError(f"callbacks.artifacts.kinds: no {', '.join(unknown)}; choose of {', '.join(KINDS)}")
        self.folder, self.kinds = Path(folder), tuple(kinds)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand them over; nothing during a fit."""
        loggers = loggers_with(trainer, "log_files")
        if trainer.state.fn != TrainerFn.VALIDATING or not trainer.is_global_zero or not loggers:
            return
        scored = competition_map_of(trainer)
        scores = {} if scored is None else scored.results
        for kind in self.kinds:
            paths: list[Path] = []
            with Tolerance(f"callbacks.artifacts ({kind})", "It is not linked to the run", OSError):
                paths = self._paths(kind, trainer, scored)
            for logger in loggers if paths else ():
                logger.log_files(kind, kind, paths, scores)

    def _paths(self, kind: str, trainer: Trainer, scored: CompetitionMap | None) -> list[Path]:
        """The files and folders of a kind that there are."""
        if kind == "model":
            found = [Path(str(trainer.ckpt_path))] if trainer.ckpt_path else []
        elif kind == "postprocess":
            if scored is None or not isinstance(scored.postprocess, Postprocess):
                return []
            found = [self.folder / "postprocess.yaml"]
            to_file(found[0], scored.postprocess, "What the run's detections were scored with.")
        else:
            callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
            writers = [c.folder.folder for c in callbacks if isinstance(c, PredictionWriter)]
            found = [*writers, self.folder / "metrics.json", self.folder / "per_image.csv"]
        return [path for path in found if path.exists()]
