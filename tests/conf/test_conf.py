"""Every config composes with every command that can use it, and every config file is used."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from sartorius.running import wiring
from tests.layers import commands

CONF = wiring.CONF_DIR
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
ROOTS = commands(CONF.parent)
GROUPS = sorted({path.parts[0] for path in FILES if len(path.parts) > 1})


def builds_a_model(root: str) -> bool:
    """Whether conf/model is chosen from by default; other commands take the model from a checkpoint."""
    entries = yaml.safe_load((CONF / f"{root}.yaml").read_text()).get("defaults", [])
    chosen = {key: value for entry in entries if isinstance(entry, dict) for key, value in entry.items()}
    return chosen.get("model") is not None or any(
        entry in ROOTS and builds_a_model(entry) for entry in entries if isinstance(entry, str)
    )


MODEL_ROOTS = [root for root in ROOTS if builds_a_model(root)]


def options(group: str) -> list[str]:
    return [path.stem for path in FILES if path.parent.as_posix() == group]


def required(node: Any, place: str = "") -> Iterator[str]:
    """Keys without a value, but Hydra's."""
    for key, value in node.items() if isinstance(node, dict) else ():
        if value == "???":
            yield f"{place}{key}"
        elif f"{place}{key}" != "hydra":
            yield from required(value, f"{place}{key}.")


def composed(root: str, *overrides: str) -> DictConfig:
    """The job's config of a command as `main` gets it; what must be given is `a`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(root, list(overrides), return_hydra_config=True)
    for key in required(OmegaConf.to_container(cfg)):
        OmegaConf.update(cfg, key, "a")
    cfg.hydra.runtime.output_dir = "runs/test"
    HydraConfig.instance().set_config(cfg)
    return cfg


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    HydraConfig.instance().cfg = None


def targets(node: Any) -> Iterator[dict[str, Any]]:
    """Every dict with a `_target_`, at any depth."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for child in node.values():
            yield from targets(child)
    elif isinstance(node, list):
        for child in node:
            yield from targets(child)


def check_targets(cfg: DictConfig) -> int:
    """Resolve the config, and check each `_target_` against the signature of what it names; returns how many."""
    job = {key: value for key, value in cfg.items() if key != "hydra"}
    found = list(targets(wiring.plain(DictConfig(job))))
    for node in found:
        check_arguments(node)
    return len(found)


def check_arguments(node: dict[str, Any]) -> None:
    called = get_object(node["_target_"])
    given = {key for key in node if not key.startswith("_")}
    try:
        parameters = inspect.signature(called).parameters
    except ValueError:  # built-ins without a signature
        return
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        assert given <= set(parameters), f"{node['_target_']} takes no {given - set(parameters)}"


def test_there_is_something_to_check() -> None:
    assert {"train", "predict", "evaluate", "submit", "prepare"} <= set(ROOTS)
    assert MODEL_ROOTS == ["browse", "train"]
    assert all(check_targets(composed(root)) for root in ("train", "predict", "evaluate", "tune", "fit_filter"))
    assert options("experiment")
    assert {"callbacks", "data", "debug", "logger", "model", "optimizer", "sweep", "trainer"} <= set(GROUPS)


@pytest.mark.parametrize("root", ROOTS)
def test_every_root_composes(root: str) -> None:
    check_targets(composed(root))


@pytest.mark.parametrize("debug", [None, *options("debug")])
@pytest.mark.parametrize("root", MODEL_ROOTS)
@pytest.mark.parametrize("experiment", [None, *options("experiment")])
def test_every_experiment_composes_with_every_command_that_builds_a_model(
    experiment: str | None, root: str, debug: str | None
) -> None:
    chosen = [f"{group}={name}" for group, name in (("experiment", experiment), ("debug", debug)) if name]
    cfg = composed(root, *chosen)
    assert check_targets(cfg) > 5
    assert cfg.callbacks.best_checkpoint.monitor == cfg.monitor


TRAIN_GROUPS = (
    "copy_paste", "pseudo_labels", "data", "cleaning", "transform", "model", "inference",
    "optimizer", "scheduler", "averaging", "compile", "postprocess", "callbacks", "logger",
)  # fmt: skip
ELSEWHERE = dict.fromkeys(("data=images", "inference=saved", "postprocess=saved", "callbacks=predict"), "predict")


@pytest.mark.parametrize("choice", [f"{group}={name}" for group in TRAIN_GROUPS for name in options(group)])
def test_every_choice_composes(choice: str) -> None:
    assert check_targets(composed(ELSEWHERE.get(choice, "train"), choice)) > 1


@pytest.mark.parametrize("name", options("tta"))
@pytest.mark.parametrize("more", [[], ["tta.scales=[0.8,1]", "tta.fuse=null"], ["fusion@tta.fuse.method=nms"]])
def test_every_choice_of_views_composes(name: str, more: list[str]) -> None:
    assert check_targets(composed("predict", f"tta={name}", *(more if name not in ("none", "saved") else []))) > 3


def used(cfg: DictConfig) -> set[str]:
    """The config files that a composition read, as `group/option`."""
    choices = cfg.hydra.runtime.choices.items()
    chosen = {f"{group.split('@')[0]}/{name}" for group, name in choices if name is not None}
    inherited = set()
    for name in list(chosen):
        inherited |= parents(name)
    return chosen | inherited


def parents(name: str) -> set[str]:
    """Files of the same group that a file names in its own defaults list, and theirs."""
    path = CONF / f"{name}.yaml"
    if not path.is_file():
        return set()
    entries = (yaml.safe_load(path.read_text()) or {}).get("defaults", [])
    near = {f"{Path(name).parent}/{entry}" for entry in entries if isinstance(entry, str) and entry != "_self_"}
    return near.union(*(parents(other) for other in near)) if near else near


def test_every_file_is_reachable() -> None:
    found: set[str] = set(ROOTS) | used(composed("train", "sweep=optuna"))
    for launcher in options("hydra/launcher"):
        found |= used(composed("train", f"hydra/launcher={launcher}"))
    for root in ROOTS:
        for choice in [[], *([f"model={model}"] for model in options("model") if root in MODEL_ROOTS)]:
            cfg = composed(root, *choice)
            found |= used(cfg)
            for group in {group.split("@")[0] for group in cfg.hydra.runtime.choices} & set(GROUPS):
                found |= {f"{group}/{name}" for name in options(group)}
    assert {str(path.with_suffix("")) for path in FILES} - found == set()


def test_a_typo_fails_and_names_the_key() -> None:
    for typo in ("trainer.max_epoch=3", "sead=1", "callbacks.early_stoping=null"):
        with pytest.raises(ConfigCompositionException, match=typo.split("=")[0].rpartition(".")[2]):
            composed("train", typo)


def test_a_sweep_over_folds() -> None:
    cfg = composed("train", "sweep=folds", "data.n_folds=3")
    assert str(cfg.hydra.mode).endswith("MULTIRUN")
    assert cfg.hydra.sweeper.params["data.fold"] == "range(0,3)"


def test_folders_are_named_after_what_ran() -> None:
    cfg = composed("train", "experiment=maskrcnn_r50", "data.fold=2", "seed=7")
    assert cfg.hydra.run.dir.startswith("runs/")
    assert cfg.hydra.run.dir.endswith("_maskrcnn_r50_fold2_seed7")
    assert cfg.hydra.sweep.dir.startswith("multirun/")
    assert composed("train").hydra.run.dir.endswith("_maskrcnn_r50_fold0_seed0")  # the model's name without experiment
    assert composed("predict", "output=here").hydra.run.dir == "here"
