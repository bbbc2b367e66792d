"""Overlay PNGs: cells drawn over their images, for people."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from sartorius.callbacks.scored_images import ImageCallback, ScoredImage, Validation
from sartorius.loggers.tolerant import SuppressErrors
from sartorius.visualise.overlays import draw_comparison, write_png


class Overlays(ImageCallback):
    """Drawings of the first validation images with their cells, truth beside prediction.

    Files: `<folder>/<image>.png` of the best checkpoint, and `<folder>/epoch_<n>/<image>.png` during a fit, which a
    full disk does not stop.

    folder: of the PNGs. images: validation images drawn, always the same ones (the first of the set); None for all.
    every_n_epochs: also draw them during the fit, each so many epochs; 0 for never. scale: enlargement, so that labels
    fit beside small cells.
    """

    def __init__(self, folder: str | Path, images: int | None = 4, every_n_epochs: int = 0, scale: int = 2) -> None:
        self.folder = Path(folder)
        self.images = images
        self.every_n_epochs = every_n_epochs
        self.scale = scale
        self.suppress_errors = SuppressErrors(str(self.folder), "Overlays of the training may be missing", OSError)

    def on_scoring_start(self, validation: Validation) -> None:
        """Count the images of this validation from zero; delete the drawings of an earlier best checkpoint."""
        self._count = 0  # images of this process so far
        if not validation.in_fit:
            validation.clear(self.folder, "*.png")

    def on_scored_image(self, validation: Validation, image: ScoredImage) -> None:
        """Draw one of the first images of the set; raises OSError, outside a fit, where it cannot be written."""
        trainer = validation.trainer
        place = self._count * trainer.world_size + trainer.global_rank  # the set is distributed in turn
        self._count += 1
        due = self.every_n_epochs > 0 and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if (validation.in_fit and not due) or (self.images is not None and place >= self.images):
            return
        cells, names = image.prediction, image.detections.cell_type_names
        title = f"{image.image_id}  {image.average_precision:.3f}"
        drawing = draw_comparison(
            image.grey, image.cells, cells.instances, cells.scores, names, title=title, scale=self.scale,
            ignored=image.ignored,
        )  # fmt: skip
        folder = self.folder / f"epoch_{trainer.current_epoch:03d}" if validation.in_fit else self.folder
        with self.suppress_errors if validation.in_fit else nullcontext():
            write_png(folder / f"{image.image_id}.png", drawing)
