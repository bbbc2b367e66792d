"""The program `sartorius`: `sartorius predict ...` is `python -m sartorius.predict ...`.

It loads nothing but the command that is asked for, so that a list of the commands and a mistyped one take no time.
"""

from __future__ import annotations

import ast
import difflib
import runpy
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
# Inside the package in an installed wheel; beside it in a checkout. Absolute: a relative config_path breaks when
# `main` of a command is imported from elsewhere.
CONF_DIR = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


def list_commands() -> list[str]:
    """Name the commands, sorted: each has a file at the top of conf/."""
    return sorted(path.stem for path in CONF_DIR.glob("*.yaml"))


def describe(command: str) -> str:
    """Return the first line of a command's docstring without its example; the command is not imported."""
    text = ast.get_docstring(ast.parse((PACKAGE / f"{command}.py").read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].partition(": `")[0].rstrip(".")


def main() -> None:
    """Run the command that the first argument names, with the other arguments; list the commands without one."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        print("usage: sartorius COMMAND [OPTION=VALUE ...]\n")
        print(*(f"  {command:<13} {describe(command)}" for command in list_commands()), sep="\n")
        print("\n`sartorius COMMAND --help` lists the options of a command.")
    elif name not in list_commands():
        near = difflib.get_close_matches(name, list_commands(), n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        sys.exit(f"error: sartorius {name}: no such command{meant}; expected one of {', '.join(list_commands())}")
    else:
        sys.argv[1:] = rest
        runpy.run_module(f"sartorius.{name}", run_name="__main__", alter_sys=True)
