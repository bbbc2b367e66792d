"""A real multirun: two trainings one after the other in a process, one of them beside the same training alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.smoke.test_pipeline import run
from tests.smoke.test_unet_family import SMALL, UNET


@pytest.mark.slow
def test_members_are_trained_as_they_are_alone(tiny_competition: Path, tmp_path: Path) -> None:
    options = [*UNET, *SMALL, f"data.root={tiny_competition}", "logger=csv"]
    output = run(tmp_path, "train", "-m", *options, "data.fold=0,1", "hydra.sweep.dir=sweep")
    assert "mean and standard deviation over folds" in output
    table = pd.read_csv(tmp_path / "sweep" / "sweep.csv")
    assert table.status.tolist() == ["finished"] * 2
    assert table.score.between(0, 1).all()

    run(tmp_path, "train", *options, "data.fold=1", "hydra.run.dir=alone")
    member, alone = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("sweep/1_data.fold-1", "alone"))
    assert member["train/loss"].dropna().tolist() == alone["train/loss"].dropna().tolist() != []
    assert member["val/map"].dropna().tolist() == alone["val/map"].dropna().tolist()
