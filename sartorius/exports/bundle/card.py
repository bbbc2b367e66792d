"""The model card of a bundle: as plain values, and as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from sartorius.exports.trained import INTENDED_USE, NOT_FOR, ModelCard, TrainedModel
from sartorius.networks.bundles import CARD_KEY
from sartorius.rescoring import saved as saved_filter
from sartorius.structures.rules import is_number
from sartorius.structures.version import VERSION

TEXTS = ("description", "intended_use", "not_for", "license", "cite")  # of a card, beside its name
SCORE = ("competition_map", "competition_map_interval", "images")  # of metrics.json
_DECIDE = ("model", "postprocess", saved_filter.KEY)  # on the cells, beside the weights


def make_card(
    name: str,
    given: Mapping[str, Any],
    score: Mapping[str, Any] | None,
    metadata: Mapping[str, Any],
    before: Mapping[str, Any],
) -> ModelCard:
    """Make the card of a model from what is given and, where that is empty, the card of the bundle it was loaded from.

    given: fields of ModelCard. metadata: of the model; before: as they were loaded. The score of that bundle is kept
    where nothing is changed that decides on the cells.
    """
    old = _earlier_card(before.get(CARD_KEY))
    same = all(metadata.get(key) == before.get(key) for key in _DECIDE)
    types = ", ".join(metadata["cell_types"])
    general: dict[str, Any] = {
        "description": f"Finds every single cell in a grey image ({types}), with sartorius.",
        "intended_use": INTENDED_USE,
        "not_for": NOT_FOR,
        "authors": [],
        "license": None,
        "cite": None,
    }
    texts: dict[str, Any] = {key: given.get(key) or old.get(key) or value for key, value in general.items()}
    return ModelCard(name=name, score=score if score is not None else old.get("score") if same else None, **texts)


def card_of(model: TrainedModel, parameters: int, weights: str) -> dict[str, Any]:
    """Collect the card of a model as plain values; parameters: numbers in its weights, stored as `weights`."""
    metadata = model.metadata
    images = {use: len(ids) for use, ids in (metadata.get("images") or {}).items()}
    return {
        **asdict(model.card),
        "authors": list(model.card.authors),
        "networks": list(networks(metadata["model"])),
        "cell_types": list(model.module.cell_type_names),
        "pixel_size": metadata.get("pixel_size"),
        "data": metadata.get("data"),
        "trained_on": len(metadata.get("trained_on") or {}),
        "images": images,
        "parameters": parameters,
        "weights": weights,
        "sartorius": VERSION,
    }


def _earlier_card(card: Any) -> dict[str, Any]:
    """Choose what an export takes over from the card of a bundle, which comes from anywhere: entries of known kinds."""
    known = card if isinstance(card, dict) else {}
    kept: dict[str, Any] = {key: known[key] for key in TEXTS if isinstance(known.get(key), str)}
    if isinstance(authors := known.get("authors"), list):
        kept["authors"] = [str(name) for name in authors]
    if isinstance(score := known.get("score"), dict) and is_score(score):
        kept["score"] = {key: score[key] for key in SCORE}
    return kept


def is_score(numbers: Mapping[str, Any]) -> bool:
    """Whether a mapping has SCORE: a number, [low, high] and a number of images."""
    value, interval, images = (numbers.get(key) for key in SCORE)
    pair = isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval))
    return pair and is_number(value) and isinstance(images, int)


def networks(model: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """Describe each network in the config of a model, such as `UNet (tf_efficientnet_lite0)`."""
    for key, part in {
        **(model.get("members") or {}),
        **{k: model[k] for k in ("first", "second") if k in model},
    }.items():
        yield from networks(part or {}, key)
    if network := model.get("network"):
        body = network.get("body") or network
        encoder = body.get("encoder") or network.get("backbone") or {}
        inner = encoder.get("name") or str(encoder.get("_target_", "")).rpartition(".")[2]
        kind = str(network.get("_target_", "network")).rpartition(".")[2]
        yield f"{name}{': ' * bool(name)}{kind}{f' ({inner})' * bool(inner)}"


def readme(card: Mapping[str, Any], usage: str | None = None) -> str:
    """Write a card as Markdown; usage: how to use the file, None: that of a bundle."""
    table = "\n".join(f"| {key} | {table_cell(value)} |" for key, value in _rows(card).items())
    return _TEXT.format(**card, table=table) + (_USAGE if usage is None else usage)


def table_cell(text: str) -> str:
    """Write a text so that it is one cell of a table in Markdown."""
    return " ".join(text.split()).replace("|", "\\|")


def score_text(score: Mapping[str, Any] | None) -> str:
    """Describe the out-of-fold score of a card, see `ModelCard`."""
    if score is None:
        return "not measured"
    low, high = score["competition_map_interval"]
    return (
        f"{score['competition_map']:.3f} ({low:.3f} to {high:.3f}, bootstrap over {score['images']} images): mAP at "
        "IoU 0.50 to 0.95, the mean over images that the scored model was not trained on"
    )


def _rows(card: Mapping[str, Any]) -> dict[str, str]:
    """Describe the facts of a card by their titles."""
    size = card["pixel_size"]
    pseudo = card["images"].get("pseudo-labelled", 0)
    own = (card["images"].get("training", 0) + pseudo) or card["trained_on"]
    trained = f"{own} images" + (f" of the data set `{card['data']}`" if card["data"] else "")
    trained += f", {pseudo} of them with pseudo-labels" * bool(pseudo)
    if more := card["trained_on"] - own:
        trained += f", and {more} others: of the weights that it began with, or of other members"
    return {
        "Networks": "; ".join(card["networks"]),
        "Cell types": ", ".join(card["cell_types"]),
        "Pixel size of the training": "not known" if size is None else f"{size:g} micrometres",
        "Trained on": trained,
        "Out-of-fold score": score_text(card["score"]),
        "Weights": f"{card['parameters']:,} numbers, {card['weights']}",
        "Licence": card["license"] or "not chosen: nobody else may use the model before its authors choose one",
        "Authors": ", ".join(card["authors"]) or "not named",
        "Cite": card["cite"] or "-",
        "Written by": f"sartorius {card['sartorius']}",
    }


_TEXT = """\
# {name}

{description}

| | |
|---|---|
{table}

## Intended use

{intended_use}

## What it is not for

{not_for}

## How to use it

"""
_USAGE = """\
    python -m sartorius.predict checkpoint=FILE.zip images=FOLDER output=predicted
    python -m sartorius.export validate=FILE.zip       # finds the cells of the example anew, and compares

or in Python:

    import sartorius
    cells = sartorius.load("FILE.zip")(image)          # an array [H, W] or [H, W, C]
"""
