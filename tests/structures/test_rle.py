import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from sartorius.structures import coco_rle, rle

HEIGHT, WIDTH = 6, 5


def dense(runs: rle.Runs) -> np.ndarray:
    """Full-size masks, the plain way: the independent reference of this file."""
    masks = np.zeros((runs.count, runs.height * runs.width), bool)
    for start, length, cell in zip(runs.start, runs.length, runs.cell, strict=True):
        masks[cell, start : start + length] = True
    return masks.reshape(runs.count, runs.height, runs.width)


def text_of(mask: np.ndarray) -> str:
    flat = np.concatenate(([0], mask.ravel().astype(np.int8), [0]))
    edges = np.flatnonzero(np.diff(flat)) + 1
    return " ".join(str(v) for a, b in zip(edges[0::2], edges[1::2], strict=True) for v in (a, b - a))


masks_of_a_image = st.integers(0, 5).flatmap(
    lambda n: st.lists(st.booleans(), min_size=n * HEIGHT * WIDTH, max_size=n * HEIGHT * WIDTH).map(
        lambda bits: np.array(bits, bool).reshape(-1, HEIGHT, WIDTH)
    )
)


def test_text_is_row_by_row_and_counted_from_one() -> None:
    runs = rle.parse(["1 2 6 1", "30 1"], HEIGHT, WIDTH)
    assert np.argwhere(dense(runs)).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 5, 4]]
    assert runs.areas.tolist() == [3, 1]


def test_no_cells_and_empty_cells() -> None:
    assert rle.format(rle.parse([], HEIGHT, WIDTH)) == []
    runs = rle.parse(["", "3 2", ""], HEIGHT, WIDTH)
    assert runs.count == 3
    assert runs.areas.tolist() == [0, 2, 0]
    assert rle.format(runs) == ["", "3 2", ""]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1 2 7", "3 numbers"),
        ("0 2", "a start of 0"),
        ("-3 2", "a start of -3"),
        ("3 0", "a length of 0"),
        ("3 -1", "a length of -1"),
        ("30 2", "past the end"),
        ("99999999 1", "past the end"),
        ("9 2 3 1", "sorted"),
        ("3 4 5 2", "sorted"),
        ("--5 2", "'--5' is not a whole number"),
        ("3 four", "'four' is not a whole number"),
        ("3.5 2", "'3.5' is not a whole number"),
        ("99999999999999999999 2", "'99999999999999999999' is past the end of any image"),
        ("9223372036854775800 9223372036854775800", "'9223372036854775800' is past the end of any image"),
        ("1 9223372036854775807", "past the end of any image"),
        ("-9223372036854775808 1", "past the end of any image"),
        ("1000000000000000000 1", "past the end of any image"),
        ("999999999999999999 999999999999999999", "past the end: start 999999999999999999"),
        ("4 ٣", "'٣' is not a whole number"),  # Arabic-Indic
        ("\uff14 1", "'\uff14' is not a whole number"),  # full width
        ("4 ²", "'²' is not a whole number"),
        ("+4 1", "'+4' is not a whole number"),
        ("1_0 1", "'1_0' is not a whole number"),
        ("4\u00a01", "spaces that are not ASCII"),
        ("4\x001", "'4\\x001' is not a whole number"),
        ("x" * 99, f"'{'x' * 40}...' is not a whole number"),
    ],
)
def test_a_bad_text_names_its_cell_and_the_problem(text: str, problem: str) -> None:
    with pytest.raises(rle.RleError, match="cell 1") as error:
        rle.parse(["1 2", text, "4 1"], HEIGHT, WIDTH)
    assert problem in str(error.value)
    assert error.value.cell == 1


def test_problems_lists_every_bad_text() -> None:
    found = rle.problems(["1 2", "1", "3 4", "0 1", "٣ 1"], HEIGHT, WIDTH)
    assert [error.cell for error in found] == [1, 3, 4]
    assert rle.problems(["1 2", ""], HEIGHT, WIDTH) == []


def test_white_space_and_leading_zeros_are_read() -> None:
    assert rle.format(rle.parse([" 3  2\t6 1\r\n", "0" * 30 + "4 01"], HEIGHT, WIDTH)) == ["3 2 6 1", "4 1"]


@given(masks_of_a_image)
def test_text_and_coco_round_trips(masks: np.ndarray) -> None:
    texts = [text_of(mask) for mask in masks]
    runs = rle.parse(texts, HEIGHT, WIDTH)
    np.testing.assert_array_equal(dense(runs), masks)
    assert rle.format(runs) == texts
    encoded = coco_rle.encode(runs)
    expected = [coco.encode(np.asfortranarray(mask.T.astype(np.uint8))) for mask in masks]
    assert encoded == expected
    assert rle.format(coco_rle.decode(expected, HEIGHT, WIDTH)) == texts


def test_coco_of_large_images_and_long_runs() -> None:
    height, width = 2000, 3000
    runs = rle.parse([f"1 {height * width}", "1 1 2999999 5 6000000 1", ""], height, width)
    expected = coco.frPyObjects(
        [
            {"size": [width, height], "counts": c}
            for c in ([0, height * width], [0, 1, 2999997, 5, 2999996, 1], [height * width])
        ],
        width,
        height,
    )
    assert coco_rle.encode(runs) == expected
    assert rle.format(coco_rle.decode(expected, height, width)) == rle.format(runs)


def test_coco_merges_touching_runs() -> None:
    split = rle.parse(["3 2 5 4"], HEIGHT, WIDTH)
    whole = rle.parse(["3 6"], HEIGHT, WIDTH)
    assert coco_rle.encode(split) == coco_rle.encode(whole)


def test_from_coco_refuses_what_does_not_fit() -> None:
    good = coco_rle.encode(rle.parse(["3 2", "4 1"], HEIGHT, WIDTH))
    with pytest.raises(rle.RleError, match=r"cell 0: size \[5, 6\], expected \[6, 5\]"):
        coco_rle.decode(good, WIDTH, HEIGHT)
    with pytest.raises(rle.RleError, match="cell 1: counts cover"):
        coco_rle.decode([good[0], {"size": [WIDTH, HEIGHT], "counts": b"31"}], HEIGHT, WIDTH)


@given(masks_of_a_image, masks_of_a_image)
def test_intersections_equal_those_of_dense_masks(a: np.ndarray, b: np.ndarray) -> None:
    first, second = (rle.parse([text_of(m) for m in masks], HEIGHT, WIDTH) for masks in (a, b))
    i, j, pixels = rle.intersections(first, second)
    expected = np.einsum("iyx,jyx->ij", a.astype(int), b.astype(int))
    found = np.zeros_like(expected)
    found[i, j] = pixels
    np.testing.assert_array_equal(found, expected)
    assert (pixels > 0).all()
    i, j, pixels = rle.overlaps(first)
    assert (i < j).all()


def test_intersections_of_a_cell_that_fills_the_image_stay_bounded() -> None:
    height, width = 400, 400
    speckles = ["1 160000"] + [" ".join(f"{k} 1" for k in range(s, height * width, 40)) for s in (1, 3, 5)]
    runs = rle.parse(speckles, height, width)
    i, j, pixels = rle.intersections(runs, runs)
    assert dict(zip(zip(i.tolist(), j.tolist(), strict=True), pixels.tolist(), strict=True)) == {
        (0, 0): 160000,
        (0, 1): 4000,
        (0, 2): 4000,
        (0, 3): 4000,
        (1, 0): 4000,
        (1, 1): 4000,
        (2, 0): 4000,
        (2, 2): 4000,
        (3, 0): 4000,
        (3, 3): 4000,
    }


def test_intersections_refuse_images_of_different_sizes() -> None:
    with pytest.raises(ValueError, match="5x6 and 6x5"):
        rle.intersections(rle.parse([], HEIGHT, WIDTH), rle.parse([], WIDTH, HEIGHT))


@settings(max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=30, max_size=30))
def test_a_label_map_gives_the_runs_of_its_cells(values: list[int]) -> None:
    label_map = np.array(values).reshape(HEIGHT, WIDTH)
    runs = rle.from_layers(label_map, count=4)
    np.testing.assert_array_equal(dense(runs), [label_map == k for k in range(1, 5)])
    assert rle.from_layers(label_map).count == label_map.max()


def test_every_real_annotation_survives_text_map_text(real_data) -> None:
    """All rows of the annotation file: text -> layered map -> text, the same."""
    from sartorius.structures.instances import Instances

    with gzip.open(real_data / "annotations" / "train_annotations.csv.gz", "rt") as file:
        frame = pd.read_csv(file, keep_default_na=False)
    assert len(frame) == 40_431
    most = 0
    for _, rows in frame.groupby("id"):
        texts = rows["annotation"].tolist()
        instances = Instances.from_rles(texts, np.zeros(len(texts)), rows["height"].iloc[0], rows["width"].iloc[0])
        assert instances.to_rles() == texts
        most = max(most, len(instances.layers))
    assert most <= 6
