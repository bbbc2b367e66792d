"""A U-Net's run that is resumed: with its own settings and images only, and to the bits of one that was not stopped."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from sartorius.errors import InputError
from sartorius.running import loading, wiring
from sartorius.train import main
from tests.distributed.test_commands import UNET


@pytest.fixture(autouse=True)
def as_a_person_sees_it() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
    HydraConfig.instance().cfg = None


def config(root: Path, folder: Path, *overrides: str) -> DictConfig:
    fixed = [
        *UNET, "data.batch_size=4", "averaging=ema", f"data.root={root}", f"run_dir={folder}", "leaderboard=null",
        "scheduler=warmup_constant",  # does not go by the length of the run
        "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "callbacks.overlays=null",
    ]  # fmt: skip
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        cfg = compose("train", [*fixed, *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def test_a_run_is_resumed_as_it_was_or_not_at_all(own_competition: Path, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    main(config(own_competition, whole))
    main(config(own_competition, part, "trainer.max_epochs=1"))
    last, best = (part / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    assert 2.5 * best.stat().st_size < last.stat().st_size
    loading.load_module(best)

    resumed = tmp_path / "moved"
    shutil.copytree(part, resumed)
    last = resumed / "checkpoints" / "last.ckpt"
    for option in ("optimizer.lr=1e-5", "scheduler=one_cycle", "averaging.decay=0.5", "data.train_repeats=3"):
        with pytest.raises(InputError, match=f"resumed with {option.replace('1e-5', '1e-05')}"):
            main(config(own_competition, resumed, f"ckpt_path={last}", option))
    main(config(own_competition, resumed, f"ckpt_path={last}"))
    ends = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (whole, resumed)]
    for name, value in ends[0]["state_dict"].items():
        assert torch.equal(value, ends[1]["state_dict"][name]), name
    tables = [pd.read_csv(folder / "batches.csv") for folder in (whole, resumed)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    curve = pd.read_csv(resumed / "metrics.csv")["val/loss"].dropna()
    assert len(curve) == 2, "none of the best checkpoint after the fit"

    shutil.copy(own_competition / "train" / "cort01.png", own_competition / "train" / "cort09.png")
    table = (own_competition / "train.csv").read_text().rstrip()
    new = [line.replace("cort01", "cort09") for line in table.splitlines() if line.startswith("cort01")]
    (own_competition / "train.csv").write_text("\n".join([table, *new]) + "\n")
    with pytest.raises(InputError, match=r"was trained with 9 training images, resumed with .* new \("):
        main(config(own_competition, resumed, f"ckpt_path={last}"))
