import json
from dataclasses import replace

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
    boxes = rng.uniform(0, 20, (n, 4)).astype(np.float32)
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


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"scores": np.array([0.5, np.nan, 0.1], np.float32)}, "scores that are not numbers"),
        ({"boxes": np.full((3, 4), np.inf, np.float32)}, "boxes that are not numbers"),
        ({"masks": np.full((3, 4, 4), np.nan, np.float16)}, "masks that are not numbers"),
        ({"cell_types": np.array([0, 3, 1])}, "cell types from 0 to 2 expected"),
        ({"cell_types": np.array([0, -1, 1])}, "cell types from 0 to 2 expected"),
    ],
)
def test_values_that_no_stage_can_work_with_are_refused(tmp_path, changes, problem) -> None:
    path = replace(some(), **changes).save(tmp_path)
    with pytest.raises(InputError, match=f"a1.npz: {problem}; predict this image again"):
        Detections.load(path)


def test_the_prevailing_type_has_the_largest_sum_of_scores() -> None:
    scores = np.array([0.9, 0.5, 0.5], np.float32)
    assert replace(some(), scores=scores, cell_types=np.array([0, 2, 2])).prevailing_type == 2
    assert replace(some(), scores=scores, cell_types=np.array([2, 1, 0])).prevailing_type == 2
    assert Detections.empty("a", 4, 4).prevailing_type == 0


def test_the_run_folder_in_place_of_its_detections(tmp_path) -> None:
    DetectionsFolder(tmp_path / "detections").write_meta()
    with pytest.raises(InputError, match=r"not a folder of detections; give .*detections$"):
        _ = DetectionsFolder(tmp_path).meta


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
    folder.write_meta(cell_types=["x"])
    folder.write(some("e5"))
    with pytest.raises(InputError, match=r"e5\.npz: cell types"):
        folder.load("e5")
    (tmp_path / "meta.json").write_text(json.dumps({"format_version": 99}))
    with pytest.raises(InputError, match="format_version 2 expected"):
        DetectionsFolder(tmp_path).load("e5")
    (tmp_path / "meta.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        DetectionsFolder(tmp_path).load("e5")
