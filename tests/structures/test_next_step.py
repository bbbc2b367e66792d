from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sartorius.running.settings.typed import as_typed
from sartorius.structures.next_step import model_of, print_next, print_next_program, silent
from tests.layers import commands
from tests.smoke.test_pipeline import ROOT


@pytest.mark.parametrize("name", ["runs/a", "2021_11", "a b", "Jörg's (1)", "x=y#z", "a,b"])
def test_what_is_printed_is_read_as_it_was_meant(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_next("report", {"run": name if name != "a,b" else [name], "output": Path(name)})
    print_next("evaluate", {"detections": [f"{name}/detections", "b"]})
    (one, several) = (line.removeprefix("next: ") for line in capsys.readouterr().out.splitlines())
    program, minus, module, *words = shlex.split(one)
    assert (program, minus, module) == ("python", "-m", "sartorius.report")
    parsed = OverridesParser.create().parse_overrides(as_typed("report", words))
    assert [option.value() for option in parsed] == [name if name != "a,b" else ["a,b"], name]
    parsed = OverridesParser.create().parse_overrides(as_typed("evaluate", shlex.split(several)[3:]))
    assert [option.value() for option in parsed] == [[f"{name}/detections", "b"]]


def test_the_model_of_a_run(tmp_path: Path) -> None:
    assert model_of(tmp_path / "detections") == {"checkpoint": "CHECKPOINT", "images": "FOLDER"}
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    assert model_of(tmp_path / "detections")["checkpoint"] == str(tmp_path / "checkpoints" / "best.ckpt")


def test_members_of_a_multirun_print_none(capsys: pytest.CaptureFixture[str]) -> None:
    with silent():
        print_next_program("a")
    print_next_program("b", "c d")
    assert capsys.readouterr().out == "next: b 'c d'\n"


def test_every_command_ends_in_one() -> None:
    texts = {name: (ROOT / "sartorius" / f"{name}.py").read_text() for name in commands(ROOT)}
    assert [name for name, text in texts.items() if "print_next" not in text] == []
