"""LightningDataModule of LIVECell: its published splits, or an even share of them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from sartorius.data.dataset import InstanceDataset
from sartorius.data.livecell import CELL_LINES, SPLITS, LiveCell, field_of
from sartorius.data.loading import LabelledDataModule, subset
from sartorius.errors import InputError


class LiveCellDataModule(LabelledDataModule):
    """The published training, validation and test pictures of a LIVECell folder.

    root, annotation_files, repeated: see `LiveCell`.
    limits: split -> pictures at most, spread evenly over the cell lines; null or no entry means all. Which ones is a
    function of (limit_seed, picture): a larger limit adds pictures and drops none.
    drop_shared: leave out training pictures whose field of view is also in the validation or test split, whatever the
    limits. (The published training and validation pictures overlap.)
    pictures: train on these ids only, or on the first so many with cells, and validate on them too (overfitting).
    fold: None; LIVECell comes split, and configs name a fold.
    loading: the arguments of `LabelledDataModule`.

    After `setup`: train_pictures, val_pictures; after `setup("test")` or `setup()` also test_pictures; sorted ids.
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
        pictures: Sequence[str] | int | None = None,
        cell_type_names: Sequence[str] = CELL_LINES,
        **loading: Any,
    ) -> None:
        super().__init__(name=name, cell_type_names=cell_type_names, **loading)
        if fold is not None:
            raise InputError(f"data.fold={fold}: LIVECell comes in published splits; leave data.fold at null")
        if unknown := sorted(set(limits or {}) - set(SPLITS)):
            raise InputError(f"data.limits names split {unknown[0]}; expected some of {', '.join(SPLITS)}")
        self.root, self.annotation_files, self.repeated = Path(root), annotation_files, repeated
        self.limits, self.limit_seed = dict(limits or {}), limit_seed
        self.drop_shared, self.pictures = drop_shared, pictures
        self.test_pictures: list[str] = []
        self._folder: LiveCell | None = None
        self._test: InstanceDataset | None = None

    @property
    def folder(self) -> LiveCell:
        """The LIVECell folder, each of whose splits is read once."""
        if self._folder is None:
            self._folder = LiveCell(self.root, self.annotation_files, self.cell_type_names, self.repeated)
        return self._folder

    def setup(self, stage: str | None = None) -> None:
        """Read the splits that `stage` needs, choose pictures and check them; a second call does nothing new.

        The test split is read for `test` and None only. Raises InputError for anything wrong with the folder or the
        pictures asked for.
        """
        if stage != "test" and self._val is None:
            self.train_pictures, self.val_pictures = self._choose()
            train = self.folder.split("train")
            val = train if self.pictures is not None else self.folder.split("val")
            train.check(self.train_pictures)
            val.check(self.val_pictures)
            self._build(train, val)
        if stage in ("test", None) and self._test is None:
            test = self.folder.split("test")
            self.test_pictures = self._limited("test", test.ids)
            test.check(self.test_pictures)
            self._test = InstanceDataset(test, self.test_pictures)

    def place_of(self, picture: str) -> str:
        """What training and validation must not share: the field of view."""
        return field_of(picture)

    def _choose(self) -> tuple[list[str], list[str]]:
        """(training, validation) pictures."""
        train = self.folder.split("train")
        ids = train.ids
        if self.drop_shared:
            others = [name for name in ("val", "test") if self.folder.file(name) is not None]
            taken = {field_of(picture) for name in others for picture in self.folder.split(name).ids}
            ids = tuple(picture for picture in ids if field_of(picture) not in taken)
            if not ids:
                raise InputError(
                    f"data.drop_shared=true: every field of view of {train.file} is also in the other splits"
                )
        chosen = self._limited("train", ids)
        if self.pictures is None:
            return chosen, self._limited("val", self.folder.split("val").ids)
        chosen = subset(self.pictures, chosen, train, str(train.file))
        warnings.warn("data.pictures: validation is on the training pictures, scores mean memory", stacklevel=2)
        return chosen, chosen

    def _limited(self, split: str, ids: Sequence[str]) -> list[str]:
        source = self.folder.split(split)
        lines = [source.cell_type(picture) for picture in ids]
        return evenly(ids, lines, self.limits.get(split), self.limit_seed, f"data.limits.{split}")

    def test_dataloader(self) -> DataLoader[Any]:
        """The test pictures, whole, in the order of their ids."""
        return self._whole(self._test)


def evenly(ids: Sequence[str], lines: Sequence[str], limit: int | None, seed: int, what: str = "limit") -> list[str]:
    """At most `limit` of `ids` (None: all), as evenly over their `lines` as those allow; sorted.

    Within a line the order is a hash of (seed, id), so that the choice depends on no other picture of the line. Raises
    InputError for a limit below 1, in the name of `what`.
    """
    if limit is None:
        return sorted(ids)
    if limit < 1:
        raise InputError(f"{what}={limit}: expected at least 1, or null for all pictures")
    key = {picture: hashlib.blake2b(f"{seed}/{picture}".encode(), digest_size=8).digest() for picture in ids}
    taken: dict[str, int] = {}
    turns: list[tuple[int, bytes, str]] = []
    for picture, line in sorted(zip(ids, lines, strict=True), key=lambda pair: key[pair[0]]):
        taken[line] = taken.get(line, 0) + 1
        turns.append((taken[line], key[picture], picture))
    return sorted(picture for _, _, picture in sorted(turns)[:limit])
