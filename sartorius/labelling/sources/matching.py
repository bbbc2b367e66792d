"""Which labels belong to which image: by name, without what a pattern or a program adds to it, then by folder."""

from __future__ import annotations

import glob
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any

from sartorius.data.files.listing import expanded, list_files
from sartorius.data.files.source import FileImages
from sartorius.errors import InputError, raise_all
from sartorius.labelling.sources.entries import LabelEntry
from sartorius.labelling.sources.readers import KNOWN, open_entries, stem_of

_ENDINGS = (
    "_cp_masks", "_cp_outlines", "_masks", "_mask", "_seg", "_labels", "_label", "_rois", "_RoiSet", "_outlines",
    "_annotations", "_gt", "_instances",
)  # fmt: skip
_MAGIC = re.compile(r"[*?\[\]]")
_SAME_FOLDER = 1000  # more than paths have parts
_LISTED = 3

Score = tuple[int, int]  # characters of the name, parts of the folder


@dataclass(frozen=True)
class ImageFile:
    """An image file, or one image of several in it, with the ids of its images and how it may be called."""

    path: Path
    ids: tuple[str, ...]
    names: frozenset[str]


@dataclass(frozen=True)
class Matched:
    """Labels of images by id: the entry, the image's place in its file and how many that has.

    unlabelled: ids of images without labels, sorted. unused: entries that belong to no image. by_count: whether they
    were matched for being the only ones, without a common name.
    """

    labels: Mapping[str, tuple[LabelEntry, int, int]]
    unlabelled: tuple[str, ...]
    unused: tuple[LabelEntry, ...]
    by_count: bool = False


def label_files(labels: str | Sequence[str]) -> dict[Path, tuple[str, str]]:
    """List the label files of globs, folders and files, each with the text that its pattern has around the wildcards.

    Raises InputError where there is none.
    """
    found: dict[Path, tuple[str, str]] = {}
    for name in [labels] if isinstance(labels, str) else map(str, labels):
        for path in expanded(name)[1]:
            inner = sorted(path.rglob("*")) if path.is_dir() else [path]
            known = [one for one in inner if one.suffix.lower() in KNOWN and not one.name.startswith(".")]
            found |= dict.fromkeys(known if path.is_dir() else inner, affixes_of(name))
    if not found:
        raise InputError(f"{labels}: no label files in it; expected files ending in {', '.join(KNOWN)}")
    return found


def affixes_of(pattern: str) -> tuple[str, str]:
    """Return the text before the first and behind the last wildcard of a pattern's name: `*_masks.tif` has `_masks`."""
    stem = PurePath(pattern).stem
    if not glob.has_magic(stem):
        return "", ""
    return _MAGIC.split(stem)[0], _MAGIC.split(stem)[-1]


def open_files(files: Mapping[Path, tuple[str, str]], binary: str) -> list[LabelEntry]:
    """Open label files, see `readers.open_entries`; raises InputError that names all that cannot be read."""
    entries: list[LabelEntry] = []
    problems: list[str] = []
    for path, affixes in files.items():
        try:
            entries += open_entries(path, binary, affixes)
        except InputError as error:
            problems.append(str(error))
    raise_all(problems)
    return entries


def open_images(
    root: Path, images: str | Sequence[str], labels: Sequence[Path], **reading: Any
) -> tuple[FileImages, list[Path]]:
    """Open images that are no labels and were not written before; also returns files that are called as labels."""
    found = list_files(images, leave_out=labels)
    own = {*outside(root, found.values())}
    if not own:
        raise InputError(f"{next(iter(found.values()))}: lies in output={root}, which is written; give another output=")
    others = other_labels({image_id: path for image_id, path in found.items() if path in own})
    source = FileImages(images, leave_out=[*labels, *others, *({*found.values()} - own)], **reading)
    raise_all(list(source.problems.values()))
    return source, others


def outside(root: Path, paths: Iterable[Path]) -> list[Path]:
    """List the paths that are not in a folder, which holds what was written before."""
    return [path for path in paths if not path.resolve().is_relative_to(root.resolve())]


def image_files(paths: Mapping[str, Path], images: str | Sequence[str]) -> Iterator[ImageFile]:
    """Yield the image files of ids, and where a file has several images also each of them."""
    patterns = [affixes_of(name) for name in ([images] if isinstance(images, str) else images)]
    ids: dict[Path, list[str]] = defaultdict(list)
    for image_id, path in paths.items():
        ids[path].append(image_id)
    for path, own in ids.items():
        stem = stem_of(path)
        names = {stem, *(without(stem, affixes) for affixes in patterns)}
        yield ImageFile(path, tuple(own), frozenset(names | ({own[0]} if len(own) == 1 else set())))
        if len(own) > 1:
            yield from (ImageFile(path, (image_id,), frozenset({image_id})) for image_id in own)


def other_labels(paths: Mapping[str, Path]) -> list[Path]:
    """List the files that are called as another one of their folder and labels of it, such as `x_masks` beside `x`."""
    stems = {(path.parent, stem_of(path)) for path in paths.values()}
    return [path for path in paths.values() if any((path.parent, one) in stems for one in _shorter(stem_of(path)))]


def without(stem: str, affixes: tuple[str, str]) -> str:
    """Take text from both ends of a name; as it is where they are not there, or nothing would be left."""
    before, behind = affixes
    inner = stem.removeprefix(before).removesuffix(behind)
    return inner if len(inner) == len(stem) - len(before) - len(behind) and inner else stem


def match(files: Sequence[ImageFile], entries: Sequence[LabelEntry]) -> Matched:
    """Give images their labels: pairs with the longest equal name first and, of those, of the nearest folders.

    A single entry belongs to a single file whatever they are called. Raises InputError, naming the files, where an
    image has several labels that fit as well as each other, or labels several images, and where none belongs to any.
    """
    if len(entries) == 1 and len({file.path for file in files}) == 1:
        labels = {name: (entries[0], k, len(files[0].ids)) for k, name in enumerate(files[0].ids)}
        return Matched(labels, (), (), by_count=not any(_scores(files, entries)))
    labels = {}
    free, problems = set(range(len(entries))), list[str]()
    scored = sorted(_scores(files, entries), key=lambda pair: pair[0], reverse=True)
    for _, equal in groupby(scored, key=lambda pair: pair[0]):
        pairs = [(f, e) for _, f, e in equal if e in free and not any(name in labels for name in files[f].ids)]
        of_file, of_entry = Counter(f for f, _ in pairs), Counter(e for _, e in pairs)
        for f, e in pairs:
            labels |= {name: (entries[e], k, len(files[f].ids)) for k, name in enumerate(files[f].ids)}
            free.discard(e)
        for f in [f for f, count in of_file.items() if count > 1]:
            several = ", ".join(str(entries[e]) for other, e in pairs if other == f)
            problems.append(f"{files[f].path}: several labels belong to it ({several}); narrow labels=")
        for e in [e for e, count in of_entry.items() if count > 1]:
            several = ", ".join(str(files[f].path) for f, other in pairs if other == e)
            problems.append(f"{entries[e]}: belongs to several images ({several}); narrow images=")
    raise_all(problems)
    if not labels:
        raise InputError(
            f"no label belongs to an image: labels are {', '.join(map(str, entries[:_LISTED]))}, images "
            f"{', '.join(str(file.path) for file in files[:_LISTED])}; both need one name, apart from what the "
            "patterns add: images='raw/*.tif' labels='raw/*_masks.tif'"
        )
    unlabelled = sorted({image_id for file in files for image_id in file.ids} - {*labels})
    return Matched(labels, tuple(unlabelled), tuple(entries[e] for e in sorted(free)))


def _scores(files: Sequence[ImageFile], entries: Sequence[LabelEntry]) -> Iterator[tuple[Score, int, int]]:
    """Yield the best score of each file and each entry of one name, with their places."""
    by_name: dict[str, list[tuple[int, PurePath]]] = defaultdict(list)
    for number, entry in enumerate(entries):
        for name in entry.names:
            for key in keys_of(name, entry.affixes):
                by_name[key].append((number, name))
    for place, file in enumerate(files):
        scores: dict[int, Score] = {}
        for key in file.names:
            for number, name in by_name.get(key, ()):
                scores[number] = max(scores.get(number, (0, 0)), (len(key), nearness(file.path, name)))
        yield from ((score, place, number) for number, score in scores.items())


def keys_of(name: PurePath, affixes: tuple[str, str]) -> set[str]:
    """Return what an image may be called whose labels have this name."""
    stem = stem_of(name)
    return {key for inner in (stem, without(stem, affixes)) for key in (inner, *_shorter(inner))}


def _shorter(stem: str) -> Iterator[str]:
    return (stem.removesuffix(ending) for ending in _ENDINGS if stem.endswith(ending) and stem != ending)


def nearness(image: Path, name: PurePath) -> int:
    """Count the folders that an image and its labels have in common, from the first and from the last on."""
    if isinstance(name, Path):
        here, there = image.absolute().parent.parts, name.absolute().parent.parts
        if here == there:
            return _SAME_FOLDER
        return _common(here, there) + _common(here[::-1], there[::-1])
    return _common(image.absolute().parent.parts[::-1], name.parent.parts[::-1])


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    pairs = zip(first, second, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
