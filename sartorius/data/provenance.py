"""Which images had a part in a network's weights, so that no run is scored on images its weights have seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sartorius.errors import InputError

# Entries of the data config that decide which images are trained on and which validated.
SPLIT = (
    "fold", "n_folds", "fold_seed", "fold_file", "images", "val_images",
    "limits", "limit_seed", "drop_shared", "repeated", "annotation_files",
)  # fmt: skip
KEY = "trained_on"  # of the note in a recipe


def trained_on(datamodule: Any) -> dict[str, str]:
    """The training images of a data module that is set up, pseudo-labelled ones too: id -> place, in their order.

    A place is what training and validation must not share: the plate well, or LIVECell's field of view; an image whose
    place is not known is its own. {} for a data module that names no training images.
    """
    images = [image_id for kind in ("train", "pseudo") for image_id in getattr(datamodule, f"{kind}_images", ())]
    return {str(image_id): _place(datamodule, image_id) for image_id in images}


def _place(datamodule: Any, image_id: str) -> str:
    place_of = getattr(datamodule, "place_of", None)
    return str(place_of(image_id)) if place_of is not None else str(image_id)


def noted(recipe: Mapping[str, Any] | None, source: str) -> dict[str, str]:
    """The images that a recipe says the weights of `source` were trained on, those that these started from included.

    {} for weights without a recipe: they are not ours, and nothing is known. Raises InputError for a recipe without
    the note, of a checkpoint from before there was one.
    """
    if recipe is None:
        return {}
    images = recipe.get(KEY)
    if not isinstance(images, dict):
        raise InputError(
            f"model.weights={source}: the checkpoint does not say which images it was trained on, so that validation "
            "images could be among them; train it again"
        )
    return {str(image_id): str(place) for image_id, place in images.items()}


def note(recipe: dict[str, Any], datamodule: Any, start: Mapping[str, Any] | None, source: str | None) -> None:
    """Write into `recipe` which images have a part in the weights that a fit on `datamodule` (set up) makes.

    start, source: the recipe and the name of the weights that it starts from; None where it starts from none. Raises
    InputError as `noted` and `check_start` do.
    """
    before = {} if source is None else noted(start, source)
    if source is not None:
        check_start(before, datamodule, source)
    recipe[KEY] = {**before, **trained_on(datamodule)}


def check_start(before: Mapping[str, str], datamodule: Any, source: str) -> None:
    """Raise InputError where images that are held back here, or their places, had a part in the weights started from.

    before: what `noted` gives for them. Nothing is checked where a run validates on its own training images on
    purpose (overfitting).
    """
    held_back = {name: list(getattr(datamodule, name, ())) for name in ("val_images", "test_images")}
    if held_back["val_images"] == list(getattr(datamodule, "train_images", ())):
        return
    places = {place: image_id for image_id, place in before.items()}
    for name, images in held_back.items():
        seen = [image_id for image_id in images if image_id in before or _place(datamodule, image_id) in places]
        if not seen:
            continue
        first, where = seen[0], _place(datamodule, seen[0])
        how = "" if first in before else f", whose well or field of view '{where}' it shares with {places[where]}"
        kind = name.split("_")[0].replace("val", "validation")
        raise InputError(
            f"model.weights={source}: was trained on {len(seen)} of the {len(images)} {kind} images or their "
            f"neighbours ({first}{how}); the score would be flattered. Start from weights that were trained without "
            "them: the same fold of the same data (data.fold, data.fold_seed), or other data with data.drop_shared=true"
        )
