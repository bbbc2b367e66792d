"""LightningDataModules: the labelled pictures of one fold, and a folder of pictures without truth.

`setup` reads and checks everything that a run will use, so that bad input is said before any training.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import pytorch_lightning as pl
from torch.utils.data import DataLoader

from sartorius.cells import CELL_TYPES
from sartorius.data.cleaning import CleanedSource, Cleaning
from sartorius.data.competition import Competition
from sartorius.data.dataset import InstanceDataset, Transform, collate
from sartorius.data.folds import Folds, check_leak, make_folds, read_folds
from sartorius.data.pictures import PictureFolder, list_pictures, read_grey
from sartorius.data.sampler import EpochSampler, LateDataLoader
from sartorius.errors import InputError
from sartorius.recipes import SPLIT


class SupervisedDataModule(pl.LightningDataModule):
    """Training and validation pictures of one fold of a competition folder.

    Training samples are transformed crops of cleaned truth, drawn anew each epoch as a function of (seed, epoch,
    picture); validation pictures come whole, with the truth as it was annotated.

    root: folder in the competition's layout.  fold: the one that is validated on.
    fold_file: a csv of `sartorius.prepare`; None deals `n_folds` folds from `fold_seed` (which is not `seed`: another
    training seed must not change the validation pictures).
    pictures: train on these ids only, or on the first so many of the fold that have cells; without `val_pictures` they
    are also validated on (overfitting on purpose).  val_pictures: validate on these ids instead of the fold's.
    train_repeats: samples of each picture an epoch.  cache_mb: memory for decoded samples, of the training and of the
    validation set each; shared by the workers where the system forks.

    After `setup`: train_pictures and val_pictures (sorted ids), folds, competition.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        name: str = "sartorius",
        fold: int = 0,
        n_folds: int = 5,
        fold_seed: int = 0,
        fold_file: str | Path | None = None,
        pictures: Sequence[str] | int | None = None,
        val_pictures: Sequence[str] | None = None,
        cleaning: Cleaning | None = None,
        train_transform: Transform | None = None,
        train_repeats: int = 1,
        seed: int = 0,
        batch_size: int = 1,
        val_batch_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        cache_mb: int = 0,
        cell_type_names: Sequence[str] = CELL_TYPES,
    ) -> None:
        super().__init__()
        self.root, self.name, self.cell_type_names = Path(root), name, tuple(cell_type_names)
        self.fold, self.n_folds, self.fold_seed, self.fold_file = fold, n_folds, fold_seed, fold_file
        self.pictures, self.chosen_val_pictures = pictures, val_pictures
        self.cleaning, self.train_transform, self.train_repeats = cleaning, train_transform, train_repeats
        self.seed, self.cache_mb = seed, cache_mb
        self.batch_size, self.val_batch_size, self.drop_last = batch_size, val_batch_size, drop_last
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.train_pictures: list[str] = []
        self.val_pictures: list[str] = []
        self._train: InstanceDataset | None = None
        self._val: InstanceDataset | None = None

    def setup(self, stage: str | None = None) -> None:
        """Read and check the folder, choose pictures, build the datasets; a second call does nothing new.

        Raises InputError for anything wrong with the folder, the folds or the pictures asked for.
        """
        if self._val is not None:
            return
        self.competition = Competition(self.root, self.cell_type_names)
        self.train_pictures, self.val_pictures = self._choose()
        self.competition.check(sorted({*self.train_pictures, *self.val_pictures}))
        self._build_datasets()

    def _choose(self) -> tuple[list[str], list[str]]:
        """(training, validation) pictures; no validation well is trained on, unless overfitting is asked for."""
        wells = self.competition.wells
        self.folds = self._folds()
        train, val = self.folds.split(self.fold)
        dropped = set(self.cleaning.drop_pictures) if self.cleaning is not None else set()
        train = [picture for picture in train if picture not in dropped]
        if self.pictures is not None:
            train = self._subset(train)
        if self.chosen_val_pictures is not None:
            val = sorted(self.competition.record(picture).id for picture in self.chosen_val_pictures)
        elif self.pictures is not None:
            warnings.warn(
                "data.pictures without data.val_pictures: validation is on the training pictures, scores mean memory",
                stacklevel=2,
            )
            return train, train
        if not train or not val:
            raise InputError(
                f"fold {self.fold} of {self.root}: {len(train)} training and {len(val)} validation pictures are left; "
                "need one of each"
            )
        if self.competition.has_wells or self.chosen_val_pictures is not None:
            check_leak(train, val, wells)
        return train, val

    def _folds(self) -> Folds:
        if self.fold_file is not None:
            return read_folds(self.fold_file, self.competition)
        return make_folds(self.competition, self.n_folds, self.fold_seed)

    def _subset(self, train: list[str]) -> list[str]:
        if not isinstance(self.pictures, int):
            return sorted(self.competition.record(picture).id for picture in self.pictures or ())
        with_cells = [picture for picture in train if len(self.competition.pictures[picture])]
        if not 1 <= self.pictures <= len(with_cells):
            raise InputError(
                f"data.pictures={self.pictures}: fold {self.fold} has {len(with_cells)} training pictures with cells"
            )
        return with_cells[: self.pictures]

    def _build_datasets(self) -> None:
        cache = self.cache_mb * 2**20
        source = self.competition if self.cleaning is None else CleanedSource(self.competition, self.cleaning)
        self._train = InstanceDataset(
            source, self.train_pictures, self.train_transform, self.seed, self.train_repeats, cache
        )
        self._val = InstanceDataset(self.competition, self.val_pictures, cache_bytes=cache)
        if self.drop_last and len(self._train) < self.batch_size:
            raise InputError(
                f"{len(self._train)} training samples do not fill one batch of {self.batch_size}; lower "
                "data.batch_size, raise data.train_repeats or set data.drop_last=false"
            )

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches (`Batch`) of transformed training samples, in an order that depends on (seed, epoch)."""
        dataset = _ready(self._train)
        if self.num_workers > 0:
            dataset.preload()
        sampler = EpochSampler(len(dataset), self.seed)
        return LateDataLoader(
            dataset,
            self.batch_size,
            sampler=sampler,
            drop_last=self.drop_last,
            **_options(self.num_workers, self.pin_memory),
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation pictures, whole, in the order of their ids."""
        return DataLoader(
            _ready(self._val), batch_size=self.val_batch_size, **_options(self.num_workers, self.pin_memory)
        )

    def predict_dataloader(self) -> DataLoader[Any]:
        """The validation pictures, as in `val_dataloader`."""
        return self.val_dataloader()


def validation_data(saved: Mapping[str, Any], source: str, **changes: Any) -> SupervisedDataModule:
    """The data module of a saved data config, with `changes`, as far as it decides on the validation pictures.

    The config comes with a file from elsewhere (`source`): nothing that it names is built. Raises InputError where it
    is of another class.
    """
    if (target := saved.get("_target_")) != f"{SupervisedDataModule.__module__}.{SupervisedDataModule.__name__}":
        raise InputError(f"{source}: was trained on {target}, which evaluate does not build; predict its pictures")
    kept = {key: saved[key] for key in ("root", *SPLIT, "cell_type_names", "val_batch_size") if key in saved}
    # With data.pictures=N training and validation pictures are the same, and dropped ones in neither.
    cleaning = Cleaning(drop_pictures=(saved.get("cleaning") or {}).get("drop_pictures", ()))
    return SupervisedDataModule(**{**kept, **changes}, cleaning=cleaning)


class PicturesDataModule(pl.LightningDataModule):
    """Pictures of any folder (or one picture), to predict on: grey 8-bit, or RGB whose channels are equal.

    After `setup`: pictures (sorted ids: file names without suffix).
    """

    def __init__(self, folder: str | Path, batch_size: int = 1, num_workers: int = 0, pin_memory: bool = False) -> None:
        super().__init__()
        self.folder, self.batch_size = Path(folder), batch_size
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.pictures: list[str] = []

    def setup(self, stage: str | None = None) -> None:
        """List and decode the pictures, at the first call; raises InputError where there is none or a bad one."""
        if self.pictures:
            return
        paths = [self.folder] if self.folder.is_file() else list_pictures(self.folder)
        for path in paths:
            read_grey(path, accept_rgb=True)
        self.source = PictureFolder(self.folder, paths)
        self.pictures = list(self.source.ids)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The pictures, whole, in the order of their ids, with empty targets."""
        dataset = InstanceDataset(self.source, self.source.ids)
        return DataLoader(dataset, batch_size=self.batch_size, **_options(self.num_workers, self.pin_memory))


def _ready(dataset: InstanceDataset | None) -> InstanceDataset:
    if dataset is None:
        raise RuntimeError("call setup() before asking for a dataloader")
    return dataset


def _options(num_workers: int, pin_memory: bool) -> dict[str, Any]:
    return {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": pin_memory,
        "collate_fn": collate,
        "worker_init_fn": _one_thread if num_workers else None,
    }


def _one_thread(_: int) -> None:
    """Workers share the cores: OpenCV must not start threads in each. Ctrl-C is the main process's to act on."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
