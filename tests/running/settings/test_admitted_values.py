"""What the rules admit can be built from, or is refused by the class itself in one line."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from sartorius.modules.optimisation import configure
from sartorius.postprocess import MinArea, PasteMasks, Postprocess, Score
from sartorius.postprocess.saved import build as build_postprocess
from sartorius.running import failures, settings, wiring
from tests.doubles import ToyModule
from tests.running.settings.leaves import compositions, settings_of

VALUES = ["abc", -1, 0, 1, 0.5, None, True, 1e-9, 1000, [0, 0], [1], [], {}]
BUILT = {"transform", "copy_paste", "cleaning", "inference", "tta", "fusion", "averaging", "lr_decay", "data"}
BUILT |= {"postprocess", "scheduler", "optimizer", "baseline", "search", "callbacks", "logger"}

Key = tuple[str, ...]


def build(node: dict[str, Any], group: str) -> None:
    """Build what a group's settings are for, and use it as far as that is cheap."""
    if group == "postprocess":
        build_postprocess({key: value for key, value in node.items() if key != "file"}, "train")
    elif group == "scheduler":
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
        schedule = wiring.instantiate(node, optimizer=optimizer, total_steps=10)
        for _ in range(3):
            optimizer.step()
            schedule.step()
    elif group == "optimizer":
        configure(ToyModule(), wiring.instantiate(node), None)
    elif group == "trainer":
        wiring.build_trainer({**node, "precision": "32-true"})
    elif group == "baseline":
        wiring.instantiate(node)(np.full((40, 60), 128, np.uint8))
    elif group == "search":
        wiring.instantiate(node).grids(Postprocess(score=Score(0.5), mask=PasteMasks(0.5), min_area=MinArea(5)))
    else:
        wiring.instantiate(node)


def places(groups: set[str]) -> Iterator[tuple[str, Key, dict[str, Any], list[Key]]]:
    """(command, place, node, keys below it) of each thing to build, with those of its keys that no other case has."""
    seen: set[tuple[str, Key]] = set()
    for root, _, cfg in compositions():
        raw: Any = OmegaConf.to_container(cfg, resolve=False)
        for group in groups & set(raw) if root != "browse" else ():
            parts = raw[group] if group in ("callbacks", "logger") else {"": raw}
            for place in [(group, name) if name else (group,) for name in parts]:
                node = raw
                for name in place:
                    node = node[name]
                if not isinstance(node, dict) or "_target_" not in node or place in LEFT_OUT:
                    continue
                values = {
                    key: value for key, value in settings_of(node)
                    if not isinstance(value, dict) and key[-1] not in settings.OF_HYDRA and "${" not in str(value)
                }  # fmt: skip
                keys = [key for key in values if (node["_target_"], key) not in seen]
                seen |= {(node["_target_"], key) for key in keys}
                if keys:
                    yield root, place, wiring.plain(OmegaConf.select(cfg, ".".join(place))), keys


# Made by a command with further objects, or in need of W&B and TensorBoard.
LEFT_OUT = {("callbacks", "overlays"), ("logger", "wandb"), ("logger", "tensorboard"), ("callbacks", "pruning")}


def bugs_of(root: str, place: Key, node: dict[str, Any], keys: list[Key]) -> tuple[int, list[str]]:
    """Build with every admitted one of VALUES for each key: how many were built, and errors that are none of input."""
    bugs, count = [], 0
    for key in keys:
        rule = settings.rule_of(root, (*place, *key))
        for value in VALUES if rule is not None else ():
            if any(rule.problems("", value)):
                continue
            changed = copy.deepcopy(node)
            holder = changed
            for name in key[:-1]:
                holder = holder[name]
            holder[key[-1]] = value
            count += 1
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    build(changed, place[0])
            except Exception as error:
                if failures.expected(error) is None:
                    cause = error.__cause__ or error
                    bugs.append(f"{root} {'.'.join((*place, *key))}={value!r}: {type(cause).__name__}: {cause}")
    return count, bugs


def test_what_the_rules_admit_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results = [bugs_of(*case) for case in places(BUILT)]
    assert sum(count for count, _ in results) > 500
    assert not (bugs := [bug for _, found in results for bug in found]), "\n".join(bugs)


@pytest.mark.slow
def test_models_and_trainers_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results = [bugs_of(*case) for case in places({"model", "trainer"})]
    assert sum(count for count, _ in results) > 200
    assert not (bugs := [bug for _, found in results for bug in found]), "\n".join(bugs)
