"""LightningDataModule of images without truth."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from sartorius.data.dataset import Target
from sartorius.data.files.source import FileImages
from sartorius.data.levels import Levels
from sartorius.data.loading.labelled import options
from sartorius.data.loading.sampler import ShareSampler
from sartorius.errors import InputError, raise_all
from sartorius.structures import checks
from sartorius.structures.blocks import Blocks
from sartorius.structures.instances import Instances
from sartorius.structures.large_image import LargeImage
from sartorius.structures.progress import progress_bar

log = logging.getLogger(__name__)
ON_ERROR = ("stop", "skip")


class ImagesDataModule(pl.LightningDataModule):
    """Images of any files, to predict on.

    images, output, channel, pages (None: each), pixel_size: see `files.source.FileImages`. levels, mean_tolerance,
    std_factor, mean, std: see `levels.Levels`, whose defaults None takes. scale: `auto` brings images to the pixel
    size of the network's training, `trained_at` in micrometres, where both are known; a number is the factor.
    on_error: `stop` raises for all images that cannot be read together, `skip` leaves them out. large: of images that
    are read by regions; None reads all whole.

    After `setup`: images (ids, sorted), left (those of them that are not done) and problems (of those left out, by id).
    """

    def __init__(
        self,
        images: str | Path | Sequence[str],
        *,
        output: str | Path | None = None,
        channel: int | None = None,
        pages: str | None = None,
        pixel_size: float | None = None,
        scale: float | str = "auto",
        trained_at: float | None = None,
        on_error: str = "stop",
        large: Blocks | None = None,
        batch_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        **levels: Any,
    ) -> None:
        super().__init__()
        checks.one_of("", ON_ERROR, on_error=on_error)
        self.files = images if not isinstance(images, Path) else str(images)
        self.output, self.levels, self.large = (
            output,
            Levels(**{k: v for k, v in levels.items() if v is not None}),
            large,
        )
        self.reading: dict[str, Any] = {"channel": channel, "pages": pages or "each", "pixel_size": pixel_size}
        self.scale, self.trained_at, self.on_error = scale, trained_at, on_error
        self.batch_size, self.num_workers, self.pin_memory = batch_size, num_workers, pin_memory
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer images than processes
        self.images: list[str] = []
        self.problems: dict[str, str] = {}
        self.left: list[str] = []
        self._source: FileImages | None = None
        self._checked = False

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that decide what the network is shown, as plain values."""
        scale = {"scale": self.scale, "trained_at": self.trained_at}
        return {**self.reading, **scale, "levels": asdict(self.levels)}

    @property
    def source(self) -> FileImages:
        """The images; the files are listed and opened at first, which raises as `FileImages` does."""
        if self._source is None:
            options = {**self.reading, "output": self.output, "large": self.large}
            self._source = FileImages(self.files, levels=self.levels, **options)
        return self._source

    def setup(self, stage: str | None = None, is_done: Callable[[str], bool] = lambda image_id: False) -> None:
        """Decode the images that are not done, at the first call; logs what becomes of grey levels and of the scale.

        Raises InputError where there is none, for bad ones with on_error=stop, and where all are bad.
        """
        if self._checked:
            return
        self._checked, reasons = True, dict[str, str]()
        self.problems = dict(self.source.problems)
        done = {image_id for image_id in self.source.ids if is_done(image_id)}
        for image_id in progress_bar([image_id for image_id in self.source.ids if image_id not in done], "reading"):
            try:
                _, reasons[image_id] = self.source.load_and_reason(image_id)
            except InputError as error:
                self.problems[image_id] = str(error)
        if self.on_error == "stop" or not (reasons or done):
            raise_all(list(self.problems.values()))
        self.images, self.left = sorted({*done, *reasons}), list(reasons)
        self._log_levels(reasons)
        self._log_scales()

    def _log_levels(self, reasons: dict[str, str]) -> None:
        changed = Counter(reason for reason in reasons.values() if reason)
        if not changed:
            return
        levels = self.levels
        became = f"standardised to mean {levels.mean:g} and deviation {levels.std:g}"
        log.info(
            "grey levels: %d of %d images are %s, the others stay as they are (%s)", changed.total(), len(reasons),
            "stretched to 0..255" if levels.levels == "range" else became,
            ", ".join(f"{count} {reason}" for reason, count in changed.most_common()),
        )  # fmt: skip

    def _log_scales(self) -> None:
        sizes = [self.source.entries[image_id].pixel_size for image_id in self.left]
        if self.scale == "auto" and sizes and (self.trained_at is None or None in sizes):
            images = "the network's training (data.pixel_size of a training)"
            if self.trained_at is not None:
                images = f"{sizes.count(None)} of {len(sizes)} images (pixel_size=0.65 gives it)"
            log.info("scale=auto: nothing is resized without the pixel size of %s; scale=0.5 halves images", images)
        for scale, count in Counter(map(self.scale_of, self.left)).most_common():
            if scale != 1:
                log.info("scale: %d of %d images are resized by %.4g for the network", count, len(sizes), scale)

    def scale_of(self, image_id: str) -> float:
        """Return the factor by which the network sees an image larger than its file; see `scale_at`."""
        return self.scale_at(self.source.entries[image_id].pixel_size)

    def scale_at(self, pixel_size: float | None) -> float:
        """Return the factor for an image with pixels of this size in micrometres; 1 where a size is not known."""
        if self.scale != "auto":
            return float(self.scale)
        return 1.0 if pixel_size is None or self.trained_at is None else pixel_size / self.trained_at

    def predict_dataloader(self) -> DataLoader[Any]:
        """Load the images that are left, whole, in the order of their ids; of several processes each gets its share."""
        dataset = _Samples(self)
        loading = options(self.num_workers, self.pin_memory)
        return DataLoader(dataset, batch_size=self.batch_size, sampler=ShareSampler(len(dataset)), **loading)


class _Samples(Dataset[tuple[Any, Target]]):
    """The images of a data module that was set up: uint8 [1, H, W], or a LargeImage, with empty targets."""

    def __init__(self, of: ImagesDataModule) -> None:
        self.source, self.images = of.source, of.left
        self.scales = [of.scale_of(image_id) for image_id in of.left]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Target]:
        image_id, scale = self.images[index], self.scales[index]
        image = self.source.load(image_id)
        cells = Instances.empty(1, 1) if isinstance(image, LargeImage) else self.source.instances(image_id)
        target = Target.from_instances(image_id, index, cells)
        target.scale, target.pixel_size = scale, self.source.entries[image_id].pixel_size
        return image if isinstance(image, LargeImage) else torch.from_numpy(image)[None], target
