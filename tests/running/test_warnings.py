"""Warnings of every command are single lines without a place in the source."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.running.commands import tame_warnings
from tests.conftest import write_competition


def test_a_warning_is_one_line_whoever_gives_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        tame_warnings()
        warnings.warn("a\n  b", stacklevel=1)
        rank_zero_warn("of Lightning")
        SupervisedDataModule(write_competition(tmp_path / "x", wells=False), n_folds=4).setup()
    first, second, third = capsys.readouterr().err.splitlines()
    assert (first, second) == ("warning: a b", "warning: of Lightning")
    assert third.startswith("warning: ") and "sample_id" in third and ".py" not in third


@pytest.mark.parametrize(
    "text",
    ["You called `self.log('val/map', ..., logger=True)` but have no logger configured. You can enable one",
     "Checkpoint directory runs/a/checkpoints exists and is not empty."],
)  # fmt: skip
def test_what_asks_for_nothing_is_not_printed(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        tame_warnings()
        warnings.warn(text, stacklevel=1)
    assert capsys.readouterr().err == ""
