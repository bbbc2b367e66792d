"""Two stages: which masks are replaced, what stays, and where the first stage's detections come from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sartorius.errors import InputError
from sartorius.modules.crop_segmenter import CropSegmenterModule
from sartorius.modules.two_stage import TwoStageModule
from sartorius.postprocess.paste import paste_masks
from sartorius.structures.detections import Detections, DetectionsFolder
from tests.doubles import ToyModule
from tests.modules.test_crop_segmenter import BoxItself, module

HEIGHT, WIDTH = 60, 80
BOXES = np.array([[10, 10, 30, 22], [40, 5, 50, 35], [60.5, 40.25, 79, 60]], np.float32)


def given(image_id: str = "a", size: int = 28, count: int = 3) -> Detections:
    """Detections whose masks are 0.6 in the left half of their box."""
    masks = np.zeros((3, size, size), np.float16)
    masks[:, :, : size // 2] = 0.6
    scores = np.array([0.9, 0.04, 0.5], np.float32)
    whole = Detections(image_id, HEIGHT, WIDTH, BOXES, scores, np.array([0, 2, 1]), masks, ("x", "y", "z"))
    return whole.select(np.arange(count))


def batch(*images: str) -> SimpleNamespace:
    targets = [SimpleNamespace(image_id=image_id, scale=1.0, pixel_size=None) for image_id in images]
    return SimpleNamespace(
        images=[torch.full((1, HEIGHT, WIDTH), 128, dtype=torch.uint8)] * len(images), targets=targets
    )


class First(ToyModule):
    """Gives the detections above, whatever it sees."""

    def __init__(self, count: int = 3) -> None:
        super().__init__(cell_type_names=("x", "y", "z"))
        self.count = count
        self.hparams.update(postprocess={"score": 0.1}, data="tiny", model={"first": 1})

    def detect(self, batch) -> list[Detections]:
        return [given(target.image_id, count=self.count) for target in batch.targets]


def two_stage(first=None, second: CropSegmenterModule | None = None, **options) -> TwoStageModule:
    options = {"min_score": 0.1, "box_probability": None, "combine": "replace", "mask_size": 28, **options}
    second = module(size=64) if second is None else second
    return TwoStageModule(First() if first is None else first, second, **options).eval()


def detect(stages: TwoStageModule, *images: str) -> list[Detections]:
    with torch.inference_mode():
        return stages.predict_step(batch(*(images or ("a",))), 0)


def pasted(detections: Detections, threshold: float = 0.5) -> np.ndarray:
    found = paste_masks(detections.boxes, detections.masks, np.full(len(detections), threshold), HEIGHT, WIDTH)
    return found.areas


def test_masks_are_replaced_where_the_score_is_high() -> None:
    before = given()
    (after,) = detect(two_stage())
    assert after.scores.tolist() == before.scores.tolist()
    assert after.cell_types.tolist() == before.cell_types.tolist()
    assert after.cell_type_names == ("x", "y", "z")
    assert after.boxes[1].tolist() == BOXES[1].tolist()
    assert np.array_equal(after.masks[1], before.masks[1])
    assert pasted(after)[0] == pytest.approx(20 * 12, rel=0.03)  # the second stage says: all of the box
    assert pasted(before)[0] == 20 * 12 / 2
    assert pasted(after)[2] == pytest.approx(18.5 * 19.75, rel=0.04)
    assert after.boxes.dtype == np.float32 and after.masks.dtype == np.float16
    assert (after.boxes >= 0).all() and (after.boxes <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()


def test_the_second_stage_is_given_what_the_first_believes() -> None:
    """The first stage's mask fills half of its box: the second, which says all of the box, then says that half."""
    (whole,), (half,) = detect(two_stage()), detect(two_stage(box_probability=0.5))
    assert pasted(whole)[0] == pytest.approx(20 * 12, rel=0.03)
    assert pasted(half)[0] == pytest.approx(20 * 12 / 2, rel=0.15)  # a bin of the first's mask wider
    (nothing,) = detect(two_stage(box_probability=0.99))  # above every probability: the boxes as they are
    assert pasted(nothing).tolist() == pasted(whole).tolist()


def test_the_mean_of_both() -> None:
    (after,) = detect(two_stage(combine="mean"))
    inner = after.masks[0, 8:20].astype(float)
    assert inner[:, 6:10] == pytest.approx((1 + 0.6) / 2, abs=0.01)
    assert inner[:, 17:22] == pytest.approx((1 + 0) / 2, abs=0.01)


def test_another_mask_size_resamples_the_masks_left_alone() -> None:
    (after,) = detect(two_stage(mask_size=56, min_score=2.0))
    assert after.mask_size == 56
    assert after.boxes.tolist() == BOXES.tolist()
    assert pasted(after, 0.3).tolist() == pytest.approx(pasted(given(), 0.3).tolist(), rel=0.02)


def test_where_the_second_sees_nothing_the_first_stays() -> None:
    blind = module(BoxItself(-20.0), low=1 - 1e-12)
    (after,) = detect(two_stage(second=blind, combine="mean"))
    assert after.boxes.tolist() == BOXES.tolist()
    assert np.array_equal(after.masks, given().masks)


def test_no_detections() -> None:
    (after,) = detect(two_stage(First(count=0), mask_size=56))
    assert (len(after), after.masks.shape) == (0, (0, 56, 56))


def folder(path: Path) -> DetectionsFolder:
    written = DetectionsFolder(path)
    written.write_meta(
        cell_types=["x", "y", "z"], mask_size=28, postprocess={"score": 0.3}, model={"m": 1}, data="tiny"
    )
    for image_id in ("a", "b"):
        written.write(given(image_id))
    return written


def test_a_folder_as_the_first_stage(tmp_path: Path) -> None:
    stages = two_stage(folder(tmp_path))
    assert [found.image_id for found in detect(stages, "b", "a")] == ["b", "a"]
    assert np.array_equal(detect(stages)[0].masks, detect(two_stage())[0].masks)
    assert stages.cell_type_names == ("x", "y", "z")
    assert stages.hparams["postprocess"] == {"score": 0.3}
    with pytest.raises(InputError, match="c.npz: not a readable detections file"):
        detect(stages, "c")
    larger = batch("a")
    larger.images = [torch.zeros(1, 90, 100, dtype=torch.uint8)]
    with pytest.raises(InputError, match="a was 80x60 pixels when it was predicted, the image here has 100x90"):
        stages.predict_step(larger, 0)


def test_the_metadata_name_both_stages() -> None:
    second = module()
    second.hparams.update(model={"second": 2})
    metadata = two_stage(second=second).hparams
    assert metadata["postprocess"] == {"score": 0.1}
    assert metadata["model"]["first"] == {"first": 1}
    assert metadata["model"]["second"] == {"second": 2}
    assert metadata["model"]["_target_"].endswith("two_stage.TwoStageModule")
    assert metadata["model"]["combine"] == "replace"


def test_what_it_refuses() -> None:
    with pytest.raises(InputError, match="model.first=<a checkpoint or a folder"):
        TwoStageModule(None, module(), min_score=0.1, box_probability=None, combine="replace", mask_size=28)
    with pytest.raises(InputError, match="model.second: a First, expected a crop segmenter"):
        two_stage(second=First())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="model.combine: expected one of replace, mean, got 'max'"):
        two_stage(combine="max")
    with pytest.raises(InputError, match="not trained as a whole"):
        two_stage().configure_optimizers()
