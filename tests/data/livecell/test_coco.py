"""COCO annotations: masks exactly those of pycocotools, and every damage named with file, annotation and image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as reference

from sartorius.data.livecell.coco import read_coco
from sartorius.data.livecell.coco_cells import cell_runs, count_clipped, uncompressed
from sartorius.errors import InputError
from sartorius.structures import coco_rle, rle
from sartorius.structures.instances import Instances
from sartorius.structures.rle import Runs
from tests.data.livecell.livecell_folder import HEIGHT, WIDTH, annotation, rectangle

# pycocotools 2.0.x with NumPy 2, at every decode
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

IMAGE = {"id": 7, "file_name": "A172_x_1.tif", "height": HEIGHT, "width": WIDTH}


def write(folder: Path, shapes: list[Any], **more: Any) -> Path:
    """A file with one image and a cell for each of `shapes`."""
    content = {"images": [IMAGE], "annotations": [annotation(50 + k, 7, shape) for k, shape in enumerate(shapes)]}
    path = folder / "coco.json"
    path.write_text(json.dumps({**content, **more}))
    return path


def masks_of(runs: Runs) -> np.ndarray:
    """bool [N, H, W]."""
    masks = np.zeros((runs.count, runs.height * runs.width), bool)
    pixel, cell = runs.pixels()
    masks[cell, pixel] = True
    return masks.reshape(runs.count, runs.height, runs.width)


def read(path: Path) -> np.ndarray:
    (image,) = read_coco(path)
    return masks_of(cell_runs(path, image))


def expected(shape: list[list[float]]) -> np.ndarray:
    """pycocotools' mask of a list of polygons."""
    return reference.decode(reference.merge(reference.frPyObjects(shape, HEIGHT, WIDTH))).astype(bool)


def test_polygons_and_both_kinds_of_rle(tmp_path: Path) -> None:
    ring = np.zeros((HEIGHT, WIDTH), bool)
    ring[3:15, 4:20] = True
    ring[6:9, 7:12] = False
    text = reference.encode(np.asfortranarray(ring.astype(np.uint8)))["counts"].decode()
    counts = [HEIGHT * 5 + 2, 6, HEIGHT - 6, 6, HEIGHT * (WIDTH - 6) - 8]
    shapes = [
        rectangle(2, 3, 7, 9),
        {"size": [HEIGHT, WIDTH], "counts": text},
        {"size": [HEIGHT, WIDTH], "counts": counts},
        [*rectangle(0, 0, 4, 4), *rectangle(2, 2, 9, 6)],  # two overlapping pieces of one cell
    ]
    wanted = np.zeros((4, HEIGHT, WIDTH), bool)
    wanted[0, 3:9, 2:7] = True
    wanted[1] = ring
    wanted[2, 2:8, 5:7] = True
    wanted[3, 0:4, 0:4] = wanted[3, 2:6, 2:9] = True
    np.testing.assert_array_equal(read(write(tmp_path, shapes)), wanted)


@given(data=st.data(), cells=st.integers(0, 4))
def test_masks_are_those_of_pycocotools(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, cells: int
) -> None:
    x, y = st.floats(-1, WIDTH + 1), st.floats(-1, HEIGHT + 1)
    tenths = st.integers(-10, 10 * HEIGHT + 10).map(lambda v: v / 10)  # where rounding is a close call
    point = st.one_of(st.tuples(x, y), st.tuples(tenths, tenths))
    polygon = st.lists(point, min_size=3, max_size=12).map(lambda points: [v for p in points for v in p])
    shapes = data.draw(st.lists(st.lists(polygon, min_size=1, max_size=3), min_size=cells, max_size=cells))
    found = read(write(tmp_path_factory.mktemp("coco"), shapes))
    assert len(found) == cells
    for mask, shape in zip(found, shapes, strict=True):
        np.testing.assert_array_equal(mask, expected(shape))


@pytest.mark.parametrize("seed", range(3))
def test_transposing_runs(seed: int) -> None:
    masks = np.random.default_rng(seed).random((5, 7, 11)) < (0.1, 0.5, 0.9)[seed]
    masks[2] = False
    runs = Instances.from_masks(masks, np.zeros(5)).to_runs()
    turned = rle.transposed(runs)
    np.testing.assert_array_equal(masks_of(turned), masks.transpose(0, 2, 1))
    np.testing.assert_array_equal(masks_of(rle.transposed(turned)), masks)
    for k, mask in enumerate(masks):
        shape: Any = {"size": [7, 11], "counts": uncompressed(turned, k)}
        np.testing.assert_array_equal(reference.decode(reference.frPyObjects(shape, 7, 11)), mask)
        assert (
            coco_rle.encode(turned)[k]["counts"] == reference.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
        )


def test_no_cells(tmp_path: Path) -> None:
    assert read(write(tmp_path, [])).shape == (0, HEIGHT, WIDTH)
    nothing = Runs(*(np.zeros(0, np.int64) for _ in range(3)), 0, 4, 5)
    assert (rle.transposed(nothing).height, rle.transposed(nothing).width, rle.transposed(nothing).count) == (5, 4, 0)


def test_a_polygon_may_leave_the_image_by_a_pixel(tmp_path: Path) -> None:
    path = write(tmp_path, [rectangle(-1, -1, 3, 3), rectangle(0, 0, 2, 2), [[5, 5, WIDTH + 1, 5, WIDTH + 1, 9, 5, 9]]])
    (image,) = read_coco(path)
    assert count_clipped(image) == 2
    masks = masks_of(cell_runs(path, image))
    assert masks.sum(axis=(1, 2)).tolist() == [3 * 3, 2 * 2, (WIDTH - 5) * 4]


def test_a_sliver_has_no_pixels(tmp_path: Path) -> None:
    assert not read(write(tmp_path, [[[3, 3, 3, 9, 3, 6]]])).any()


def test_annotations_by_id_and_crowds(tmp_path: Path) -> None:
    full = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}
    cells = {
        "3": {"image_id": 7, "segmentation": rectangle(0, 0, 2, 2)},
        "4": annotation(4, 7, full, iscrowd=1),
        "5": annotation(5, 7, "whatever", iscrowd=1),
    }
    (image,) = read_coco(write(tmp_path, [], annotations=cells))
    assert [cell.id for cell in image.cells] == ["3"]
    assert len(image.crowds) == 2


SHAPES: dict[str, tuple[Any, str]] = {
    "2 points": ([[1, 1, 5, 5]], "a polygon of 2 points, expected at least 3"),
    "a box": ([[1.0, 1, 5, 5]], "a polygon of 2 points"),
    "odd": ([[1, 1, 5, 5, 9]], "a polygon of 5 coordinates"),
    "empty polygon": ([[]], "a polygon of 0 points"),
    "triples": ([[[1, 1, 0], [2, 2, 0], [3, 1, 0]]], "a polygon of 9 coordinates, expected x, y, x, y"),
    "2 pairs": ([[1, 1], [2, 2]], "a polygon of 2 points"),
    "1 pair": ([[[1, 1]]], "a polygon of 1 points"),
    "odd flat": ([1, 1, 5, 5, 9], "a polygon of 5 coordinates"),
    "numbers as text": ([["1", "1", "5", "5", "9", "1"]], "neither polygons"),
    "other digits": ([["\u0661", "1", "5", "5", "9", "1"]], "neither polygons"),
    "mixed": ([[1, 1, 5, 5, 9, 1], 3], "a polygon of 1 coordinates"),
    "long count": ({"size": [HEIGHT, WIDTH], "counts": "o" * 13 + "0"}, "its RLE: a count of more than 8 characters"),
    "left": ([[-1.5, 1, 5, 5, 9, 1]], r"the point \(-1.5, 1\) lies outside the image of 32x24 pixels by more than 1"),
    "below": ([[1, 1, 5, 25.5, 9, 1]], r"the point \(5, 25.5\) lies outside"),
    "nan": ([[1, 1, 5, float("nan"), 9, 1]], r"the point \(5, nan\) lies outside"),
    "nothing": ([], "neither polygons"),
    "null": (None, "neither polygons"),
    "text": ("abc", "neither polygons"),
    "huge": ([[1, 1, 10**400, 5, 9, 1]], "neither polygons"),
    "other size": ({"size": [WIDTH, HEIGHT], "counts": "0"}, r"an RLE of size \[32, 24\], expected \[24, 32\]"),
    "no size": ({"counts": "0"}, "an RLE of size None"),
    "no counts": ({"size": [HEIGHT, WIDTH]}, "an RLE without counts"),
    "negative": ({"size": [HEIGHT, WIDTH], "counts": [-1, HEIGHT * WIDTH + 1]}, "an RLE without counts"),
    "too few": ({"size": [HEIGHT, WIDTH], "counts": [5, 5]}, "the counts of its RLE cover 10 pixels, expected 768"),
    "no text": ({"size": [HEIGHT, WIDTH], "counts": "~~"}, "the counts of its RLE are not COCO's compressed text"),
    "cut": ({"size": [HEIGHT, WIDTH], "counts": "o"}, "the counts of its RLE are not COCO's compressed text"),
    "short": ({"size": [HEIGHT, WIDTH], "counts": "5:"}, "its RLE: counts cover 15 pixels"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_bad_masks_are_named(tmp_path: Path, name: str) -> None:
    shape, message = SHAPES[name]
    path = write(tmp_path, [rectangle(0, 0, 2, 2), shape])
    (image,) = read_coco(path)
    with pytest.raises(InputError, match=rf"coco\.json: annotation 51 of image A172_x_1\.tif: {message}"):
        cell_runs(path, image)


FILES: dict[str, tuple[Any, str]] = {
    "cut off": ('{"images": [', r"coco\.json: not valid JSON"),
    "not utf-8": (b"\xff\xfe{}", r"coco\.json: not valid JSON"),
    "a list": ([], "no list 'images' in it: not a COCO annotation file"),
    "no annotations": ({"images": []}, "no list 'annotations'"),
    "no size": ({"images": [{"id": 1, "file_name": "a"}], "annotations": []}, r"images\[0\] lacks one of id"),
    "text as size": ({"images": [IMAGE | {"width": "3 px"}], "annotations": []}, "height 24 and width 3 px, expected"),
    "a list as id": ({"images": [IMAGE | {"id": [1]}], "annotations": []}, r"images\[0\] has the id \[1\]"),
    "image twice": ({"images": [IMAGE, IMAGE], "annotations": []}, "two images have the id 7, the second"),
    "cell twice": (
        {"images": [IMAGE], "annotations": [annotation(1, 7, [])] * 2},
        r"annotations\[1\] has the id 1, as an an",
    ),
    "lost": (
        {"images": [IMAGE], "annotations": [annotation(1, 8, [])]},
        r"annotations\[0\] \(id 1\) belongs to image 8, which",
    ),
    "a fraction": (
        {"images": [IMAGE], "annotations": [annotation(1, 7.5, [])]},
        "has the image_id 7.5, expected a whole",
    ),  # type: ignore[arg-type]
    "no id": ({"images": [IMAGE], "annotations": [{"image_id": 7, "segmentation": []}]}, "has the id None, expected"),
    "a list as own id": ({"images": [IMAGE], "annotations": [annotation([1], 7, [])]}, r"has the id \[1\], expected"),  # type: ignore[arg-type]
    "true": ({"images": [IMAGE], "annotations": [annotation(True, 7, [])]}, "has the id True, expected"),
    "crowd": ({"images": [IMAGE], "annotations": [annotation(1, 7, [], iscrowd="no")]}, "an iscrowd that is neither"),
    "7 and '7'": ({"images": [IMAGE, IMAGE | {"id": "7"}], "annotations": []}, "two images have the id 7"),
    "half a pixel": ({"images": [IMAGE | {"width": 31.5}], "annotations": []}, "height 24 and width 31.5, expected"),
    "no mask": ({"images": [IMAGE], "annotations": [{"id": 1, "image_id": 7}]}, r"annotations\[0\] has no"),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_files_are_named(tmp_path: Path, name: str) -> None:
    content, message = FILES[name]
    path = tmp_path / "coco.json"
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read_coco(path)


@pytest.mark.parametrize("kind", [float, str])
@pytest.mark.parametrize("of", ["images", "annotations", "both"])
def test_ids_are_whole_numbers_however_they_are_written(tmp_path: Path, kind: type, of: str) -> None:
    shape = rectangle(2, 3, 7, 9)
    plain = {"images": [IMAGE, IMAGE | {"id": 8}], "annotations": [annotation(1, 7, shape), annotation(2, 8, shape)]}
    if of != "annotations":
        plain["images"] = [image | {"id": kind(image["id"]), "height": 24.0} for image in plain["images"]]  # type: ignore[operator]
    if of != "images":
        plain["annotations"] = [
            a | {"id": kind(a["id"]), "image_id": kind(a["image_id"])} for a in plain["annotations"]
        ]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(plain))
    assert [[cell.id for cell in image.cells] for image in read_coco(path)] == [[1], [2]]
    assert [(image.id, image.height) for image in read_coco(path)] == [(7, 24), (8, 24)]


def test_text_ids_and_leading_zeros_stay_text(tmp_path: Path) -> None:
    images = [IMAGE | {"id": "a"}, IMAGE | {"id": "007"}]
    path = write(tmp_path, [], images=images, annotations=[annotation(1, "007", rectangle(0, 0, 2, 2))])  # type: ignore[arg-type]
    assert [(image.id, len(image)) for image in read_coco(path)] == [("a", 0), ("007", 1)]


@pytest.mark.parametrize(
    "shape",
    [
        [[2, 3, 7, 3, 7, 9, 2, 9]],
        [2, 3, 7, 3, 7, 9, 2, 9],
        [[2, 3], [7, 3], [7, 9], [2, 9]],
        [[[2, 3], [7, 3], [7, 9], [2, 9]]],
        [[2.0, 3.0], [7.0, 3.0], [7.0, 9.0], [2.0, 9.0]],
    ],
)
def test_points_may_be_pairs(tmp_path: Path, shape: Any) -> None:
    np.testing.assert_array_equal(read(write(tmp_path, [shape])), expected([[2, 3, 7, 3, 7, 9, 2, 9]])[None])


def test_crowds_are_flags_however_they_are_written(tmp_path: Path) -> None:
    shape = rectangle(0, 0, 2, 2)
    flags = [0, 1, False, True, "0", "1", 0.0, 1.0, None]
    cells = [annotation(k, 7, shape, iscrowd=flag) for k, flag in enumerate(flags)]
    (image,) = read_coco(write(tmp_path, [], annotations=cells))
    assert [cell.id for cell in image.cells] == [0, 2, 4, 6, 8] and len(image.crowds) == 4


def test_all_bad_annotations_are_named_at_once(tmp_path: Path) -> None:
    shapes = [
        [[1, 1, 5, 5]],
        rectangle(0, 0, 2, 2),
        [[1, 1, 5, 99, 9, 1]],
        [[-9, 1, 5, 5, 9, 1], [1, 1, 5, 99, 9, 1]],
        None,
    ]
    path = write(tmp_path, shapes)
    (image,) = read_coco(path)
    with pytest.raises(InputError) as error:
        cell_runs(path, image)
    assert [problem.split(": ")[1] for problem in error.value.problems] == [
        f"annotation {k} of image A172_x_1.tif" for k in (50, 54, 52, 53, 53)
    ]
    lost = [annotation(k, 9, []) for k in range(12)]
    with pytest.raises(InputError, match=r"annotations\[9\].*; and 2 more$"):
        read_coco(write(tmp_path, [], annotations=lost))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: no such annotation file"):
        read_coco(tmp_path / "none.json")
