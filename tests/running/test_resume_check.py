"""A resumed run has the settings and the images of its checkpoint."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.data.provenance import OWN, images_of
from sartorius.errors import InputError
from sartorius.networks import checkpoints
from sartorius.running import building, wiring
from sartorius.running.resume_check import check_config, check_resume, differences
from tests.doubles import toy_config

FREE = (
    "ckpt_path", "run_dir", "leaderboard", "largest_checkpoint", "test", "compile", "logger", "paths", "callbacks",
    *(f"data.{key}" for key in ("root", "num_workers", "val_batch_size", "pin_memory", "cache_mb", "pixel_size")),
    *(f"trainer.{key}" for key in (
        "max_epochs", "max_steps", "max_time", "devices", "accelerator", "precision", "check_val_every_n_epoch",
        "limit_test_batches", "num_sanity_val_steps", "log_every_n_steps", "deterministic", "enable_model_summary",
    )),
)  # fmt: skip
KEPT = (
    "seed", "monitor", "mode", "cell_types", "optimizer", "scheduler", "lr_decay", "averaging", "transform",
    "cleaning", "copy_paste", "pseudo_labels", "model", "postprocess", "inference",
    *(f"data.{key}" for key in (
        "_target_", "name", "fold", "n_folds", "fold_seed", "fold_file", "images", "val_images", "batch_size",
        "train_repeats", "drop_last", "seed", "cell_type_names", "cleaning", "copy_paste", "pseudo_labels",
        "train_transform",
    )),
    *(f"trainer.{key}" for key in (
        "_target_", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "limit_train_batches",
        "limit_val_batches", "plugins",
    )),
    *(f"callbacks.early_stopping.{key}" for key in ("min_delta", "monitor", "mode")),
    *(f"callbacks.best_checkpoint.{key}" for key in (
        "save_top_k", "filename", "monitor", "mode", "enable_version_counter",
    )),
    "callbacks.scored_images.postprocess",
)  # fmt: skip


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        cfg = compose("train", ["run_dir=run", *overrides])
    plain: dict[str, Any] = wiring.plain(cfg)
    return plain


def leaves(node: Any, where: str = "") -> Iterator[str]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, f"{where}.{key}" if where else key)
    else:
        yield where


def changed(node: Any, path: list[str]) -> Any:
    """The plain containers with another value at `path`."""
    if not path:
        return "another"
    return {**node, path[0]: changed(node.get(path[0]), path[1:])}


def test_each_leaf_is_kept_or_free() -> None:
    config = composed(
        "experiment=maskrcnn_r50", "averaging=ema", "copy_paste=default", "lr_decay.backbone=0.1",
        "+callbacks.early_stopping.min_delta=0.0", "pseudo_labels=default", "pseudo_labels.file=x.csv",
    )  # fmt: skip
    keys = list(leaves(config))
    assert len(keys) > 250
    for key in keys:
        now = changed(config, key.split("."))
        if any(f"{key}.".startswith(f"{kept}.") for kept in KEPT) and not key.endswith("cache_mb"):
            group = re.escape(key.removesuffix("._target_"))
            with pytest.raises(InputError, match=rf"was trained with {group}=.*, resumed with {group}=another;"):
                check_config("last.ckpt", config, now)
        else:
            assert any(f"{key}.".startswith(f"{free}.") for free in FREE) or key.endswith("cache_mb"), key
            check_config("last.ckpt", config, now)
    assert [one for one in (*FREE, *KEPT) if not any(f"{key}.".startswith(f"{one}.") for key in keys)] == []


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ([], ["optimizer.lr=1e-5"], "with optimizer.lr=0.0002, resumed with optimizer.lr=1e-05; a resumed run keeps"),
        (["averaging=ema"], [], "with averaging=EMA, resumed with averaging=null;"),
        ([], ["averaging=ema"], "with averaging=null, resumed with averaging=EMA;"),
        ([], ["scheduler=one_cycle"], "with scheduler=warmup_cosine, resumed with scheduler=one_cycle;"),
        ([], ["seed=1"], "with seed=0, resumed with seed=1;"),
        ([], ["callbacks.early_stopping.mode=min"], "callbacks.early_stopping.mode=max, .*mode=min; .* start a new "
         "run with model.weights=a/last.ckpt"),
        ([], ["optimizer.lr=1", "data.batch_size=3", "data.fold=1"],
         "with data.fold=0, data.batch_size=2, optimizer.lr=0.0002, resumed with data.fold=1, data.batch_size=3, "
         "optimizer.lr=1;"),
    ],
)  # fmt: skip
def test_the_message_names_key_and_both_values_once(before: list[str], now: list[str], message: str) -> None:
    earlier, later = (composed("experiment=maskrcnn_r50", *options) for options in (before, now))
    with pytest.raises(InputError, match=rf"^a/last\.ckpt: was trained .*{message}"):
        check_config("a/last.ckpt", earlier, later)


@pytest.mark.parametrize("experiment", ["maskrcnn_r50", "unet_cpu", "demo", "cropseg_cpu", "pretrain_livecell"])
def test_the_same_command_in_another_place_may_resume(
    experiment: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = composed(f"experiment={experiment}", "trainer.precision=32-true")
    monkeypatch.setenv("SARTORIUS_DATA", "elsewhere")
    now = composed(
        f"experiment={experiment}", "trainer.precision=32-true", "run_dir=moved", "ckpt_path=moved/last.ckpt",
        "logger=wandb", "paths.runs_dir=others", "callbacks.overlays=null", "data.num_workers=1", "compile=default",
        "callbacks.early_stopping=null", "trainer=cpu",
    )  # fmt: skip
    check_config("moved/last.ckpt", before, now)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("schedule", "warns"), [("warmup_cosine", True), ("one_cycle", True), ("warmup_constant", False), ("none", False)]
)
def test_another_length_is_told_where_the_schedule_goes_by_it(
    schedule: str, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    before, now = (composed(f"scheduler={schedule}", f"trainer.max_epochs={epochs}") for epochs in (30, 40))
    with caplog.at_level(logging.WARNING):
        check_config("last.ckpt", before, now)
    told = "trained with trainer.max_epochs=30, resumed with trainer.max_epochs=40: from here on the learning rate"
    assert [told in message for message in caplog.messages] == [True] * warns


def test_differences_are_as_deep_as_both_have_dicts() -> None:
    assert list(differences({"a": {"b": 1, "c": None}, "d": {}}, {"a": {"b": 1.0}, "d": None})) == []
    assert list(differences({"a": {"b": 1}}, {"a": None, "e": [1]})) == [("a", {"b": 1}, None), ("e", None, [1])]
    found = list(differences({"a": {"_target_": "x", "b": 1}}, {"a": {"_target_": "y", "b": 1}}))
    assert [key for key, _, _ in found] == ["a"]


def save(path: Path, **metadata: Any) -> Path:
    module = building.build_module(toy_config())
    content = {
        "state_dict": module.state_dict(),
        "optimizer_states": [],
        checkpoints.KEY: {**module.hparams, **metadata},
    }
    torch.save(content, path)
    return path


def test_a_run_resumes_only_with_its_own_model(tiny_competition: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", config={})
    data = SupervisedDataModule(tiny_competition, n_folds=4)
    resumed = [building.build_module(toy_config(width=width)) for width in (1, 2)]
    for module in resumed:
        module.hparams["config"] = {}
    check_resume(path, resumed[0], data)
    with pytest.raises(InputError, match=r"another model.*'level' is \(1,\) there and \(2,\) here"):
        check_resume(path, resumed[1], data)


def test_weights_alone_are_not_resumed(tiny_competition: Path, tmp_path: Path) -> None:
    module = building.build_module(toy_config())
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": module.state_dict(), checkpoints.KEY: dict(module.hparams)}, path)
    with pytest.raises(
        InputError, match=r"best\.ckpt: holds the weights alone.*resume with ckpt_path=.*last\.ckpt, or"
    ):
        check_resume(path, module, SupervisedDataModule(tiny_competition, n_folds=4))


def test_a_run_resumes_only_with_its_own_images(own_competition: Path, tmp_path: Path) -> None:
    data = SupervisedDataModule(own_competition, n_folds=4)
    data.setup("fit")
    path, module = save(tmp_path / "a.ckpt", **{OWN: images_of(data)}), building.build_module(toy_config())
    moved = shutil.copytree(own_competition, tmp_path / "moved")
    check_resume(path, module, SupervisedDataModule(moved, n_folds=4))

    table = (moved / "train.csv").read_text()
    new = [line.replace("cort01", "cort09") for line in table.splitlines() if line.startswith("cort01")]
    shutil.copy(moved / "train" / "cort01.png", moved / "train" / "cort09.png")
    (moved / "train.csv").write_text("\n".join([table.rstrip(), *new]) + "\n")
    message = r"9 training images, resumed with 9, 2 new \(astro02, cort02\), 2 missing \(astro00, cort01\)"
    with pytest.raises(InputError, match=rf"a\.ckpt: was trained with {message}; a resumed run keeps its images"):
        check_resume(path, module, SupervisedDataModule(moved, n_folds=4))

    lost = [line for line in table.splitlines() if not line.startswith("cort01")]
    (moved / "train.csv").write_text("\n".join(lost) + "\n")
    for name in ("cort01", "cort09"):
        (moved / "train" / f"{name}.png").unlink()
    with pytest.raises(InputError, match=r"images, resumed with \d+, .*missing \(cort01.*model\.weights=.*a\.ckpt"):
        check_resume(path, module, SupervisedDataModule(moved, n_folds=4))
