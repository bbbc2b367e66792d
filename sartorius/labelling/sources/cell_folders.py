"""Folders of masks of one cell each, as the Data Science Bowl of 2018 has one for every image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from sartorius.errors import InputError
from sartorius.labelling.sources.entries import FoundLabels, ImageShape, LabelEntry, image_labels
from sartorius.labelling.sources.masks import read_image
from sartorius.labelling.sources.matching import ImageFile, keys_of
from sartorius.labelling.sources.readers import IMAGES, stem_of
from sartorius.structures.instances import Instances
from sartorius.structures.rle import Runs


def joined(entries: Sequence[LabelEntry], files: Sequence[ImageFile]) -> list[LabelEntry]:
    """Make one entry of all masks in a folder that belongs to one image: `x/masks/*.png` of `x/images/y.png`.

    It stands beside a folder of one image, and no mask in it is called as that image. A single file is read as any
    other, it may have several cells. Other entries stay.
    """
    images: dict[Path, dict[Path, ImageFile]] = defaultdict(dict)
    for file in files:
        images[file.path.absolute().parent.parent].setdefault(file.path, file)
    masks: dict[Path, list[LabelEntry]] = defaultdict(list)
    for entry in entries:
        if entry.file.suffix.lower() in IMAGES:
            masks[entry.file.absolute().parent].append(entry)
    result = list(entries)
    for folder, own in masks.items():
        beside = list(images.get(folder.parent, {}).values())
        if len(beside) != 1 or beside[0].path.absolute().parent == folder:
            continue
        if not any(keys_of(entry.file, entry.affixes) & beside[0].names for entry in own):
            result = [entry for entry in result if entry not in own]
            read = partial(_read, sorted(entry.file for entry in own)) if len(own) > 1 else own[0].read
            result.append(LabelEntry(own[0].file.parent, (beside[0].path,), read))
    return result


def _read(paths: Sequence[Path], shape: ImageShape) -> FoundLabels:
    """Read a cell of each mask; its number is the name of the file. Raises InputError for a mask of several."""
    runs = []
    for path in paths:
        found = read_image(path, "cell", shape).runs
        if found.count > 1:
            raise InputError(f"{path}: {found.count} values, in a folder of masks of one cell each; expected 0 and one")
        runs.append(found)
    count = np.repeat(np.arange(len(runs)), [len(one.start) for one in runs])
    whole = Runs(
        np.concatenate([one.start for one in runs]),
        np.concatenate([one.length for one in runs]),
        count,
        len(runs),
        shape.height,
        shape.width,
    )
    return image_labels(Instances.from_runs(whole, [0] * len(runs)), numbers=[stem_of(path) for path in paths])
