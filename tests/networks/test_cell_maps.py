"""Targets of dense maps against the same, written with a mask a cell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from sartorius.data.competition.folder import Competition
from sartorius.networks.cell_maps import MapLayout, MapTargets, border_map, map_targets
from sartorius.structures.instances import Instances

LAYOUT = MapLayout(types=3, border=2, offset_scale=4.0)


def targets_of(instances: Instances, layout: MapLayout = LAYOUT) -> MapTargets:
    layers = torch.from_numpy(instances.layers.astype(np.int32))
    return map_targets(layers, torch.from_numpy(instances.cell_types), layout)


def drawn() -> Instances:
    """A rectangle 3x5, a long diagonal that overlaps it, a single pixel, and a cell far away."""
    masks = np.zeros((4, 30, 40), bool)
    masks[0, 4:7, 6:11] = True
    for k in range(10):
        masks[1, 2 + k, 5 + k : 8 + k] = True
    masks[2, 20, 30] = True
    masks[3, 22:28, 4:12] = True
    return Instances.from_masks(masks, [0, 2, 1, 1])


def reference(instances: Instances, scale: float) -> dict[str, np.ndarray]:
    """Loops over full-size masks, moments by np.cov."""
    height, width = instances.height, instances.width
    best = np.zeros((height, width))
    offset, types = np.zeros((2, height, width)), np.full((height, width), -1)
    for k in range(len(instances)):
        mask = (instances.layers == k + 1).any(axis=0)
        points = np.argwhere(mask).astype(float)
        if not len(points):
            continue
        covariance = np.cov(points.T, bias=True) if len(points) > 1 else np.zeros((2, 2))
        inverse = np.linalg.inv(covariance + np.eye(2) / 12)
        from_centre = points - points.mean(axis=0)
        value = np.exp(-0.5 * np.einsum("ni,ij,nj->n", from_centre, inverse, from_centre))
        for (y, x), v, vector in zip(points.astype(int), value, from_centre, strict=True):
            if v > best[y, x]:
                best[y, x], offset[:, y, x], types[y, x] = v, -vector / scale, instances.cell_types[k]
    return {"centre": best, "offset": offset, "types": types}


def check(instances: Instances) -> None:
    found, expected = targets_of(instances), reference(instances, LAYOUT.offset_scale)
    np.testing.assert_array_equal(found.foreground.numpy(), instances.foreground())
    np.testing.assert_allclose(found.centre.numpy(), expected["centre"], atol=2e-4)
    np.testing.assert_allclose(found.offset.numpy(), expected["offset"], atol=2e-3)
    np.testing.assert_array_equal(found.types.numpy(), expected["types"])


def test_against_masks() -> None:
    check(drawn())


def test_on_real_cells(real_data: Path) -> None:
    competition = Competition(real_data / "sartorius")
    cells = competition.instances(competition.ids[0])
    check(Instances(cells.layers[:, :200, :200], cells.cell_types))


def test_the_centre_is_one_and_the_edge_of_an_ellipse_exp_minus_two() -> None:
    y, x = np.mgrid[:81, :161]
    inside = ((y - 40) / 12) ** 2 + ((x - 80) / 60) ** 2 <= 1
    centre = targets_of(Instances.from_masks(inside[None], [0])).centre.numpy()
    assert centre[40, 80] == pytest.approx(1.0)
    assert centre[40, 80 + 60] == pytest.approx(np.exp(-2), abs=0.01)
    assert centre[40 - 12, 80] == pytest.approx(np.exp(-2), abs=0.01)
    assert centre[~inside].max() == 0


def test_borders_against_dilated_masks() -> None:
    instances = drawn()
    square = np.ones((5, 5), bool)  # two pixels around
    near = [ndimage.binary_dilation((instances.layers == k + 1).any(axis=0), square) for k in range(len(instances))]
    expected = np.sum(near, axis=0) >= 2
    found = border_map(torch.from_numpy(instances.layers.astype(np.int32)), 2)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert expected.any()


def test_no_cells_and_cells_without_pixels() -> None:
    empty = targets_of(Instances.empty(7, 9))
    assert empty.foreground.shape == (7, 9)
    assert empty.offset.shape == (2, 7, 9)
    assert float(empty.foreground.sum() + empty.border.sum() + empty.centre.sum() + empty.offset.abs().sum()) == 0
    assert (empty.types == -1).all()
    lost = Instances(drawn().layers[:, 20:, 20:], drawn().cell_types)  # only the single pixel is left
    found = targets_of(lost)
    assert float(found.foreground.sum()) == 1
    assert float(found.centre.sum()) == pytest.approx(1.0)


def test_layouts_name_their_channels() -> None:
    assert MapLayout(types=3, border=2, offset_scale=8.0).slices == {
        "foreground": slice(0, 1), "border": slice(1, 2), "centre": slice(2, 3), "offset": slice(3, 5),
        "types": slice(5, 8),
    }  # fmt: skip
    only = MapLayout(types=0, centre=False)
    assert only.slices == {"foreground": slice(0, 1)}
    assert only.channels == 1


@pytest.mark.parametrize(
    "layout", [MapLayout(0, 0, False), MapLayout(0, 2, False), MapLayout(3, 0, False, 4.0), LAYOUT]
)
def test_only_the_maps_of_the_layout_are_made(layout: MapLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    every, found = targets_of(drawn()), targets_of(drawn(), layout)
    for name in ("foreground", "border", "centre", "offset", "types"):
        own = getattr(found, name)
        assert torch.equal(own, getattr(every, name)) if name in layout.slices else own.numel() == 0
    monkeypatch.setattr("sartorius.networks.cell_maps._moments", None)  # foreground and border need no moments
    targets_of(drawn(), MapLayout(0, 2, False))
