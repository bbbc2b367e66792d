"""LightningDataModule of LIVECell: its published splits, or an even share of them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from sartorius.data.dataset import InstanceDataset
from sartorius.data.livecell.folder import CELL_LINES, SPLITS, LiveCell, field_of
from sartorius.data.loading.labelled import LabelledDataModule, subset
from sartorius.errors import InputError


class LiveCellDataModule(LabelledDataModule):
    """The published training, validation and test images of a LIVECell folder.

    root, annotation_files, repeated: see `LiveCell`.
    limits: split -> images at most, spread evenly over the cell lines; null or no entry means all. The choice
    is a function of (limit_seed, image): a larger limit adds images and drops none.
    drop_shared: leave out training images whose field of view is also in the validation or test split, whatever the
    limits. (The published training and validation images overlap.)
    images: train on these ids only, or on the first so many with cells, and validate on them too (overfitting).
    fold: None; LIVECell comes split, and configs name a fold.
    loading: the arguments of `LabelledDataModule`.

    After `setup`: train_images, val_images; after `setup("test")` or `setup()` also test_images; sorted ids.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        name: str = "livecell",
        fold: int | None = None,
        annotation_files: Mapping[str, str | Path] | None = None,
        repeated: str = "error",
        limits: Mapping[str, int | None] | None = None,
        limit_seed: int = 0,
        drop_shared: bool = False,
        images: Sequence[str] | int | None = None,
        cell_type_names: Sequence[str] = CELL_LINES,
        **loading: Any,
    ) -> None:
        super().__init__(name=name, cell_type_names=cell_type_names, **loading)
        if fold is not None:
            raise InputError(f"data.fold={fold}: LIVECell comes in published splits; leave data.fold at null")
        if unknown := sorted(set(limits or {}) - set(SPLITS)):
            raise InputError(f"data.limits names split {unknown[0]}; expected some of {', '.join(SPLITS)}")
        self.root, self.annotation_files, self.repeated = Path(str(root)), annotation_files, repeated
        self.limits, self.limit_seed = dict(limits or {}), limit_seed
        self.drop_shared, self.images = drop_shared, images
        self._folder: LiveCell | None = None
        self._test: InstanceDataset | None = None

    @property
    def folder(self) -> LiveCell:
        """The LIVECell folder, each of whose splits is read once."""
        if self._folder is None:
            self._folder = LiveCell(self.root, self.annotation_files, self.cell_type_names, self.repeated)
        return self._folder

    def setup(self, stage: str | None = None) -> None:
        """Read the splits that `stage` needs, choose images and check them; a second call does nothing new.

        The test split is read for `test` and None only. Raises InputError for anything wrong with the folder or the
        images asked for.
        """
        if stage != "test" and self._val is None:
            self.train_images, self.val_images = self._choose()
            train = self.folder.split("train")
            val = train if self.images is not None else self.folder.split("val")
            train.check(self.train_images)
            val.check(self.val_images)
            self._build(train, val)
        if stage in ("test", None) and self._test is None:
            test = self.folder.split("test")
            self.test_images = self._limited("test", test.ids)
            test.check(self.test_images)
            self._test = InstanceDataset(test, self.test_images)

    def place_of(self, image_id: str) -> str:
        """Return the field of view, which training and validation must not share."""
        return field_of(image_id)

    def _choose(self) -> tuple[list[str], list[str]]:
        """Choose training and validation images."""
        train = self.folder.split("train")
        ids = train.ids
        if self.drop_shared:
            others = [name for name in ("val", "test") if self.folder.file(name) is not None]
            taken = {field_of(image_id) for name in others for image_id in self.folder.split(name).ids}
            ids = tuple(image_id for image_id in ids if field_of(image_id) not in taken)
            if not ids:
                raise InputError(
                    f"data.drop_shared=true: every field of view of {train.file} is also in the other splits"
                )
        chosen = self._limited("train", ids)
        if self.images is None:
            return chosen, self._limited("val", self.folder.split("val").ids)
        chosen = subset(self.images, chosen, train, str(train.file))
        warnings.warn("data.images: validation is on the training images, scores mean memory", stacklevel=2)
        return chosen, chosen

    def _limited(self, split: str, ids: Sequence[str]) -> list[str]:
        source = self.folder.split(split)
        lines = [source.cell_type(image_id) for image_id in ids]
        return evenly(ids, lines, self.limits.get(split), self.limit_seed, f"data.limits.{split}")

    def test_dataloader(self) -> DataLoader[Any]:
        """Load the test images, whole, in the order of their ids."""
        return self._whole(self._test)


def evenly(ids: Sequence[str], lines: Sequence[str], limit: int | None, seed: int, what: str = "limit") -> list[str]:
    """Choose at most `limit` of `ids` (None: all), as evenly over their `lines` as those allow; sorted.

    Within a line the order is a hash of (seed, id), so that the choice depends on no other image of the line. Raises
    InputError for a limit below 1, in the name of `what`.
    """
    if limit is None:
        return sorted(ids)
    if limit < 1:
        raise InputError(f"{what}={limit}: expected at least 1, or null for all images")
    key = {image_id: hashlib.blake2b(f"{seed}/{image_id}".encode(), digest_size=8).digest() for image_id in ids}
    taken: dict[str, int] = {}
    turns: list[tuple[int, bytes, str]] = []
    for image_id, line in sorted(zip(ids, lines, strict=True), key=lambda pair: key[pair[0]]):
        taken[line] = taken.get(line, 0) + 1
        turns.append((taken[line], key[image_id], image_id))
    return sorted(image_id for _, _, image_id in sorted(turns)[:limit])
