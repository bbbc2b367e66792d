"""Sweeps and launchers: each composes, and says which command it is for."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import OmegaConf, read_write
from omegaconf.errors import InterpolationResolutionError

from sartorius.running import failures, wiring
from sartorius.sweeps.task import PLUGINS
from tests.conf.test_conf import check_targets, composed, options

TRAIN_SWEEPS = ("folds", "lr", "backbones", "optuna")
LAUNCHERS = {"cores": "joblib", "slurm": "submitit_slurm", "slurm_local": "submitit_local"}


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    HydraConfig.instance().cfg = None


def swept(root: str, *overrides: str) -> dict[str, list[str]]:
    """The values of each parameter, and each of them in a config that composes."""
    cfg = composed(root, *overrides)
    texts = [f"{key}={value}" for key, value in cfg.hydra.sweeper.params.items()]
    found = {}
    for override in OverridesParser.create().parse_overrides(texts):
        values = list(override.sweep_string_iterator())
        found[str(override.key_or_group)] = values
        for value in values:
            check_targets(composed(root, *overrides, f"{override.key_or_group}={value}"))
    return found


def test_every_sweep_is_known_here() -> None:
    assert set(options("sweep")) == {*TRAIN_SWEEPS, "thresholds"}
    assert set(options("hydra/launcher")) == set(LAUNCHERS)


@pytest.mark.parametrize("experiment", ["maskrcnn_r50", "unet_effb0", "cropseg_cpu"])
@pytest.mark.parametrize("sweep", TRAIN_SWEEPS)
def test_sweeps_of_training(sweep: str, experiment: str) -> None:
    cfg = composed("train", f"experiment={experiment}", f"sweep={sweep}")
    assert str(cfg.hydra.mode).endswith("MULTIRUN")
    assert cfg.hydra.sweeper._target_ == PLUGINS + ("OptunaSweeper" if sweep == "optuna" else "GridSweeper")
    assert cfg.hydra.sweeper.params


def test_rates_lie_around_the_experiments() -> None:
    rate = composed("train", "experiment=unet_cpu").optimizer.lr
    (values,) = swept("train", "experiment=unet_cpu", "sweep=lr").values()
    assert [float(value) for value in values] == pytest.approx(np.geomspace(rate / 10, rate * 10, 5), rel=0.02)


@pytest.mark.parametrize(
    ("experiment", "key"),
    [
        ("maskrcnn_timm", "model.network.backbone.name"),
        ("maskrcnn_r50", "model.body"),
        ("cascade_r50", "model.body"),
        ("unet_effb0", "model.network.encoder.name"),
        ("cropseg_cpu", "model.network.body.encoder.name"),
    ],
)
def test_backbones_are_those_that_the_model_takes(experiment: str, key: str) -> None:
    found = swept("train", f"experiment={experiment}", "sweep=backbones")
    assert list(found) == [key]
    assert len(set(found[key])) == 4


def test_a_model_without_an_exchangeable_part() -> None:
    cfg = composed("train", "experiment=unet_livecell", "sweep=backbones")
    with pytest.raises(InterpolationResolutionError, match="no part to exchange; choose an experiment with one of: "):
        dict(cfg.hydra.sweeper.params)


def test_thresholds_are_those_of_every_type() -> None:
    cfg = composed("evaluate", "sweep=thresholds", "postprocess.mask.threshold=0.6")
    assert set(cfg.hydra.sweeper.params) == {"postprocess.score.threshold", "postprocess.mask.threshold"}
    assert wiring.plain(cfg.postprocess) == {"file": None, "mask": {"threshold": 0.6}}


def test_saved_steps_take_any_change_and_those_of_a_config_only_known_ones() -> None:
    changes = ["postprocess.score.threshold.cort=0.5", "postprocess.min_area=null", "postprocess.x={a: 1}"]
    cfg = composed("evaluate", *changes)
    expected = {"file": None, "score": {"threshold": {"cort": 0.5}}, "min_area": None, "x": {"a": 1}}
    assert wiring.plain(cfg.postprocess) == expected
    with pytest.raises(ConfigCompositionException, match="postprocess.scor.threshold"):
        composed("evaluate", "postprocess=default", "postprocess.scor.threshold=1")
    assert composed("evaluate", "postprocess=default", "postprocess.min_area=null").postprocess.min_area is None


@pytest.mark.parametrize("name", LAUNCHERS)
@pytest.mark.parametrize("root", ["train", "evaluate", "predict"])
def test_launchers(name: str, root: str) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{LAUNCHERS[name].split('_')[0]}_launcher")
    cfg = composed(root, f"hydra/launcher={name}")
    assert cfg.hydra.runtime.choices["hydra/launcher"] == name
    assert cfg.hydra.launcher._target_.startswith("hydra_plugins.")


def test_the_trials_of_a_search_run_as_many_at_a_time_as_the_launcher_does() -> None:
    assert composed("train", "sweep=optuna").hydra.sweeper.parallel == 1
    assert (
        composed("train", "sweep=optuna", "hydra/launcher=cores", "hydra.launcher.n_jobs=3").hydra.sweeper.parallel == 3
    )


def test_the_pruning_of_a_search() -> None:
    cfg = composed("train", "sweep=optuna", "experiment=unet_cpu")
    with read_write(cfg.hydra):
        OmegaConf.update(cfg, "hydra.job.num", 3)
        OmegaConf.update(cfg, "hydra.sweep.dir", "/sweeps/a")
    HydraConfig.instance().set_config(cfg)
    pruning = wiring.plain(cfg.callbacks.pruning)
    assert (pruning["trial"], pruning["study"], pruning["monitor"]) == (3, "/sweeps/a/study.journal", "val/map")
    assert type(wiring.instantiate(cfg.callbacks.pruning).pruner).__name__ == "MedianPruner"


def test_a_launcher_that_is_not_installed() -> None:
    if importlib.util.find_spec("ray") is not None:
        pytest.skip("Ray is installed")
    with pytest.raises(MissingConfigException) as caught:
        composed("train", "hydra/launcher=ray")
    line = "this launcher needs packages that are not installed: pip install 'sartorius[ray]'"
    assert failures.message(caught.value) == line


def test_a_checkout_that_is_not_installed() -> None:
    error = RuntimeError(f"Unknown plugin class : '{PLUGINS}GridSweeper'")
    assert str(failures.line_of(error)).startswith("the sweepers are not installed: pip install")
    assert failures.line_of(RuntimeError("Unknown plugin class : 'hydra_plugins.others.Sweeper'")) is None
