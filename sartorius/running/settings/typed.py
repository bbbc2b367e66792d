"""Names on the command line that Hydra cannot read, or would take for numbers."""

from __future__ import annotations

import re
import shlex

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import OverrideParseException

from sartorius.errors import InputError
from sartorius.running.settings import rule_of
from sartorius.structures.rules import Rule

# Text in quotes, or a word of a list, a mapping or a sweep; not a mapping's key.
_WORD = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,\[\]{}()'":][^,\[\]{}()'":]*(?![^,\[\]{}()'"]*:)""")
_SEVERAL = ("[", "{")


def as_typed(command: str, arguments: list[str]) -> list[str]:
    """Quote the values of text options as Hydra needs it, so that they stay as they were typed.

    `output=2021_11` is a folder, not the number 202111, and `images=/data/Jörg (1)` needs no quotes of its own. Numbers
    stay numbers where the option takes them, and null stays null. Raises InputError, with the quoting that works, for
    lists, mappings and sweeps that cannot be read, and for a list or mapping where one name is expected.
    """
    sweeps = any(argument in ("-m", "--multirun") for argument in arguments)
    return [argument if argument[:1] == "-" else _typed(command, argument, sweeps) for argument in arguments]


def _typed(command: str, argument: str, sweeps: bool) -> str:
    key, separator, value = argument.partition("=")
    rule = rule_of(command, tuple(key.lstrip("+").split(".")))
    if not separator or not value or rule is None or not rule.takes("name"):
        return argument
    try:
        override = _parse(argument)
    except OverrideParseException as error:
        if sweeps or value.startswith((*_SEVERAL, "'", '"')):
            raise InputError(unreadable(error)) from error
        return f"{key}={_quoted(value)}"
    if not value.startswith(_SEVERAL):
        words = value.split(",") if override.is_sweep_override() else [value]
        return f"{key}={','.join(_name(word) if _is_name(word, rule) else word for word in words)}"
    if not rule.takes(override.value()):
        named = _WORD.sub(lambda word: _name(word[0]), value)
        if not rule.takes(_parse(f"{key}={named}").value()):
            typed = shlex.quote(f"{key}={_quoted(value)}")
            raise InputError(
                f"{key}: expected {rule.expected}, got {value}; a name with such brackets is typed {typed}"
            )
        return f"{key}={named}"
    return argument


def _is_name(word: str, rule: Rule) -> bool:
    """Whether the rule takes what Hydra makes of the word as text only."""
    return "${" not in word and not rule.takes(_parse(f"x={word}").value()) and rule.takes(word.strip())


def _name(word: str) -> str:
    """Quote a word that Hydra reads as a number or a boolean."""
    if word[:1] in "'\"" or "${" in word or not isinstance(_parse(f"x={word}").value(), int | float):
        return word
    return _quoted(word.strip())


def unreadable(error: OverrideParseException) -> str:
    """Describe an argument that Hydra cannot read in one line, with the quoting that works."""
    key, _, value = error.override.partition("=")
    reason = " ".join(str(error).partition("\nSee http")[0].split())
    remedy = f"names with special characters are typed {_shown(key, value)}"
    return f"{key}: cannot read the value {value} ({reason}); {remedy}"


def _shown(key: str, value: str) -> str:
    """Return what to type in a shell for a value, or for each value of a list."""
    inner = value.strip()
    if inner.startswith("[") and inner.endswith("]"):
        return shlex.quote(f"{key}=[{','.join(_quoted(item.strip()) for item in inner[1:-1].split(','))}]")
    return shlex.quote(f"{key}={_quoted(value)}")


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.double).with_quotes()


def _parse(argument: str) -> Override:
    return OverridesParser.create().parse_overrides([argument])[0]
