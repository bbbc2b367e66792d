"""A trained model as a function of one image, for notebooks and programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import ArrayLike

from sartorius.data.channels import choose_channel
from sartorius.data.dataset import Batch, Target
from sartorius.errors import InputError
from sartorius.formats.cells import Cells
from sartorius.networks.bundles import CARD_KEY
from sartorius.postprocess.saved import from_saved
from sartorius.rescoring import saved as saved_filter
from sartorius.running import loading, predicting, wiring
from sartorius.running.building import resolve_precision
from sartorius.running.views import limit_views
from sartorius.structures.freed_memory import keep_freed_memory
from sartorius.structures.instances import Instances


class Model:
    """A trained model: a function of an image whose cells are those that `predict` finds in its file.

    checkpoint, options, device: see `sartorius.load`. Options of files, of output and of processes do nothing here.
    """

    def __init__(self, checkpoint: str | Path | None, options: Sequence[str] = (), device: str = "auto") -> None:
        cfg = wiring.compose("predict", [f"trainer.accelerator={device}", *options])
        cfg.checkpoint, cfg.images, cfg.output = None if checkpoint is None else str(checkpoint), "", None
        self._cfg, source = cfg, predicting.model_source(cfg.checkpoint, wiring.plain(cfg.get("model")))
        self.module = predicting.load_model(cfg)
        if cfg.tta:
            loading.add_tta(self.module, cfg.tta, source)
        if cfg.views is not None:
            limit_views(self.module, cfg.views)
        entry = saved_filter.entry_of(cfg.filter, self.module.hparams, self.module.cell_type_names, source)
        fitted = saved_filter.from_entry(entry, source)
        postprocess = from_saved(
            self.module.hparams.get("postprocess"), wiring.plain(cfg.postprocess), source, self.module.cell_type_names
        )
        self.postprocess = saved_filter.with_filter(postprocess, fitted)
        self._images = predicting.build_images(cfg, self.module)
        resolve_precision(cfg.trainer)
        self._fabric = Fabric(accelerator=cfg.trainer.accelerator, devices=1, precision=cfg.trainer.precision)
        self.module.to(self._fabric.device)
        keep_freed_memory()

    @property
    def card(self) -> Mapping[str, Any] | None:
        """The model card of a bundle as plain values; None of a checkpoint."""
        card: Mapping[str, Any] | None = self.module.hparams.get(CARD_KEY)
        return card

    def __call__(self, image: ArrayLike, *, pixel_size: float | None = None, image_id: str = "image") -> Cells:
        """Find the cells of an image, numbers [H, W] or [H, W, C] of any type; C: grey, RGB, RGBA or channels.

        pixel_size: micrometres, of the results, and to bring the image to the scale of the training (`scale=auto`).
        image_id: names it in results and errors. Grey levels become those of the training, as in `predict`.

        Raises InputError for an image of another shape or type, NaN and infinity, channels of which none is chosen, and
        a pixel size that is not above 0.
        """
        if pixel_size is not None and not 0 < pixel_size < math.inf:
            raise InputError(f"{image_id}: pixel_size={pixel_size}; expected micrometres above 0")
        values = choose_channel(np.asarray(image), self._images.reading["channel"], image_id)
        grey = self._images.levels(values, image_id).copy()
        target = Target.from_instances(image_id, 0, Instances.empty(*grey.shape))
        target.pixel_size = self._cfg.pixel_size if pixel_size is None else pixel_size
        target.scale = self._images.scale_at(target.pixel_size)
        pixels = torch.from_numpy(grey)[None].to(self._fabric.device)
        with torch.inference_mode(), self._fabric.autocast():
            (detections,) = self.module.predict_step(Batch([pixels], [target]), 0)
        return Cells.of(self.postprocess(detections, self._cfg.overlaps), detections, grey)
