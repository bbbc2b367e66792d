"""A trained model for `export`, built from a config, and the check of a written one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from sartorius.data.files.reading import Reading
from sartorius.data.files.source import FileImages
from sartorius.errors import InputError
from sartorius.exports.bundle.card import SCORE, TEXTS, is_score, make_card
from sartorius.exports.bundle.example import MOST_PIXELS, read_example
from sartorius.exports.trained import ModelCard, TrainedModel
from sartorius.modules.two_stage import StoredDetections, TwoStageModule
from sartorius.networks import bundles
from sartorius.networks.builtin import located
from sartorius.postprocess.saved import from_saved, to_saved
from sartorius.rescoring import saved as saved_filter
from sartorius.running import loading, predicting, wiring
from sartorius.running.wiring import plain
from sartorius.structures.arrays import GreyImage
from sartorius.structures.large_image import reader_of
from sartorius.structures.reading import read_json

_OF_CARD = (*TEXTS, "authors")
_MADE_WITH = ("checkpoint", "model", "inference", "tta", "example", "name", *_OF_CARD, "score")


def build_trained(cfg: DictConfig) -> TrainedModel:
    """Load the model of a config with its views, post-processing, filter, card and example.

    Raises InputError as `predicting.load_model`, `loading.add_tta` and `from_saved` do, and for views that nothing
    joins.
    """
    source = predicting.model_source(cfg.checkpoint, plain(cfg.get("model")))
    module = predicting.load_model(cfg)
    if isinstance(module, TwoStageModule) and isinstance(module.first, StoredDetections):
        raise InputError(f"model.first={cfg.model.first}: a folder of detections; an export holds the model itself")
    views = loading.add_tta(module, cfg.tta, source) if cfg.tta else None
    if views is not None and views.fuse is None:
        raise InputError("tta.fuse=null joins no views, `predict` writes them one by one; an export holds joined ones")
    postprocess = from_saved(module.hparams.get("postprocess"), plain(cfg.postprocess), source, module.cell_type_names)
    metadata = {
        **module.hparams,
        "model": module.described(module.hparams["model"]),
        "postprocess": to_saved(postprocess),
        saved_filter.KEY: saved_filter.entry_of(cfg.filter, module.hparams, module.cell_type_names, source),
    }
    example, name = _example(cfg.example, metadata)
    return TrainedModel(
        module=module,
        metadata=metadata,
        card=_card(cfg, metadata, module.hparams),
        example=example,
        example_name=name,
        source=source,
    )


def _card(cfg: DictConfig, metadata: Mapping[str, Any], before: Mapping[str, Any]) -> ModelCard:
    """Make the card from the options, see `make_card`."""
    score = None if cfg.score is None else read_score(Path(str(cfg.score)))
    given = {key: plain(cfg[key]) for key in _OF_CARD}
    return make_card(cfg.name or Path(str(cfg.output)).stem, given, score, metadata, before)


def read_score(folder: Path) -> dict[str, Any]:
    """Read the mAP, its interval and the number of images of a folder that `evaluate` or `train` wrote.

    Raises InputError where it holds none.
    """
    file, remedy = folder / "metrics.json", "give a folder that `evaluate` wrote"
    if not file.is_file():
        raise InputError(f"score={folder}: no metrics.json in it; {remedy}")
    numbers = read_json(file, remedy)
    if not isinstance(numbers, dict) or not is_score(numbers):
        raise InputError(f"score={folder}: its metrics.json has no competition_map with an interval; {remedy}")
    return {key: numbers[key] for key in SCORE}


def _example(file: str | None, metadata: Mapping[str, Any]) -> tuple[GreyImage, str]:
    """Read the example, or generate one of the last cell type that the generator knows, at the levels of the training.

    Returns it and its name.
    """
    from sartorius.synthetic.cells import POPULATIONS
    from sartorius.synthetic.image import Appearance, draw_image

    read = Reading.of_training(metadata)
    if file is not None:
        images = FileImages([str(file)], levels=read.levels, channel=read.channel, pages=read.pages)
        if len(images.ids) != 1:
            problem = next(iter(images.problems.values()), f"{len(images.ids)} images")
            raise InputError(f"example={file}: expected a file of one image, got {problem}")
        image = np.asarray(reader_of(images.load(images.ids[0]))(slice(None), slice(None)))
        if image.size > MOST_PIXELS:
            raise InputError(
                f"example={file}: {image.shape[0]} x {image.shape[1]} px (height x width); expected at most "
                f"{MOST_PIXELS:,} pixels, give a part of it"
            )
        return image, Path(str(file)).name
    known = [name for name in metadata["cell_types"] if name in POPULATIONS] or list(POPULATIONS)
    drawn = draw_image(np.random.default_rng(0), np.random.default_rng(1), known[-1], (0.5, 0.5), Appearance())
    return read.levels(drawn.image, "the generated example"), "generated.png"


def check_alone(cfg: DictConfig) -> None:
    """Raise InputError where a file is to be shown or checked, and another, or a model to write, is given too."""
    option = "validate" if cfg.show is None else "show"
    if cfg[option] is not None and (
        more := [key for key in ("validate", *_MADE_WITH) if key != option and cfg.get(key)]
    ):
        raise InputError(f"{option}={cfg[option]} takes that file as it is; leave out {', '.join(more)}=")


def read_card(file: str) -> str:
    """Read the model card of a bundle, without characters that a terminal would obey; raises as `validate` does."""
    _, (text,) = bundles.read_members(_bundle(f"show={file}", located(file)), file, bundles.CARD)
    return "".join(sign for sign in text.decode("utf-8", "replace") if sign.isprintable() or sign == "\n")


def _bundle(option: str, path: Path) -> Path:
    if not path.is_file() or not bundles.is_bundle(path):
        what = "not a bundle" if path.is_file() else "no such file"
        raise InputError(f"{option}: {what}; `export format=bundle` writes one")
    return path


def validate(file: str) -> str:
    """Find the cells of the example of a bundle or an ONNX package anew; describes how far they are the expected ones.

    Raises InputError where they are others, and for another file or a damaged one.
    """
    from sartorius.exports.onnx.check import check_package, is_package

    if (given := located(file)).is_file() and is_package(given):
        return check_package(given)
    path = _bundle(f"validate={file}", given)
    example = read_example(path)
    cfg = wiring.compose("export", [])
    cfg.checkpoint = str(path)
    return example.compare(build_trained(cfg).find_cells(example.image), str(path))
