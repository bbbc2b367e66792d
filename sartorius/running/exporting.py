"""A trained model for `export`, built from a config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from sartorius.exports.trained import ModelCard, TrainedModel
from sartorius.postprocess.saved import from_saved, to_saved
from sartorius.rescoring import saved as saved_filter
from sartorius.running import loading, predicting
from sartorius.running.wiring import plain
from sartorius.structures.arrays import GreyImage


def build_trained(cfg: DictConfig) -> TrainedModel:
    """Load the model of a config with its views, post-processing, filter, card and example.

    Raises InputError as `predicting.load_model`, `loading.add_tta` and `from_saved` do.
    """
    source = predicting.model_source(cfg.checkpoint, plain(cfg.get("model")))
    module = predicting.load_model(cfg)
    if cfg.tta:
        loading.add_tta(module, cfg.tta, source)
    postprocess = from_saved(module.hparams.get("postprocess"), plain(cfg.postprocess), source)
    fitted = module.hparams.get(saved_filter.KEY)
    if cfg.filter != saved_filter.SAVED:
        fitted = saved_filter.to_save(cfg.filter, module.cell_type_names)
    example, name = _example(cfg.example, module.cell_type_names)
    return TrainedModel(
        module=module,
        metadata={**module.hparams, "postprocess": to_saved(postprocess), saved_filter.KEY: fitted},
        card=_card(cfg, type(module).__name__),
        example=example,
        example_name=name,
        source=source,
    )


def _card(cfg: DictConfig, kind: str) -> ModelCard:
    return ModelCard(
        name=cfg.name or Path(str(cfg.output)).stem,
        description=cfg.description or f"{kind} of sartorius",
        authors=list(cfg.authors),
        license=cfg.license,
        cite=cfg.cite,
        score=None,
    )


def _example(file: str | None, cell_type_names: Sequence[str]) -> tuple[GreyImage, str]:
    """Read the example, or generate one of the first cell type that the generator knows; returns it and its name."""
    from sartorius.data.images import read_grey
    from sartorius.synthetic.cells import POPULATIONS
    from sartorius.synthetic.image import Appearance, draw_image

    if file is not None:
        return read_grey(str(file), accept_rgb=True), Path(str(file)).name
    known = [name for name in cell_type_names if name in POPULATIONS] or list(POPULATIONS)
    drawn = draw_image(np.random.default_rng(0), np.random.default_rng(1), known[-1], (0.5, 0.5), Appearance())
    return drawn.image, "generated.png"
