"""Weights & Biases: numbers, images with toggled masks and boxes, tables and files of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only, rank_zero_warn

from sartorius.loggers.protocol import CellLogger, CellsView, FileLogger, TableLogger
from sartorius.structures.arrays import GreyImage, LabelMap, Scores
from sartorius.structures.instances import Instances
from sartorius.visualise.overlays import outlines, stretched


class WandbLog(WandbLogger, CellLogger, TableLogger, FileLogger):
    """Lightning's logger of W&B, with images of cells, tables and files.

    Where W&B cannot be reached when the run starts (no network, no account), it is logged offline with a warning;
    `wandb sync` sends it later. Where that fails too (the disk is full), each call raises the first error at once.

    Args:
        save_dir: folder that gets `wandb/`, with all that waits to be sent: images of tables too, unless the
            environment's WANDB_DATA_DIR puts them elsewhere.
        id: of the run; a resumed run continues its W&B run.
        offline: send nothing; `wandb sync` does later. The environment's WANDB_MODE=offline does the same.
        init_timeout: seconds to wait for W&B when the run starts.
        finish_timeout: seconds to wait at the end until all is sent, in versions of wandb that have it; 0 for as long
            as it takes.
        boxes: predicted boxes of an image that are sent, those of the highest scores; annotated ones only where there
            are no more of them.
        rim: width of outlines, pixels.
        options: project, entity (null: the account's own), group, job_type, tags, name, as W&B has them.
    """

    def __init__(
        self, save_dir: str, id: str, offline: bool, init_timeout: float, finish_timeout: float, boxes: int, rim: int,
        **options: Any,
    ) -> None:  # fmt: skip
        import wandb

        wanted = {"init_timeout": init_timeout, "finish_timeout": finish_timeout}
        options["settings"] = {key: value for key, value in wanted.items() if key in wandb.Settings.__annotations__}
        if offline:  # Lightning's own way is the environment, where it would hold for the next run of a sweep too
            options["mode"] = "offline"
        Path(save_dir).mkdir(parents=True, exist_ok=True)  # W&B goes elsewhere otherwise
        self._waiting = Path(save_dir).absolute() / "wandb"
        super().__init__(save_dir=save_dir, id=id, **options)
        self._wandb_init.pop("anonymous", None)  # no setting of W&B any more, which warns of it
        self.boxes, self.rim = boxes, rim
        self._broken: Exception | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, begun at the first call."""
        if self._broken is not None:
            raise self._broken
        if self._experiment is None:
            try:
                self._begin()
            except Exception as error:
                self._broken = error
                raise
        return self._experiment

    def _begin(self) -> None:
        """Begin the run, offline where W&B does not answer."""
        try:
            _ = super().experiment
        except Exception as error:
            if self._wandb_init.get("mode") == "offline":
                raise
            reason = " ".join(str(error).split())[:200]
            rank_zero_warn(
                f"logger.wandb: W&B cannot be reached ({type(error).__name__}: {reason}); this run is logged offline "
                f"in {self._save_dir}/wandb, send it with `wandb sync {self._save_dir}/wandb/offline-run-*`"
            )
            import wandb

            wandb.teardown()  # its service still holds the id of the run that failed
            self._wandb_init["mode"] = "offline"
            _ = super().experiment

    @rank_zero_only
    def log_cells(self, key: str, view: CellsView, step: int) -> None:
        """Log the image with outlines and boxes of true and predicted cells, which can be switched on and off."""
        import wandb

        labels = {k + 1: name for k, name in enumerate(view.names)}
        masks, boxes = {}, {}
        for side, cells, scores in (("truth", view.truth, None), ("prediction", view.prediction, view.scores)):
            masks[side] = {"mask_data": outline_types(cells, self.rim), "class_labels": labels}
            if data := boxes_of(cells, scores, view.names, self.boxes):  # W&B refuses a side without boxes
                boxes[side] = {"box_data": data, "class_labels": labels}
        image = wandb.Image(
            stretched(view.image), masks=masks, boxes=boxes or None, caption=view.caption, file_type="jpg"
        )
        self._show(key, image, step)

    @rank_zero_only
    def log_rows(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table; RGB arrays uint8 [H, W, 3] become images."""
        import wandb

        data: list[Any] = [
            [wandb.Image(v, file_type="jpg") if isinstance(v, np.ndarray) else v for v in row] for row in rows
        ]
        self._show(key, wandb.Table(columns=list(columns), data=data), step)

    @rank_zero_only
    def log_files(self, name: str, kind: str, paths: Sequence[Path], metadata: Mapping[str, Any]) -> None:
        """Log an artifact `<name>-<id of the run>` of the type `kind`: files, and folders under their own names.

        Files are not copied: W&B sends them from where they are.
        """
        import wandb

        artifact = wandb.Artifact(f"{name}-{self.experiment.id}", kind, metadata=dict(metadata))
        for path in paths:
            if path.is_dir():
                artifact.add_dir(str(path), name=path.name, policy="immutable", skip_cache=True)
            else:
                artifact.add_file(str(path), policy="immutable", skip_cache=True)
        with self._unsent_in_run_folder():
            self.experiment.log_artifact(artifact, aliases=["best"])

    def _show(self, key: str, value: Any, step: int) -> None:
        with self._unsent_in_run_folder():
            self.log_metrics({key: value}, step)

    @contextmanager
    def _unsent_in_run_folder(self) -> Iterator[None]:
        """Keep unsent parts of tables and artifacts in the run folder, where W&B would take the home folder."""
        unset = "WANDB_DATA_DIR" not in os.environ
        if unset:
            os.environ["WANDB_DATA_DIR"] = str(self._waiting)
        try:
            yield
        finally:
            if unset:
                del os.environ["WANDB_DATA_DIR"]  # the next run of a sweep has another folder


def outline_types(cells: Instances, rim: int) -> GreyImage:
    """Return uint8 [H, W]: k + 1 on the `rim` outermost pixels of cells of type k, 0 elsewhere, inside cells too."""
    kinds = np.append(0, cells.cell_types + 1).astype(np.uint8)
    drawn = np.zeros((cells.height, cells.width), np.uint8)
    for layer in cells.layers:
        inside: LabelMap = layer.copy()
        for _ in range(rim):
            edge = outlines(inside)
            drawn[edge] = kinds[inside[edge]]
            inside[edge] = 0
    return drawn


def boxes_of(cells: Instances, scores: Scores | None, names: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """Return W&B's `box_data`, pixels: of the `limit` highest scores; without scores of all cells, or none above it."""
    if scores is None:
        chosen = np.flatnonzero(cells.areas) if len(cells) <= limit else np.zeros(0, np.int64)
    else:
        chosen = np.argsort(-scores, kind="stable")[:limit]
    boxes = []
    for k, kind in zip(chosen.tolist(), cells.cell_types[chosen].tolist(), strict=True):
        x1, y1, x2, y2 = cells.boxes[k].astype(int).tolist()
        position = {"minX": x1, "maxX": x2, "minY": y1, "maxY": y2}
        box = {"position": position, "domain": "pixel", "class_id": kind + 1, "box_caption": names[kind]}
        if scores is not None:
            box |= {"box_caption": f"{names[kind]} {scores[k]:.2f}", "scores": {"confidence": float(scores[k])}}
        boxes.append(box)
    return boxes
