from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sartorius.errors import InputError
from sartorius.postprocess.decoders import Components, OffsetVoting, Watershed
from sartorius.postprocess.maps import CellMaps, Decoded
from sartorius.structures.instances import MAX_CELLS

WATERSHED = Watershed(foreground_low=0.3, border_weight=0.0, smooth=0.0, depth=0.2, peak=0.3, min_area=5)
VOTING = OffsetVoting(foreground_low=0.3, smooth=1.0, depth=0.3, min_area=5, largest_piece=True)
COMPONENTS = Components(threshold=0.5, min_area=5)
DECODERS = pytest.mark.parametrize("decoder", [WATERSHED, VOTING, COMPONENTS], ids=lambda d: type(d).__name__)

# row, column, half axes, angle: two pairs that touch, one that stands alone and is cut by the image
ELLIPSES = [(30, 30, 16, 6, 0.3), (43, 31, 16, 6, 0.3), (80, 70, 9, 7, 0.0), (80, 86, 9, 7, 0.0), (20, 97, 12, 6, 1.2)]


def drawn(seed: int | None = None) -> tuple[CellMaps, np.ndarray]:
    """Maps of the ellipses (with smooth noise where a seed is given), and the truth as a label map."""
    y, x = np.mgrid[:110, :100].astype(float)
    truth, centre, offset = np.zeros(y.shape, int), np.zeros(y.shape), np.zeros((2, *y.shape))
    for k, (row, column, a, b, angle) in enumerate(ELLIPSES):
        dy, dx = y - row, x - column
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        m2 = 4 * ((u / a) ** 2 + (v / b) ** 2)
        mine = (m2 <= 4) & (np.exp(-m2 / 2) > centre)
        truth[mine], centre[mine], offset[:, mine] = k + 1, np.exp(-m2 / 2)[mine], -np.stack([dy, dx])[:, mine]
    noise = np.zeros((5, *y.shape)) if seed is None else np.random.default_rng(seed).normal(size=(5, *y.shape))
    foreground = np.clip(np.where(truth > 0, 0.9, 0.1) + 0.05 * noise[0], 0, 1)
    centre = np.clip(centre + 0.05 * noise[1], 0, 1)
    types = np.stack([truth % 2 == kind for kind in (0, 1)]) * 0.6 + 0.2
    as_floats = (plane.astype(np.float32) for plane in (foreground, centre, offset + noise[2:4], types))
    foreground, centre, offset, types = as_floats
    return CellMaps(foreground, None, centre, offset, types), truth


def probable(decoded: Decoded, maps: CellMaps) -> np.ndarray:
    return np.where(maps.foreground > 0.5, decoded.regions, 0)


def best_ious(truth: np.ndarray, regions: np.ndarray) -> list[float]:
    return [
        max(
            ((truth == k) & (regions == r)).sum() / ((truth == k) | (regions == r)).sum()
            for r in range(1, int(regions.max()) + 1)
        )
        for k in range(1, len(ELLIPSES) + 1)
    ]


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("decoder", [WATERSHED, VOTING], ids=["watershed", "offset_voting"])
def test_touching_ellipses_are_told_apart(decoder: Any, seed: int | None) -> None:
    maps, truth = drawn(seed)
    decoded = decoder(maps)
    assert len(decoded) == decoded.regions.max() == len(ELLIPSES)
    assert min(best_ious(truth, probable(decoded, maps))) > (0.95 if seed is None else 0.85)
    cells = [int(np.bincount(truth[decoded.regions == k]).argmax()) for k in range(1, len(decoded) + 1)]
    assert decoded.cell_types.tolist() == [cell % 2 for cell in cells]
    assert decoded.scores.dtype == np.float32
    assert 0.5 < decoded.scores.min() <= decoded.scores.max() <= 1


def test_components_are_what_is_connected() -> None:
    maps, truth = drawn()
    decoded = COMPONENTS(maps)
    assert len(decoded) == 3
    assert ((probable(decoded, maps) > 0) == (truth > 0)).all()
    np.testing.assert_allclose(decoded.scores, 0.9, rtol=1e-6)
    corner = np.zeros((4, 4), np.float32)
    corner[:2, :2] = corner[2:, 2:] = 0.75
    maps = CellMaps(corner)
    assert probable(Components(0.5, 4)(maps), maps).tolist() == [[1, 1, 0, 0]] * 2 + [[0, 0, 2, 2]] * 2


def test_regions_grow_by_a_pixel_that_nothing_claims() -> None:
    foreground = np.zeros((6, 7), np.float32)
    foreground[2:4, 1:3] = foreground[2:4, 4] = foreground[0, 3] = 0.9
    grown = Components(0.5, 2)(CellMaps(foreground)).regions
    assert grown.tolist() == [
        [0, 0, 0, 0, 0, 0, 0],  # too small a piece, and still nobody's
        [1, 1, 1, 2, 2, 2, 0],
        [1, 1, 1, 2, 2, 2, 0],
        [1, 1, 1, 2, 2, 2, 0],
        [1, 1, 1, 2, 2, 2, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]


def test_scores() -> None:
    foreground = np.array([[0.0, 0.5, 1.0, 0.6, 0.0, 0.8]], np.float32)
    centre = np.array([[0.0, 0.2, 0.9, 0.4, 0.0, 0.5]], np.float32)
    decoded = replace(WATERSHED, min_area=1)(CellMaps(foreground, centre=centre))
    assert decoded.regions.tolist() == [[1, 1, 1, 1, 2, 2]]
    means = np.array([(0.5 + 1.0 + 0.6) / 3, 0.8])
    np.testing.assert_allclose(decoded.scores, np.sqrt(means * [0.9, 0.5]), rtol=1e-6)
    offset = np.zeros((2, 1, 6), np.float32)
    offset[1, 0, 1:4] = 1.0, 0.0, -1.0  # all agree on a point
    decoded = OffsetVoting(0.3, 0.0, 0.3, 1, False)(CellMaps(foreground, offset=offset))
    assert decoded.regions.tolist() == [[1, 1, 1, 1, 2, 2]]
    np.testing.assert_allclose(decoded.scores, np.sqrt(means), rtol=1e-6)
    offset[1, 0, 1:4] = 0.5, 0.0, -0.5  # half way to it: a quarter of the variance is left
    decoded = OffsetVoting(0.3, 1.0, 0.5, 1, False)(CellMaps(foreground[:, :5], offset=offset[..., :5]))
    np.testing.assert_allclose(decoded.scores, np.sqrt(means[:1] * (1 - 0.5**2)), rtol=1e-6)


def test_pixels_that_do_not_move_have_no_confidence() -> None:
    block = np.full((8, 8), 0.9, np.float32)
    decoded = OffsetVoting(0.3, 3.0, 0.5, 1, False)(CellMaps(block, offset=np.zeros((2, 8, 8), np.float32)))
    assert decoded.scores.tolist() == [0.0]


def test_the_border_map_deepens_a_pass() -> None:
    centre = np.full((5, 21), 0.9, np.float32)
    centre[:, 10] = 0.8
    border = np.zeros_like(centre)
    border[:, 10] = 1
    maps = CellMaps(np.ones_like(centre), border=border, centre=centre)
    assert len(WATERSHED(maps)) == 1
    assert len(replace(WATERSHED, border_weight=0.5)(maps)) == 2


def test_smoothing_drowns_small_summits() -> None:
    centre = np.full((15, 31), 0.5, np.float32)
    centre[7, ::2] = 0.8
    maps = CellMaps(np.ones_like(centre), centre=centre)
    assert len(replace(WATERSHED, min_area=1)(maps)) == 16
    assert len(replace(WATERSHED, min_area=1, smooth=3.0)(maps)) == 1


def test_weak_and_small_cells_are_dropped_and_numbers_have_no_gaps() -> None:
    maps, truth = drawn()
    assert maps.centre is not None
    weak = replace(maps, centre=np.where(truth == 1, maps.centre * np.float32(0.45), maps.centre))
    assert len(WATERSHED(weak)) == len(ELLIPSES)
    decoded = replace(WATERSHED, peak=0.5)(weak)
    assert len(decoded) == decoded.regions.max() == len(ELLIPSES) - 1
    assert not decoded.regions[(truth == 1) & (maps.centre > 0.3)].any()
    areas = np.bincount(truth.ravel())[1:]
    for decoder in (WATERSHED, VOTING):
        kept = replace(decoder, min_area=int(np.median(areas)) - 5)(maps)
        assert len(kept) == kept.regions.max() == (areas >= np.median(areas) - 5).sum() < len(ELLIPSES)


def test_pieces_of_a_vote() -> None:
    maps, _ = drawn()
    assert maps.offset is not None
    maps.offset[:, 100:105, 5:10] = np.array([80 - 102, 70 - 7])[:, None, None]  # far away, and for the third ellipse
    maps.foreground[100:105, 5:10] = 0.9
    assert not VOTING(maps).regions[100:105, 5:10].any()
    all_pieces = replace(VOTING, largest_piece=False)(maps).regions
    assert (all_pieces[102, 7] == all_pieces[80, 70]) and all_pieces[102, 7]


def test_votes_may_fall_outside_the_image() -> None:
    maps = CellMaps(np.ones((4, 5), np.float32), offset=np.full((2, 4, 5), -1e9, np.float32))
    assert VOTING(maps).regions.tolist() == [[1] * 5] * 4


@DECODERS
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (30, 20)])
def test_empty_and_full_maps(decoder: Any, shape: tuple[int, int]) -> None:
    nothing = np.zeros(shape, np.float32)
    offset = np.zeros((2, *shape), np.float32)
    decoded = decoder(CellMaps(nothing, nothing, nothing, offset, np.ones((3, *shape), np.float32)))
    assert len(decoded) == len(decoded.cell_types) == 0
    assert decoded.regions.shape == shape and not decoded.regions.any()
    everything = replace(decoder, min_area=1)(CellMaps(nothing + 1, nothing, nothing + 1, offset))
    assert len(everything) == everything.regions.max() and everything.regions.all()
    assert not everything.cell_types.any()


def test_of_more_cells_than_a_uint16_can_number_the_best_are_kept() -> None:
    foreground = np.zeros((400, 400), np.float32)
    y, x = np.nonzero(np.indices(foreground.shape).sum(axis=0) % 2)
    assert len(y) > MAX_CELLS
    foreground[y, x] = np.where(np.arange(len(y)) < len(y) - MAX_CELLS, 0.6, 0.9)
    decoded = Components(0.5, 1)(CellMaps(foreground))
    assert len(decoded) == decoded.regions.max() == MAX_CELLS
    np.testing.assert_array_equal(decoded.regions[y, x] > 0, foreground[y, x] > 0.8)


def test_a_missing_map_is_named() -> None:
    only = CellMaps(np.ones((4, 4), np.float32))
    with pytest.raises(InputError, match="needs the map 'centre'.*decoder@model.decoder=components"):
        WATERSHED(only)
    with pytest.raises(InputError, match="needs the map 'border'.*model.decoder.border_weight=0"):
        replace(WATERSHED, border_weight=1.0)(replace(only, centre=only.foreground))
    with pytest.raises(InputError, match="needs the map 'offset'.*model.layout.offset_scale"):
        VOTING(only)


@pytest.mark.parametrize("change", [{"depth": 1.5}, {"peak": -0.1}, {"foreground_low": 2}, {"min_area": -1}])
def test_bad_settings_are_named(change: dict[str, float]) -> None:
    (name,) = change
    with pytest.raises(InputError, match=rf"model\.decoder\.{name}: expected a number (from 0 to|of at least 0)"):
        replace(WATERSHED, **change)


def test_maps_and_decoded_are_checked() -> None:
    plane = np.zeros((4, 5), np.float32)
    assert (CellMaps(plane).height, CellMaps(plane).width) == (4, 5)
    for name, wrong in {
        "foreground": plane[None],
        "border": plane.astype(np.float64),
        "centre": plane[:3],
        "offset": np.zeros((3, 4, 5), np.float32),
        "types": np.zeros((0, 4, 5), np.float32),
    }.items():
        with pytest.raises(ValueError, match=f"{name} must be float32"):
            CellMaps(**{"foreground": plane, name: wrong})
    with pytest.raises(ValueError, match="regions uint16"):
        Decoded(plane.astype(np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="regions uint16"):
        Decoded(plane.astype(np.uint16), np.zeros(2, np.float32), np.zeros(1, np.int64))
