"""Record the images the weights were trained on, and refuse to validate on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, runtime_checkable

from sartorius.errors import InputError

# Entries of the data config that decide which images are trained on and which validated.
SPLIT = (
    "fold", "n_folds", "fold_seed", "fold_file", "images", "val_images",
    "limits", "limit_seed", "drop_shared", "repeated", "annotation_files",
)  # fmt: skip
ALL = "all"  # as `fold`: all labelled images are trained on, none is validated
KEY = "trained_on"  # of the images in checkpoint metadata
OWN = "images"  # of the images of this run alone, by their use
COUNT = "train_images"  # of the number of this run's training images, in meta.json of detections


@runtime_checkable
class SplitData(Protocol):
    """A data module whose images are known by their ids after `setup`."""

    train_images: Sequence[str]
    pseudo_images: Sequence[str]  # with pseudo-labels, trained on too
    val_images: Sequence[str]
    test_images: Sequence[str]

    def place_of(self, image_id: str) -> str:
        """Get the place that training and validation must not share: the plate well, or LIVECell's field of view; the
        image itself where it is not known."""


def trained_on(datamodule: SplitData) -> dict[str, str]:
    """List the training images of a data module that is set up, pseudo-labelled too: id -> place, in their order."""
    return {
        str(image_id): datamodule.place_of(image_id)
        for image_id in (*datamodule.train_images, *datamodule.pseudo_images)
    }


def seen_among(images: Iterable[str], known: Mapping[str, str] | None) -> dict[str, str]:
    """Choose those of the images that are in `known`, the entry KEY of metadata (None: none is), id -> place."""
    return {image_id: known[image_id] for image_id in images if image_id in known} if known else {}


def images_of(datamodule: SplitData) -> dict[str, list[str]]:
    """List the ids of a data module that is set up by their use in a fit: training, pseudo-labelled, validation."""
    return {
        "training": [str(image_id) for image_id in datamodule.train_images],
        "pseudo-labelled": [str(image_id) for image_id in datamodule.pseudo_images],
        "validation": [str(image_id) for image_id in datamodule.val_images],
    }


def check_same(before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]], source: str) -> None:
    """Raise InputError where a resumed run has other images than its checkpoint, or the same in another order.

    before, now: of `images_of`. With another list, validation images could have been trained on.
    """
    for use, images in now.items():
        if (earlier := list(before.get(use, ()))) == list(images):
            continue
        added, lost = (sorted({*a} - {*b}) for a, b in ((images, earlier), (earlier, images)))
        counts = (("new", added), ("missing", lost))
        changes = ", ".join(f"{len(ids)} {what} ({', '.join(ids[:3])})" for what, ids in counts if ids)
        raise InputError(
            f"{source}: was trained with {len(earlier)} {use} images, resumed with {len(images)}, "
            f"{changes or 'in another order'}; a resumed run keeps its images: restore the data, or start a "
            f"new run with model.weights={source}"
        )


def noted(metadata: Mapping[str, Any] | None, source: str) -> dict[str, str]:
    """Get the images that weights were trained on from their metadata, those of earlier trainings included.

    {} for weights without metadata: they are not ours, and nothing is known. Raises InputError for metadata without
    the images.
    """
    if metadata is None:
        return {}
    images = metadata.get(KEY)
    if not isinstance(images, dict):
        raise InputError(
            f"model.weights={source}: the checkpoint does not say which images it was trained on, so that validation "
            "images could be among them; train it again"
        )
    return {str(image_id): str(place) for image_id, place in images.items()}


def note(
    metadata: MutableMapping[str, Any], datamodule: Any, start: Mapping[str, Any] | None, source: str | None
) -> None:
    """Record in `metadata` the images that the weights of a fit on `datamodule` (set up) are trained on.

    start, source: the metadata and the name of the weights that it starts from; None where it starts from none. A data
    module that is no SplitData adds no images. Raises InputError as `noted` and `check_start` do.
    """
    before = {} if source is None else noted(start, source)
    if not isinstance(datamodule, SplitData):
        metadata[KEY] = before
        return
    if source is not None:
        check_start(before, datamodule, source)
    metadata[KEY], metadata[OWN] = {**before, **trained_on(datamodule)}, images_of(datamodule)


def check_start(before: Mapping[str, str], datamodule: SplitData, source: str) -> None:
    """Raise InputError where the weights of `source` were trained on images that are held back here.

    See `check_unseen`.
    """
    check_unseen(
        before, datamodule, f"model.weights={source}", "Start from weights that were trained without them: the same "
        "fold of the same data (data.fold, data.fold_seed), or other data with data.drop_shared=true",
    )  # fmt: skip


def check_unseen(before: Mapping[str, str], datamodule: SplitData, source: str, remedy: str) -> None:
    """Raise InputError, with a remedy, where weights were trained on images that are held back here, or their places.

    before: the images as `noted` gives them. Nothing is checked where a run validates on its own training images on
    purpose (overfitting).
    """
    held_back = {"val_images": list(datamodule.val_images), "test_images": list(datamodule.test_images)}
    if held_back["val_images"] == list(datamodule.train_images):
        return
    places = {place: image_id for image_id, place in before.items()}
    for name, images in held_back.items():
        shared = [image_id for image_id in images if image_id in before or datamodule.place_of(image_id) in places]
        if not shared:
            continue
        first, where = shared[0], datamodule.place_of(shared[0])
        how = "" if first in before else f", whose well or field of view '{where}' it shares with {places[where]}"
        kind = name.split("_")[0].replace("val", "validation")
        raise InputError(
            f"{source}: was trained on {len(shared)} of the {len(images)} {kind} images or their "
            f"neighbours ({first}{how}); the score would be flattered. {remedy}"
        )
