import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.ops import roi_align

from sartorius.structures.instances import Instances
from sartorius.structures.mask_sampling import gather_mask_targets, sample_regions


def gather(instances: Instances, cells: torch.Tensor, rois: torch.Tensor, size: int) -> torch.Tensor:
    layers = torch.from_numpy(instances.layers.astype(np.int32))
    return gather_mask_targets(layers, torch.from_numpy(instances.layer_of)[cells], cells + 1, rois, size)


def reference(instances: Instances, cells: torch.Tensor, rois: torch.Tensor, size: int) -> torch.Tensor:
    dense = torch.stack([torch.from_numpy((instances.layers == k + 1).any(0)) for k in cells.tolist()]).float()
    return roi_align(dense[:, None], [roi[None] for roi in rois], size, 1.0, -1, aligned=True)[:, 0]


@pytest.fixture
def crowd() -> Instances:
    """40 overlapping ellipses."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:90, :120]
    centre, radius = rng.uniform(0, (90, 120), (40, 2)), rng.uniform(2, 15, (40, 2))
    masks = [((y - c[0]) / r[0]) ** 2 + ((x - c[1]) / r[1]) ** 2 < 1 for c, r in zip(centre, radius, strict=True)]
    return Instances.from_masks(np.stack(masks), np.zeros(40))


@pytest.mark.parametrize("size", [7, 28])
def test_equals_roi_align_of_dense_masks(crowd: Instances, size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(len(crowd), (200,), generator=generator)
    rois = torch.from_numpy(crowd.boxes)[cells] + torch.randn((200, 4), generator=generator) * 4
    rois[:, 2:] = torch.maximum(rois[:, 2:], rois[:, :2] + 0.5)
    rois[0] = torch.tensor([-40.0, -40.0, -20.0, -20.0])  # outside
    rois[1] = torch.tensor([-50.0, -50.0, 200.0, 150.0])  # larger than the image
    rois[2] = torch.tensor([119.5, 89.5, 130.0, 95.0])  # over the corner
    found = gather(crowd, cells, rois, size)
    torch.testing.assert_close(found, reference(crowd, cells, rois, size), atol=1e-5, rtol=0)
    assert found.max() > 0.9


def test_real_cells(real_data) -> None:
    """All 547 cells of the densest image, boxes jittered."""
    frame = pd.read_csv(real_data / "sartorius" / "train.csv", keep_default_na=False)
    texts = frame.loc[frame["id"] == "5d066f4c3eef", "annotation"].tolist()
    instances = Instances.from_rles(texts, np.zeros(len(texts)), 520, 704)
    cells = torch.arange(len(instances))
    rois = (
        torch.from_numpy(instances.boxes)
        + torch.randn((len(instances), 4), generator=torch.Generator().manual_seed(0)) * 2
    )
    rois[:, 2:] = torch.maximum(rois[:, 2:], rois[:, :2] + 1)
    torch.testing.assert_close(
        gather(instances, cells, rois, 28), reference(instances, cells, rois, 28), atol=1e-5, rtol=0
    )


def test_a_box_that_a_cell_fills_gives_ones_and_no_rois_give_none(crowd: Instances) -> None:
    square = Instances.from_label_map(np.pad(np.ones((4, 6), int), 3), [0])
    target = gather(square, torch.tensor([0]), torch.tensor([[3.5, 3.5, 8.5, 6.5]]), 14)
    assert torch.equal(target, torch.ones(1, 14, 14))
    assert gather(crowd, torch.zeros(0, dtype=torch.long), torch.zeros(0, 4), 28).shape == (0, 28, 28)


def boxes_of(regions: np.ndarray) -> np.ndarray:
    found = [np.nonzero(regions == k) for k in range(1, int(regions.max()) + 1)]
    return np.array([(x.min(), y.min(), x.max() + 1, y.max() + 1) for y, x in found], np.int64)


@pytest.mark.parametrize("size", [7, 28])
def test_regions_equal_roi_align_of_dense_probabilities(crowd: Instances, size: int) -> None:
    regions = crowd.select(crowd.areas > 3).layers.max(axis=0)
    regions[:, 0] = regions.max() + 1  # from edge to edge, a pixel wide
    regions[0, 60:110] = regions.max() + 1
    regions = np.unique(regions, return_inverse=True)[1].reshape(regions.shape).astype(np.uint16)
    probability = np.random.default_rng(1).uniform(0.2, 1.0, regions.shape).astype(np.float32)
    boxes = boxes_of(regions)
    assert (boxes[:, 2] - boxes[:, 0]).max() > 28
    dense = torch.from_numpy(np.stack([np.where(regions == k + 1, probability, 0) for k in range(len(boxes))]))
    rois = list(torch.from_numpy(boxes).float()[:, None])
    expected = roi_align(dense[:, None], rois, size, 1.0, -1, aligned=True)[:, 0]
    found = sample_regions(regions, probability, boxes, size)
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)
    assert found.dtype == np.float32
    assert found.max() > 0.9


def test_no_regions_and_one_pixel() -> None:
    regions, ones = np.zeros((5, 6), np.uint16), np.ones((5, 6), np.float32)
    assert sample_regions(regions, ones, np.zeros((0, 4), np.int64), 28).shape == (0, 28, 28)
    regions[4, 5] = 1  # beyond the corner of the image the last pixel counts, beyond the others nothing
    found = sample_regions(regions, ones, np.array([[5, 4, 6, 5]]), 2)
    np.testing.assert_allclose(found, [[[0.75 * 0.75, 0.75], [0.75, 1.0]]])
