import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sartorius.errors import InputError
from sartorius.structures.instances import Instances


def three_cells() -> np.ndarray:
    """Cells 0 and 1 overlap in one pixel, cell 2 stands apart."""
    masks = np.zeros((3, 5, 6), bool)
    masks[0, 1:3, 1:3] = masks[1, 2:4, 2:5] = masks[2, 0, 5] = True
    return masks


def to_masks(instances: Instances) -> np.ndarray:
    masks = np.zeros((len(instances), instances.height, instances.width), bool)
    for k in range(len(instances)):
        masks[k] = (instances.layers == k + 1).any(axis=0)
    return masks


def test_overlapping_cells_lie_in_different_layers() -> None:
    instances = Instances.from_masks(three_cells(), [0, 1, 2])
    assert instances.layers.shape == (2, 5, 6)
    assert instances.layer_of.tolist() == [0, 1, 0]
    assert instances.areas.tolist() == [4, 6, 1]
    assert instances.boxes.tolist() == [[1, 1, 3, 3], [2, 2, 5, 4], [5, 0, 6, 1]]
    np.testing.assert_array_equal(to_masks(instances), three_cells())
    np.testing.assert_array_equal(instances.foreground(), three_cells().any(axis=0))
    top, left, crop = instances.crop_mask(1)
    assert (top, left, crop.shape, crop.all()) == (2, 2, (2, 3), True)


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.booleans(), min_size=n * 20, max_size=n * 20)))
def test_masks_survive_however_they_overlap(bits: list[bool]) -> None:
    masks = np.array(bits).reshape(-1, 4, 5)
    instances = Instances.from_masks(masks, np.zeros(len(masks)))
    np.testing.assert_array_equal(to_masks(instances), masks)
    assert len(instances.layers) <= max(len(masks), 1)
    assert instances.areas.tolist() == masks.sum(axis=(1, 2)).tolist()
    assert Instances.from_rles(instances.to_rles(), instances.cell_types, 4, 5).to_rles() == instances.to_rles()


def test_a_pile_of_cells_needs_a_layer_each() -> None:
    masks = np.ones((7, 2, 2), bool)
    assert Instances.from_masks(masks, np.zeros(7)).layer_of.tolist() == list(range(7))


def test_empty_image() -> None:
    instances = Instances.empty(3, 4)
    assert (len(instances), instances.height, instances.width) == (0, 3, 4)
    assert instances.boxes.shape == (0, 4)
    assert instances.to_rles() == []
    assert instances.select([]).layers.shape == (1, 3, 4)
    assert Instances.from_rles([], [], 3, 4).layers.shape == (1, 3, 4)


def test_a_cell_without_pixels_has_no_box() -> None:
    instances = Instances.from_rles(["", "1 2"], [0, 0], 2, 2)
    assert instances.areas.tolist() == [0, 2]
    assert instances.boxes.tolist() == [[0, 0, 0, 0], [0, 0, 2, 1]]
    assert instances.to_rles() == ["", "1 2"]
    assert instances.select(instances.areas > 0).to_rles() == ["1 2"]


def test_select_renumbers_in_the_order_asked_for_and_drops_layers() -> None:
    instances = Instances.from_masks(three_cells(), [0, 1, 2])
    chosen = instances.select([2, 0])
    assert chosen.layers.shape[0] == 1
    assert chosen.cell_types.tolist() == [2, 0]
    np.testing.assert_array_equal(to_masks(chosen), three_cells()[[2, 0]])
    np.testing.assert_array_equal(to_masks(instances.select(instances.areas > 1)), three_cells()[:2])
    assert len(instances.select(np.zeros(3, bool))) == 0


def test_label_map() -> None:
    instances = Instances.from_label_map(np.array([[0, 2], [1, 2]]), [0, 1])
    assert instances.to_rles() == ["3 1", "2 1 4 1"]
    with pytest.raises(ValueError, match="up to 2 but 1 cell types"):
        Instances.from_label_map(np.array([[0, 2]]), [0])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="2 cells but 1 cell types"):
        Instances.from_rles(["1 1", "2 1"], [0], 2, 2)
    with pytest.raises(ValueError, match="uint16"):
        Instances(np.zeros((1, 2, 2), np.int32), np.zeros(0, np.int64))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at most 65535"):
        Instances.from_rles([""] * 65536, np.zeros(65536), 2, 2)
