"""A training on all labelled images (`data.fold=all`): no image is left to validate, so nothing is monitored."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sartorius.data.provenance import ALL
from sartorius.errors import InputError

log = logging.getLogger(__name__)

# Settings, with all below them, that mean nothing without a validation.
_OF_VALIDATION = (
    "monitor", "mode", "callbacks.early_stopping",
    *(f"callbacks.best_checkpoint.{key}" for key in ("monitor", "mode", "save_top_k")),
)  # fmt: skip


def trains_on_all(cfg: DictConfig) -> bool:
    """Whether the config of a training asks for all labelled images."""
    return OmegaConf.select(cfg, "data.fold") == ALL


def check_choices(callbacks: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Raise InputError where a person asks for what only a validation can decide.

    overrides: of the command line. Settings that an experiment brings along are switched off instead, see
    `switch_off`; a search that prunes is refused wherever it comes from.
    """
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if value != "null" and any(key == name or key.startswith(f"{name}.") for name in _OF_VALIDATION):
            raise InputError(
                f"{override}: data.fold=all trains on all labelled images, and nothing is validated that could be "
                "monitored; leave it out, or train a fold"
            )
    if any(str(entry.get("_target_")).endswith(".Pruning") for entry in callbacks.values()):
        raise InputError("data.fold=all: nothing is validated, and a search needs scores; search on a fold")


def switch_off(cfg: DictConfig) -> None:
    """Switch off, in place, what needs validation images, and log it in one line; nothing for a fold.

    The checkpoint called the best is then that of the last epoch. Called before anything is built or saved from the
    config, so that the run records the settings that it has.
    """
    if not trains_on_all(cfg):
        return
    callbacks = {name: entry for name, entry in (cfg.get("callbacks") or {}).items() if entry is not None}
    monitored = dict.fromkeys(str(entry.monitor) for entry in callbacks.values() if entry.get("monitor") is not None)
    cfg.monitor = None
    stopped = [name for name, entry in callbacks.items() if str(entry.get("_target_")).endswith(".EarlyStopping")]
    for name, entry in callbacks.items():
        if name in stopped:
            cfg.callbacks[name] = None
        elif entry.get("monitor") is not None:
            entry.monitor = None
        if entry.get("save_top_k", 1) > 1:
            entry.save_top_k = 1
    changes = {"limit_val_batches": 0, "check_val_every_n_epoch": 1}
    for key, value in changes.items():
        OmegaConf.update(cfg, f"trainer.{key}", value, force_add=True)
    off = ["validation", *("early stopping" for _ in stopped[:1])]
    if monitored:
        off.append(f"the choice of the best epoch by {', '.join(monitored)}")
    log.info(
        "data.fold=all: all labelled images are trained on, none is left to score; switched off: %s. best.ckpt holds "
        "the weights%s of the last epoch",
        ", ".join(off), ", averaged," if cfg.get("averaging") else "",
    )  # fmt: skip
