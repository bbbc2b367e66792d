from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from sartorius.postprocess.watershed import find_basins

EVERYWHERE = np.ones((3, 3), bool)


def field(seed: int, shape: tuple[int, int] = (120, 150), sigma: float = 4.0) -> np.ndarray:
    """A smooth random field from 0 to 1."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return ((values - values.min()) / np.ptp(values)).astype(np.float32)


def label_map(height: np.ndarray, inside: np.ndarray, depth: float) -> np.ndarray:
    found = find_basins(height, inside, depth)
    labels = np.zeros(height.shape, np.int64)
    labels.ravel()[found.pixel] = found.basin + 1
    assert labels[inside].all() if inside.any() else not labels.any()
    assert labels.max(initial=0) == len(found.peaks)
    return labels


def summits(height: np.ndarray, inside: np.ndarray, depth: float) -> list[float]:
    """Heights of the summits that rise at least `depth` above the pass to a higher one, pixel by pixel, sorted."""
    parent: dict[tuple[int, int], tuple[int, int]] = {}
    kept = []

    def find(at: tuple[int, int]) -> tuple[int, int]:
        return at if parent[at] == at else find(parent[at])

    for level, row, column in sorted(((height[y, x], y, x) for y, x in zip(*np.nonzero(inside), strict=True)))[::-1]:
        parent[row, column] = (row, column)
        for near in ((row + dy, column + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
            if near in parent and find(near) != find((row, column)):
                low, high = sorted((find(near), find((row, column))), key=lambda at: height[at])
                parent[low] = high
                if height[low] - level >= depth and height[low] > level:
                    kept.append(float(height[low]))
    return sorted(kept + [float(height[at]) for at in parent if parent[at] == at])


@pytest.mark.parametrize("depth", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_h_maxima_and_a_flooding_watershed(seed: int, depth: float) -> None:
    height = field(seed)
    ours = label_map(height, np.ones(height.shape, bool), depth)
    seeds, count = ndimage.label(h_maxima(height.astype(np.float64), depth), EVERYWHERE)
    assert ours.max() == count > 1
    assert len(np.unique(ours[seeds > 0])) == count
    theirs = watershed(-height, seeds, connectivity=2)
    shared = np.bincount(ours.ravel() * (count + 1) + theirs.ravel(), minlength=(count + 1) ** 2)
    shared = shared.reshape(count + 1, count + 1)[1:, 1:]
    union = shared.sum(0)[None] + shared.sum(1)[:, None] - shared
    assert (shared / union).max(axis=0).mean() > 0.93


@pytest.mark.parametrize("levels", [0, 3, 12])
@pytest.mark.parametrize("seed", range(4))
def test_summits_are_those_of_a_merge_tree(seed: int, levels: int) -> None:
    """On a part of the image, with heights below zero, and (levels) with plateaus."""
    height = field(seed, (30, 36), 1.5) - np.float32(0.5)
    if levels:
        height = np.round(height * levels).astype(np.float32)
    inside = field(seed + 10, (30, 36), 2.0) > 0.45
    for depth in (0.0, 0.1 * max(levels, 1), 1.5 * max(levels, 1)):
        found = find_basins(height, inside, depth)
        assert sorted(found.peaks.tolist()) == summits(height, inside, depth)


@pytest.mark.parametrize("seed", range(3))
def test_basins_are_connected_and_never_cross_the_background(seed: int) -> None:
    height, inside = field(seed), field(seed + 5) > 0.5
    labels = label_map(height, inside, 0.05)
    for k in range(1, labels.max() + 1):
        assert ndimage.label(labels == k, EVERYWHERE)[1] == 1
    everything = label_map(height, inside, 2.0)  # nothing rises that much: one basin a piece
    pieces, count = ndimage.label(inside, EVERYWHERE)
    assert everything.max() == count == len(np.unique(pieces[inside] * 1000 + everything[inside]))


def test_sides_of_the_image_do_not_touch() -> None:
    inside = np.zeros((5, 6), bool)
    inside[:, [0, 5]] = True
    assert label_map(np.ones((5, 6), np.float32), inside, 1.0).max() == 2


def test_a_plateau_is_one_basin_even_without_depth() -> None:
    bent = np.zeros((9, 9), bool)
    bent[1:8, [1, 7]] = bent[1, 1:8] = True  # both feet have a highest index of their own
    assert label_map(np.zeros((9, 9), np.float32), bent, 0.0).max() == 1
    height = np.where(bent, 1.0, np.float32(-0.0)).astype(np.float32)
    height[::2, ::2] += 0.0  # zeros of both signs are equal
    assert label_map(height, np.ones((9, 9), bool), 0.0).max() == 1


def test_merging_depends_on_the_lower_summit() -> None:
    height = np.array([[0.9, 0.5, 0.7, 0.65, 0.8]], np.float32)
    inside = np.ones((1, 5), bool)
    assert label_map(height, inside, 0.04).tolist() == [[1, 1, 2, 3, 3]]
    assert label_map(height, inside, 0.1).tolist() == [[1, 1, 2, 2, 2]]  # 0.7 rises 0.05 above 0.65
    assert label_map(height, inside, 0.29).max() == 2  # 0.8 rises 0.3 above 0.5
    found = find_basins(height, inside, 0.31)
    assert found.peaks.tolist() == [np.float32(0.9)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (4, 5)])
def test_nothing_and_everything(shape: tuple[int, int]) -> None:
    flat = np.full(shape, 0.5, np.float32)
    assert label_map(flat, np.zeros(shape, bool), 0.1).max() == 0
    assert label_map(flat, np.ones(shape, bool), 0.1).max() == 1
