"""Groups of images that must not lie in two folds: the images of a dish, a plate well, a stack.

Of labelled images train.csv keeps them, of the others in train_semi_supervised/ groups.csv, so that an image has the
same group whichever command labels it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from sartorius.data.annotated_images import well_in
from sartorius.data.annotation_rows import read_table, well_of
from sartorius.data.competition.about import About, read_about
from sartorius.data.files.named_image import NamedImage, searching
from sartorius.errors import InputError, collected, raise_all
from sartorius.files import write_csv

FILE = "groups.csv"  # columns id and group, "" for an image alone
_NO_GROUPS = (
    "no group=PATTERN: each image is a group of its own, and scores flatter where images of one dish or field lie in "
    "several folds"
)


def labelled_groups(root: Path) -> dict[str, str]:
    """Read the group of each labelled image of a folder, "" for an image alone; {} without a train.csv."""
    if not (root / "train.csv").is_file():
        return {}
    first = read_table(root / "train.csv").drop_duplicates("id")
    return {str(row["id"]): well_in(row) or "" for _, row in first.iterrows()}


def unlabelled_groups(root: Path) -> dict[str, str]:
    """Read the group of each image of groups.csv likewise, which may be labelled since; {} without the file."""
    if not (root / FILE).is_file():
        return {}
    table = read_table(root / FILE, ("id", "group"))
    return dict(zip(table["id"], table["group"], strict=True))


def saved_groups(root: Path) -> dict[str, str]:
    """Read the group of each image of a folder."""
    return unlabelled_groups(root) | labelled_groups(root)


def kept_groups(root: Path, labelled: Collection[str], images: Collection[str]) -> dict[str, str]:
    """Read the group of each image of a folder whose labels stay, where `images` are given anew, `labelled` of them."""
    there = labelled_groups(root)
    kept = unlabelled_groups(root) | there
    return {name: group for name, group in kept.items() if name not in (labelled if name in there else images)}


def save_groups(root: Path, groups: Mapping[str, str]) -> None:
    """Write the groups of images without labels into a folder, beside those of others; nothing without any."""
    if groups:
        rows = {**unlabelled_groups(root), **groups}
        write_csv(root / FILE, pd.DataFrame({"id": [*rows], "group": [*rows.values()]}))


def groups_of(
    images: Sequence[NamedImage], pattern: str | None, known: Mapping[str, str], optional: Collection[str] = ()
) -> dict[str, str]:
    """Name the group of each image, "" for an image alone.

    Those of `known` images stay. Others have the text that the pattern finds in their paths, see `searching`; without a
    pattern the plate well that their ids tell, else the path of the stack whose planes they are. Where known images of
    such a text have another group, it is that one, or the id of an only image that is alone. Left out are `optional`
    images in which the pattern finds nothing.

    Raises InputError, which names all images, where the pattern finds nothing or known images have several groups.
    """
    rule, of_file = _rule(pattern), Counter(image.path for image in images)
    found = {} if pattern is not None else {image_id: _named_well(image_id) for image_id in known}
    problems: list[str] = []
    lenient = {*known, *optional}
    for image in images:
        with suppress(InputError) if image.image_id in lenient else collected(problems):
            found[image.image_id] = rule(image)
            if pattern is None and not found[image.image_id] and of_file[image.path] > 1:
                found[image.image_id] = image.inner
    raise_all(problems)
    names: dict[str, dict[str, str]] = defaultdict(dict)  # group as known -> one of its images, by what is found
    for image_id, group in found.items():
        if group and image_id in known:
            names[group].setdefault(known[image_id] or image_id, image_id)
    groups = {image.image_id: known[image.image_id] for image in images if image.image_id in known}
    for image in images:
        if image.image_id in found and image.image_id not in known:
            with collected(problems):
                group = found[image.image_id]
                groups[image.image_id] = _joined(image, group, names.get(group, {}))
    raise_all(problems)
    return groups


def _rule(pattern: str | None) -> Callable[[NamedImage], str]:
    return (lambda image: _named_well(image.image_id)) if pattern is None else searching("group", "group", pattern)


def _named_well(image_id: str) -> str:
    return "" if (well := well_of(image_id)) == image_id else well


def _joined(image: NamedImage, found: str, known: Mapping[str, str]) -> str:
    """Return the group of an image that is of `found` by its name, given the groups and images known of that."""
    if len(known) > 1:
        several = ", ".join(f"{image_id} in '{group}'" for group, image_id in [*known.items()][:3])
        raise InputError(
            f"{image.path}: image {image.image_id} is of '{found}' as images of several groups are ({several}); give "
            "these one group in column group of their table, leave the image out, or give another group=PATTERN"
        )
    return next(iter(known), found)


def pattern_of(about: About | None, group: str | None) -> str | None:
    """Return the pattern given, else that of a folder; raises InputError for one that is none, see `searching`."""
    pattern = group or (about.group if about else None)
    if pattern is not None:
        searching("group", "group", pattern)
    return pattern


def check_pattern(root: Path, pattern: str | None, renewed: Collection[str] = ()) -> None:
    """Raise InputError where a folder has images, beside `renewed` ones, that were grouped by another pattern."""
    staying = sorted({*saved_groups(root)} - {*renewed})
    if (about := read_about(root)) is None or pattern == about.group or not staying:
        return
    by = "without group=" if about.group is None else f"by group={about.group}"
    raise InputError(
        f"group={pattern}: {root} was written {by}, and {len(staying)} of its images would keep their groups "
        f"({', '.join(staying[:3])}); leave group= out, or give another output="
    )


def group_notes(groups: Mapping[str, str], pattern: str | None) -> list[str]:
    """Tell, in at most a sentence, how images were grouped without a pattern."""
    if not any(groups.values()):
        return [_NO_GROUPS]
    wells = {group for image_id, group in groups.items() if group and group == _named_well(image_id)}
    if pattern is not None or not wells:
        return []
    return [f"no group=PATTERN: {len(wells)} groups are the plate wells in names of images, such as {min(wells)}"]


def places_of(root: Path, about: About | None, paths: Mapping[str, Path]) -> dict[str, list[str]]:
    """Return the groups and the plate well that each image may be of, the likeliest first; [] where none is known.

    paths: image files by id. In a folder with dataset.json the group is that of its files, or what its pattern finds in
    the id; in others there are wells only.
    """
    saved = {} if about is None else saved_groups(root)
    rule = _rule(None if about is None else about.group)
    places = {}
    for image_id, path in paths.items():
        found = [saved.get(image_id, "")]
        with suppress(InputError):
            found.append(rule(NamedImage.by_id(image_id, path)))
        places[image_id] = [place for place in dict.fromkeys([*found, _named_well(image_id)]) if place]
    return places
