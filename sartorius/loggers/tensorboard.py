"""TensorBoard: numbers, images and lines of a run."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from sartorius.errors import InputError
from sartorius.loggers.protocol import CellsView, Lines
from sartorius.visualise.overlays import Image, draw_comparison


class TensorBoardLog(TensorBoardLogger):
    """Lightning's logger of TensorBoard with what `run_loggers` lists, tables and files aside.

    Args:
        folder: of the events; a resumed run adds a file to it.
        flush_seconds: time after which numbers are on the disk at the latest.
        scale: enlargement of images with cells.
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
        """Nothing: Lightning asks for it after every number, and the writer saves every `flush_seconds` by itself."""

    @rank_zero_only
    def log_image(self, key: str, images: list[Image], step: int | None = None, **kwargs: Any) -> None:
        """RGB images uint8 [H, W, 3], kept as JPEG: the writer's own PNGs take thirty times as long."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        for k, image in enumerate(images):
            _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]))
            height, width = image.shape[:2]
            shown = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data.tobytes())
            value = Summary.Value(tag=key if len(images) == 1 else f"{key}/{k}", image=shown)
            self.experiment._get_file_writer().add_summary(Summary(value=[value]), step)

    @rank_zero_only
    def log_cells(self, key: str, view: CellsView, step: int) -> None:
        """Truth beside prediction, as overlays are, without labels: they are too small to be read here."""
        drawing = draw_comparison(view.image, view.truth, view.found, title=view.caption, scale=self.scale)
        self.log_image(key, [drawing], step)

    @rank_zero_only
    def log_lines(self, key: str, title: str, lines: Lines, axes: tuple[str, str], step: int) -> None:
        """A drawing."""
        from matplotlib.figure import Figure  # half a second, and only where something is drawn

        figure = Figure(figsize=(5.6, 4.2))  # plain layout: a computed one takes as long as all the rest
        place = figure.add_subplot()
        for name, (x, y) in lines.items():
            place.plot(x, y, label=name)
        place.set(title=title, xlabel=axes[0], ylabel=axes[1], xlim=(0, 1), ylim=(0, 1.02))
        place.grid(alpha=0.3)
        place.legend()
        self.experiment.add_figure(key, figure, step)
