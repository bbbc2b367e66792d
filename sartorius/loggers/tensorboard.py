"""TensorBoard: numbers and images of a run."""

from __future__ import annotations

import cv2
import numpy as np
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from sartorius.errors import InputError
from sartorius.loggers.protocol import CellLogger, CellsView
from sartorius.visualise.overlays import draw_comparison


class TensorBoardLog(TensorBoardLogger, CellLogger):
    """Lightning's logger of TensorBoard, with images of cells.

    folder: of the events; a resumed run adds a file to it. flush_seconds: time after which numbers are on the disk at
    the latest. scale: enlargement of images with cells.
    """

    def __init__(self, folder: str, flush_seconds: int, scale: int) -> None:
        try:
            super().__init__(folder, name="", version="", default_hp_metric=False, flush_secs=flush_seconds)
        except ModuleNotFoundError as error:
            raise InputError(
                "logger.tensorboard: TensorBoard is not installed; `pip install sartorius[tensorboard]`, or leave it "
                "out of logger="
            ) from error
        self.scale = scale

    @rank_zero_only
    def save(self) -> None:
        """Do nothing: Lightning asks for it after every number, and the writer saves every `flush_seconds`."""

    @rank_zero_only
    def log_cells(self, key: str, view: CellsView, step: int) -> None:
        """Log truth beside prediction, as overlays show them, without labels: those are too small to be read here.

        Kept as JPEG: the writer's own PNGs take thirty times as long.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        drawing = draw_comparison(view.image, view.truth, view.prediction, title=view.caption, scale=self.scale)
        _, data = cv2.imencode(".jpg", np.ascontiguousarray(drawing[..., ::-1]))
        height, width = drawing.shape[:2]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data.tobytes())
        self.experiment._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=key, image=image)]), step)
