"""Folders of own images and labels: cell types, groups, sizes, stacks, and what is there already."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import roifile
import tifffile

from sartorius.data.competition import groups
from sartorius.data.competition.about import read_about
from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import make_folds
from sartorius.errors import InputError
from sartorius.labelling.sources.chains import NOTE
from sartorius.labelling.sources.folder import ImportedFolder, import_folder
from sartorius.structures import rle
from sartorius.structures.instances import Instances
from tests.labelling.sources.test_formats import cellpose, drawn, write_image, write_labels
from tests.rewritten import WRITTEN, discs, written


def raw(tmp_path: Path, *names: str, kind: str = "_masks.tif", overlap: bool = False) -> str:
    """Write images with labels; returns the pattern of the labels."""
    for seed, name in enumerate(names):
        one = drawn(seed, overlap)
        write_image(tmp_path / "raw" / f"{name}.tif", one)
        write_labels((tmp_path / "raw" / name).parent, kind, {Path(name).name: one})
    return f"{tmp_path}/raw/**/*{kind}"


def read(tmp_path: Path, labels: str, **options: object) -> ImportedFolder:
    return import_folder(tmp_path / "mine", f"{tmp_path}/raw/**/*.tif", labels, **options)


def found(tmp_path: Path) -> Competition:
    about = read_about(tmp_path / "mine")
    assert about is not None
    return Competition(tmp_path / "mine", about.cell_types)


def types_of(tmp_path: Path) -> dict[str, list[str]]:
    competition = found(tmp_path)
    return {image_id: list(competition.record(image_id).types) for image_id in competition.ids}


@pytest.mark.parametrize(
    ("cell_type", "expected"),
    [
        ("neuron", ["neuron", "neuron"]),
        ("folder", ["astro", "cort"]),
        (r"(?P<type>[^/]+)/[^/]*$", ["astro", "cort"]),
        (r"_(?P<type>\w\d)", ["x1", "y2"]),
        (None, ["cell", "cell"]),
    ],
)
def test_cell_types_of_whole_images(tmp_path: Path, cell_type: str | None, expected: list[str]) -> None:
    labels = raw(tmp_path, "astro/a_x1", "cort/b_y2")
    imported = read(tmp_path, labels, cell_type=cell_type)
    assert [types[0] for types in types_of(tmp_path).values()] == expected
    assert all(len({*types}) == 1 for types in types_of(tmp_path).values())
    assert imported.about.cell_types == tuple(sorted({*expected}))


def test_cell_types_of_a_table(tmp_path: Path) -> None:
    labels = raw(tmp_path, "a", "b")
    table = tmp_path / "types.csv"
    table.write_text("file,cell_type\na.tif,round\nb,long\n")
    read(tmp_path, labels, cell_type=str(table))
    assert [types[0] for types in types_of(tmp_path).values()] == ["round", "long"]
    rows = [f"{name},{k + 1},{'long' if k == 3 else 'round'}" for name in "ab" for k in range(8)]
    table.write_text("\n".join(["file,label,cell_type", *rows]))
    read(tmp_path, labels, cell_type=str(table), existing="replace")
    assert types_of(tmp_path)["b"] == ["round"] * 3 + ["long"] + ["round"] * 4
    again = [f" {name} , {k + 1}.0 , {'short' if k == 2 else 'round'} " for name in "ab" for k in range(8)]
    table.write_text("\n".join(["file,label,cell_type", *again]))
    read(tmp_path, labels, cell_type=str(table), existing="replace")
    assert types_of(tmp_path)["b"] == ["round"] * 2 + ["short"] + ["round"] * 5
    table.write_text("\n".join(["file,label,cell_type", *rows[:-1]]))
    with pytest.raises(InputError, match=r"types\.csv: no row of label 8 of b\.tif"):
        read(tmp_path, labels, cell_type=str(table))
    table.write_text("file,cell_type\na,round\na,long\n")
    with pytest.raises(InputError, match=r"types\.csv row 3: a has no cell_type, or another one than in a row before"):
        read(tmp_path, labels, cell_type=str(table))
    table.write_text("file,cell_type\na,round\n")
    with pytest.raises(InputError, match=r"types\.csv: no row of b\.tif in column file"):
        read(tmp_path, labels, cell_type=str(table))


def test_a_row_of_a_table_types_one_file(tmp_path: Path) -> None:
    """Several files of a name are refused, unless one of them has it for its path; planes of a stack share a row."""
    for folder in ("", "a", "b"):
        write_image(tmp_path / "raw" / folder / "x.tif", drawn(0, overlap=False))
        tifffile.imwrite(tmp_path / "raw" / folder / "x_masks.tif", drawn(0, overlap=False).layers[0])
    stack = np.stack([drawn(k, overlap=False).layers[0] for k in range(2)])
    tifffile.imwrite(tmp_path / "raw" / "film.tif", stack, imagej=True, metadata={"axes": "TYX"})
    tifffile.imwrite(tmp_path / "raw" / "film_masks.tif", stack, photometric="minisblack")
    table = tmp_path / "types.csv"

    def types(*rows: str) -> dict[str, str]:
        table.write_text("\n".join(["file,cell_type", *rows]))
        labels = [str(path) for path in sorted((tmp_path / "raw").rglob("*_masks.tif"))]
        import_folder(tmp_path / "mine", str(tmp_path / "raw"), labels, cell_type=str(table), existing="replace")
        return {image_id: found(tmp_path).cell_type(image_id) for image_id in found(tmp_path).ids}

    for name in ("x.tif", "x"):
        assert types("film.tif,long", f"{name},round", "a/x.tif,thin", "b__x,long", "film_t001,thin") == {
            "x": "round", "a__x": "thin", "b__x": "long", "film_t000": "long", "film_t001": "thin",
        }  # fmt: skip
        with pytest.raises(InputError, match=r"types\.csv: no row of a/x\.tif in column file; .*no row of b/x\.tif"):
            types("film.tif,long", f"{name},round")
    (tmp_path / "raw" / "x.tif").unlink()
    (tmp_path / "raw" / "x_masks.tif").unlink()
    for name in ("x.tif", "x"):
        with pytest.raises(InputError, match=rf"row 3: '{name}': several images have this name \(a/x\.tif, b/x\.tif\)"):
            types("film,long", f"{name},round")


def test_wrong_patterns_and_types(tmp_path: Path) -> None:
    labels = raw(tmp_path, "a", "b")
    for options, message in (
        ({"group": "([^_]+)_"}, r"group=.*: has no group \(\?P<group>...\)"),
        ({"group": "(?P<group>"}, "group=.*: not a regular expression"),
        ({"group": r"dish(?P<group>\d)"}, r"a\.tif: group=.* finds nothing in 'a\.tif'; .*b\.tif: group="),
        ({"cell_type": r"(?P<type>\d)"}, r"a\.tif: cell_type=.* finds nothing"),
        ({"cell_type": "unlabelled"}, "expected different names, none 'unlabelled'"),
        ({"cell_types": ["round"]}, r"cell_types=\[round\]: the labels have cell too; name them all"),
        ({"binary": "maybe"}, "binary: expected one of refuse, components, cell, got 'maybe'"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path, labels, **options)
    assert not (tmp_path / "mine").exists()


def test_groups_lie_in_one_fold(tmp_path: Path) -> None:
    labels = raw(tmp_path, *(f"dish{k // 2}_{k}" for k in range(6)))
    imported = read(tmp_path, labels, group="(?P<group>[^_]+)_")
    competition = found(tmp_path)
    assert [*competition.wells.values()] == ["dish0", "dish0", "dish1", "dish1", "dish2", "dish2"]
    folds = make_folds(competition, 3, 0).table
    assert folds.groupby("well")["fold"].nunique().tolist() == [1, 1, 1] and not any(
        "group=" in n for n in imported.notes
    )


def test_another_pattern_than_that_of_images_that_stay(tmp_path: Path) -> None:
    labels = raw(tmp_path, "dish0_0", "dish0_1")
    read(tmp_path, labels)
    (tmp_path / "raw" / "dish0_2.tif").write_bytes((tmp_path / "raw" / "dish0_1.tif").read_bytes())
    pattern = "^(?P<group>[^_]+)_"
    for existing in ("keep", "refuse"):
        message = "dish0_2 is of 'dish0' as .* several groups" if existing == "keep" else "2 of these images with other"
        with pytest.raises(InputError, match=message):
            read(tmp_path, labels, group=pattern, existing=existing)
    assert read_about(tmp_path / "mine").group is None  # type: ignore[union-attr]
    read(tmp_path, labels, group=pattern, existing="replace")
    assert groups.saved_groups(tmp_path / "mine") == dict.fromkeys(("dish0_0", "dish0_1", "dish0_2"), "dish0")
    other = [f"{tmp_path}/raw/dish0_1_masks.tif"]
    with pytest.raises(
        InputError, match=r"group=.*was written by group=.*, and 2 of its images .*\(dish0_0, dish0_2\)"
    ):
        import_folder(tmp_path / "mine", f"{tmp_path}/raw/dish0_1.tif", other, group="(?P<group>.)", existing="replace")


def test_planes_of_a_stack_have_pages_of_labels_and_are_one_group(tmp_path: Path) -> None:
    planes = [drawn(seed, overlap=False) for seed in range(3)]
    stack = np.stack([one.foreground().astype(np.uint16) * 3000 + 500 for one in planes])
    (tmp_path / "raw").mkdir()
    tifffile.imwrite(tmp_path / "raw" / "x.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    write_image(tmp_path / "raw" / "y.tif", planes[0])
    tifffile.imwrite(
        tmp_path / "raw" / "x_masks.tif", np.stack([one.layers[0] for one in planes]), photometric="minisblack"
    )
    tifffile.imwrite(tmp_path / "raw" / "y_masks.tif", planes[0].layers[0])
    read(tmp_path, f"{tmp_path}/raw/*_masks.tif")
    competition = found(tmp_path)
    assert competition.ids == ("x_z000", "x_z001", "x_z002", "y")
    for k, one in enumerate(planes):
        assert competition.instances(f"x_z00{k}").to_rles() == one.to_rles()
    assert len({*competition.wells.values()}) == 2
    tifffile.imwrite(tmp_path / "raw" / "x_masks.tif", planes[0].layers[0])
    with pytest.raises(InputError, match=r"x_masks\.tif: 1 pages of labels, an image of 3 planes"):
        read(tmp_path, f"{tmp_path}/raw/*_masks.tif")
    imported = import_folder(
        tmp_path / "max", f"{tmp_path}/raw/*.tif", f"{tmp_path}/raw/*_masks.tif", pages="max", channel=None
    )
    assert imported.about.reading["pages"] == "max" and Competition(tmp_path / "max", ["cell"]).ids == ("x", "y")


def test_frames_of_a_movie_with_a_label_file_each_are_one_group(tmp_path: Path) -> None:
    frames = [drawn(seed, overlap=False) for seed in range(3)]
    movie = np.stack([one.foreground().astype(np.uint16) * 3000 + 500 for one in frames])
    (tmp_path / "raw").mkdir()
    tifffile.imwrite(tmp_path / "raw" / "x.tif", movie, imagej=True, metadata={"axes": "TYX"})
    for k, one in enumerate(frames):
        tifffile.imwrite(tmp_path / "raw" / f"x_t00{k}_masks.tif", one.layers[0])
    read(tmp_path, f"{tmp_path}/raw/*_masks.tif")
    competition = found(tmp_path)
    assert [*competition.wells.values()] == ["x.tif"] * 3
    assert competition.instances("x_t002").to_rles() == frames[2].to_rles()


def test_labels_of_another_size_tell_how_it_differs(tmp_path: Path) -> None:
    raw(tmp_path, "a", "b", "c", "d")
    one = drawn(0, overlap=False).layers[0]
    shapes = {"a": one.T, "b": one[:-1], "c": np.kron(one, np.ones((2, 2), np.uint16)), "d": one[:40]}
    for name, labels in shapes.items():
        tifffile.imwrite(tmp_path / "raw" / f"{name}_masks.tif", labels)
    with pytest.raises(InputError) as caught:
        read(tmp_path, f"{tmp_path}/raw/*_masks.tif")
    text = str(caught.value)
    assert "a_masks.tif: labels of 60x90 pixels, an image of 90x60; rows and columns are exchanged" in text
    assert "b_masks.tif: labels of 90x59 pixels, an image of 90x60; a pixel more or less: they may be shifted" in text
    assert "c_masks.tif: labels of 180x120 pixels, an image of 90x60; 2 times as large" in text
    assert "d_masks.tif: labels of 90x40 pixels, an image of 90x60" in text
    assert not (tmp_path / "mine").exists()


def test_images_that_are_there_already(tmp_path: Path) -> None:
    labels = raw(tmp_path, "a", "b")
    read(tmp_path, labels)
    before = (tmp_path / "mine" / "train.csv").read_bytes()
    raw(tmp_path, "a", "b", "c")
    imported = read(tmp_path, labels)  # one more; the others are the same
    assert "images that were there already and stay as they are: 2 (a, b)" in imported.notes
    assert len(found(tmp_path).ids) == 3 and (tmp_path / "mine" / "train.csv").read_bytes().startswith(before)
    write_labels(tmp_path / "raw", "_masks.tif", {"a": drawn(7, overlap=False)})
    with pytest.raises(InputError, match=r"mine: has 1 of these images with other labels \(a\); existing=keep leaves"):
        read(tmp_path, labels)
    read(tmp_path, labels, existing="keep")
    assert found(tmp_path).instances("a").to_rles() == drawn(0, overlap=False).to_rles()
    read(tmp_path, labels, existing="replace")
    assert found(tmp_path).instances("a").to_rles() == drawn(7, overlap=False).to_rles()
    with pytest.raises(
        InputError, match=r"dataset\.json: its images have pixel_size None, these 0\.5; .*another output="
    ):
        read(tmp_path, labels, pixel_size=0.5)


def test_another_image_of_a_name_that_is_there(tmp_path: Path) -> None:
    labels = raw(tmp_path, "a", "b")
    write_image(tmp_path / "raw" / "u.tif", drawn(5))
    read(tmp_path, labels)
    for name in "au":
        write_image(tmp_path / "raw" / f"{name}.tif", drawn(9))
    paths = [tmp_path / "mine" / name for name in ("train/a.png", "train_semi_supervised/u.png")]
    before = [path.read_bytes() for path in paths]
    with pytest.raises(InputError, match=r"mine: has 2 other images of these names \(a, u\); existing=keep leaves"):
        read(tmp_path, labels)
    kept = read(tmp_path, labels, existing="keep")
    assert "images that were there already and stay as they are: 3 (a, b, u)" in kept.notes
    assert before == [path.read_bytes() for path in paths]
    read(tmp_path, labels, existing="replace")
    assert all(path.read_bytes() != old for path, old in zip(paths, before, strict=True))


def test_types_and_groups_are_kept_and_lost_labels_told_where_no_image_changes(tmp_path: Path) -> None:
    labels = raw(tmp_path, "a", "b")
    read(tmp_path, labels)
    imported = read(tmp_path, labels, cell_types=["round", "cell"])
    assert read_about(tmp_path / "mine") == imported.about and imported.about.cell_types == ("round", "cell")
    (tmp_path / "raw" / "b_masks.tif").unlink()
    notes = import_folder(tmp_path / "mine", f"{tmp_path}/raw/[ab].tif", [f"{tmp_path}/raw/a_masks.tif"]).notes
    assert "images without labels now, those that the folder has of them stay: 1 (b)" in notes
    assert len(found(tmp_path).instances("b")) == 8


def test_an_output_within_the_images_is_no_image_when_it_is_written_again(tmp_path: Path) -> None:
    labels = raw(tmp_path, "a")
    for _ in range(2):
        imported = import_folder(tmp_path / "raw" / "mine", str(tmp_path / "raw"), labels)
        assert Competition(tmp_path / "raw" / "mine", ["cell"]).ids == ("a",)
    assert "images that were there already and stay as they are: 1 (a)" in imported.notes
    assert not (tmp_path / "raw" / "mine" / "train_semi_supervised").exists()


def test_an_output_that_holds_other_things(tmp_path: Path, tiny_competition: Path) -> None:
    labels = raw(tmp_path, "a")
    with pytest.raises(InputError, match="holds other data; give another output="):
        import_folder(tiny_competition, f"{tmp_path}/raw/*.tif", labels)
    with pytest.raises(InputError, match=r"raw/a\.tif: lies in output=.*raw, which is written"):
        import_folder(tmp_path / "raw", f"{tmp_path}/raw/*.tif", labels)
    with pytest.raises(InputError, match="output: give the folder to write"):
        import_folder(None, f"{tmp_path}/raw/*.tif", labels)


def test_pixel_size_and_reading_reach_a_training(tmp_path: Path) -> None:
    one = drawn(0, overlap=False)
    (tmp_path / "raw").mkdir()
    grey = np.stack([np.zeros((60, 90), np.uint16), one.foreground() * np.uint16(900) + 100])
    for name in "ab":
        tifffile.imwrite(
            tmp_path / "raw" / f"{name}.tif", grey, imagej=True, metadata={"axes": "CYX", "unit": "um"},
            resolution=(2, 2),
        )  # fmt: skip
        write_labels(tmp_path / "raw", "_masks.tif", {name: one})
    labels = f"{tmp_path}/raw/*_masks.tif"
    with pytest.raises(InputError, match=r"a\.tif: 2 channels; give channel=0 to 1.*; .*b\.tif: 2 channels"):
        read(tmp_path, labels)
    imported = read(tmp_path, labels, channel=1, pages="each", levels="range")
    assert imported.about.pixel_size == 0.5 and imported.about.reading["channel"] == 1
    assert np.unique(found(tmp_path).image("a")).tolist() == [0, 255]
    data = SupervisedDataModule(tmp_path / "mine", cell_type_names=["cell"])
    assert data.pixel_size == 0.5 and data.reading == imported.about.reading
    assert SupervisedDataModule(tmp_path / "mine", cell_type_names=["cell"], pixel_size=0.7).pixel_size == 0.7


def test_bright_cells_that_turn_white_are_told(tmp_path: Path) -> None:
    """A sparse image, whose cells are 18 standard deviations above its mean or more, and a crowded one."""
    labels = raw(tmp_path, "a", "b")
    sparse = np.full((60, 90), 100, np.uint16)
    sparse[:2, :3], sparse[4, 4] = 9000, 30_000
    tifffile.imwrite(tmp_path / "raw" / "a.tif", sparse)
    told = "images with more than 0.1% of their pixels turned white or black; levels=range keeps them apart: 1"
    assert [note for note in read(tmp_path, labels).notes if "white" in note] == [f"{told} (a)"]
    imported = import_folder(tmp_path / "other", f"{tmp_path}/raw/*.tif", labels, levels="range")
    assert not [note for note in imported.notes if "white" in note]
    assert np.unique(Competition(tmp_path / "other", ("cell",)).image("a")).tolist() == [0, 76, 255]


def test_crowds_and_unlabelled_regions_are_no_cells(tmp_path: Path) -> None:
    labels = raw(tmp_path, "a", kind=".json")
    path = tmp_path / "raw" / "a.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    read(tmp_path, labels)
    competition, one = found(tmp_path), drawn(0, overlap=False)
    assert competition.instances("a").to_rles() == one.select(np.arange(1, 8)).to_rles()
    assert np.array_equal(competition.ignored("a"), one.layers[0] == 1)
    features = json.loads(cells_geojson(tmp_path, one))
    features["features"][2]["properties"]["classification"]["name"] = "Ignore*"
    (tmp_path / "raw" / "a.geojson").write_text(json.dumps(features))
    read(tmp_path, f"{tmp_path}/raw/a.geojson", existing="replace")
    assert np.array_equal(found(tmp_path).ignored("a"), one.layers[0] == 3) and len(found(tmp_path).instances("a")) == 7


def cells_geojson(tmp_path: Path, one: Instances) -> str:
    write_labels(tmp_path, ".geojson", {"x": one})
    return (tmp_path / "x.geojson").read_text()


def test_a_csv_without_sizes_and_rows_that_do_not_fit(tmp_path: Path) -> None:
    raw(tmp_path, "a", "b")
    table = tmp_path / "cells.csv"
    table.write_text("id,annotation\na,1 5 91 5\na.tif,\nb,\n")
    with pytest.raises(InputError, match=r"several labels belong to it \(a in .*cells\.csv, a\.tif in"):
        read(tmp_path, str(table))
    table.write_text("id,annotation\na,1 5 91 5\nb,\n")
    read(tmp_path, str(table))
    assert found(tmp_path).instances("a").boxes.tolist() == [[0, 0, 5, 2]] and len(found(tmp_path).instances("b")) == 0
    table.write_text("id,annotation\na,1 5 5400 5\nb,7 x\n")
    with pytest.raises(
        InputError, match=r"cells\.csv row 2: annotation of image a: a run past the end.*row 3.*not a whole"
    ):
        read(tmp_path, str(table))
    table.write_text("id,annotation,width,height\na,1 5,60,90\nb,,90,60\n")
    with pytest.raises(InputError, match=r"cells\.csv row 2: labels of 60x90 pixels, an image of 90x60; rows and"):
        read(tmp_path, str(table))


@pytest.mark.parametrize("how", [how for how in WRITTEN if how is not None])
def test_run_lengths_in_another_order_are_refused(tmp_path: Path, how: str) -> None:
    raw(tmp_path, "a")
    truth = rle.parse(discs(60, 90), 60, 90)
    table = tmp_path / "cells.csv"
    table.write_text("\n".join(["id,annotation", *(f"a,{text}" for text in written(truth, how))]))
    with pytest.raises(InputError, match=rf"cells\.csv: image a: the masks seem to be {how} \(only then are"):
        read(tmp_path, str(table))
    table.write_text("\n".join(["id,annotation", *(f"a,{text}" for text in rle.format(truth))]))
    read(tmp_path, str(table))
    assert found(tmp_path).instances("a").to_rles() == rle.format(truth)


def test_rois_drawn_in_imagej(tmp_path: Path) -> None:
    raw(tmp_path, "a")
    oval = roifile.ImagejRoi.frompoints(np.array([[0, 0]]))
    oval.roitype, oval.integer_coordinates, oval.n_coordinates = roifile.ROI_TYPE.OVAL, None, 0
    oval.left, oval.top, oval.right, oval.bottom = 20, 10, 40, 22
    box = roifile.ImagejRoi.frompoints([(1, 2), (9, 2), (9, 8), (1, 8)])
    roifile.roiwrite(tmp_path / "a.zip", [oval, box])
    read(tmp_path, f"{tmp_path}/a.zip")
    cells = found(tmp_path).instances("a")
    rows, columns = np.mgrid[:60, :90] + 0.5
    assert np.array_equal(cells.layers[0] == 1, ((columns - 30) / 10) ** 2 + ((rows - 16) / 6) ** 2 < 1)
    assert cells.boxes[1].tolist() == [1, 2, 9, 8] and cells.areas[1] == 48
    line = roifile.ImagejRoi.frompoints([(1, 2), (9, 2)])
    line.roitype, line.name = roifile.ROI_TYPE.POLYLINE, "scale"
    roifile.roiwrite(tmp_path / "b.zip", [box, line])
    with pytest.raises(InputError, match=r"b\.zip: ROI 'scale' is of the kind polyline and encloses no pixels; delete"):
        read(tmp_path, f"{tmp_path}/b.zip")
    far = roifile.ImagejRoi.frompoints([(200, 200), (210, 200), (210, 210)], name="far")
    roifile.roiwrite(tmp_path / "c.zip", [box, far])
    with pytest.raises(InputError, match=r"c\.zip: ROI 'far' has no pixels within the image of 90x60; delete it"):
        read(tmp_path, f"{tmp_path}/c.zip")


def test_outlines_from_pixel_to_pixel_as_cellpose_writes_them(tmp_path: Path) -> None:
    """Their pixels belong to the cells; outlines along edges, and some by hand among them, are no such ones."""
    raw(tmp_path, "a")
    one = drawn(0, overlap=False)
    filled = one.select([k for k in range(8) if k != 1])  # the one with a hole
    rings = []
    for k in range(7):
        top, left, mask = filled.crop_mask(k)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        rings.append(contours[0].reshape(-1, 2) + np.array((left, top)))
    roifile.roiwrite(tmp_path / "a.zip", [roifile.ImagejRoi.frompoints(ring) for ring in rings])
    (tmp_path / "a.txt").write_text("".join(",".join(map(str, ring.ravel().tolist())) + "\n" for ring in rings))
    for name in ("a.zip", "a.txt"):
        imported = read(tmp_path, f"{tmp_path}/{name}")
        assert found(tmp_path).instances("a").to_rles() == filled.to_rles()
        assert f"{NOTE}: 1 (a)" in imported.notes
    by_hand = roifile.ImagejRoi.frompoints([(1, 2), (9, 2), (9, 8), (1, 8)])
    roifile.roiwrite(tmp_path / "b.zip", [*(roifile.ImagejRoi.frompoints(ring) for ring in rings), by_hand])
    imported = read(tmp_path, f"{tmp_path}/b.zip", existing="replace")
    areas = found(tmp_path).instances("a").areas
    assert areas[7] == 48 and (areas[:7] < filled.areas).all() and f"{NOTE}: 1 (a)" not in imported.notes
    (tmp_path / "c.txt").write_text("88,1,89,2,90,3,89,3,88,2\n")
    with pytest.raises(InputError, match=r"c\.txt: an outline without points, or one that leaves the image of 90x60"):
        read(tmp_path, f"{tmp_path}/c.txt")


def test_cells_outside_the_image(tmp_path: Path) -> None:
    raw(tmp_path, "a", kind=".geojson")
    path = tmp_path / "raw" / "a.geojson"
    content = json.loads(path.read_text())
    ring = content["features"][0]["geometry"]["coordinates"][0]
    content["features"][0]["geometry"]["coordinates"] = [[[x + 500, y] for x, y in ring]]
    path.write_text(json.dumps(content))
    imported = read(tmp_path, str(path))
    assert "images with cells that have no pixel in them, which are left out: 1 (a)" in imported.notes
    assert len(found(tmp_path).instances("a")) == 7
    path.write_text(json.dumps({**content, "features": content["features"][:1]}))
    with pytest.raises(
        InputError, match=r"a\.geojson: none of its cells has a pixel in the image; they are of another"
    ):
        read(tmp_path, str(path))


def test_old_cellpose_files(tmp_path: Path) -> None:
    """Outlines are lists of strokes of points (plane, row, column, -), the last drawn first; masks may begin at -1."""
    one = drawn(0, overlap=False)
    write_image(tmp_path / "raw" / "a.tif", one)
    square = [(0, 10, 20, 1), (0, 10, 29, 1), (0, 19, 29, 1), (0, 19, 20, 1)]
    other = [(0, 15, 25, 1), (0, 15, 34, 1), (0, 24, 34, 1), (0, 24, 25, 1)]
    outlines = [[[np.array([point]) for point in shape]] for shape in (square, other)]
    path = tmp_path / "raw" / "a_seg.npy"
    np.save(path, {"outlines": outlines, "colors": []}, allow_pickle=True)
    read(tmp_path, str(path))
    cells = found(tmp_path).instances("a")
    assert cells.boxes.tolist() == [[25, 15, 35, 25], [20, 10, 30, 20]] and cells.areas.tolist() == [100, 75]
    cellpose(path, one.layers[0].astype(np.int32) - 1)
    read(tmp_path, str(path), existing="replace")
    assert found(tmp_path).instances("a").to_rles() == one.to_rles()
    cellpose(path, one.layers[0], masks=None, outlines=one.layers[0])
    with pytest.raises(
        InputError, match=r"a_seg\.npy: outlines without `masks`; open it in Cellpose and save it again"
    ):
        read(tmp_path, str(path))


@pytest.mark.parametrize("labels", ["*/masks/*.png", "*/masks"])
def test_a_folder_of_masks_of_one_cell_each_is_the_labels_of_the_image_beside_it(tmp_path: Path, labels: str) -> None:
    """As in the Data Science Bowl of 2018; also for an image with a single cell."""
    expected = {}
    for seed, name in enumerate(["aa", "bb"]):
        one = drawn(seed, True)
        one = one if seed else one.select(np.arange(len(one)) < 1)
        (tmp_path / "raw" / name / "images").mkdir(parents=True)
        (tmp_path / "raw" / name / "masks").mkdir()
        write_image(tmp_path / "raw" / name / "images" / f"{name}.tif", one)
        for k in range(len(one)):
            mask = one.select(np.arange(len(one)) == k).foreground().astype(np.uint8) * 255
            cv2.imwrite(str(tmp_path / "raw" / name / "masks" / f"{'xyz'[k % 3]}{k:03}.png"), mask)
        expected[f"{name}__images__{name}"] = {mask.tobytes() for mask in masks_of(one)}
    images, labels = f"{tmp_path}/raw/*/images/*.tif", f"{tmp_path}/raw/{labels}"
    imported = import_folder(tmp_path / "mine", images, labels)
    competition = found(tmp_path)
    assert not [note for note in imported.notes if "without" in note]
    got = {image_id: {mask.tobytes() for mask in masks_of(competition.instances(image_id))} for image_id in expected}
    assert got == expected and len(competition.record("aa__images__aa")) == 1
    (tmp_path / "raw" / "aa" / "masks" / "x000.png").unlink()
    write_labels(tmp_path / "raw" / "aa" / "masks", "_masks.tif", {"other": drawn(0)})
    import_folder(tmp_path / "third", images, labels.replace(".png", ".*"))
    assert len(Competition(tmp_path / "third", ("cell",)).record("aa__images__aa")) == len(drawn(0))
    two = np.zeros((60, 90), np.uint8)
    two[2:9, 2:9], two[20:29, 20:29] = 1, 2
    cv2.imwrite(str(tmp_path / "raw" / "bb" / "masks" / "x000.png"), two)
    with pytest.raises(InputError, match=r"x000\.png: 2 values, in a folder of masks of one cell each"):
        import_folder(tmp_path / "other", images, labels)


def masks_of(instances: Instances) -> list[np.ndarray]:
    return [instances.select(np.arange(len(instances)) == k).foreground() for k in range(len(instances))]
