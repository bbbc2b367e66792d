"""Names on the command line that Hydra reads as numbers."""

from __future__ import annotations

import re

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sartorius.running import wiring

_NUMERIC = re.compile(r"\d[\d_]*(\.\d+)?")


def restore_names(cfg: DictConfig, config_name: str) -> None:
    """Restore names that Hydra took for numbers: `output=2026_11`, a folder, came as 202611.

    Of an option whose default is a number the number stays, and so does a fraction where the default is null. Numbers
    that look as they were typed are left alone: a path is `str()` where it is read.
    """
    overrides = {override.lstrip("+").partition("=")[0]: override for override in HydraConfig.get().overrides.task}
    texts = {key: override.partition("=")[2] for key, override in overrides.items()}
    changed = {
        key: text for key, text in texts.items() if _NUMERIC.fullmatch(text) and str(OmegaConf.select(cfg, key)) != text
    }
    if not changed:
        return
    defaults = wiring.compose(config_name, [override for key, override in overrides.items() if key not in changed])
    for key, text in changed.items():
        default = OmegaConf.select(defaults, key)
        parent, _, name = key.rpartition(".")
        required = OmegaConf.is_missing(OmegaConf.select(defaults, parent) if parent else defaults, name)
        if required or isinstance(default, str) or (default is None and "_" in text):
            OmegaConf.update(cfg, key, text)
