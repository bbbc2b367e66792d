"""The cells of predicted images in files for other programs, written image by image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from sartorius.data.dataset import Batch
from sartorius.data.loading.images import ImagesDataModule
from sartorius.formats.cells import Cells
from sartorius.formats.folder import CellsFolder
from sartorius.formats.large_cells import LargeCells
from sartorius.postprocess.blocks import finalise_by_blocks
from sartorius.postprocess.finalise import Keeping, Postprocess
from sartorius.structures.arrays import GreyImage
from sartorius.structures.blocks import Blocks
from sartorius.structures.detections import Detections, DetectionsFolder
from sartorius.structures.large_image import LargeImage, reader_of


class CellsWriter(Callback):
    """Files of the cells of predicted images; see `formats.folder.CellsFolder`.

    folder: that gets them. detections: the folder that `PredictionWriter` fills. formats: of `formats.folder.FORMATS`.
    postprocess: turns detections into cells. overlaps: `remove` gives a pixel of several cells to the best of them,
    `keep` leaves each cell whole. large: of images that are processed by blocks. scale: enlargement of overlays.
    """

    def __init__(
        self,
        folder: str | Path,
        detections: str | Path,
        formats: Sequence[str],
        postprocess: Postprocess,
        large: Blocks,
        overlaps: Keeping = "remove",
        scale: int = 2,
    ) -> None:
        self.files, self.detections = CellsFolder(folder, formats, scale), DetectionsFolder(detections)
        self.postprocess, self.overlaps, self.large = postprocess, overlaps, large

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Sequence[Detections], batch: Batch, *_: Any
    ) -> None:
        """Write the files of a batch."""
        image: Any
        for image, detections in zip(batch.images, outputs, strict=True):
            self._add(detections, image if isinstance(image, LargeImage) else image[0].cpu().numpy())

    def finish(self, images: ImagesDataModule) -> None:
        """Write the files of all images, and those that a stopped prediction did not come to.

        Called by one process once all are done; no hook of Lightning, which a process without images does not reach.
        """
        if self.files.formats:
            for image_id in self.files.missing(images.images):
                self._add(self.detections.load(image_id), images.source.load(image_id))
            self.files.finish(images.images, images.problems)

    def _add(self, detections: Detections, image: GreyImage | LargeImage) -> None:
        if not self.files.formats:
            return
        if self.large.needed(detections.height, detections.width):
            runs = finalise_by_blocks(self.postprocess, detections, self.large, self.overlaps)
            self.files.add(LargeCells.of(runs, detections, reader_of(image), self.large.block))
        else:
            grey = reader_of(image)(slice(None), slice(None))
            self.files.add(Cells.of(self.postprocess(detections, self.overlaps), detections, grey))
