"""LIVECell first, the competition after it: through the command line, and what must not be started from."""

from __future__ import annotations

from pathlib import Path

import torch

from sartorius.data.livecell.folder import CELL_LINES
from sartorius.networks.checkpoints import KEY
from tests.smoke.test_pipeline import run

SMALL = [
    "debug=fast", "transform=none", "trainer.precision=32-true", "model.body=resnet18", "leaderboard=null",
    "largest_checkpoint=null",
    "model.network.box_features=16", "model.network.mask_layers=[8]", "model.network.rpn.after_nms=[50,50]",
    "model.network.roi_heads.detections=20",
]  # fmt: skip


def test_pretrain_and_finetune(tiny_competition: Path, tmp_path: Path) -> None:
    size = ["source.images={train: 8, val: 8, test: 8}", "source.height=40", "source.width=56"]
    run(tmp_path, "prepare", "source=synthetic_livecell", *size)
    pretraining = ["experiment=pretrain_livecell", "data=synthetic_livecell", "hydra.run.dir=runs/pretrain_livecell"]
    run(tmp_path, "train", *pretraining, *SMALL)
    first = torch.load(tmp_path / "runs/pretrain_livecell/checkpoints/best.ckpt", weights_only=True)
    assert first[KEY]["cell_types"] == list(CELL_LINES)
    assert len(first[KEY]["trained_on"]) == 8

    folder = ["experiment=finetune_livecell", f"data.root={tiny_competition}", "data.n_folds=4", *SMALL]
    text = run(tmp_path, "train", *folder, "hydra.run.dir=fold0")  # the experiment's own weights
    assert "cell types: shsy5y from SHSY5Y; astro, cort from the mean of all 8" in text
    assert "start from nothing" not in text
    second = torch.load(tmp_path / "fold0/checkpoints/best.ckpt", weights_only=True)
    note = second[KEY]["trained_on"]
    assert set(first[KEY]["trained_on"]) < set(note)
    assert note["astro00"].startswith("astro[x]_A1") or note["astro01"].startswith("astro[x]_B2")

    weights = ["model.weights=fold0/checkpoints/best.ckpt", "model.class_mapping=null"]
    error = run(tmp_path, "train", *folder, *weights, "data.fold=1", "hydra.run.dir=fold1", code=1)
    assert "error: model.weights=fold0/checkpoints/best.ckpt: was trained on 3 of the 3 validation images" in error
    assert not (tmp_path / "fold1" / "checkpoints").exists()
