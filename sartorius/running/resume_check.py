"""Compare the config of a resumed training with the one in its checkpoint."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartorius.data import provenance
from sartorius.data.provenance import SplitData
from sartorius.errors import InputError
from sartorius.networks import checkpoints

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule, LightningModule

log = logging.getLogger(__name__)

# Keys that a resumed run may change, with all below them: where its files are, how fast it is, when it ends, what it
# reports. Every other one decides on the weights or on the best score, and its state in the checkpoint would win, or
# the run would be a mixture that no config describes.
_MAY_DIFFER = (
    "ckpt_path", "run_dir", "paths", "leaderboard", "largest_checkpoint", "logger", "test", "compile",
    "callbacks", "callbacks.best_checkpoint.dirpath", "callbacks.early_stopping.patience",
    "data.root",  # the fit compares its images
    *(f"data.{key}" for key in ("num_workers", "pin_memory", "cache_mb", "val_batch_size", "pixel_size")),
    "pseudo_labels.cache_mb", "data.pseudo_labels.cache_mb",
    *(f"trainer.{key}" for key in (
        "accelerator", "devices", "num_nodes", "strategy", "precision", "deterministic", "benchmark", "profiler",
        "max_epochs", "max_steps", "max_time", "min_epochs", "min_steps", "check_val_every_n_epoch",
        "limit_test_batches", "num_sanity_val_steps", "log_every_n_steps", "enable_model_summary",
        "enable_progress_bar",
    )),
)  # fmt: skip
# of the free ones: their state goes with the settings, or the score does
_KEPT = ("callbacks.best_checkpoint", "callbacks.early_stopping", "callbacks.scored_images")
_LENGTH = ("trainer.max_epochs", "trainer.max_steps")
_ANY_LENGTH = ("sartorius.modules.schedules.warmup_constant",)  # schedules that do not depend on it
_LISTED = 5  # differences that a message names

Difference = tuple[str, Any, Any]  # key, value in the checkpoint, value now


def check_resume(checkpoint: str | Path, module: LightningModule, datamodule: LightningDataModule) -> None:
    """Raise InputError when `checkpoint` cannot continue the training of `module` (with its `hparams`) on these data.

    That is: no checkpoint, weights alone, a setting that decides on the training and differs, another model, other
    images (the data module is set up). Another precision, and another length that changes the schedule, are warnings.
    """
    state = checkpoints.read_checkpoint(checkpoint)
    _check_state(checkpoint, state)
    check_config(checkpoint, state[checkpoints.KEY].get("config", {}), module.hparams.get("config", {}))
    _check_shapes(checkpoint, state, module)
    datamodule.setup("fit")
    if isinstance(datamodule, SplitData) and provenance.OWN in (metadata := state[checkpoints.KEY]):
        provenance.check_same(metadata[provenance.OWN], provenance.images_of(datamodule), str(checkpoint))


def check_config(checkpoint: str | Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise InputError where the config `now` (resolved, plain) is of another training than `before`, the checkpoint's.

    Names each key that differs with both values. See `check_resume` for the warnings.
    """
    found = list(differences(before, now))
    if kept := _without_copies([one for one in found if not _may_differ(one[0])]):
        more = f" and {len(kept) - _LISTED} more" if len(kept) > _LISTED else ""
        old, new = (", ".join(f"{key}={_short(value[place])}" for key, *value in kept[:_LISTED]) for place in (0, 1))
        raise InputError(
            f"{checkpoint}: was trained with {old}, resumed with {new}{more}; a resumed run keeps its settings: give "
            f"the same, or start a new run with model.weights={checkpoint}"
        )
    _warn(checkpoint, found, before)


def differences(before: Any, now: Any, where: str = "") -> Iterator[Difference]:
    """Compare two plain configs: yields the keys that differ; an absent key is null.

    Dicts are compared entry by entry, unless they build objects of two classes.
    """
    both = isinstance(before, Mapping) and isinstance(now, Mapping)
    if both and before.get("_target_") == now.get("_target_"):
        for key in dict.fromkeys((*before, *now)):
            yield from differences(before.get(key), now.get(key), f"{where}.{key}" if where else str(key))
    elif before != now and not (before in (None, {}) and now in (None, {})):
        yield where, before, now


def _may_differ(key: str) -> bool:
    if key in _MAY_DIFFER:
        return True
    return _below(key, _MAY_DIFFER) and not _below(key, _KEPT)


def _below(key: str, above: tuple[str, ...]) -> bool:
    return any(key.startswith(f"{name}.") for name in above)


def _without_copies(found: list[Difference]) -> list[Difference]:
    """Drop keys that repeat a shorter one: `model.optimizer.lr` is `${optimizer}`."""

    def repeats(one: Difference, other: Difference) -> bool:
        shorter = other[0].count(".") < one[0].count(".")
        return shorter and other[1:] == one[1:] and other[0].rpartition(".")[2] == one[0].rpartition(".")[2]

    return [one for one in found if not any(repeats(one, other) for other in found)]


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "_target_" in value:
        return str(value["_target_"]).rpartition(".")[2]
    return textwrap.shorten("null" if value is None else str(value), 80, placeholder="...")


def _warn(checkpoint: str | Path, found: list[Difference], before: Mapping[str, Any]) -> None:
    """Warn of what changes the numbers from here on: the precision, as `auto` may on another machine, and the length
    that the schedule goes by."""
    schedule = (before.get("scheduler") or {}).get("_target_")
    length = () if schedule is None or schedule in _ANY_LENGTH else _LENGTH
    effects = dict.fromkeys(length, "from here on the learning rate is that of the new length")
    effects["trainer.precision"] = "from here on the numbers are of another precision"
    for key, old, new in found:
        if key in effects:
            log.warning(
                "%s: was trained with %s=%s, resumed with %s=%s: %s", checkpoint, key, old, key, new, effects[key]
            )


def _check_state(checkpoint: str | Path, state: Mapping[str, Any]) -> None:
    if "optimizer_states" in state:
        return
    last = Path(checkpoint).with_name("last.ckpt")
    raise InputError(
        f"{checkpoint}: holds the weights alone, without the state of the training; resume with ckpt_path={last}, or "
        f"start a new run with model.weights={checkpoint}"
    )


def _check_shapes(checkpoint: str | Path, state: Mapping[str, Any], module: LightningModule) -> None:
    saved = {name: tuple(value.shape) for name, value in state["state_dict"].items()}
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    if saved == wanted:
        return
    name = min(n for n in saved.keys() | wanted.keys() if saved.get(n) != wanted.get(n))
    raise InputError(
        f"{checkpoint}: holds another model than the one configured: '{name}' is {saved.get(name, 'absent')} there and "
        f"{wanted.get(name, 'absent')} here; resume with the program that wrote it"
    )
