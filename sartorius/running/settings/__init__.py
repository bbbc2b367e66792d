"""The check of a command's settings against the rules of its options, before anything is built."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sartorius.errors import InputError
from sartorius.running.settings import command_rules, data_rules, model_rules, plan_rules, training_rules
from sartorius.running.settings.shared_rules import Table
from sartorius.structures.rules import Rule, anything, flag, target

Key = tuple[str, ...]

# Packages whose classes the tables know. What another class takes is its own affair.
_KNOWN = ("sartorius", "torch", "pytorch_lightning", "albumentations", "sklearn", "optuna", "pathlib")
OF_HYDRA = {"_target_": target, "_partial_": flag, "_recursive_": flag, "_convert_": anything, "_args_": anything}
_LISTED = 5  # problems
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def check(cfg: DictConfig, command: str) -> None:
    """Check every setting of a composed config; raises InputError that names the bad ones."""
    if found := list(find_problems(cfg, command).values()):
        more = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise InputError("; ".join(found[:_LISTED]) + more)


def find_problems(cfg: DictConfig, command: str) -> dict[str, str]:
    """Describe each bad setting of a composed config by its key.

    Settings without a rule pass, and so do those of a class of another package. Mandatory values that are missing
    (`???`), and what refers to them, are left to the command; so is what refers to a setting that is named already.
    """
    found: dict[str, str] = {}
    settings = [(key, rule, value, "${" in str(value)) for key, rule, value in _walk(_raw(cfg), (), command, True)]
    for key, rule, value, refers in sorted(settings, key=lambda setting: setting[3]):  # references last
        if refers:
            if (source := _REFERENCE.fullmatch(str(value))) and _names(found, source[1]):
                continue
            try:
                value = _resolved(cfg, key)
            except OmegaConfBaseException:
                continue
        if value != "???":
            found |= {problem.partition(":")[0]: problem for problem in rule.problems(".".join(key), value)}
    return found


def _walk(raw: Mapping[str, Any], key: Key, command: str, known: bool) -> Iterator[tuple[Key, Rule, Any]]:
    """Yield (key, rule, unresolved value) of each setting that has a rule.

    known: whether the tables know the class that takes the settings of `raw`.
    """
    if isinstance(name := raw.get("_target_"), str):
        known = name.partition(".")[0] in _KNOWN
    for name, value in raw.items():
        place = (*key, str(name))
        rule = OF_HYDRA.get(str(name)) or (rule_of(command, place) if known else None)
        opens = isinstance(value, Mapping) and (rule is None or rule.opens)
        if rule is not None and not (opens and rule.admits(value)):
            yield place, rule, value
        if opens:
            yield from _walk(value, place, command, known)


def _raw(cfg: DictConfig) -> dict[str, Any]:
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    return {str(name): value for name, value in raw.items() if name != "hydra"}


def _resolved(cfg: DictConfig, key: Key) -> Any:
    node: Any = cfg
    for name in key:
        node = node[name]
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _names(found: Mapping[str, str], source: str) -> bool:
    """Whether the setting `source`, or one below it, is named already."""
    return any(key == source or key.startswith(f"{source}.") for key in found)


@cache
def rule_of(command: str, key: Key) -> Rule | None:
    """Find the rule with the longest end of `command.key`, of two as long the one with fewer `*`; None without one.

    An entry of a mapping that has a rule has that of its entries.
    """
    full = (command, *key)
    best: tuple[tuple[int, int], Rule | None] = ((0, 0), None)
    for pattern, rule in _by_last().get(full[-1], []) + _by_last().get("*", []):
        end = full[-len(pattern) :]
        if len(end) == len(pattern) and all(part in ("*", name) for part, name in zip(pattern, end, strict=True)):
            best = max(best, ((len(pattern), -pattern.count("*")), rule), key=lambda entry: entry[0])
    if best[1] is None and len(key) > 1 and (above := rule_of(command, key[:-1])) is not None:
        return above.entries
    return best[1]


@cache
def _by_last() -> dict[str, list[tuple[Key, Rule]]]:
    """Group the patterns of all tables, with their rules, by their last part."""
    grouped: dict[str, list[tuple[Key, Rule]]] = {}
    for module in (command_rules, data_rules, model_rules, plan_rules, training_rules):
        for pattern, rule in flattened(module.RULES):
            grouped.setdefault(pattern[-1], []).append((pattern, rule))
    return grouped


def flattened(table: Table, above: Key = ()) -> Iterator[tuple[Key, Rule]]:
    """Yield (pattern, rule) of a table and those within it; an empty key is the table's own."""
    for names, value in table.items():
        for name in names.split() or [""]:
            pattern = (*above, *name.split(".")) if name else above
            if isinstance(value, Rule):
                yield pattern, value
            else:
                yield from flattened(value, pattern)
