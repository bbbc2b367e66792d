"""The U-Net family through the commands: maps to cells by tiles, a second stage on top, and the LIVECell recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from sartorius.structures.detections import DetectionsFolder
from tests.smoke.test_pipeline import run

SMALL = ["trainer.precision=32-true", "transform=none", "debug=fast", "data.n_folds=4", "leaderboard=null"]
UNET = [
    "experiment=unet_effb0", "model.network.encoder.name=resnet10t", "model.network.encoder.levels=3",
    "model.network.channels=[8,8]", "model.decoder.min_area=1", "transform.crop=null",
]  # fmt: skip
CROPS = [
    "experiment=cropseg_cpu", "model.network.size=16", "model.network.body.encoder.name=resnet10t",
    "model.network.body.encoder.weights=none", "model.network.body.encoder.levels=2",
    "model.network.body.channels=[8,8]",
]  # fmt: skip
TILES = ["inference=tiles", "inference.size=32", "inference.overlap=12", "inference.margin=4"]


def test_unet_then_tiles_then_second_stage(tiny_competition: Path, tmp_path: Path) -> None:
    data = f"data.root={tiny_competition}"
    run(tmp_path, "train", *UNET, *SMALL, data, "hydra.run.dir=unet")
    scores = pd.read_csv(tmp_path / "unet" / "pixels_val.csv")
    assert scores.confluence_true.between(0, 1).all()
    assert {"val/map", "val/dice", "val/iou", "val/pixel_accuracy"} <= set(pd.read_csv(tmp_path / "unet/metrics.csv"))
    assert (tmp_path / "unet" / "plots" / "curves.png").is_file()

    images = [f"images={tiny_competition / 'test'}", "data.num_workers=0"]
    run(tmp_path, "predict", "checkpoint=unet/checkpoints/best.ckpt", *images, *TILES, "output=tiled")
    assert DetectionsFolder(tmp_path / "tiled" / "detections").meta["model"]["inference"]["size"] == 32

    run(tmp_path, "train", *CROPS, *SMALL, data, "hydra.run.dir=crops")
    table = pd.read_csv(tmp_path / "crops" / "crop_scores.csv")
    assert {"iou", "iou_ellipse", "gain"} <= set(table)
    stages = ["model=two_stage", "model.first=tiled/detections", "model.second=crops/checkpoints/best.ckpt"]
    run(tmp_path, "predict", *stages, *images, "output=both")
    first, both = (DetectionsFolder(tmp_path / name / "detections") for name in ("tiled", "both"))
    assert first.image_ids() == both.image_ids() == ["test00", "test01"]
    assert [len(d) for d in first] == [len(d) for d in both]
    run(tmp_path, "submit", "detections=both/detections", "output=submission.csv", data)


def test_livecell(tmp_path: Path) -> None:
    size = ["source.images={train: 8, val: 8, test: 8}", "source.height=40", "source.width=56", "source.shared=1"]
    text = run(tmp_path, "prepare", "source=synthetic_livecell", *size)
    assert "A172" in text
    small = ["model.network.encoder.filters=4", "model.network.channels=[8,8,4]", "data.limits.train=4"]
    options = ["data=synthetic_livecell", "debug=fast", "leaderboard=null", "hydra.run.dir=run"]
    text = run(tmp_path, "train", "experiment=unet_livecell", *options, *small)
    assert "confluence" in text
    test = pd.read_csv(tmp_path / "run" / "pixels_test.csv")
    assert len(test) == 2  # debug=fast
    assert test.accuracy.between(0, 1).all()
    meta = json.loads((tmp_path / "run" / "detections" / "meta.json").read_text())
    assert len(meta["cell_types"]) == 8
