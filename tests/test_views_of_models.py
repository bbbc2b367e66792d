"""Several views of each image with models as configs build them: masks come back exactly, every kind is predicted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from sartorius import evaluate, predict
from sartorius.errors import InputError
from sartorius.inference.tta import Augmented
from sartorius.inference.views import SYMMETRIES
from sartorius.networks import checkpoints
from sartorius.postprocess.paste import paste_masks
from sartorius.running import building, loading, wiring
from sartorius.structures.detections import Detections, DetectionsFolder
from tests.inference.test_tta import TURNS

MODELS = {
    "mask_rcnn": [
        "experiment=maskrcnn_r50_cpu", "model=maskrcnn_r18", "model.network.box_features=16",
        "model.network.mask_layers=[8]", "model.network.rpn.after_nms=[20,20]", "model.network.roi_heads.detections=8",
    ],
    "unet": [
        "experiment=unet_effb0", "model.network.encoder.name=resnet10t", "model.network.encoder.levels=3",
        "model.network.channels=[8,8]", "model.decoder.min_area=1",
    ],
    "crops": [
        "experiment=cropseg_cpu", "model.network.size=16", "model.network.body.encoder.name=resnet10t",
        "model.network.body.encoder.weights=none", "model.network.body.encoder.levels=2",
        "model.network.body.channels=[8,8]",
    ],
}  # fmt: skip
Predict = Callable[..., DetectionsFolder]
INVERSE = {name: name for name in SYMMETRIES} | {"turn_90": "turn_270", "turn_270": "turn_90"}


def config(command: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        return compose(command, overrides=list(overrides))


@pytest.fixture(scope="module")
def checkpoint_paths(tiny_competition: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each kind of model, with random weights."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, overrides in MODELS.items():
        torch.manual_seed(0)
        fixed = ["data.n_folds=4", "transform=none", f"data.root={tiny_competition}", f"run_dir={folder}"]
        cfg = config("train", *overrides, *fixed)
        cfg.callbacks = cfg.logger = None  # they ask which experiment was chosen
        module = building.build_module(cfg)
        torch.save({"state_dict": module.state_dict(), checkpoints.KEY: dict(module.hparams)}, folder / f"{name}.ckpt")
    return {name: folder / f"{name}.ckpt" for name in MODELS}


@pytest.fixture
def run(tiny_competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predict:
    """Predict the tiny test images on the CPU, detections alone; returns the detections."""
    monkeypatch.chdir(tmp_path)

    def program(*overrides: str) -> DetectionsFolder:
        fixed = [f"images={tiny_competition / 'test'}", "data.num_workers=0", "write=[]"]
        cfg = config("predict", *fixed, "trainer.accelerator=cpu", *overrides)
        predict.main(cfg)
        return DetectionsFolder(tmp_path / cfg.output / "detections")

    return program


def pixels(found: Detections) -> list[np.ndarray]:
    """Each mask in its image, bool [H, W]."""
    pasted = paste_masks(found.boxes, found.masks, np.full(len(found), 0.5), found.height, found.width)
    full = np.zeros((len(found), found.height * found.width), bool)
    full[pasted.mask, pasted.pixel] = True
    return list(full.reshape(len(found), found.height, found.width))


def detect(module: Any, image: np.ndarray) -> Detections:
    batch = SimpleNamespace(images=[torch.from_numpy(image.copy())[None]], targets=[SimpleNamespace(image_id="p")])
    with torch.no_grad():
        found: Detections = module.detect(batch)[0]
    return found


def test_masks_of_a_mask_rcnn_come_back_as_numpy_turns_them(checkpoint_paths: dict[str, Path]) -> None:
    """What the network says of the turned image, turned back pixel by pixel: boxes of any position and size."""
    module: Any = loading.load_module(checkpoint_paths["mask_rcnn"])
    plain, image = module.inference, np.random.default_rng(0).integers(0, 256, (45, 70)).astype(np.uint8)
    for name, turn in TURNS.items():
        module.inference = plain
        seen = detect(module, turn(image))
        assert 3 < len(seen) <= 8 and (seen.boxes % 1 > 0).any()
        module.inference = Augmented(symmetries=[name], scales=[1.0], fuse=None, windows=plain)
        back = detect(module, image)
        assert (back.height, back.width) == (45, 70)
        for own, turned in zip(pixels(back), pixels(seen), strict=True):
            np.testing.assert_array_equal(own, TURNS[INVERSE[name]](turned), err_msg=name)
        np.testing.assert_array_equal(back.scores, seen.scores)
        np.testing.assert_array_equal(back.cell_types, seen.cell_types)


@pytest.mark.parametrize("tta", ["none", "flips", pytest.param("d4", marks=pytest.mark.slow), "scales"])
def test_views_of_a_mask_rcnn_differ_and_are_joined(checkpoint_paths: dict[str, Path], run: Predict, tta: str) -> None:
    folder = run(f"checkpoint={checkpoint_paths['mask_rcnn']}", f"tta={tta}", f"output={tta}")
    assert folder.image_ids() == ["test00", "test01"]
    for found in folder:
        assert len(found) and np.isfinite(found.masks).all() and (found.height, found.width) == (48, 64)
        assert (found.agreement is None) == (tta == "none")
        if found.agreement is not None:
            assert 0 < found.agreement.min() <= found.agreement.max() <= 1


@pytest.mark.parametrize("tta", [pytest.param("d4", marks=pytest.mark.slow), "scales"])
def test_views_of_a_unet_and_of_two_stages(checkpoint_paths: dict[str, Path], run: Predict, tta: str) -> None:
    unet = run(f"checkpoint={checkpoint_paths['unet']}", f"tta={tta}", "output=unet")
    assert unet.image_ids() == ["test00", "test01"] and unet.load("test00").agreement is None, "maps are averaged"
    stages = ["checkpoint=null", "model=two_stage", f"model.second={checkpoint_paths['crops']}", f"tta={tta}"]
    both = run(*stages, f"model.first={checkpoint_paths['mask_rcnn']}", "output=both").load("test00")
    alone = run(f"checkpoint={checkpoint_paths['mask_rcnn']}", f"tta={tta}", "output=alone").load("test00")
    np.testing.assert_array_equal(both.scores, alone.scores, err_msg="the first stage sees the views")
    assert both.mask_size == 56 and len(both) > 5


def test_evaluate_with_several_views(
    checkpoint_paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fixed = [f"checkpoint={checkpoint_paths['mask_rcnn']}", "data.num_workers=0", "trainer.accelerator=cpu"]
    numbers = evaluate.main(config("evaluate", *fixed, "tta=flips", "bootstrap.samples=10", "output=flips"))
    folder = DetectionsFolder(tmp_path / "flips" / "detections")
    assert numbers["images"] == len(folder.image_ids()) == 3
    assert all(found.agreement is not None for found in folder)
    assert folder.meta["tta"]["symmetries"] == ["none", "left_right", "up_down", "turn_180"]
    with pytest.raises(InputError, match="tta.fuse=null joins no views"):
        evaluate.main(config("evaluate", *fixed, "tta=flips", "tta.fuse=null", "output=apart"))
    with pytest.raises(InputError, match="tta= is applied by a network; it goes with checkpoint= only"):
        evaluate.main(config("evaluate", "detections=[x]", "tta=flips"))
