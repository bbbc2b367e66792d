"""Base class of data modules of labelled images: samples and loaders."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import cv2
import pytorch_lightning as pl
from torch.utils.data import DataLoader

from sartorius.data.dataset import InstanceDataset, Mix, Transform, collate
from sartorius.data.images import ImageSource
from sartorius.data.loading.mixed import MixedDataset
from sartorius.data.loading.sampler import EpochSampler, LateDataLoader, ShareSampler
from sartorius.data.pseudo_labels.settings import PseudoLabels
from sartorius.errors import InputError

Samples = TypeVar("Samples", bound=InstanceDataset | MixedDataset)


class Record(Protocol):
    """A labelled image: its id, and as `len()` the number of its cells."""

    @property
    def id(self) -> str:
        """The image's id."""

    def __len__(self) -> int: ...


class LabelledImageSource(ImageSource, Protocol):
    """A source that knows its images without decoding them."""

    def record(self, image_id: str) -> Record:
        """Return the record of an image; raises InputError for an id that is not labelled."""


class LabelledDataModule(pl.LightningDataModule):
    """Loaders over training and validation images, which `setup` of a subclass chooses.

    Training samples are transformed, drawn anew each epoch as a function of (seed, epoch, image); validation images
    come whole, with the truth as annotated.

    name: of the data, for the checkpoint.  cell_type_names: what class indices count in.  pixel_size: of the images,
    micrometres, for the checkpoint; None: not known.
    copy_paste: puts cells of other training images into each.  pseudo_labels: pseudo-labelled images to train on, too.
    train_repeats: samples of each image an epoch.  cache_mb: memory for decoded samples, of the training and of the
    validation set each; shared by the workers where the system forks.

    reading: how the original files of the images were read, for the checkpoint; see `competition.about`.

    After `setup`: train_images, val_images and test_images (sorted ids of labelled images), pseudo_images; see
    `provenance.SplitData`.
    """

    def __init__(
        self,
        *,
        name: str,
        cell_type_names: Sequence[str],
        pixel_size: float | None = None,
        train_transform: Transform | None = None,
        copy_paste: Mix | None = None,
        pseudo_labels: PseudoLabels | None = None,
        train_repeats: int = 1,
        seed: int = 0,
        batch_size: int = 1,
        val_batch_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        cache_mb: int = 0,
    ) -> None:
        super().__init__()
        self.name, self.cell_type_names, self.pixel_size = name, tuple(cell_type_names), pixel_size
        self.reading: Mapping[str, Any] = {}
        self.copy_paste, self.pseudo_labels = copy_paste, pseudo_labels
        self.train_transform, self.train_repeats = train_transform, train_repeats
        self.seed, self.cache_mb = seed, cache_mb
        self.batch_size, self.val_batch_size, self.drop_last = batch_size, val_batch_size, drop_last
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer images to predict than processes
        self.train_images: list[str] = []
        self.val_images: list[str] = []
        self.test_images: list[str] = []
        self.pseudo_images: list[str] = []
        self._train: InstanceDataset | MixedDataset | None = None
        self._val: InstanceDataset | None = None

    def place_of(self, image_id: str) -> str:
        """See `provenance.SplitData`: the image itself, unless a subclass knows more."""
        return image_id

    def _build(self, train: ImageSource, val: ImageSource, pseudo: ImageSource | None = None) -> None:
        """Build the datasets over the images of each list in its source; `train` and `val` may be the same."""
        labelled = self._samples(train, self.train_images, self.train_repeats, self.cache_mb)
        self._val = InstanceDataset(val, self.val_images, cache_bytes=self.cache_mb * 2**20)
        self._train = labelled
        if (use := self.pseudo_labels) is not None:
            if pseudo is None:
                raise InputError(
                    f"pseudo_labels: {type(self).__name__} takes none, only data in the competition's layout does; set "
                    "pseudo_labels=null"
                )
            added = self._samples(pseudo, self.pseudo_images, 1, use.cache_mb, use.weight)
            self._train = MixedDataset(labelled, added, max(1, round(use.ratio * len(labelled))), self.seed)
        if self.drop_last and len(self._train) < self.batch_size:
            raise InputError(
                f"{len(self._train)} training samples do not fill one batch of {self.batch_size}; lower "
                "data.batch_size, raise data.train_repeats or set data.drop_last=false"
            )

    def _samples(
        self, source: ImageSource, images: Sequence[str], repeats: int, cache_mb: int, weight: float = 1.0
    ) -> InstanceDataset:
        """Build the dataset of training samples of these images."""
        options = (self.train_transform, self.seed, repeats, cache_mb * 2**20, self.copy_paste, weight)
        return InstanceDataset(source, images, *options)

    def train_dataloader(self) -> DataLoader[Any]:
        """Load batches (`Batch`) of transformed training samples, in an order that depends on (seed, epoch)."""
        dataset = _ready(self._train)
        if self.num_workers > 0:
            dataset.preload()
        sampler = EpochSampler(len(dataset), self.seed)
        if self.drop_last and len(sampler) < self.batch_size:  # `_build` counts one process
            raise InputError(
                f"{len(dataset)} training samples are {len(sampler)} for each of {sampler.num_replicas} processes, "
                f"less than one batch of {self.batch_size}; lower data.batch_size or set data.drop_last=false"
            )
        return LateDataLoader(
            dataset,
            self.batch_size,
            sampler=sampler,
            drop_last=self.drop_last,
            **options(self.num_workers, self.pin_memory),
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Load the validation images, whole, in the order of their ids."""
        return self._whole(self._val)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Load the validation images, as in `val_dataloader`; of several processes each gets its share, none twice."""
        return self._whole(self._val, ShareSampler(len(_ready(self._val))))

    def _whole(self, dataset: InstanceDataset | None, sampler: ShareSampler | None = None) -> DataLoader[Any]:
        loading = options(self.num_workers, self.pin_memory)
        return DataLoader(_ready(dataset), batch_size=self.val_batch_size, sampler=sampler, **loading)


def subset(images: Sequence[str] | int, among: Sequence[str], source: LabelledImageSource, where: str) -> list[str]:
    """Get the images that `data.images` asks for: these ids, sorted, or the first so many of `among` that have cells.

    Raises InputError for an id that is not labelled, and where `among` (the training images of `where`) has fewer.
    """
    if not isinstance(images, int):
        return sorted(source.record(image_id).id for image_id in images)
    with_cells = [image_id for image_id in among if len(source.record(image_id))]
    if not 1 <= images <= len(with_cells):
        raise InputError(f"data.images={images}: {where} has {len(with_cells)} training images with cells")
    return with_cells[:images]


def _ready(dataset: Samples | None) -> Samples:
    if dataset is None:
        raise RuntimeError("call setup() before asking for a dataloader")
    return dataset


def options(num_workers: int, pin_memory: bool) -> dict[str, Any]:
    """Return the arguments of every DataLoader here."""
    return {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": pin_memory,
        "collate_fn": collate,
        "worker_init_fn": _one_thread if num_workers else None,
    }


def _one_thread(_: int) -> None:
    """Keep OpenCV to one thread in each worker (they share the cores), and leave Ctrl-C to the main process."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
