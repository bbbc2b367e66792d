"""Experiment files hold the values that were chosen, whatever they are."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from sartorius.planning.experiment_file import MARKER, WIDTH, Choice, experiment_text


def read(*choices: Choice) -> Any:
    return OmegaConf.to_container(OmegaConf.create(experiment_text("base", [], choices)), resolve=True)


@pytest.mark.parametrize(
    "value",
    ["1e3", "1_000", "null", "yes", "~", "${data.root}", "a: b", "# x", "/data/Jörg (1)", "C:\\x", "",
     "'", "2021-11-03", ["1e3", "b"], {"1e3": 3, "a b": 4, "on": 5}, [0.8, 1.25], 1e-5, 12, True, None],
)  # fmt: skip
def test_values_come_back(value: Any) -> None:
    assert read(Choice("a.b", value, "why: #1"))["a"] == {"b": value}


def test_settings_are_nested_with_their_reasons() -> None:
    long = "word " * 60
    text = experiment_text(
        "unet_cpu",
        [f"note {long}"],
        [Choice("/inference", "tiles", "large"), Choice("a.b.c", 1, "one"), Choice("d", 2, ""), Choice("a.e", 3, long)],
    )
    lines = text.splitlines()
    assert lines[0] == "# @package _global_" and lines[1].startswith(MARKER)
    assert max(map(len, lines)) <= WIDTH
    assert "  - override /inference: tiles  # large" in lines and "    c: 1  # one" in lines and "d: 2" in lines
    assert lines[lines.index("  e: 3") - 1].startswith("  # word")
    content = OmegaConf.create(text)
    assert content.defaults == ["unet_cpu", {"override /inference": "tiles"}, "_self_"]
    assert OmegaConf.to_container(content)["a"] == {"b": {"c": 1}, "e": 3}
