"""Every setting of conf/ has a rule: wrong values are refused in a line that names the key, those of conf/ are not."""

from __future__ import annotations

import math

from omegaconf import OmegaConf

from sartorius.errors import InputError
from sartorius.running import settings
from sartorius.running.wiring import CONF_DIR
from sartorius.structures.rules import anything
from tests.running.settings.leaves import ROOTS, all_settings, compositions, options, settings_of

WRONG = ["abc", -1, 0, math.nan, math.inf, [-1], ["abc"], None, True, 10**30, -1e300, "", {"a": "abc"}, "\0"]


def test_all_commands_and_options_are_walked() -> None:
    walked = {root for root, _, _ in compositions()}
    assert walked == set(ROOTS)
    chosen = {choice for _, choices, _ in compositions() for choice in choices}
    assert {f"experiment={name}" for name in options("experiment")} <= chosen
    assert len(chosen) > 75
    assert len(all_settings()) > 800


def is_group(key: tuple[str, ...]) -> bool:
    """Whether Hydra itself refuses anything but the name of a file of conf/ there."""
    return len(key) == 1 and (CONF_DIR / key[0]).is_dir()


def test_every_setting_has_a_rule() -> None:
    without = {
        f"{root}: {'.'.join(key)}"
        for (root, key), value in all_settings().items()
        if settings.rule_of(root, key) is None
        and key[-1] not in settings.OF_HYDRA
        and not (isinstance(value, dict) and is_group(key))
    }
    assert without == set()
    assert settings.rule_of("train", ("no_such_option",)) is None


def test_a_wrong_value_is_admitted_or_refused_in_a_line_that_names_the_key() -> None:
    for root, key in all_settings():
        rule, name = settings.rule_of(root, key), ".".join(key)
        for value in WRONG if rule is not None else []:
            for problem in rule.problems(name, value):
                assert problem.startswith(f"{name}: expected ") or problem.startswith(f"{name}.a: expected ")
                assert "\n" not in problem
        if rule not in (None, anything):
            assert not any(map(rule.admits, (math.nan, math.inf, -math.inf, [math.nan], 10**30, "\0")))


def test_the_check_finds_every_wrong_setting_of_a_config() -> None:
    """All leaves of a config are NaN at once, and all are named."""
    for root, chosen, cfg in compositions():
        wrong, keys = cfg.copy(), set()
        for key, value in settings_of(OmegaConf.to_container(cfg, resolve=False)):
            rule = settings.rule_of(root, key)
            if isinstance(value, dict) or key[-1] in settings.OF_HYDRA or rule in (None, anything):
                continue
            node = wrong
            for part in key[:-1]:
                node = node[part]
            node[key[-1]] = math.nan
            keys.add(".".join(key))
        assert set(settings.find_problems(wrong, root)) == keys, chosen


def test_the_values_of_conf_are_admitted() -> None:
    for root, chosen, cfg in compositions():
        try:
            settings.check(cfg, root)
        except InputError as error:
            raise AssertionError(f"{root} {' '.join(chosen)}") from error
