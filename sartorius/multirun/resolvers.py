"""What config files of sweeps compute: `${around:...}`, `${of_model:...}`, `${own_folder:...}`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sartorius.errors import InputError
from sartorius.multirun.member import in_multirun


def _around(value: float, factor: float, count: int) -> str:
    """`count` values from value / factor to value * factor, evenly spaced by their logarithm, two digits each."""
    return ",".join(f"{number:.2g}" for number in np.geomspace(value / factor, value * factor, count))


def _of_model(choices: DictConfig, _root_: DictConfig) -> dict[str, Any]:
    """What `choices` names for the part of the model that has one of its `_target_`s: keys are the part's, or whole
    ones that begin with `model.`. InputError where the model has no such part.
    """
    for where, target in _targets(_root_.get("model"), "model"):
        if target in choices:
            keys = choices[target].items()
            return {key if key.startswith("model.") else f"{where}.{key}": values for key, values in keys}
    raise InputError(f"the model has no part to exchange; choose an experiment with one of: {', '.join(choices)}")


def _targets(node: Any, where: str) -> Iterator[tuple[str, str]]:
    """(path, `_target_`) of each dict with one, the inner ones too; what interpolations stand for is left out."""
    if OmegaConf.is_dict(node):
        for key in node:
            if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
                continue
            if key == "_target_":
                yield where, str(node[key])
            yield from _targets(node[key], f"{where}.{key}")


def _own_folder(folder: str) -> str:
    """The folder; in a multirun that of the member, since all would write to the same one."""
    return str(HydraConfig.get().runtime.output_dir) if in_multirun() else folder


for _resolver in (_around, _of_model, _own_folder):
    OmegaConf.register_new_resolver(_resolver.__name__.lstrip("_"), _resolver, replace=True)
