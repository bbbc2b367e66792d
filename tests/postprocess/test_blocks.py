"""Post-processing block by block gives the cells of the image in one piece."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sartorius.errors import InputError
from sartorius.postprocess import MaxDetections, Postprocess
from sartorius.postprocess.blocks import CellRuns, finalise_by_blocks
from sartorius.structures.blocks import Blocks
from sartorius.structures.detections import Detections
from tests.postprocess.pipelines import pipeline


def crowd(count: int = 400, height: int = 300, width: int = 410, mask_size: int = 14, seed: int = 0) -> Detections:
    """Blobs of 6 to 40 px anywhere, many over each other, some beyond the image's border."""
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform((0, 0), (width, height), (count, 2)), rng.uniform(6, 40, (count, 2))
    boxes = np.concatenate((centre - size / 2, centre + size / 2), axis=1).clip(0, [width, height] * 2)
    y, x = (np.mgrid[:mask_size, :mask_size] + 0.5) / mask_size - 0.5
    ring = np.exp(-((x**2 + y**2) * 12)) - 0.6 * np.exp(-((x**2 + y**2) * 90))  # a hole in the middle
    masks = np.clip(ring * rng.uniform(0.9, 1.4, (count, 1, 1)), 0, 1).astype(np.float16)
    scores, types = rng.uniform(0, 1, count).astype(np.float32), rng.integers(0, 3, count)
    return Detections("crowd", height, width, boxes.astype(np.float32), scores, types, masks)


def labels_of(cells: CellRuns) -> Any:
    pixel, cell = cells.runs.pixels()
    labels = np.zeros(cells.runs.height * cells.runs.width, np.int64)
    labels[pixel] = cell + 1
    return labels.reshape(cells.runs.height, cells.runs.width)


@pytest.mark.parametrize("types", ["detection", "image"])
@pytest.mark.parametrize("block", [64, 100, 1000])
@pytest.mark.parametrize("fill_holes", [False, True])
def test_the_cells_are_those_of_the_whole_image(types: str, block: int, fill_holes: bool) -> None:
    detections = crowd()
    limits = {"shsy5y": 0.2, "cort": 0.3, "astro": 0.1}
    post = pipeline(
        score=limits, mask=0.4, box_nms=0.7, mask_nms=0.3, min_area=30, types=types, max_detections=300,
        largest_piece=True, fill_holes=fill_holes, reopen_holes=0.6,
    )  # fmt: skip
    whole, cells = post(detections), finalise_by_blocks(post, detections, Blocks(1, block, 64))
    assert len(cells) > 50
    assert np.array_equal(labels_of(cells), whole.instances.layers[0])
    for name in ("cell_types", "scores", "source"):
        assert np.array_equal(getattr(cells, name), getattr(whole, name)), name


def test_a_cell_larger_than_a_block_and_its_halo_is_whole() -> None:
    masks, scores = np.ones((2, 4, 4), np.float16), np.array([0.9, 0.8], np.float32)
    boxes = np.array([[2, 2, 290, 150], [100, 140, 130, 170]], np.float32)
    detections = Detections("large", 160, 300, boxes, scores, np.zeros(2, np.int64), masks)
    cells = finalise_by_blocks(pipeline(), detections, Blocks(1, 32, 4))
    assert cells.runs.areas.tolist() == [288 * 148, 30 * 20 - 30 * 10]


def test_an_image_without_detections_has_no_cells() -> None:
    cells = finalise_by_blocks(pipeline(), Detections.empty("none", 10, 20), Blocks(1, 8, 2))
    assert len(cells) == 0 and cells.runs.count == 0 and (cells.runs.height, cells.runs.width) == (10, 20)


def test_a_step_that_needs_all_masks_is_refused() -> None:
    post = Postprocess(None, **{**pipeline().steps, "last": MaxDetections(5)})
    with pytest.raises(InputError, match="MaxDetections needs the cells of the whole image at once"):
        finalise_by_blocks(post, crowd(20), Blocks(1, 64, 16))


def test_the_cap_of_detections_is_per_area() -> None:
    few = crowd(60)
    kept = pipeline(max_detections=10)(few)
    assert len(kept) <= 10
    post = Postprocess(
        None, **{**pipeline().steps, "max_detections": MaxDetections(10, area=few.height * few.width // 3)}
    )
    *_, (_, candidates) = [stage for stage in post.run(few) if stage[0] in ("", "max_detections")]
    assert len(candidates) == 30
    assert len(finalise_by_blocks(post, few, Blocks(1, 100, 64))) == len(post(few)) > 10


def test_an_image_that_is_too_large_for_one_piece_is_refused() -> None:
    with pytest.raises(InputError, match=r"40000 x 20000 px .* too many for cells in one piece"):
        pipeline()(Detections.empty("huge", 40_000, 20_000))
    assert len(finalise_by_blocks(pipeline(), Detections.empty("huge", 40_000, 20_000), Blocks(1, 2048, 64))) == 0
