"""Parts of rounds.sh that are no command of the package: splits, labels copied from the truth, the curve."""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from sartorius.data.competition.about import About
from sartorius.data.competition.fold_assignment import assign_folds
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.labelled_writer import Labelled, write_labelled
from sartorius.metrics.report import read_per_image
from sartorius.structures.cell_types import CELL_TYPES


def split(data: Path, out: Path) -> None:
    """Copy a third of the images to out/evaluation, in whole wells and of all types, and the others to out/pool."""
    truth = Competition(data)
    wells, types = [truth.wells[i] for i in truth.ids], [truth.cell_type(i) for i in truth.ids]
    fold = assign_folds(wells, types, [len(truth.record(i)) for i in truth.ids], 3, 0)
    for image_id, number in zip(truth.ids, fold.tolist(), strict=True):
        place = out / ("evaluation" if number == 0 else "pool") / f"{image_id}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(truth.record(image_id).path, place)


def shuffle(pool: Path, file: Path, seed: int) -> None:
    """Write the ids of a folder's images in an order drawn from a seed."""
    ids = sorted(path.stem for path in pool.glob("*.png"))
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"id": np.random.default_rng(seed).permutation(ids)}).to_csv(file, index=False)


def label(data: Path, root: Path, order: Path, total: int, before: Path | None) -> None:
    """Write a folder of `total` labelled images: those of `before`, and the next ones of an order."""
    truth = Competition(data)
    known = list(Competition(before).ids) if before is not None else []
    ids = pd.read_csv(order, dtype=str, keep_default_na=False)["id"]
    new = [image_id for image_id in ids if image_id not in known][: total - len(known)]
    images = (
        Labelled(i, truth.image(i), truth.instances(i), truth.cell_type(i), truth.wells[i], truth.ignored(i))
        for i in [*known, *new]
    )
    write_labelled(root, About(tuple(CELL_TYPES)), images)
    print(f"{root}: {len(known)} images and {', '.join(new)}")


def curve(out: Path) -> None:
    """Write curve.csv and curve.png: the score of each order and seed against the number of labelled images."""
    rows = []
    for file in sorted(out.glob("seed*/**/score/per_image.csv")):
        seed = int(re.findall(r"seed(\d+)", str(file.relative_to(out)))[0])
        folder = file.parent.parent
        first = folder.parent.name == f"seed{seed}"
        labelled = folder.parent / ("first" if first else folder.name.replace("round", "images"))
        score = read_per_image(file).average_precision.mean()
        for order in ("review", "random") if first else (folder.parent.name,):
            rows.append((order, seed, len(Competition(labelled).ids), score))
    table = pd.DataFrame(rows, columns=["order", "seed", "images", "map"]).sort_values(["order", "seed", "images"])
    table.to_csv(out / "curve.csv", index=False)
    means = table.pivot_table(index="images", columns="order", values="map", aggfunc="mean")
    paired = table.pivot_table(index=["seed", "images"], columns="order", values="map").reset_index()
    print(means.assign(difference=means.review - means.random).round(4).to_string())
    later = paired[paired.images > paired.images.min()]
    gain = (later.review - later.random).groupby(later.seed).mean()
    print(f"review minus random, mean of later rounds: {gain.mean():+.4f}, of each seed {gain.round(4).tolist()}")
    draw(table, out / "curve.png")


def draw(table: pd.DataFrame, file: Path) -> None:
    """Draw each seed thin, and the mean over seeds bold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axes = figure.add_subplot()
    for order, colour in (("review", "#0072B2"), ("random", "#E69F00")):
        part = table[table.order == order]
        for _, one in part.groupby("seed"):
            axes.plot(one["images"], one["map"], ".-", color=colour, alpha=0.3, lw=1)
        mean = part.groupby("images")["map"].mean()
        axes.plot(mean.index, mean, "o-", color=colour, lw=2.5, label=order)
    axes.set(xlabel="labelled images", ylabel="mAP on images held back", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    arguments = {
        "split": {"data": Path, "out": Path},
        "shuffle": {"pool": Path, "file": Path, "seed": int},
        "label": {"data": Path, "root": Path, "order": Path, "total": int},
        "curve": {"out": Path},
    }
    for name, kinds in arguments.items():
        part = parts.add_parser(name)
        for key, kind in kinds.items():
            part.add_argument(key, type=kind)
        if name == "label":
            part.add_argument("--before", type=Path)
    given = vars(parser.parse_args())
    {"split": split, "shuffle": shuffle, "label": label, "curve": curve}[given.pop("part")](**given)


if __name__ == "__main__":
    main()
