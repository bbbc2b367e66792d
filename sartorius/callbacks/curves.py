"""The run at a glance: loss and scores over the epochs, drawn when the fit ends."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from pytorch_lightning import Callback, LightningModule, Trainer

from sartorius.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSSES = ("train/loss", "val/loss")
SCORES = {"val/map": "mAP", "val/iou": "IoU", "val/dice": "Dice", "val/pixel_accuracy": "pixel accuracy"}  # all 0..1


class Curves(Callback):
    """Draws `<folder>/plots/curves.png` from `<folder>/metrics.csv` (see `csv_log`); nothing where that holds no curve.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what was logged by now."""
        for logger in trainer.loggers:
            logger.save()
        if trainer.is_global_zero:
            draw_curves(read_curves(self.folder / "metrics.csv"), self.folder / "plots" / "curves.png")


def read_curves(path: Path) -> pd.DataFrame:
    """epoch, step, LOSSES and SCORES of a metrics.csv as numbers, those that were measured; empty without one."""
    try:
        table = pd.read_csv(path)
    except (FileNotFoundError, ValueError):  # what pandas raises for an empty file, or none of its kind
        return pd.DataFrame()
    place = [name for name in ("epoch", "step") if name in table]
    wanted = [*place, *(name for name in (*LOSSES, *SCORES) if name in table)]
    numbers = table[wanted].apply(pd.to_numeric, errors="coerce").replace([math.inf, -math.inf], math.nan)
    return numbers.dropna(subset=place).dropna(axis="columns", how="all")


def draw_curves(table: pd.DataFrame, path: Path) -> bool:
    """Draw the LOSSES and SCORES of `read_curves` side by side; returns whether there was anything to draw.

    The horizontal axis counts epochs that are over: a score stands at the end of its epoch, a training loss where it
    was measured, and the mean of an epoch's training losses in its middle.
    """
    panels = [draw for draw, names in ((_draw_losses, LOSSES), (_draw_scores, SCORES)) if {*names} & {*table}]
    if not panels or not {"epoch", "step"} <= {*table}:
        return False
    from matplotlib.figure import Figure  # half a second, and only at the end of a fit

    table = table.assign(time=(table.step + 1) / ((table.step + 1) / (table.epoch + 1)).max())
    figure = Figure(figsize=(6.4 * len(panels), 4.2), layout="constrained")
    for place, draw in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), place)
        draw(axes, table)
        axes.set_xlabel("epochs trained")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return True


def _draw_losses(axes: Axes, table: pd.DataFrame) -> None:
    highest = 0.0  # of what must be seen: single steps may stick out
    if "train/loss" in table:
        steps = table.dropna(subset="train/loss")
        means = steps.groupby("epoch")["train/loss"].mean()
        axes.plot(
            steps.time, steps["train/loss"], ".", color="tab:blue", alpha=0.3, ms=4, label="training, logged steps"
        )
        middles = means.index.to_numpy() + 0.5
        axes.plot(middles, means, ".-", color="tab:blue", label="training, mean of an epoch")
        highest = max(means.max(), steps["train/loss"].quantile(0.98))
    if "val/loss" in table:
        validated = table.dropna(subset="val/loss")
        axes.plot(validated.time, validated["val/loss"], ".-", color="tab:orange", label="validation")
        highest = max(highest, validated["val/loss"].max())
    axes.set_ylabel("loss (no unit)")
    axes.set_ylim(top=1.05 * highest or 1.0)


def _draw_scores(axes: Axes, table: pd.DataFrame) -> None:
    highest = 0.0
    for name, label in SCORES.items():
        if name in table:
            time, score = table.loc[table[name].notna(), ["time", name]].to_numpy().T
            best = int(score.argmax())
            label = f"{label}: best {score[best]:.3f} after {time[best]:.3g} epochs"
            (line,) = axes.plot(time, score, ".-", label=label)
            axes.plot(time[best], score[best], "o", color=line.get_color())
            highest = max(highest, float(score[best]))
    axes.set_ylabel("validation score (0 to 1)")
    axes.set_ylim(top=min(1.2 * highest, 1.0) or 1.0)  # from zero, but without an empty upper half
