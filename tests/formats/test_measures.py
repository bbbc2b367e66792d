from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops_table

from sartorius.formats.measures import measure
from sartorius.structures.instances import Instances

PROPERTIES = (
    "label", "area", "perimeter", "centroid", "axis_major_length", "axis_minor_length", "eccentricity", "solidity",
    "intensity_mean",
)  # fmt: skip


def blobs(seed: int, height: int = 90, width: int = 120, smooth: float = 2.0) -> np.ndarray:
    """A label map of ragged cells with holes; some touch each other, some the edge, some have several pieces."""
    rng = np.random.default_rng(seed)
    labels, count = ndimage.label(ndimage.gaussian_filter(rng.normal(size=(height, width)), smooth) > 0.02)
    labels[labels > 0] = rng.permutation(np.arange(1, count + 1))[labels[labels > 0] - 1]
    labels[:, width // 2][labels[:, width // 2] > 0] = 1  # one cell in many pieces, cutting others in two
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


@pytest.mark.parametrize("smooth", [0.0, 0.7, 2.0, 4.0])
@pytest.mark.parametrize("seed", range(3))
def test_as_regionprops(seed: int, smooth: float) -> None:
    labels = blobs(seed, smooth=smooth)
    grey = np.random.default_rng(seed).integers(0, 256, labels.shape, dtype=np.uint8)
    found = measure(Instances.from_label_map(labels, np.zeros(labels.max(), np.int64)), grey)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = regionprops_table(labels, grey, properties=PROPERTIES)
    assert found.intensity is not None
    ours = {
        "area": found.area, "perimeter": found.perimeter, "centroid-0": found.centroid[:, 0],
        "centroid-1": found.centroid[:, 1], "axis_major_length": found.axis_major,
        "axis_minor_length": found.axis_minor, "eccentricity": found.eccentricity, "solidity": found.solidity,
        "intensity_mean": found.intensity,
    }  # fmt: skip
    assert {*ours, "label"} == set(expected)
    for name, values in ours.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-6, rtol=0, err_msg=name)
    boxes = ndimage.find_objects(labels)
    assert found.touches_border.tolist() == [
        y.start == 0 or x.start == 0 or y.stop == labels.shape[0] or x.stop == labels.shape[1] for y, x in boxes
    ]


def test_layers_are_measured_alone() -> None:
    """Two discs that share pixels have the measurements that each has alone."""
    y, x = np.mgrid[:40, :60]
    masks = np.stack([(x - centre) ** 2 + (y - 20) ** 2 <= 100 for centre in (22, 34)])
    both = measure(Instances.from_masks(masks, [0, 0]))
    for k in range(2):
        alone = measure(Instances.from_masks(masks[k : k + 1], [0]))
        for name in ("area", "perimeter", "axis_major", "solidity", "centroid"):
            assert np.array_equal(vars(both)[name][k], vars(alone)[name][0]), name


def test_none_and_cells_without_pixels() -> None:
    assert len(measure(Instances.empty(5, 6), np.zeros((5, 6), np.uint8)).area) == 0
    found = measure(Instances.from_label_map(np.eye(4, dtype=np.int64) * 2, [0, 0]))
    assert found.area.tolist() == [0, 4] and found.touches_border.tolist() == [False, True]
    assert np.isnan(found.solidity[0]) and np.isnan(found.centroid[0]).all() and np.isnan(found.perimeter[0])
    assert found.intensity is None
