"""Mistakes in the config of a training that are found before torch is imported, which takes seconds."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.running import all_images
from sartorius.running.wiring import plain

_KNOWN = ("sartorius.", "pytorch_lightning.")
# Names of metrics, `*` for a cell type, a percentage or a term, by the class that logs them in a fit. A name after `?`
# is logged where the option of that name is true.
LOGGED: Mapping[str, str] = {
    "sartorius.callbacks.competition_score.CompetitionScore": "val/map val/map_* val/precision_* box_ap?val/box_ap "
    "instance_scores?val/f1 instance_scores?val/f1_precision instance_scores?val/f1_recall instance_scores?val/pq "
    "instance_scores?val/sq instance_scores?val/aji instance_scores?val/aji_plus",
    "sartorius.callbacks.pixel_report.PixelReport": "val/dice val/iou val/pooled_dice val/pooled_iou "
    "val/pixel_accuracy val/bce val/confluence_error",
    "sartorius.callbacks.crop_scores.CropScores": "val/iou val/iou_* val/dice val/iou_ellipse val/iou_ellipse_*",
    "sartorius.modules.mask_rcnn.MaskRCNNModule": "train/loss train/loss_*",
    "sartorius.modules.unet.UNetModule": "val/loss train/loss train/*",
    "sartorius.modules.crop_segmenter.CropSegmenterModule": "val/loss val/crop_iou val/crop_dice train/loss train/*",
}


def check_training(cfg: DictConfig) -> None:
    """Raise InputError where the data's folder is not there, or nothing logs a metric that is monitored.

    A training on all labelled images monitors none, see `all_images`.
    """
    check_data(plain(cfg.data))
    callbacks = {str(name): entry for name, entry in (plain(cfg.get("callbacks")) or {}).items() if entry is not None}
    if all_images.trains_on_all(cfg):
        all_images.check_choices(callbacks, HydraConfig.get().overrides.task if HydraConfig.initialized() else [])
        return
    parts = [plain(cfg.model), *callbacks.values()]
    if not all(str(part.get("_target_")).startswith(_KNOWN) for part in parts):
        return  # others may log anything
    offered = list(dict.fromkeys(name for part in parts for name in metrics_of(part)))
    monitored = {"monitor": cfg.get("monitor")}
    monitored |= {f"callbacks.{name}.monitor": entry.get("monitor") for name, entry in callbacks.items()}
    for key, name in monitored.items():
        if name is not None and not any(fnmatchcase(name, pattern) for pattern in offered):
            near = difflib.get_close_matches(name, offered, n=1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"{key}={name}: {meant}This training logs {', '.join(offered)}")


def metrics_of(part: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names, as patterns, of the metrics that a part of ours logs with its settings."""
    for entry in LOGGED.get(part["_target_"], "").split():
        option, _, name = entry.rpartition("?")
        if not option or part.get(option):
            yield name


def check_data(data: Mapping[str, Any]) -> None:
    """Raise InputError where the folder of data of ours is not there, or not in the competition's layout."""
    target, root = str(data.get("_target_")), data.get("root")
    if root is not None and target.startswith("sartorius.data.competition."):
        from sartorius.data.competition.folder import check_layout

        check_layout(Path(root))
    elif root is not None and target.startswith("sartorius.data.livecell."):
        from sartorius.data.livecell.folder import LiveCell

        LiveCell(root)
