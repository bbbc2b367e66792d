"""The program `sartorius`, as its console script starts it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sartorius.running import console
from tests.layers import commands

ROOT = Path(__file__).resolve().parents[2]
START = "from sartorius.running.console import main; main()"


def run(*arguments: str, program: str = START) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_commands_are_listed_with_a_line_each() -> None:
    assert console.list_commands() == commands(ROOT)
    for arguments in ([], ["--help"], ["-h"]):
        done = run(*arguments)
        assert done.returncode == 0 and done.stderr == ""
        listed = dict(re.findall(r"^  (\w+) +(\S.*)$", done.stdout, re.MULTILINE))
        assert sorted(listed) == commands(ROOT)
        assert listed["predict"] == "Predict on any images"
        assert not any("`" in text or "sartorius" in text for text in listed.values())


@pytest.mark.parametrize("argument", ["--help", "nonsense"])
def test_nothing_heavy_is_imported(argument: str) -> None:
    """Nothing of another package at all: the list takes hundredths of a second."""
    program = (
        "import sys\nbefore = set(sys.modules)\nfrom sartorius.running.console import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "sys.exit(str(sorted(new - set(sys.stdlib_module_names) - {'sartorius'})))"
    )
    assert run(argument, program=program).stderr == "[]\n"


def test_a_command_runs_as_its_module_does() -> None:
    done = run("submit", "detections=nowhere", "output=a.csv")
    alone = subprocess.run(
        [sys.executable, "-m", "sartorius.submit", "detections=nowhere", "output=a.csv"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == alone.returncode == 1
    assert done.stderr == alone.stderr and done.stderr.startswith("error: ")
    assert run("submit", "--cfg", "job").stdout.startswith("paths:")


def test_another_word_is_one_clear_line() -> None:
    done = run("predit")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: sartorius predit: no such command (did you mean predict?); expected one of ")
    assert done.stderr.count("\n") == 1
    assert run("nonsense").stderr.startswith("error: sartorius nonsense: no such command; expected one of browse, ")
