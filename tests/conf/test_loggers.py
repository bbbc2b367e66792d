"""Loggers combine freely, and what is mistyped names its key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, MissingConfigException

from sartorius.running import wiring
from tests.conf.test_conf import check_targets, composed


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ([], {"csv"}),
        (["logger=csv"], {"csv"}),
        (["logger=wandb"], {"csv", "wandb"}),
        (["logger=tensorboard"], {"csv", "tensorboard"}),
        (["logger=[wandb,tensorboard]"], {"csv", "wandb", "tensorboard"}),
        (["logger=[tensorboard,csv,wandb]", "experiment=unet_cpu", "debug=fast"], {"csv", "wandb", "tensorboard"}),
        (["logger=wandb", "logger.csv=null"], {"wandb"}),
        (["logger=none"], set()),
        (["logger=[none,tensorboard]"], {"tensorboard"}),
    ],
)
def test_any_combination(overrides: list[str], names: set[str]) -> None:
    cfg = composed("train", *overrides)
    assert {name for name, logger in cfg.logger.items() if logger is not None} == names
    check_targets(cfg)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["logger=wanb"], "logger/wanb"),
        (["logger=[csv,wanb]"], "logger/wanb"),
        (["logger=wandb", "logger.wandb.ofline=true"], "logger.wandb.ofline"),
        (["logger.wandb.offline=true"], "logger.wandb.offline"),  # not chosen
    ],
)
def test_a_typo_names_the_key(overrides: list[str], message: str) -> None:
    with pytest.raises((ConfigCompositionException, MissingConfigException), match=message):
        composed("train", *overrides)


def test_folds_stand_together_and_so_do_members_of_a_multirun() -> None:
    cfg = composed("train", "experiment=unet_cpu", "data.fold=1", "logger=wandb", "run_dir=multirun/mine/3_x")
    own = wiring.plain(cfg.logger.wandb)
    assert (own["group"], own["job_type"], own["name"]) == ("unet_cpu", "fold1", "3_x")
    assert wiring.plain(composed("train", "logger=wandb").logger.wandb)["group"] == "maskrcnn_r50"
    cfg = composed("train", "experiment=unet_cpu", "logger=wandb", "run_dir=multirun/mine/3_x", "hydra.mode=MULTIRUN")
    assert wiring.plain(cfg.logger.wandb)["group"] == "mine"


def test_a_run_keeps_its_id() -> None:
    ids = [composed("train", "logger=wandb", f"run_dir=runs/{name}").logger.wandb.id for name in ("a", "a", "b")]
    assert ids[0] == ids[1] != ids[2]
