import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from sartorius.errors import InputError
from sartorius.postprocess.paste import paste_masks
from sartorius.structures.detections import Detections, DetectionsFolder
from sartorius.structures.instances import Instances


def some(image_id: str = "a1", n: int = 3) -> Detections:
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(0, 20, (n, 2, 2)), axis=1).reshape(n, 4).astype(np.float32)
    masks = rng.uniform(0, 1, (n, 4, 4)).astype(np.float16)
    return Detections(image_id, 40, 50, boxes, rng.uniform(0, 1, n).astype(np.float32), np.arange(n) % 3, masks)


def assert_same(a: Detections, b: Detections) -> None:
    assert (a.image_id, a.height, a.width, a.cell_type_names) == (b.image_id, b.height, b.width, b.cell_type_names)
    for field in ("boxes", "scores", "cell_types", "masks"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
        assert getattr(a, field).dtype == getattr(b, field).dtype


def test_select_and_sort() -> None:
    detections = some()
    order = np.argsort(-detections.scores)
    assert_same(detections.sorted(), detections.select(order))
    assert len(detections.select(detections.scores > 2)) == 0
    assert len(detections.select([])) == 0


def test_old_detections_are_not_mixed_with_new_ones(tmp_path) -> None:
    folder = DetectionsFolder(tmp_path / "detections")
    folder.check_empty()
    folder.write_meta()
    folder.check_empty()
    folder.write(some())
    with pytest.raises(InputError, match="detections: holds detections already; delete them or give another output="):
        folder.check_empty()


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"image a1: .*got \(3, 4\), \(2,\)"):
        Detections("a1", 4, 4, np.zeros((3, 4)), np.zeros(2), np.zeros(3, int), np.zeros((3, 2, 2)))


BOX = [1.0, 2.0, 9.0, 8.0]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"scores": np.array([0.5, np.nan, 0.1], np.float32)}, "score of detection 2 of 3: .* from 0 to 1, got nan"),
    ({"scores": np.array([0.5, 0.5, 1.5], np.float32)}, "score of detection 3 of 3: .* from 0 to 1, got 1.5"),
    ({"scores": np.array([-0.01, 0.5, 1], np.float32)}, "score of detection 1 of 3: .* from 0 to 1, got -0.0099"),
    ({"agreement": np.array([1, 0.5, 7], np.float32)}, "agreement of detection 3 of 3: .* from 0 to 1, got 7.0"),
    ({"boxes": np.array([BOX, [9, 2, 1, 8], BOX], np.float32)}, "box of detection 2 of 3: expected x1 <= x2"),
    ({"boxes": np.array([BOX, [1, 8, 9, 2], BOX], np.float32)}, "box of detection 2 of 3: expected x1 <= x2"),
    (
        {"boxes": np.array([BOX, BOX, [0, 0, 1e9, 5]], np.float32)},
        "box of detection 3 of 3: .* within 40 x 50 pixels .*, got",
    ),
    (
        {"boxes": np.array([BOX, BOX, [0, -5, 5, 5]], np.float32)},
        "box of detection 3 of 3: .* within 40 x 50 pixels .*, got",
    ),
    (
        {"boxes": np.array([BOX, BOX, [0, 0, 50, 42]], np.float32)},
        "box of detection 3 of 3: .* within 40 x 50 pixels .*, got",
    ),
    ({"boxes": np.full((3, 4), np.inf, np.float32)}, "box of detection 1 of 3"),
    ({"boxes": np.full((3, 4), np.nan, np.float32)}, "box of detection 1 of 3"),
    ({"masks": np.full((3, 4, 4), np.nan, np.float16)}, "mask of detection 1 of 3: expected probabilities"),
    ({"masks": np.stack([np.full((4, 4), v) for v in (1, 0, 1.01)]).astype(np.float16)}, "mask of detection 3 of 3"),
    ({"masks": np.stack([np.full((4, 4), v) for v in (1, -0.5, 0)]).astype(np.float16)}, "mask of detection 2 of 3"),
    ({"cell_types": np.array([0, 3, 1])}, "cell type of detection 2 of 3: expected a whole number from 0 to 2, got 3"),
    ({"cell_types": np.array([0, -1, 1])}, "cell type of detection 2 of 3: .* from 0 to 2, got -1"),
]


def save_any(path: Path, **changes: Any) -> Path:
    """Write a file of detections, with other arrays, as another program may."""
    arrays = {**vars(some()), "size": (40, 50), "version": 2, **changes}
    unused = ("height", "width", *(name for name in ("agreement", "pixel_size") if arrays[name] is None))
    np.savez_compressed(path, **{name: value for name, value in arrays.items() if name not in unused})
    return path


@pytest.mark.parametrize(("changes", "problem"), BAD)
def test_values_that_no_stage_can_work_with_are_neither_written_nor_read(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=f"image a1: {problem}"):
        replace(some(), **changes).save(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=f"a1.npz: {problem}.*; predict this image again"):
        Detections.load(save_any(tmp_path / "a1.npz", **changes))


def test_values_at_their_limits_are_read(tmp_path: Path) -> None:
    """Rounding of means, an edge half a pixel outside as other programs count, a box without area, minus 0."""
    masks = np.stack([np.full((4, 4), value) for value in (0, 1, -0.0)]).astype(np.float16)
    boxes = np.array([[0, 0, 50, 40], [-0.5, -0.5, 50.5, 40.5], [3, 3, 3, 3]], np.float32)
    limits = replace(some(), masks=masks, boxes=boxes, scores=np.array([0, 1, 1.000001], np.float32))
    assert_same(Detections.load(limits.save(tmp_path)), limits)


def test_other_types_of_numbers_are_converted(tmp_path: Path) -> None:
    same = some()
    changes = {name: vars(same)[name].astype(np.float64) for name in ("boxes", "scores", "masks", "cell_types")}
    assert_same(Detections.load(save_any(tmp_path / "a1.npz", **changes)), same)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"size": (-5, 50)}, r"an image of \[-5, 50\] pixels; expected 1 and more"),
        ({"size": (0, 50)}, "an image of"),
        ({"size": (1e10, 50)}, r"an image of \[10000000000.0, 50.0\] pixels"),
        ({"size": (10**5, 10**5)}, "an image of .* at most 4,294,967,296 in all"),
        ({"size": (40.5, 50)}, "an image of"),
        ({"size": (np.nan, 50)}, "an image of"),
        ({"size": (40, 50, 3)}, "not a readable detections file"),
        ({"size": "large"}, "not a readable detections file"),
        ({"version": "two"}, "not a readable detections file"),
        ({"version": 3}, "format version 3, this program reads 2"),
        ({"image_id": "../a"}, "cannot be an image id"),
        ({"scores": np.array(["a", "b", "c"])}, "scores of type <U1, expected numbers"),
        ({"scores": np.array([1j, 0, 0])}, "scores of type complex128, expected numbers"),
        ({"scores": np.zeros(2)}, "not a readable detections file"),
        ({"masks": np.zeros((3, 4, 5))}, "not a readable detections file"),
        ({"boxes": np.zeros((3, 5))}, "not a readable detections file"),
        (
            {"masks": np.zeros((9000, 112, 112), np.float16)},
            "it unpacks to 225,.* bytes, expected 67,236,864",
        ),
    ],
)
def test_files_of_other_programs(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=f"a1.npz: .*{problem}"):
        Detections.load(save_any(tmp_path / "a1.npz", **changes))


@pytest.mark.parametrize("meta", [
    {"cell_types": "astro"}, {"cell_types": 3}, {"cell_types": [1]}, {"postprocess": [1]}, {"filter": "a.npz"},
    {"mask_size": "28"}, {"mask_size": -1}, {"mask_size": 1e9},
])  # fmt: skip
def test_meta_of_another_type(tmp_path: Path, meta: dict[str, Any]) -> None:
    folder = DetectionsFolder(tmp_path)
    folder.write_meta(**meta)
    with pytest.raises(InputError, match="meta.json: expected cell_types as a list of names"):
        _ = folder.meta


def test_the_prevailing_type_has_the_largest_sum_of_scores() -> None:
    scores = np.array([0.9, 0.5, 0.5], np.float32)
    assert replace(some(), scores=scores, cell_types=np.array([0, 2, 2])).prevailing_type == 2
    assert replace(some(), scores=scores, cell_types=np.array([2, 1, 0])).prevailing_type == 2
    assert Detections.empty("a", 4, 4).prevailing_type == 0


def test_the_folder_of_a_run_stands_for_its_detections(tmp_path) -> None:
    DetectionsFolder(tmp_path / "detections").write_meta(cell_types=["a"])
    some().save(tmp_path / "detections")
    assert DetectionsFolder(tmp_path).image_ids() == DetectionsFolder(tmp_path / "detections").image_ids() != []
    (tmp_path / "meta.json").write_bytes((tmp_path / "detections" / "meta.json").read_bytes())
    assert DetectionsFolder(tmp_path).image_ids() == []  # with a meta.json it is one itself


def test_agreement_is_kept_where_there_is_one(tmp_path) -> None:
    agreement = np.array([0.25, 0.5, 1], np.float32)
    detections = replace(some(), agreement=agreement)
    read = Detections.load(detections.save(tmp_path))
    np.testing.assert_array_equal(read.agreement, agreement)
    assert read.agreement.dtype == np.float32
    np.testing.assert_array_equal(read.select([2, 0]).agreement, agreement[[2, 0]])
    assert Detections.load(some("b2").save(tmp_path)).agreement is None and some().select([0]).agreement is None
    with pytest.raises(ValueError, match=r"agreement \[3\] expected, got \(2,\)"):
        replace(some(), agreement=agreement[:2])


def test_sets_are_joined_from_an_iterator_too() -> None:
    parts = [Detections.empty("a1", 40, 50, mask_size=9), *(some().select([k, 0]) for k in range(3)), some().select([])]
    joined = Detections.concatenate(iter(parts))
    for name in ("boxes", "scores", "cell_types", "masks"):
        expected = np.concatenate([getattr(part, name) for part in parts[1:]])
        assert np.array_equal(getattr(joined, name), expected) and getattr(joined, name).dtype == expected.dtype
    assert Detections.concatenate(iter(parts[:1])).mask_size == 9


def test_the_pixel_size_is_kept_where_it_is_known(tmp_path: Path) -> None:
    known = replace(some(), pixel_size=0.65)
    assert Detections.load(known.save(tmp_path)).pixel_size == 0.65
    assert known.select([1]).pixel_size == known.sorted().pixel_size == 0.65
    assert Detections.concatenate([some(), known]).pixel_size == 0.65
    assert Detections.load(some("b2").save(tmp_path)).pixel_size is None is Detections.concatenate([some()]).pixel_size
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="image a1: pixel size: expected micrometres above 0, got"):
            replace(some(), pixel_size=bad).save(tmp_path)
        with pytest.raises(InputError, match=r"a1\.npz: pixel size: expected micrometres above 0, got"):
            Detections.load(save_any(tmp_path / "a1.npz", pixel_size=bad))


@pytest.mark.parametrize("detections", [some(), Detections.empty("b2", 40, 50)])
def test_file(tmp_path, detections: Detections) -> None:
    path = detections.save(tmp_path)
    assert path == tmp_path / f"{detections.image_id}.npz"
    assert_same(Detections.load(path), detections)


def test_a_perfect_model() -> None:
    masks = np.zeros((2, 20, 20), bool)
    masks[0, 2:10, 3:9] = masks[1, 8:16, 8:12] = True
    instances = Instances.from_masks(masks, [2, 1])
    detections = Detections.from_instances("a", instances, [0.5, 1.0], mask_size=8)
    np.testing.assert_array_equal(detections.boxes, instances.boxes)
    assert detections.masks.shape == (2, 8, 8)
    assert detections.masks[:, 1:-1, 1:-1].min() == 1
    assert len(Detections.from_instances("a", Instances.empty(4, 4), [])) == 0
    with pytest.raises(ValueError, match="cell 1 has no pixels"):
        Detections.from_instances("a", Instances.from_rles(["1 1", ""], [0, 0], 4, 4), [1, 1])


def test_from_regions() -> None:
    regions = np.zeros((20, 30), np.uint16)
    regions[2:10, 3:9], regions[2:10, 9:25] = 2, 1  # they touch
    probability = np.where(regions == 2, 0.75, 1.0).astype(np.float32)
    detections = Detections.from_regions("a", regions, probability, [0.5, 1.0], [2, 1], 8, ("x", "y", "z"))
    assert detections.boxes.tolist() == [[9, 2, 25, 10], [3, 2, 9, 10]]
    assert (detections.height, detections.width, detections.cell_type_names) == (20, 30, ("x", "y", "z"))
    assert detections.scores.tolist() == [0.5, 1.0] and detections.cell_types.tolist() == [2, 1]
    assert detections.masks.dtype == np.float16
    np.testing.assert_array_equal(
        detections.masks[:, 1:-1, 1:-1], np.array([1.0, 0.75])[:, None, None] * np.ones((6, 6))
    )
    assert_same(Detections.from_regions("a", regions * 0, probability, [], [], 28), Detections.empty("a", 20, 30))


@pytest.mark.parametrize("scores", [[0.5], [0.5] * 4, [0.5] * 3])
def test_regions_and_scores_must_fit(scores: list[float]) -> None:
    regions = np.array([[1, 0, 3], [1, 0, 3]], np.uint16)
    with pytest.raises(ValueError, match=rf"image a: {len(scores)} scores but regions \[1, 3\]"):
        Detections.from_regions("a", regions, regions.astype(np.float32), scores, scores)


@pytest.mark.parametrize(("mask_size", "least"), [(28, 0.975), (56, 0.99)])
def test_pasting_gives_the_probable_part_of_real_regions_back(real_data, mask_size: int, least: float) -> None:
    """Two real images of each cell type as maps: blurred, touching cells probable up to the cut."""
    table = pd.read_csv(real_data / "sartorius" / "train.csv", dtype=str)
    for _, images in table.groupby("cell_type"):
        ious = []
        for _, cells in list(images.groupby("id"))[:2]:
            instances = Instances.from_rles(cells.annotation.tolist(), np.zeros(len(cells)), 520, 704)
            instances = Instances.from_label_map(instances.layers.max(axis=0), instances.cell_types)
            instances = instances.select(instances.areas >= 20)
            true, count = instances.layers[0], len(instances)
            probability = cv2.GaussianBlur((true > 0).astype(np.float32), (0, 0), 1.0)
            regions = np.where(true > 0, true, cv2.dilate(true, np.ones((3, 3), np.uint8)))  # generous, as decoders are
            found = Detections.from_regions("a", regions, probability, np.ones(count), np.zeros(count), mask_size)
            pasted = paste_masks(found.boxes, found.masks, np.full(count, 0.5), 520, 704)
            wanted = np.where(probability > 0.5, regions, 0).ravel()
            shared = np.bincount(pasted.mask, weights=wanted[pasted.pixel] == pasted.mask + 1, minlength=count)
            ious.append(shared / (np.bincount(wanted, minlength=count + 1)[1:] + pasted.areas - shared))
        assert np.concatenate(ious).mean() > least


def test_folder(tmp_path) -> None:
    folder = DetectionsFolder(tmp_path / "found")
    with pytest.raises(InputError, match=r"no meta\.json"):
        _ = folder.meta
    folder.write_meta(cell_types=["shsy5y", "astro", "cort"], mask_size=4)
    for image_id in ("b2", "a1"):
        folder.write(some(image_id))
    assert folder.image_ids() == ["a1", "b2"]
    assert [d.image_id for d in folder] == ["a1", "b2"]
    assert folder.meta["mask_size"] == 4


def test_a_folder_names_what_is_wrong_with_it(tmp_path) -> None:
    folder = DetectionsFolder(tmp_path)
    folder.write_meta(cell_types=["shsy5y", "astro", "cort"])
    path = folder.write(some("a1"))
    path.rename(tmp_path / "c3.npz")
    with pytest.raises(InputError, match=r"c3\.npz holds image a1"):
        folder.load("c3")
    with pytest.raises(InputError, match=r"missing\.npz"):
        folder.load("missing")
    (tmp_path / "d4.npz").write_bytes(b"PK not really")
    with pytest.raises(InputError, match=r"d4\.npz: not a readable detections file \(no zip archive\); predict"):
        folder.load("d4")
    folder.write_meta(mask_size=28)
    folder.write(some("e5"))
    with pytest.raises(InputError, match=r"e5\.npz: masks of 4 bins, in meta.json 28"):
        folder.load("e5")
    folder.write_meta(cell_types=["x"])
    with pytest.raises(InputError, match=r"e5\.npz: cell types"):
        folder.load("e5")
    (tmp_path / "meta.json").write_text(json.dumps({"format_version": 99}))
    with pytest.raises(InputError, match="format_version 2 expected"):
        DetectionsFolder(tmp_path).load("e5")
    (tmp_path / "meta.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        DetectionsFolder(tmp_path).load("e5")
