from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sartorius.errors import InputError
from sartorius.networks.class_mapping import ClassMapping

LINES = ("A172", "BV2", "SHSY5Y", "SKOV3")
TYPES = ("shsy5y", "astro", "cort")
CLS, BOX, MASK = (
    f"roi_heads.{name}"
    for name in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
)


def heads(types: int) -> dict[str, Tensor]:
    """Heads whose row r of a type holds 10 t + r, t = 0 for background."""
    rows = torch.arange(types + 1.0) * 10
    boxes = (rows[:, None] + torch.arange(4.0)).flatten()
    return {
        f"{CLS}.weight": rows[:, None].repeat(1, 5), f"{CLS}.bias": rows.clone(),
        f"{BOX}.weight": boxes[:, None].repeat(1, 5), f"{BOX}.bias": boxes,
        f"{MASK}.weight": rows.reshape(-1, 1, 1, 1).repeat(1, 3, 1, 1), f"{MASK}.bias": rows.clone(),
        "roi_heads.box_predictor.1.cls_score.bias": rows.clone(),
        "roi_heads.box_predictor.1.bbox_pred.bias": torch.zeros(4),
        "roi_heads.box_head.fc6.bias": torch.ones(4),
    }  # fmt: skip


def test_rows_go_by_name_and_the_rest_is_the_mean() -> None:
    found = ClassMapping(LINES, TYPES, {"shsy5y": "SHSY5Y"}, "a.ckpt").apply(heads(4), heads(3))
    mean = (10 + 20 + 30 + 40) / 4
    assert found[f"{CLS}.bias"].tolist() == [0, 30, mean, mean]
    assert found[f"{BOX}.bias"].tolist() == [0, 1, 2, 3, 30, 31, 32, 33, *2 * [mean, mean + 1, mean + 2, mean + 3]]
    assert found["roi_heads.box_predictor.1.cls_score.bias"].tolist() == [0, 30, mean, mean]
    for name, value in heads(3).items():
        assert found[name].shape == value.shape
    assert torch.equal(found["roi_heads.box_head.fc6.bias"], torch.ones(4))
    assert torch.equal(found["roi_heads.box_predictor.1.bbox_pred.bias"], torch.zeros(4))  # for all types together
    for name in (CLS, BOX, MASK):
        assert torch.equal(found[f"{name}.weight"].flatten(1)[:, 0], found[f"{name}.bias"])


def test_the_same_types_in_another_order() -> None:
    mapped = ClassMapping(TYPES, TYPES[::-1], {}, "a")
    assert not mapped.same
    assert mapped.apply(heads(3), heads(3))[f"{CLS}.bias"].tolist() == [0, 30, 20, 10]
    assert ClassMapping(TYPES, TYPES, {}, "a").same
    assert not ClassMapping(TYPES, TYPES[:2], {}, "a").same


def test_a_unet_keeps_its_other_maps() -> None:
    theirs = {"head.weight": torch.arange(7.0)[:, None], "head.bias": torch.arange(7.0)}  # 3 maps, 4 lines
    ours = {"head.weight": torch.zeros(6, 1), "head.bias": torch.zeros(6)}
    found = ClassMapping(LINES, TYPES, {"shsy5y": "SHSY5Y"}, "a").apply(theirs, ours)
    mean = (3 + 4 + 5 + 6) / 4
    assert found["head.bias"].tolist() == [0, 1, 2, 5, mean, mean] == found["head.weight"].flatten().tolist()
    other = {"head.bias": torch.zeros(8)}  # other maps: their rows mean something else
    assert torch.equal(ClassMapping(LINES, TYPES, {}, "a").apply(theirs, other)["head.bias"], theirs["head.bias"])


def test_what_is_said() -> None:
    assert str(ClassMapping(LINES, TYPES, {"shsy5y": "SHSY5Y"}, "a")) == (
        "shsy5y from SHSY5Y; astro, cort from the mean of all 4"
    )


def test_bad_names() -> None:
    with pytest.raises(
        InputError, match="model.class_mapping: 'neuron' is no cell type here; expected some of shsy5y, astro"
    ):
        ClassMapping(LINES, TYPES, {"neuron": "SHSY5Y"}, "a")
    with pytest.raises(
        InputError, match="model.class_mapping.shsy5y=SHSY5: a.ckpt was trained on A172, BV2, SHSY5Y, SKOV3"
    ):
        ClassMapping(LINES, TYPES, {"shsy5y": "SHSY5"}, "a.ckpt")
