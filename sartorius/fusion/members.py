"""Members of an ensemble, each a model by a name; the images that they share, and their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sartorius.data import provenance
from sartorius.errors import InputError
from sartorius.fusion.sources import FolderSource, MemberSource, SubmissionSource
from sartorius.structures import checks
from sartorius.structures.arrays import Bools, Floats


@dataclass(frozen=True)
class EnsembleMember:
    """A model of the ensemble, by a name, from one source or from those of its folds."""

    name: str
    sources: Sequence[MemberSource]

    def knows(self, names: Sequence[str]) -> Bools:
        """Tell which of the cell types its model predicts, bool [K]; all of them where that is not known."""
        listed = [source.names for source in self.sources if source.typed]
        if not listed or None in listed:
            return np.ones(len(names), dtype=bool)
        return np.isin(names, [name for types in listed for name in types or ()])

    @cached_property
    def source_of(self) -> dict[str, MemberSource]:
        """The source of each image. Raises InputError for an image in two of them."""
        sources: dict[str, MemberSource] = {}
        for source in self.sources:
            for image_id in source.image_ids:
                if image_id in sources:
                    raise InputError(
                        f"members.{self.name}: image {image_id} is in {sources[image_id].path} and in {source.path}: "
                        "folds share no image; to join two models, name each as a member of its own"
                    )
                sources[image_id] = source
        return sources


def open_members(given: Any, **submissions: Any) -> list[EnsembleMember]:
    """Open the members: a list, or a mapping from names; each a path, or a list of paths of folds.

    A path that ends in .csv is a submission, opened with `submissions` (see `SubmissionSource`). Raises InputError for
    anything else, no members, one that is given twice, and as the sources do.
    """
    named = given if isinstance(given, Mapping) else dict(enumerate([given] if isinstance(given, str) else given or []))
    if not named:
        raise InputError("members: none given; such as members=[A/detections,B/detections] or members={a: [F0,F1]}")
    members, used = [], dict[Path, Any]()
    for key, value in named.items():
        paths = [value] if isinstance(value, str) else value
        if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
            raise InputError(f"members.{key}: expected a folder or csv, or a list of them, got {value!r}")
        for path in paths:
            if (other := used.setdefault(Path(path).resolve(), key)) != key:
                raise InputError(f"members.{key}: {path} is member {other} already; to count it twice give weights=")
        sources: list[MemberSource] = [
            SubmissionSource(path, **submissions) if path.endswith(".csv") else FolderSource(path) for path in paths
        ]
        members.append(EnsembleMember(str(key), sources))
    return members


def names_of(members: Sequence[EnsembleMember]) -> dict[Path, tuple[str, ...]]:
    """List the cell types of each source that has some, by its path."""
    sources = [source for member in members for source in member.sources]
    return {source.path: source.names for source in sources if source.names is not None}


def shared_names(known: Mapping[Path, tuple[str, ...]], default: Sequence[str]) -> tuple[str, ...]:
    """Choose the cell types of the result: those of the file or folder with most types, `default` where there is none.

    Others may have fewer of them, in any order. Raises InputError where another has a type that this one lacks.
    """
    if not known:
        return tuple(default)
    first, names = max(known.items(), key=lambda item: len(item[1]))
    for path, types in known.items():
        if not set(types) <= set(names):
            raise InputError(f"members: {first} has the cell types {names}, {path} has {types}; they cannot be joined")
    return names


def chosen_images(members: Sequence[EnsembleMember], which: str) -> list[str]:
    """Choose the images to join, sorted: `common` takes those that all members have, `all` those that any has.

    `same` takes them too, and raises InputError unless all members have the same ones, as does a choice of none.
    """
    checks.one_of("", ("same", "common", "all"), images=which)
    sets = [set(member.source_of) for member in members]
    union, common = set.union(*sets), set.intersection(*sets)
    if which == "same" and union != common:
        for member, images in zip(members, sets, strict=True):
            if missing := sorted(union - images):
                some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
                raise InputError(
                    f"members.{member.name} lacks {len(missing)} of {len(union)} images ({some}); take "
                    "images=common to join what all have, images=all to join what there is"
                )
    chosen = union if which == "all" else common
    if not chosen:
        raise InputError("members: they have no image in common; images=all joins what there is")
    return sorted(chosen)


def seen_images(members: Sequence[EnsembleMember], images: Sequence[str]) -> dict[str, str]:
    """Choose those of the images that the model of a member was trained on, id -> place; {} where none is known."""
    known: dict[str, str] = {}
    for source in (source for member in members for source in member.sources):
        known |= source.trained_on
    return provenance.seen_among(images, known)


def weight_table(
    members: Mapping[str, Bools], given: Any, names: Sequence[str], key: str = "weights"
) -> dict[str, Floats]:
    """Make the weights of each member, float64 [K] over the cell types: 0 for those that it does not know.

    members: the cell types that each knows, bool [K]. key: the option, for messages. given: None (all 1), a list in the
    order of the members, or a mapping from their names (others have 1); each a number, or a mapping from cell types
    with `default`. Raises InputError for unknown names, numbers below 0, and a cell type that no member has a weight
    for.
    """
    called = list(members)
    if given is not None and not isinstance(given, Mapping) and len(given) != len(called):
        raise InputError(f"{key}: {len(given)} for {len(called)} members")
    by_name = given if isinstance(given, Mapping) else dict(zip(called, given or (), strict=False))
    by_name = {str(key): value for key, value in by_name.items()}
    if unknown := sorted(by_name.keys() - set(called)):
        raise InputError(f"{key}: no member is called {', '.join(unknown)}; there are {', '.join(called)}")
    table = {name: _weights(f"{key}.{name}", by_name.get(name, 1.0), names) * known for name, known in members.items()}
    for k, cell_type in enumerate(names):
        if not any(weights[k] > 0 for weights in table.values()):
            raise InputError(f"{key}: no member has a weight above 0 for {cell_type}")
    return table


def _weights(key: str, given: Any, names: Sequence[str]) -> Floats:
    values = given if isinstance(given, Mapping) else {"default": given}
    if unknown := sorted(values.keys() - {*names, "default"}):
        raise InputError(f"{key}: no cell type {', '.join(unknown)}; there are {', '.join(names)}")
    weights = [values.get(name, values.get("default", 1.0)) for name in names]
    for value in weights:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < np.inf:
            raise InputError(f"{key}: expected numbers of 0 or more, got {value!r}")
    return np.array(weights, np.float64)
