from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from sartorius.callbacks.csv_log import CSVLog
from sartorius.callbacks.curves import Curves, draw_curves, read_curves

PANEL = (768, 504)  # pixels of one panel


def csv(folder: Path, text: str) -> Path:
    (folder / "metrics.csv").write_text(text)
    return folder / "metrics.csv"


def drawn(folder: Path, text: str) -> tuple[int, int] | None:
    """Size of the picture of such a metrics.csv; None where nothing was drawn."""
    done = draw_curves(read_curves(csv(folder, text)), folder / "plots" / "curves.png")
    assert done == (folder / "plots" / "curves.png").exists()
    if not done:
        return None
    with Image.open(folder / "plots" / "curves.png") as image:
        return image.size


def test_losses_and_scores_side_by_side(tmp_path: Path) -> None:
    header = "epoch,step,train/loss,val/loss,val/map,val/dice\n"
    assert drawn(tmp_path, header + "0,9,2,,,\n0,19,1.5,,,\n0,19,,1.6,0.1,0.5\n1,39,1,1.2,0.2,0.6\n") == (
        2 * PANEL[0],
        PANEL[1],
    )


def test_one_of_the_two_fills_the_picture(tmp_path: Path) -> None:
    assert drawn(tmp_path, "epoch,step,train/loss\n0,0,3.3\n") == PANEL
    assert drawn(tmp_path, "epoch,step,val/iou\n0,9,0\n") == PANEL


@pytest.mark.parametrize(
    "text",
    ["", "epoch,step\n0,9\n", "epoch,step,train/loss\n", "epoch,step,train/loss\n0,9,\n", "train/loss\n1.0\n",
     "epoch,step,train/loss\n,,1.0\n", "epoch,step,train/loss\n0,9,inf\n", "epoch,step,lr\n0,9,0.1\n",
     "hello\nyou, there\n"],
)  # fmt: skip
def test_nothing_to_draw(tmp_path: Path, text: str) -> None:
    assert drawn(tmp_path, text) is None


def test_no_file_is_no_curve(tmp_path: Path) -> None:
    assert read_curves(tmp_path / "metrics.csv").empty


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    table = read_curves(
        csv(tmp_path, "epoch,step,train/loss,val/map,lr\n0,9,x,,1\n0,19,inf,0.1,1\n1,29,2.5,,1\n1,,9,9,9\n")
    )
    assert table.columns.tolist() == ["epoch", "step", "train/loss", "val/map"]
    assert table["train/loss"].dropna().tolist() == [2.5]
    assert table["val/map"].dropna().tolist() == [0.1]


def test_lines_stand_where_they_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs of 20 steps each, logged each 10 steps."""
    from matplotlib.axes import Axes

    lines: dict[str, list[Any]] = {}
    plot = Axes.plot

    def noted(self: Axes, x: Any, y: Any, *args: Any, **kwargs: Any) -> Any:
        if "label" in kwargs:
            lines[kwargs["label"]] = [[float(v) for v in values] for values in (x, y)]
        return plot(self, x, y, *args, **kwargs)

    monkeypatch.setattr(Axes, "plot", noted)
    drawn(tmp_path, "epoch,step,train/loss,val/map\n0,9,4,\n0,19,2,\n0,19,,0.3\n1,29,2,\n1,39,1,\n1,39,,0.2\n")
    assert lines == {
        "training, logged steps": [[0.5, 1, 1.5, 2], [4, 2, 2, 1]],
        "training, mean of an epoch": [[0.5, 1.5], [(4 + 2) / 2, (2 + 1) / 2]],
        "mAP: best 0.300 after 1 epochs": [[1, 2], [0.3, 0.2]],
    }


def test_the_end_of_a_fit_draws_what_is_not_written_yet(tmp_path: Path) -> None:
    logger = CSVLog(tmp_path / "metrics.csv")
    logger.log_metrics({"epoch": 0, "train/loss": 1.0}, 9)
    trainer: Any = SimpleNamespace(loggers=[logger], is_global_zero=True)
    Curves(tmp_path).on_fit_end(trainer, None)  # type: ignore[arg-type]
    assert (tmp_path / "plots" / "curves.png").is_file()
    assert math.isclose(pd.read_csv(tmp_path / "metrics.csv")["train/loss"][0], 1.0)


def test_other_processes_draw_nothing(tmp_path: Path) -> None:
    csv(tmp_path, "epoch,step,train/loss\n0,0,3.3\n")
    Curves(tmp_path).on_fit_end(SimpleNamespace(loggers=[], is_global_zero=False), None)  # type: ignore[arg-type]
    assert not (tmp_path / "plots").exists()
