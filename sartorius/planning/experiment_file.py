"""The text of an experiment file: settings as nested YAML, each with its reason in a comment."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

WIDTH = 120  # characters of a line
MARKER = "# Written by `python -m sartorius.plan`"  # begins each file that may be overwritten


@dataclass(frozen=True)
class Choice:
    """A setting by its full key, its value, and why: a sentence of plain text, "" for none.

    A key that begins with `/` is a config group, its value the name of an option.
    """

    key: str
    value: Any
    reason: str


def experiment_text(base: str, notes: Sequence[str], choices: Sequence[Choice]) -> str:
    """Write an experiment that begins with the experiment `base`: notes as comments, then the choices in their order.

    Keys of one branch stand together where the first of them does. Text is quoted where YAML or OmegaConf would read
    something else.
    """
    lines = ["# @package _global_", MARKER + "."]
    lines += [line for note in notes for line in _comment(note, 0)]
    lines += ["defaults:", f"  - {base}"]
    for choice in choices:
        if choice.key.startswith("/"):
            lines += _lines(f"- override {choice.key}: {choice.value}", choice.reason, 1)
    lines += ["  - _self_", ""]
    tree: dict[str, Any] = {}
    for choice in choices:
        if not choice.key.startswith("/"):
            *branches, leaf = choice.key.split(".")
            node = tree
            for branch in branches:
                node = node.setdefault(branch, {})
            node[leaf] = choice
    return "\n".join([*lines, *_nested(tree, 0)]) + "\n"


def _nested(tree: dict[str, Any], depth: int) -> Iterator[str]:
    for key, node in tree.items():
        if isinstance(node, Choice):
            yield from _lines(f"{key}: {_scalar(node.value)}", node.reason, depth)
        else:
            yield f"{'  ' * depth}{key}:"
            yield from _nested(node, depth + 1)


def _lines(setting: str, reason: str, depth: int) -> list[str]:
    """Put the reason behind a setting, or above it where the line would be too long."""
    line = "  " * depth + setting
    whole = f"{line}  # {reason}"
    if not reason:
        return [line]
    return [whole] if len(whole) <= WIDTH else [*_comment(reason, depth), line]


def _comment(text: str, depth: int) -> list[str]:
    start = "  " * depth + "# "
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=start, break_long_words=False,
                         break_on_hyphens=False)  # fmt: skip


class _Dumper(yaml.SafeDumper):
    """Quotes text that OmegaConf reads as a number, such as 1e3, and all that is not plainly a word."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if re.fullmatch(r"[A-Za-z/][\w./-]*", text, re.ASCII) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text.replace("${", "\\${"), style)


_Dumper.add_representer(str, _text)


def _scalar(value: Any) -> str:
    """Write a value in one line of YAML; `${` in text is kept from OmegaConf."""
    options = {"default_flow_style": True, "width": float("inf"), "sort_keys": False, "allow_unicode": True}
    return str(yaml.dump(value, Dumper=_Dumper, **options)).removesuffix("\n").removesuffix("\n...")
