from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from sartorius.reports import curves
from sartorius.reports.curves import curve_plots, draw_curves, read_numbers, shared_curve_plots, timed

PANEL = (768, 504)  # pixels of one panel


def csv(folder: Path, text: str) -> Path:
    (folder / "metrics.csv").write_text(text)
    return folder / "metrics.csv"


def drawn(folder: Path, text: str) -> tuple[int, int] | None:
    """Size of the image of such a metrics.csv; None where nothing was drawn."""
    done = draw_curves(read_numbers(csv(folder, text)), folder / "plots" / "curves.png", pd.DataFrame())
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


def test_one_of_the_two_fills_the_image(tmp_path: Path) -> None:
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
    assert read_numbers(tmp_path / "metrics.csv").empty


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    table = read_numbers(
        csv(tmp_path, "epoch,step,train/loss,val/map,lr\n0,9,x,,1\n0,19,inf,0.1,1\n1,29,2.5,,1\n1,,9,9,9\n")
    )
    assert table.columns.tolist() == ["epoch", "step", "train/loss", "val/map", "lr"]
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


def test_every_batch_stands_in_for_the_logged_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    labels: list[str] = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda self, *args, **kwargs: labels.append(kwargs.get("label")) or plot(self, *args, **kwargs)
    )
    table = read_numbers(csv(tmp_path, "epoch,step,train/loss\n0,9,2\n1,19,1\n"))
    (tmp_path / "batches.csv").write_text("epoch,step,batch,train/loss\n0,0,0,3\n0,1,1,x\n1,10,0,2\n")
    batches = read_numbers(tmp_path / "batches.csv")
    assert batches["train/loss"].dropna().tolist() == [3, 2]
    assert draw_curves(table, tmp_path / "c.png", batches)
    assert labels == ["training, batches", "training, mean of an epoch"]


def test_plots_of_a_page(tmp_path: Path) -> None:
    text = (
        "epoch,step,lr-a,lr-b,train/loss,train/border,val/loss,val/map,val/map_cort,val/dice\n"
        "0,9,0.1,0.1,2,1,,,,\n0,9,,,,,2,0.1,0.1,0.5\n1,19,0.2,0.2,1,0.5,1,0.2,0.2,0.6\n"
    )
    numbers = read_numbers(csv(tmp_path, text))
    plots = curve_plots(numbers, pd.DataFrame(), tmp_path / "plots")
    names = ["losses", "loss_parts", "scores", "scores_by_type", "learning_rate"]
    assert [plot.name for plot in plots] == names
    assert sorted(path.stem for path in (tmp_path / "plots").iterdir()) == sorted(names)
    assert "lr-a" not in plots[-1].svg, "two rates that are the same are one line without a name"
    shared = shared_curve_plots({"a": numbers, "b": pd.DataFrame()}, None)
    assert [plot.name for plot in shared] == ["losses", "validation_losses", "scores"]
    assert curve_plots(pd.DataFrame(), pd.DataFrame(), None) == shared_curve_plots({}, None) == []


def test_one_validation_is_no_curve_of_several_runs(tmp_path: Path) -> None:
    numbers = read_numbers(csv(tmp_path, "epoch,step,train/loss,val/map\n0,9,2,\n1,19,1,0.2\n"))
    assert [plot.name for plot in shared_curve_plots({"a": numbers}, None)] == ["losses"]


def test_what_was_measured_twice_at_the_end_is_no_curve() -> None:
    """The last epoch and a validation after it, a step apart: an empty plot says nothing."""
    table = pd.DataFrame({"epoch": [0, 49, 50], "step": [29, 1499, 1500], "val/loss": [None, 0.5, 0.5]})
    assert shared_curve_plots({"a": table, "b": table}, None) == []


def painted(losses: list[float]) -> Any:
    """The axes of these losses of batches, 50 an epoch, and of a logged step every ten."""
    from matplotlib.figure import Figure

    batches = pd.DataFrame(
        {"epoch": [k // 50 for k in range(len(losses))], "step": range(len(losses)), "train/loss": losses}
    )
    axes = Figure().add_subplot()
    curves._paint_losses(axes, timed(batches[9::10]), timed(batches))
    return axes


def test_the_start_of_the_loss_is_within_the_frame() -> None:
    axes = painted([5.0, 4.5, 3.0, *[1.0] * 97])
    assert axes.get_ylim() == pytest.approx((0, 1.05 * 5.0)) and axes.get_yscale() == "linear"
    line, means = axes.lines
    assert (line.get_xdata()[0], line.get_ydata()[0]) == (pytest.approx(1 / 50), 5.0)
    assert means.get_ydata()[0] == pytest.approx((5.0 + 4.5 + 3.0 + 47.0) / 50), "of all batches, not of logged steps"
    low, high = axes.get_xlim()
    assert low == 0 and high >= 2
    assert painted([5.0, *[1.0] * 98, 40.0]).get_ylim()[1] == pytest.approx(1.05 * 5.0), "one step may stick out"


def test_a_loss_over_decades_has_a_logarithmic_axis() -> None:
    axes = painted([300.0, *[20.0] * 49, *[1.0] * 50])
    assert axes.get_yscale() == "log"
    assert axes.get_ylim() == pytest.approx((0.5, 1.05 * 300.0))


def test_the_loss_of_batches_is_drawn_without_logged_steps(tmp_path: Path) -> None:
    batches = pd.DataFrame({"epoch": [0, 0], "step": [0, 1], "train/loss": [3.0, 2.0]})
    assert draw_curves(pd.DataFrame(), tmp_path / "c.png", batches)
    assert [plot.name for plot in curve_plots(pd.DataFrame(), batches, None)] == ["losses"]
