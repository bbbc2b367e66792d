"""Every setting of every command, with every option of every group chosen at least once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import zip_longest
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from sartorius.running import wiring
from tests.conf.test_conf import required
from tests.layers import commands

ROOTS = commands(wiring.CONF_DIR.parent)
# The commands that options are composed for, where it is not the first that offers their group; further overrides.
ELSEWHERE = dict.fromkeys(
    [f"{group}=predict" for group in ("callbacks", "trainer")]
    + [f"{group}=saved" for group in ("inference", "postprocess")]
    + ["data=images", "model=two_stage", "model=joined"],
    "predict",
) | {"sweep=thresholds": "evaluate"}
FURTHER = {"sweep=backbones": ["model=maskrcnn_timm"]}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (wiring.CONF_DIR / group).glob("*.yaml"))


def groups(root: str) -> list[str]:
    """The groups that a root's defaults name, those of the roots it begins with included."""
    names: list[str] = []
    for entry in yaml.safe_load((wiring.CONF_DIR / f"{root}.yaml").read_text())["defaults"]:
        if isinstance(entry, dict):
            names += entry
        elif entry != "_self_":
            names += groups(entry)
    return names


def choices(root: str) -> Iterator[list[str]]:
    """Overrides of compositions in which every option that is composed for this command occurs."""
    columns = []
    for group in groups(root):
        chosen = [f"{group}={name}" for name in options(group)]
        chosen = [choice for choice in chosen if owner(choice) == root]
        columns.append([choice for choice in chosen if not is_global(choice)])
        yield from ([choice, *FURTHER.get(choice, [])] for choice in chosen if is_global(choice))
    for row in zip_longest(*columns):
        yield [choice for choice in row if choice is not None]


def owner(choice: str) -> str:
    """The command that an option is composed for."""
    group = choice.partition("=")[0]
    first = (root for root in ("train", *ROOTS) if group in groups(root) and group not in ("hydra", "paths"))
    return ELSEWHERE.get(choice) or next(first, "")


def is_global(choice: str) -> bool:
    """Whether the option may set what is outside of its group."""
    group, _, name = choice.partition("=")
    return "_global_" in (wiring.CONF_DIR / group / f"{name}.yaml").read_text()


@cache
def compositions() -> list[tuple[str, tuple[str, ...], DictConfig]]:
    """(command, overrides, config) of all, the roots' defaults first."""
    found = []
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        for root in ROOTS:
            found += [(root, tuple(chosen), compose(root, chosen)) for chosen in [[], *choices(root)]]
    for _, _, cfg in found:
        for name in required(OmegaConf.to_container(cfg)):
            OmegaConf.update(cfg, name, "a")
    return found


def settings_of(node: Mapping[str, Any], key: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(key, unresolved value) of every leaf and of every mapping at or below `node`."""
    for name, value in node.items():
        if name == "hydra":
            continue
        yield (*key, str(name)), value
        if isinstance(value, Mapping):
            yield from settings_of(value, (*key, str(name)))


@cache
def all_settings() -> dict[tuple[str, tuple[str, ...]], Any]:
    """(command, key) -> a value that a config file gives it."""
    return {
        (root, key): value
        for root, _, cfg in compositions()
        for key, value in settings_of(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]
    }
