"""Run folders as `train` and `evaluate` leave them, with cells that are found, missed and false."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from sartorius.data.competition.folder import Competition
from sartorius.metrics import report
from sartorius.structures.detections import Detections, DetectionsFolder
from sartorius.structures.instances import Instances
from tests.postprocess.pipelines import saved

POST = saved(score=0.5, mask=0.5, box_nms=0.9, mask_nms=0.5, min_area=0)
METRICS = (
    "epoch,step,lr-AdamW,train/loss,train/border,val/loss,val/map,val/map_cort,val/dice,val/iou\n"
    "0,9,0.1,2,1,,,,,\n0,19,0.2,1.5,0.5,,,,,\n0,19,,,,1.6,0.1,0.2,0.5,0.4\n1,39,0.1,1,0.5,1.2,0.2,0.3,0.6,0.5\n"
)


def imperfect(truth: Competition, image_id: str, seed: int = 0) -> Detections:
    """The cells without the first of several, of another type where their number is odd, and a false alarm."""
    cells = truth.instances(image_id)
    keep = np.arange(len(cells)) >= (len(cells) > 1)
    random = np.random.default_rng(seed)
    wrong = np.zeros((1, cells.height, cells.width), bool)
    wrong[0, 40:46, 50:60] = True
    types = cells.cell_types[keep] if len(cells) % 2 == 0 else (cells.cell_types[keep] + 1) % 3
    masks = np.array([cells.layers[cells.layer_of[k]] == k + 1 for k in np.flatnonzero(keep)], bool)
    masks = np.concatenate((masks.reshape(-1, cells.height, cells.width), wrong))
    made = Instances.from_masks(masks, [*types, 0])
    scores = random.uniform(0.6, 0.95, len(made)).astype(np.float32)
    return Detections.from_instances(image_id, made, scores, cell_type_names=truth.cell_type_names)


def write_run(folder: Path, root: Path, images: Sequence[str], *, curves: bool = True, seed: int = 0) -> Path:
    """A folder of `train` over these images of a competition folder; metrics.json is the metric code's own."""
    truth = Competition(root)
    written = DetectionsFolder(folder / "detections")
    written.write_meta(cell_types=list(truth.cell_type_names), mask_size=28, postprocess=POST)
    for image_id in images:
        written.write(imperfect(truth, image_id, seed))
    config = {
        "seed": seed,
        "run_dir": str(folder),
        "cell_types": list(truth.cell_type_names),
        "data": {
            "_target_": "sartorius.data.competition.datamodule.SupervisedDataModule",
            "name": "tiny",
            "root": str(root),
        },
        "callbacks": {"run_record": {"folder": str(folder), "about": {"experiment": "toy", "fold": 0, "seed": seed}}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "git.json").write_text(json.dumps({"commit": "0123456789abcdef", "branch": "main", "dirty": True}))
    if curves:
        (folder / "metrics.csv").write_text(METRICS)
    return folder


def write_scores(folder: Path, rows: np.ndarray, images: Sequence[str], types: Sequence[str]) -> dict[str, object]:
    """per_image.csv and metrics.json of rows, as `train` writes them; returns the numbers."""
    table = report.per_image_table(rows, images, types)
    table.to_csv(folder / "per_image.csv", index=False)
    numbers = {**report.summary(rows, types, sorted(set(types))), "epochs": 2, "seconds": 50.0, "cpu_seconds": 40.0}
    (folder / "metrics.json").write_text(json.dumps(numbers))
    return numbers
