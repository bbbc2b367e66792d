"""Compare generated images with real ones: a table of cell type x statistic, the first folder beside the second.

    python experiments/compare_generated.py REAL GENERATED [--annotations train_annotations.csv.gz]

Both folders are in the competition's layout (train.csv, train/<id>.png). With --annotations, the statistics of the
masks of REAL come from that table (the columns of train.csv) instead of its train.csv.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import KDTree

from sartorius.rescoring.shapes import Shapes
from sartorius.structures import rle
from sartorius.structures.arrays import Floats, GreyImage
from sartorius.structures.rle import Runs

RING = 5  # px around the cells
BANDS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.72)  # cycles a pixel; the standard deviation in each is printed
STEEP = (50, 90, 99)  # quantiles of the gradient's magnitude, in per cent


def solidity(runs: Runs) -> list[float]:
    """Measure pixels over the pixels of the convex hull, of each cell."""
    pixel, cell = runs.pixels()
    result = []
    for k in range(runs.count):
        flat = pixel[cell == k]
        points = np.stack([flat % runs.width, flat // runs.width], 1).astype(np.int32)
        points -= points.min(0)
        hull = cv2.fillConvexPoly(np.zeros(points.max(0)[::-1] + 1, np.uint8), cv2.convexHull(points), 1)
        result.append(len(flat) / max(int(hull.sum()), 1))
    return result


def of_masks(runs: Runs) -> dict[str, list[float]]:
    """Measure the masks of an image; the table shows the median over cells, or the mean over images."""
    shapes = Shapes.of(runs)
    touching = np.concatenate(rle.overlaps(runs)[:2])
    centres = np.stack([shapes.x, shapes.y], 1)
    near = KDTree(centres).query(centres, k=2)[0][:, 1] if runs.count > 1 else np.zeros(0)
    return {
        "mean: cells an image": [runs.count],
        "mean: share of cells overlapping": [len(np.unique(touching)) / runs.count],
        "area, px": list(shapes.area),
        "std: log area": list(np.log(shapes.area)),
        "eccentricity": list(np.sqrt(1 - 1 / shapes.elongation**2)),
        "solidity": solidity(runs),
        "nearest neighbour, px": list(near),
    }


def of_image(image: GreyImage, runs: Runs) -> dict[str, list[float]]:
    """Measure the grey levels of an image: inside the cells, in a ring around them, elsewhere; spectrum, gradients."""
    grey = image.astype(np.float64)
    covered = np.zeros(grey.shape, bool)
    covered.ravel()[runs.pixels()[0]] = True
    away = ndimage.distance_transform_edt(~covered)
    depth = ndimage.distance_transform_edt(covered)
    regions = {"rim (2-4 px inside)": (depth >= 2) & (depth <= 4), "inside": covered}
    regions |= {f"ring ({RING} px)": (away > 0) & (away <= RING), "outside": away > RING}
    result = {"mean: grey std of the image": [float(grey.std())]}
    for name, region in regions.items():
        if region.any():
            result[f"mean: grey - 128, {name}"] = [float(grey[region].mean()) - 128]
            result[f"mean: grey std, {name}"] = [float(grey[region].std())]
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2 / grey.size**2
    radius = np.hypot(np.fft.fftfreq(grey.shape[0])[:, None], np.fft.fftfreq(grey.shape[1]))
    for low, high in pairwise(BANDS):
        result[f"mean: std at {low}-{high} cycles/px"] = [
            float(np.sqrt(power[(radius >= low) & (radius < high)].sum()))
        ]
    steep: Floats = np.percentile(np.hypot(*np.gradient(grey)), STEEP)
    return result | {f"mean: gradient {q} %": [float(value)] for q, value in zip(STEEP, steep, strict=True)}


def measure(table: pd.DataFrame, images: Path | None, masks: bool = True) -> dict[str, dict[str, float]]:
    """Measure the images of each type; without `images` only the masks."""
    found: dict[str, dict[str, list[float]]] = {}
    for (name, cell_type), rows in table.groupby(["id", "cell_type"]):
        runs = rle.parse(list(rows["annotation"]), int(rows["height"].iloc[0]), int(rows["width"].iloc[0]))
        measured = of_masks(runs) if masks else {}
        if images:
            measured |= of_image(cv2.imread(str(images / f"{name}.png"), cv2.IMREAD_GRAYSCALE), runs)
        for key, values in measured.items():
            found.setdefault(str(cell_type), {}).setdefault(key, []).extend(values)
    kinds = {"mean": np.mean, "std": np.std}
    return {
        cell_type: {key: float(kinds.get(key.split(":")[0], np.median)(values)) for key, values in f.items() if values}
        for cell_type, f in found.items()
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("generated", type=Path)
    parser.add_argument("--annotations", type=Path)
    args = parser.parse_args()
    real, generated = (
        measure(pd.read_csv(folder / "train.csv"), folder / "train") for folder in (args.real, args.generated)
    )
    for name, values in (measure(pd.read_csv(args.annotations), None) if args.annotations else {}).items():
        real.setdefault(name, {}).update(values)
    rows = [
        (t, k, real.get(t, {}).get(k, np.nan), value) for t, values in generated.items() for k, value in values.items()
    ]
    print(pd.DataFrame(rows, columns=["type", "statistic", "real", "generated"]).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
