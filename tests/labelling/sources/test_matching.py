"""Which labels belong to which image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sartorius.data.competition.folder import Competition
from sartorius.errors import InputError
from sartorius.labelling.sources.folder import import_folder
from sartorius.labelling.sources.matching import affixes_of, label_files
from tests.labelling.sources.test_formats import cells_of, drawn, write_image


def write(raw: Path, image: str, labels: str | None, seed: int = 0) -> None:
    """Write an image and its labels; the seed tells cells apart."""
    one = drawn(seed)
    write_image(raw / image, one)
    if labels is not None:
        (raw / labels).parent.mkdir(parents=True, exist_ok=True)
        cells_of("x", one).save(raw / labels)


def matched(tmp_path: Path, images: str, labels: str | list[str]) -> dict[str, list[str]]:
    """Import and return the cells of each image."""
    labels = [f"{tmp_path}/{one}" for one in labels] if isinstance(labels, list) else f"{tmp_path}/{labels}"
    imported = import_folder(tmp_path / "mine", f"{tmp_path}/{images}", labels, cell_type="cell")
    competition = Competition(imported.root, ["cell"])
    return {image_id: competition.instances(image_id).to_rles() for image_id in competition.ids}


def cells(*seeds: int) -> list[list[str]]:
    return [drawn(seed).to_rles() for seed in seeds]


def test_the_text_around_wildcards() -> None:
    assert affixes_of("raw/**/*_masks.tif") == ("", "_masks")
    assert affixes_of("raw/mask_*.png") == ("mask_", "") and affixes_of("raw/*_masks.*") == ("", "_masks")
    assert affixes_of("raw") == affixes_of("raw/*/x.tif") == ("", "")


def test_labels_beside_their_images_among_them(tmp_path: Path) -> None:
    write(tmp_path, "raw/a/x.tif", "raw/a/x_masks.tif", 0)
    write(tmp_path, "raw/b/x.tif", "raw/b/x_masks.tif", 1)
    assert matched(tmp_path, "raw/**/*.tif", "raw/**/*_masks.tif") == dict(
        zip(["a__x", "b__x"], cells(0, 1), strict=True)
    )


def test_parallel_trees_and_images_without_labels(tmp_path: Path) -> None:
    write(tmp_path, "images/a/x.tif", "labels/a/x.tif", 0)
    write(tmp_path, "images/b/x.tif", "labels/b/x.tif", 1)
    write(tmp_path, "images/c/x.tif", None, 2)
    assert matched(tmp_path, "images", "labels") == dict(zip(["a__x", "b__x"], cells(0, 1), strict=True))
    assert [path.name for path in (tmp_path / "mine" / "train_semi_supervised").iterdir()] == ["c__x.png"]


def test_names_of_programs_without_a_pattern(tmp_path: Path) -> None:
    write(tmp_path, "raw/x.tif", "out/x_cp_masks.tif", 0)
    write(tmp_path, "raw/x_2.tif", "out/x_2_rois.zip", 1)
    write(tmp_path, "raw/img_3.ome.tif", "out/img_3.geojson", 2)
    found = matched(tmp_path, "raw", "out")
    assert found == dict(zip(["img_3", "x", "x_2"], cells(2, 0, 1), strict=True))


def test_what_patterns_add_to_images_and_labels(tmp_path: Path) -> None:
    write(tmp_path, "raw/s1_img.tif", "raw/mask_s1.tif", 0)
    write(tmp_path, "raw/s2_img.tif", "raw/mask_s2.tif", 1)
    found = matched(tmp_path, "raw/*_img.tif", "raw/mask_*.tif")
    assert found == dict(zip(["s1_img", "s2_img"], cells(0, 1), strict=True))


def test_the_longest_name_counts(tmp_path: Path) -> None:
    write(tmp_path, "raw/x.tif", "out/x_masks.tif", 0)
    write(tmp_path, "raw/x_cp.tif", "out/x_cp_masks.tif", 1)
    assert matched(tmp_path, "raw", "out/*_masks.tif") == dict(zip(["x", "x_cp"], cells(0, 1), strict=True))


def test_one_image_and_one_label_file_whatever_they_are_called(tmp_path: Path) -> None:
    write(tmp_path, "raw/img2d.tif", "raw/mask2d.tif", 0)
    assert matched(tmp_path, "raw/img2d.tif", "raw/mask2d.tif") == {"img2d": cells(0)[0]}
    note = "the only image and the only labels belong together, though they have no name in common"
    assert note in import_folder(tmp_path / "b", f"{tmp_path}/raw/img2d.tif", f"{tmp_path}/raw/mask2d.tif").notes
    write(tmp_path, "same/x.tif", "same/x_masks.tif", 0)
    assert note not in import_folder(tmp_path / "c", f"{tmp_path}/same/x.tif", f"{tmp_path}/same/x_masks.tif").notes


def test_several_labels_of_an_image_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "raw/x.tif", "out/x_masks.tif")
    write(tmp_path, "raw/y.tif", "out/x_rois.zip")
    with pytest.raises(InputError, match=r"raw/x\.tif: several labels belong to it \(.*x_masks\.tif, .*x_rois\.zip\)"):
        matched(tmp_path, "raw", "out")
    assert not (tmp_path / "mine").exists()


def test_labels_of_two_images_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "raw/a/x.tif", None)
    write(tmp_path, "raw/b/x.tif", "out/x_masks.tif")
    write(tmp_path, "raw/y.tif", "out/y_masks.tif")
    with pytest.raises(InputError, match=r"x_masks\.tif: belongs to several images \(.*a/x\.tif, .*b/x\.tif\); narrow"):
        matched(tmp_path, "raw", "out")


def test_labels_that_belong_to_nothing(tmp_path: Path) -> None:
    write(tmp_path, "raw/x.tif", "out/other_masks.tif")
    write(tmp_path, "raw/y.tif", None)
    with pytest.raises(
        InputError, match=r"no label belongs to an image: labels are .*other_masks\.tif, images .*x\.tif"
    ):
        matched(tmp_path, "raw", "out")
    write(tmp_path, "raw/x.tif", "out/x_masks.tif")
    imported = import_folder(tmp_path / "mine", f"{tmp_path}/raw", f"{tmp_path}/out")
    assert any(note.startswith("labels without images: 1 (") and "other_masks.tif" in note for note in imported.notes)
    assert "images without labels, in train_semi_supervised/: 1 (y)" in imported.notes


def test_label_files_of_another_kind_among_the_images_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "raw/x.tif", "raw/x_rois.zip")
    write(tmp_path, "raw/x.tif", "raw/x_masks.tif")
    imported = import_folder(tmp_path / "mine", f"{tmp_path}/raw/*.tif", f"{tmp_path}/raw/*.zip")
    assert "files among the images that are called as labels, left out: 1 (x_masks.tif)" in imported.notes
    assert not (tmp_path / "mine" / "train_semi_supervised").exists()


def test_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path, "raw/x.tif", "out/x_masks.tif")
    with pytest.raises(InputError, match="empty: no label files in it; expected files ending in"):
        matched(tmp_path, "raw", "empty")
    with pytest.raises(InputError, match="empty: no images in it"):
        matched(tmp_path, "empty", "out")
    with pytest.raises(InputError, match=r"nothing\*: no file has such a name"):
        matched(tmp_path, "raw", "nothing*")
    with pytest.raises(InputError, match="no images in it but what is labels too; labels= names them"):
        matched(tmp_path, "out/*.tif", "out/*.tif")


def test_a_coco_file_of_all_images_by_folder_and_name(tmp_path: Path) -> None:
    for folder, seed in (("a", 0), ("b", 1)):
        write(tmp_path, f"raw/{folder}/x.tif", f"{folder}.json", seed)
    joined: dict[str, list] = {"images": [], "categories": [{"id": 90, "name": "cell"}], "annotations": []}
    for number, folder in enumerate(("a", "b"), start=5):
        content = json.loads((tmp_path / f"{folder}.json").read_text())
        joined["images"].append({**content["images"][0], "id": number, "file_name": f"{folder}\\x.tif"})
        joined["annotations"] += [
            {**one, "id": 100 * number + k, "image_id": number, "category_id": "90"}
            for k, one in enumerate(content["annotations"])
        ]
    (tmp_path / "all.json").write_text(json.dumps(joined))
    found = matched(tmp_path, "raw", ["all.json"])
    assert found == dict(zip(["a__x", "b__x"], cells(0, 1), strict=True))


def test_files_of_a_label_folder(tmp_path: Path) -> None:
    for name in ("a.tif", "sub/b.zip", "c.docx", ".hidden.tif", "sub/d.npy"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).touch()
    assert [path.name for path in label_files(f"{tmp_path}/out")] == ["a.tif", "b.zip", "d.npy"]
