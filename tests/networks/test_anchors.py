import pytest
import torch

from sartorius.networks.anchors import AnchorGrid


def test_anchors_are_centred_on_the_pixels_they_stand_for() -> None:
    grid = AnchorGrid([[4.0, 8.0], [16.0, 32.0]], [1.0])
    fine, coarse = grid([torch.zeros(1, 8, 8, 16), torch.zeros(1, 8, 4, 8)], (32, 64))
    assert fine.shape == (8 * 16 * 2, 4)
    assert fine[0].tolist() == [0.0, 0.0, 4.0, 4.0]  # middle (2, 2) of the first 4x4 pixels
    assert fine[1].tolist() == [-2.0, -2.0, 6.0, 6.0]
    assert fine[2].tolist() == [4.0, 0.0, 8.0, 4.0]  # the next column first, as the head is flattened
    assert coarse[0].tolist() == [-4.0, -4.0, 12.0, 12.0]


def test_ratios_keep_the_area() -> None:
    anchors = AnchorGrid([[8.0]], [0.5, 1.0, 2.0])([torch.zeros(1, 1, 1, 1)], (4, 4))[0]
    width, height = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    torch.testing.assert_close(width * height, torch.full((3,), 64.0))
    torch.testing.assert_close(height / width, torch.tensor([0.5, 1.0, 2.0]))


def test_order_is_that_of_the_heads_output() -> None:
    """An index is (row, column, anchor): what concat_box_prediction_layers makes of the head's channels."""
    anchors = AnchorGrid([[4.0, 8.0]], [1.0])([torch.zeros(1, 1, 2, 3)], (8, 12))[0]
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert middle.reshape(2, 3, 2, 2)[1, 2].tolist() == [[10.0, 6.0], [10.0, 6.0]]


def test_uneven_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="same number"):
        AnchorGrid([[4.0], [8.0, 16.0]], [1.0])
    with pytest.raises(ValueError, match="1 feature levels but anchor sizes for 2"):
        AnchorGrid([[4.0], [8.0]], [1.0])([torch.zeros(1, 1, 2, 3)], (8, 12))
