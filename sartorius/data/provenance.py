"""Which pictures had a part in a network's weights, so that no run is scored on pictures its weights have seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sartorius.errors import InputError

KEY = "trained_on"  # of the note in a recipe


def trained_on(datamodule: Any) -> dict[str, str]:
    """The training pictures of a data module that is set up, pseudo-labelled ones too: id -> place, in their order.

    A place is what training and validation must not share: the plate well, or LIVECell's field of view; a picture whose
    place is not known is its own. {} for a data module that names no training pictures.
    """
    pictures = [picture for kind in ("train", "pseudo") for picture in getattr(datamodule, f"{kind}_pictures", ())]
    return {str(picture): _place(datamodule, picture) for picture in pictures}


def _place(datamodule: Any, picture: str) -> str:
    place_of = getattr(datamodule, "place_of", None)
    return str(place_of(picture)) if place_of is not None else str(picture)


def noted(recipe: Mapping[str, Any] | None, source: str) -> dict[str, str]:
    """The pictures that a recipe says the weights of `source` were trained on, those that these started from included.

    {} for weights without a recipe: they are not ours, and nothing is known. Raises InputError for a recipe without
    the note, of a checkpoint from before there was one.
    """
    if recipe is None:
        return {}
    pictures = recipe.get(KEY)
    if not isinstance(pictures, dict):
        raise InputError(
            f"model.weights={source}: the checkpoint does not say which pictures it was trained on, so that validation "
            "pictures could be among them; train it again"
        )
    return {str(picture): str(place) for picture, place in pictures.items()}


def note(recipe: dict[str, Any], datamodule: Any, start: Mapping[str, Any] | None, source: str | None) -> None:
    """Write into `recipe` which pictures have a part in the weights that a fit on `datamodule` (set up) makes.

    start, source: the recipe and the name of the weights that it starts from; None where it starts from none. Raises
    InputError as `noted` and `check_start` do.
    """
    before = {} if source is None else noted(start, source)
    if source is not None:
        check_start(before, datamodule, source)
    recipe[KEY] = {**before, **trained_on(datamodule)}


def check_start(before: Mapping[str, str], datamodule: Any, source: str) -> None:
    """Raise InputError where pictures that are held back here, or their places, had a part in the weights started from.

    before: what `noted` gives for them. Nothing is checked where a run validates on its own training pictures on
    purpose (overfitting).
    """
    held_back = {name: list(getattr(datamodule, name, ())) for name in ("val_pictures", "test_pictures")}
    if held_back["val_pictures"] == list(getattr(datamodule, "train_pictures", ())):
        return
    places = {place: picture for picture, place in before.items()}
    for name, pictures in held_back.items():
        seen = [picture for picture in pictures if picture in before or _place(datamodule, picture) in places]
        if not seen:
            continue
        first, where = seen[0], _place(datamodule, seen[0])
        how = "" if first in before else f", whose well or field of view '{where}' it shares with {places[where]}"
        kind = name.split("_")[0].replace("val", "validation")
        raise InputError(
            f"model.weights={source}: was trained on {len(seen)} of the {len(pictures)} {kind} pictures or their "
            f"neighbours ({first}{how}); the score would be flattered. Start from weights that were trained without "
            "them: the same fold of the same data (data.fold, data.fold_seed), or other data with data.drop_shared=true"
        )
