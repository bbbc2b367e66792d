"""LightningDataModule of images without truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from sartorius.data.dataset import InstanceDataset
from sartorius.data.images import ImageFolder, list_images
from sartorius.data.loading.labelled import options
from sartorius.data.loading.sampler import ShareSampler
from sartorius.errors import collected, raise_all


class ImagesDataModule(pl.LightningDataModule):
    """Images of any folder (or one image), to predict on: grey 8-bit, or RGB whose channels are equal.

    levels: what happens to others and to the grey levels, see `images.read_grey`.

    After `setup`: images (sorted ids: file names without suffix).
    """

    def __init__(
        self,
        folder: str | Path,
        batch_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        levels: str = "exact",
    ) -> None:
        super().__init__()
        self.folder, self.batch_size, self.levels = Path(str(folder)), batch_size, levels
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer images than processes
        self.images: list[str] = []

    def setup(self, stage: str | None = None) -> None:
        """List and decode the images, at the first call; raises InputError where there is none and for bad ones."""
        if self.images:
            return
        paths = [self.folder] if self.folder.is_file() else list_images(self.folder)
        self.source = ImageFolder(self.folder, paths, self.levels)
        problems: list[str] = []
        for image_id in self.source.ids:
            with collected(problems):
                self.source.image(image_id)
        raise_all(problems)
        self.images = list(self.source.ids)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Get the images, whole, in the order of their ids, with empty targets; of several processes each its share."""
        dataset = InstanceDataset(self.source, self.source.ids)
        loading = options(self.num_workers, self.pin_memory)
        return DataLoader(dataset, batch_size=self.batch_size, sampler=ShareSampler(len(dataset)), **loading)
