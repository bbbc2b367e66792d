"""The README of a BioImage.IO package."""

from __future__ import annotations

from sartorius.data.files.reading import Reading, grey_levels
from sartorius.exports.bioimageio.description import TensorSizes, channel_names
from sartorius.exports.bundle.card import score_text, table_cell
from sartorius.exports.trained import TrainedModel
from sartorius.modules.unet import UNetModule
from sartorius.postprocess.decoders import Components, Watershed
from sartorius.rescoring.saved import KEY

_CHANNELS = {
    "foreground": "probability that a pixel lies in any cell",
    "border": "probability that it lies between touching cells, or in two that overlap",
    "centre": "1 at the centre of a cell, about 0.14 at its edge, 0 outside",
    "offset_y": "pixels down to the centre of its cell",
    "offset_x": "pixels to the right to the centre of its cell",
}
_LEVELS = {
    "auto": "In training they were those of 8-bit files of about {moments}; others were shifted and scaled to these.",
    "exact": "In training they were those of 8-bit files, as they are.",
    "range": "In training the lowest value of each image was scaled to 0, its highest to 255.",
    "standardise": "In training each image was shifted and scaled to {moments}, rounded and clipped to 0 to 255.",
}


def document(model: TrainedModel, module: UNetModule, sizes: TensorSizes) -> str:
    """Write what input, output and settings mean, how cells come of them, and how to validate the model."""
    card = model.card
    fitted = " That model drops false positives by a filter, which is not in this package." * bool(
        model.metadata.get(KEY)
    )
    return f"""# {card.name}

{card.description}

A U-Net of sartorius for cell instance segmentation. Cell types: {", ".join(module.cell_type_names)}.
Cite: {card.cite or "-"}

## Intended use

{card.intended_use}

## What it is not for

{card.not_for}

{_tensors(model, module, sizes)}

## From maps to cells

The maps are no cells yet.{_decoding(module)}
The settings of this model's own decoder and post-processing are in `rdf.yaml` under `config.sartorius`;
`python -m sartorius.predict` applies them to a checkpoint or bundle of the same model.{fitted}

## Validation

Out-of-fold score: {score_text(card.score)}. Validate it on annotated images of your own: match predicted and
annotated cells by IoU and compute the mean precision TP / (TP + FP + FN) at IoU 0.5, 0.55, ... 0.95.
"""


def _decoding(module: UNetModule) -> str:
    """Describe, in a sentence after a space, how to make cells in another program with the thresholds of the decoder;
    "" for a decoder that other programs do not have."""
    decoder = module.decoder
    if isinstance(decoder, Watershed):
        seeds = f"seeds are summits of `centre` above {decoder.peak:g}"
        return f" Try a seeded watershed: {seeds}, the mask is `foreground` above {decoder.foreground_low:g}."
    if isinstance(decoder, Components):
        return f" Try the connected pieces of `foreground` above {decoder.threshold:g}."
    return ""


def _tensors(model: TrainedModel, module: UNetModule, sizes: TensorSizes) -> str:
    pixel = model.metadata.get("pixel_size")
    scale = "" if pixel is None else f" It was trained on pixels of {pixel:g} µm; resize others first."
    rows = "\n".join(
        f"| {number} | `{table_cell(name)}` | {table_cell(_meaning(name))} |"
        for number, name in enumerate(channel_names(module))
    )
    sentence = Reading.of_training(model.metadata).sentence()
    reading = f" {sentence}" if sentence else ""
    return f"""## Input

`image`: float32 [batch, 1, y, x], grey levels 0 to 255. {_levels(model)}
Bring images to these levels first. Normalisation is a part of the network.{scale}{reading}

Heights and widths: {sizes.least} px, and {sizes.step} px more as often as wanted. Tiles: {sizes.halo} px along each
edge are to be cropped (`halo`).

## Output

`maps`: float32 [batch, channel, y, x] of the input's height and width.

| channel | name | value |
|---|---|---|
{rows}"""


def _meaning(name: str) -> str:
    return _CHANNELS.get(name) or f"probability of the cell type {name.removeprefix('type_')}; they sum to 1"


def _levels(model: TrainedModel) -> str:
    """Describe the grey levels that the network takes, in sentences."""
    levels = Reading.of_training(model.metadata).levels
    moments = f"mean {levels.mean:g} and standard deviation {levels.std:g}"
    sentence = _LEVELS[levels.levels].format(moments=moments)
    if grey_levels(model.metadata):
        return sentence
    return (
        f"{sentence}\nThe network normalises each input by its own statistics: choose tiles as large as training crops."
    )
