"""The functions that config files call: `${run_folder:...}`, `${stamp:}`, `${around:...}` and the others below."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from sartorius.errors import InputError
from sartorius.running import outputs, processes
from sartorius.structures import rules
from sartorius.sweeps.task import in_multirun


def register() -> None:
    """Let all config files use the functions of this module, by their names without the underscore, and `/any_key`.

    A config with `/any_key@_here_` among its defaults takes keys from the command line that it does not name: changes
    to what is only known, and checked, once a file has been read.
    """
    for resolver in (
        _default_norm, _by_weights, _of_imagenet, _count, _either, _chosen_name, _run_folder, _output_folder,
        _last_part, _file_name, _stable_id, _multirun_or, _around, _of_model,
    ):  # fmt: skip
        OmegaConf.register_new_resolver(resolver.__name__.lstrip("_"), resolver, replace=True)
    ConfigStore.instance().store(name="any_key", node=DictConfig({}, flags={"struct": False}))
    for name, cached in (("stamp", _stamp), ("own_folder", _own_folder)):  # the same at every use
        OmegaConf.register_new_resolver(name, cached, use_cache=True, replace=True)


def _default_norm(weights: Any) -> str:
    """Choose norm layers for the initial weights: group norm from nothing, frozen batch norm under pretrained ones."""
    return "group" if weights in (None, "none", "None") else "frozen_batch"


def _by_weights(weights: Any, pretrained: Any, fresh: Any) -> Any:
    """Choose the first value with pretrained weights, the second from nothing."""
    return fresh if weights in (None, "none", "None") else pretrained


def _of_imagenet(weights: Any) -> str:
    """Keep the initial weights where they are ImageNet's, which a timm network brings itself; "none" for others."""
    return "imagenet" if weights == "imagenet" else "none"


def _either(first: Any, second: Any) -> Any:
    """Choose the first value unless it is null."""
    return second if first in (None, "None", "null") else first


def _chosen_name(_root_: DictConfig) -> str:
    """Name the chosen experiment, else the model; in a config composed in Python the model's class."""
    hydra: Any = _root_.get("hydra") or (HydraConfig.get() if HydraConfig.initialized() else None)
    if hydra is None:
        return str(_root_.model._target_).rpartition(".")[2]
    choices = hydra.runtime.choices
    return str(choices.get("experiment") or choices.model)


def _run_folder(stamp: str, _root_: DictConfig) -> str:
    """Name the run folder: that of the checkpoint to resume, else STAMP_EXPERIMENT_foldN_seedN in paths.runs_dir.

    The latter is made anew when a run starts.
    """
    checkpoint = Path(str(_root_.ckpt_path))
    if checkpoint.parent.name == "checkpoints" and checkpoint.parent.is_dir():
        return str(checkpoint.parent.parent)
    name = f"{stamp}_{_chosen_name(_root_)}_fold{_root_.data.fold}_seed{_root_.seed}"
    return outputs.new_folder(str(Path(str(_root_.paths.runs_dir), name)))


def _output_folder(stamp: str, _root_: DictConfig) -> str:
    """Name the folder that Hydra made for this job; in a config composed in Python the one it would make."""
    return str(HydraConfig.get().runtime.output_dir) if HydraConfig.initialized() else _run_folder(stamp, _root_)


def _last_part(path: str) -> str:
    """Return the last part of a path."""
    return Path(path).name


def _file_name(text: str) -> str:
    """Turn text into a file name of at most 120 plain characters, which a command line takes without quotes."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "-", text)[:120]


def _stable_id(text: str) -> str:
    """Hash a path to eight characters."""
    return hashlib.sha256(os.path.abspath(text).encode()).hexdigest()[:8]


def _multirun_or(run_dir: str, single: str) -> str:
    """Name the folder of the multirun that a run folder is in; `single` for a single run."""
    return Path(run_dir).parent.name if in_multirun() else single


def _count(values: ListConfig) -> int:
    """Count the entries of a list."""
    return len(values)


def _stamp() -> str:
    """Return what is unique to a run: date and time, or the job's id under srun and torchrun.

    Those start a process for each device, in different seconds, and all must find the same folder.
    """
    if processes.by_srun():
        return f"slurm-{os.environ['SLURM_JOB_ID']}.{os.environ['SLURM_STEP_ID']}"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        if (name := os.environ["TORCHELASTIC_RUN_ID"]) in ("", "none"):
            raise InputError("torchrun names no run: give it --standalone or --rdzv-id=NAME, or set hydra.run.dir=")
        return f"torchrun-{_file_name(name)}"
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def _around(value: float, factor: float, count: int) -> str:
    """List `count` values from value / factor to value * factor, evenly by their logarithm, two digits each.

    Raises InputError unless the value is a number above 0.
    """
    if not rules.number(above=0).admits(value):
        raise InputError(f"a sweep around a value: expected a number above 0, got {value!r}")
    return ",".join(f"{number:.2g}" for number in np.geomspace(value / factor, value * factor, count))


def _of_model(choices: DictConfig, _root_: DictConfig) -> dict[str, Any]:
    """Choose the entry of `choices` whose key is the `_target_` of a part of the model; its keys become full ones.

    Keys that begin with `model.` are full already. Raises InputError where the model has no such part.
    """
    for where, target in _targets(_root_.get("model"), "model"):
        if target in choices:
            keys = choices[target].items()
            return {key if key.startswith("model.") else f"{where}.{key}": values for key, values in keys}
    raise InputError(f"the model has no part to exchange; choose an experiment with one of: {', '.join(choices)}")


def _targets(node: Any, where: str) -> Iterator[tuple[str, str]]:
    """Find (path, `_target_`) of each dict that has one, at any depth; interpolations are not followed."""
    if OmegaConf.is_dict(node):
        for key in node:
            if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
                continue
            if key == "_target_":
                yield where, str(node[key])
            yield from _targets(node[key], f"{where}.{key}")


def _own_folder(folder: str) -> str:
    """Return the folder, made anew; in a multirun that of the member, since all would write to the same one."""
    return str(HydraConfig.get().runtime.output_dir) if in_multirun() else outputs.new_folder(folder)
