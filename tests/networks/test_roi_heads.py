"""The size of masks, and scores that know how sure a mask is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sartorius.errors import InputError
from sartorius.networks.mask_rcnn import mask_predictor
from sartorius.networks.roi_heads import PyramidRoIAlign, RawDetections, maskness, reranked

from .conftest import target_of, tiny_network


def test_maskness_is_the_mean_probability_inside_the_mask() -> None:
    masks = torch.tensor([[[0.9, 0.7], [0.5, 0.1]], [[0.5, 0.4], [0.0, 0.2]], [[1.0, 1.0], [1.0, 1.0]]])
    torch.testing.assert_close(maskness(masks), torch.tensor([(0.9 + 0.7) / 2, 0.0, 1.0]))
    assert maskness(torch.zeros(0, 28, 28)).shape == (0,)


def test_detections_are_put_in_the_order_of_their_new_scores() -> None:
    values = [0.6, 1.0, 0.9]
    masks = torch.stack([torch.full((2, 2), value) for value in values])
    boxes = torch.arange(12.0).reshape(3, 4)
    found = reranked(RawDetections(boxes, torch.tensor([0.9, 0.7, 0.6]), torch.tensor([0, 1, 2]), masks))
    torch.testing.assert_close(found.scores, torch.tensor([0.7 * 1.0, 0.9 * 0.6, 0.6 * 0.9]))
    assert found.cell_types.tolist() == [1, 0, 2]
    assert torch.equal(found.boxes, boxes[[1, 0, 2]]) and torch.equal(found.masks, masks[[1, 0, 2]])


def test_a_network_ranks_by_masks_when_that_is_asked_for(example: Any) -> None:
    torch.manual_seed(0)
    network = tiny_network().eval()
    with torch.no_grad():
        plain = network([example[0]])[0]
        network.roi_heads.rerank = "mask"
        ranked = network([example[0]])[0]
    expected = (plain.scores * maskness(plain.masks)).sort(descending=True, stable=True)
    assert torch.equal(ranked.scores, expected.values)
    assert torch.equal(ranked.boxes, plain.boxes[expected.indices])
    assert ((ranked.scores >= 0) & (ranked.scores <= 1)).all() and (ranked.scores.diff() <= 0).all()
    with pytest.raises(InputError, match=r"rerank: expected one of none, mask, got 'boxes'"):
        tiny_network(rerank="boxes")


@pytest.mark.parametrize("size", [28, 56])
def test_masks_of_either_size_train_and_come_out(size: int, example: Any) -> None:
    image, instances = example
    torch.manual_seed(0)
    network = tiny_network(parts={"mask_size": size})
    losses = network([image], [target_of(instances)])
    losses["loss_mask"].backward()
    assert losses["loss_mask"] > 0
    assert all(p.grad is not None for p in network.roi_heads.mask_predictor.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert network.eval()([image])[0].masks.shape == (20, size, size)


def test_the_layers_that_enlarge_a_mask() -> None:
    shapes = [
        {name: tuple(v.shape) for name, v in mask_predictor(32, 4, 14, size).named_parameters() if "weight" in name}
        for size in (28, 56)
    ]
    assert shapes[0] == {"conv5_mask.weight": (32, 32, 2, 2), "mask_fcn_logits.weight": (4, 32, 1, 1)}
    assert shapes[1] == {
        "conv5_mask.weight": (32, 32, 2, 2),
        "conv6_mask.weight": (32, 16, 2, 2),
        "mask_fcn_logits.weight": (4, 16, 1, 1),
    }
    assert mask_predictor(32, 4, 14, 56)(torch.zeros(3, 32, 14, 14)).shape == (3, 4, 56, 56)
    for size in (14, 30, 42):
        with pytest.raises(InputError, match=rf"mask_size={size}: expected 28, 56, ...: .*mask_align.size=14"):
            mask_predictor(32, 4, 14, size)


def test_a_region_without_numbers_is_aligned_to_nothing() -> None:
    """Of regions in any order of levels, each is what it is alone; one of NaN is 0."""
    align = PyramidRoIAlign(2, 1, (4, 8), canonical_size=16, canonical_level=0)
    features = [torch.rand(1, 3, 8, 8), torch.rand(1, 3, 4, 4)]
    nothing = [0.0, *[float("nan")] * 4]
    rois = torch.tensor([[0.0, 0, 0, 32, 32], [0.0, 4, 4, 10, 12], nothing, [0.0, 1, 2, 31, 30], [0.0, 8, 0, 16, 8]])
    together = align(features, rois)
    assert torch.equal(together, torch.cat([align(features, roi[None]) for roi in rois]))
    assert (together.flatten(1).abs().amax(1) > 0).tolist() == [True, True, False, True, True]
