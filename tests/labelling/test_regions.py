"""Labelled regions: against naive references, and every way to tell them through `prepare source=folder`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sartorius.data.competition.audit import audit
from sartorius.data.competition.folder import Competition
from sartorius.data.dataset import InstanceDataset
from sartorius.errors import InputError
from sartorius.labelling import regions
from sartorius.labelling.regions import near_labels, partly_labelled, read_rectangles
from sartorius.labelling.sources.folder import ImportedFolder, import_folder
from sartorius.labelling.sources.marked import RegionOptions
from sartorius.structures.instances import Instances

HEIGHT, WIDTH = 60, 80
SQUARES = [(5, 5), (5, 30), (5, 41), (30, 35), (40, 60)]  # top, left; 10 pixels each, in the order of their labels


def squares() -> np.ndarray:
    """bool [5, H, W]; the region left of column 40 holds two, the third begins right of it, the fourth is halved."""
    masks = np.zeros((len(SQUARES), HEIGHT, WIDTH), bool)
    for mask, (top, left) in zip(masks, SQUARES, strict=True):
        mask[top : top + 10, left : left + 10] = True
    return masks


def left_part(columns: int) -> np.ndarray:
    labelled = np.zeros((HEIGHT, WIDTH), bool)
    labelled[:, :columns] = True
    return labelled


@pytest.mark.parametrize("reach", [1, 2.5, 7, 30, 200])
def test_near_labels_is_the_distance_to_every_label(reach: float, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    mask = random.random((90, 40)) < 0.002
    rows, columns = np.mgrid[:90, :40]
    points = np.argwhere(mask)
    distance = np.array([(rows - y) ** 2 + (columns - x) ** 2 for y, x in points]).min(axis=0)
    found = near_labels(mask, reach)
    np.testing.assert_array_equal(found, distance <= reach**2)
    monkeypatch.setattr(regions, "_BAND", 40 * 11)
    np.testing.assert_array_equal(near_labels(mask, reach), found)
    assert not near_labels(np.zeros((5, 4), bool), reach).any() and near_labels(np.ones((1, 1), bool), reach).all()


def test_cells_outside_and_cells_cut_by_the_edge_are_unknown() -> None:
    masks = squares()
    cells = Instances.from_masks(masks, np.zeros(5)).to_runs()
    part = partly_labelled(cells, left_part(40))
    assert part.kept.tolist() == [True, False, False, True, False]  # the second ends at the edge
    assert (part.outside, part.cut) == (2, 1)
    expected = ~left_part(40) | masks[[1, 2, 4]].any(axis=0)
    np.testing.assert_array_equal(part.ignored, expected & ~masks[[0, 3]].any(axis=0))
    part = partly_labelled(cells, left_part(41))  # a pixel is between
    assert part.kept.tolist() == [True, True, False, True, False] and part.cut == 0
    everything = partly_labelled(cells, np.ones((HEIGHT, WIDTH), bool))
    assert everything.kept.all() and not everything.ignored.any()
    nothing = partly_labelled(cells, np.zeros((HEIGHT, WIDTH), bool))
    assert not nothing.kept.any() and nothing.ignored.all()
    none = partly_labelled(Instances.empty(HEIGHT, WIDTH).to_runs(), left_part(40))
    assert none.kept.shape == (0,) and none.ignored.sum() == 40 * HEIGHT


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two images with label images; the second has the first cell only."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for k, chosen in enumerate(([0, 1, 2, 3, 4], [0])):
        grey = np.random.default_rng(k).integers(90, 160, (HEIGHT, WIDTH)).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"im{k}.png")
        labels = (squares()[chosen] * np.arange(1, len(chosen) + 1)[:, None, None]).max(axis=0)
        Image.fromarray(labels.astype(np.uint16)).save(folder / f"im{k}_masks.png")
    return folder


def imported(raw: Path, **options: Any) -> ImportedFolder:
    marked = RegionOptions("ignore", **options)
    return import_folder(
        raw.parent / "mine", f"{raw}/im*.png", f"{raw}/*_masks.png", group="(?P<group>im.)", marked=marked
    )


def rectangles(raw: Path, *rows: str) -> str:
    path = raw.parent / "regions.csv"
    path.write_text("\n".join(("id,x1,y1,x2,y2", *rows)) + "\n")
    return str(path)


def check(folder: ImportedFolder, kept: list[int], ignored: np.ndarray) -> None:
    """The first image has these cells, and these pixels are ignored but for those of cells."""
    competition, masks = Competition(folder.root, folder.about.cell_types), squares()
    competition.check()
    cells = competition.instances("im0")
    np.testing.assert_array_equal(cells.areas, [100] * len(kept))
    np.testing.assert_array_equal(cells.foreground(), masks[kept].any(axis=0))
    target = InstanceDataset(competition, ["im0"])[0][1]
    assert target.ignored is not None and len(target) == len(kept)
    np.testing.assert_array_equal(target.ignored.numpy(), ignored & ~cells.foreground())


def write_mask(raw: Path, labelled: np.ndarray) -> str:
    for k in range(2):
        Image.fromarray(labelled.astype(np.uint8) * 255).save(raw / f"im{k}_area.png")
    return f"{raw}/*_area.png"


def write_shapes(raw: Path, labelled: np.ndarray) -> str:
    """QuPath's rectangle annotations, of the left part."""
    right = int(labelled[0].sum())
    ring = [[0, 0], [right, 0], [right, HEIGHT], [0, HEIGHT], [0, 0]]
    feature = {
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": "Region*"}},
    }  # fmt: skip
    for k in range(2):
        (raw / f"im{k}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return f"{raw}/*.geojson"


def write_rectangles(raw: Path, labelled: np.ndarray) -> str:
    right = int(labelled[0].sum())
    return rectangles(raw, f"im0,0,0,{right},20", f"im0.png,0,20,{right},999", f"im1,-5,0,{right},{HEIGHT}")


@pytest.mark.parametrize("write", [write_mask, write_shapes, write_rectangles])
def test_three_ways_to_tell_a_region_are_one(raw: Path, write: Callable[[Path, np.ndarray], str]) -> None:
    folder = imported(raw, regions=write(raw, left_part(40)))
    check(folder, [0, 3], ~left_part(40) | squares()[[1, 2, 4]].any(axis=0))
    assert any("2 cells lie mostly where nobody has labelled and 1 end at the edge" in note for note in folder.notes)
    competition = Competition(folder.root, folder.about.cell_types)
    assert competition.ids == ("im0", "im1"), "a mask of a region is no image"
    audited = audit(competition)
    ignored = competition.ignored("im0")
    assert ignored is not None and audited.images["unlabelled"][0] == round(float(ignored.mean()), 4)
    assert audited.images["cells"].tolist() == [2, 1]
    share = f"{audited.images['unlabelled'].mean():.1%}"
    assert any(f"labelled in parts: 2 (im0, im1): {share} of the area" in note for note in audited.notes)


def test_what_is_far_from_every_label_is_unknown(raw: Path) -> None:
    folder = imported(raw, near=7)
    far = ~near_labels(squares().any(axis=0), 7)
    assert 0.3 < far.mean() < 0.8
    check(folder, [0, 1, 2, 3, 4], far)
    again = import_folder(
        raw.parent / "both", f"{raw}/im*.png", f"{raw}/*_masks.png",
        marked=RegionOptions("ignore", write_mask(raw, left_part(40)), 7),
    )  # fmt: skip
    check(again, [0, 1, 2, 3, 4], far & ~left_part(40))


def test_regions_in_the_labels_are_no_cells(raw: Path) -> None:
    path = raw / "one"
    path.mkdir()
    (raw / "im0.png").rename(path / "im0.png")
    write_shapes(raw, left_part(40))
    content = json.loads((raw / "im0.geojson").read_text())
    for top, left in SQUARES:
        ring = [[left, top], [left + 10, top], [left + 10, top + 10], [left, top + 10], [left, top]]
        content["features"].append({"geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}})
    (path / "im0.geojson").write_text(json.dumps(content))
    folder = import_folder(raw / "mine", str(path), f"{path}/*.geojson", marked=RegionOptions("ignore"))
    check(folder, [0, 3], ~left_part(40) | squares()[[1, 2, 4]].any(axis=0))
    plain = import_folder(raw / "plain", str(path), f"{path}/*.geojson")
    competition = Competition(plain.root, plain.about.cell_types)
    assert len(competition.instances("im0")) == 5 and competition.ignored("im0") is None
    assert any("which only unlabelled=ignore heeds: 1 (im0)" in note for note in plain.notes)


def test_an_image_of_which_nothing_is_labelled_is_named(raw: Path) -> None:
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(raw / "im1_masks.png")
    folder = imported(raw, near=30)
    assert any("nothing is labelled, they teach nothing: im1" in note for note in folder.notes)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["im0,0,0,40,60"], "image im1: unlabelled=ignore, but nothing tells which part"),
        (["im0,0,0,40,60", "im1,0,0,x,60"], "row 3: corners '0, 0, x, 60', expected four whole numbers"),
        (["im0,40,0,0,60", "im1,0,0,9,9"], "row 2: x1=40 y1=0 x2=0 y2=60, expected x1 < x2"),
        (["im0,90,0,99,9", "im1,0,0,9,9"], "row 2: x1=90 y1=0 x2=99 y2=9 lies beside the image of 80x60"),
        (["im0,0,0,9,9", "im7,0,0,9,9"], "row 3: 'im7': no image has this name; ids look like im0, im1"),
        ([], "no rows"),
    ],
)
def test_bad_rectangles(raw: Path, rows: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        imported(raw, regions=rectangles(raw, *rows))
    assert not (raw.parent / "mine").exists()


def test_rectangles_under_another_header(raw: Path) -> None:
    path = raw / "regions.csv"
    path.write_text("name,left,top\nim0,0,0\n")
    with pytest.raises(InputError, match="no column id, x1, y1, x2, y2; expected id, x1, y1, x2, y2, found name, left"):
        imported(raw, regions=str(path))


def test_bad_options(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="near=30: tells which part of an image is labelled, but unlabelled=background"
    ):
        RegionOptions(near=30)
    with pytest.raises(InputError, match="regions=x.csv: tells which part"):
        RegionOptions(regions="x.csv")
    with pytest.raises(InputError, match="near"):
        RegionOptions("ignore", near=0)
    with pytest.raises(InputError, match="unlabelled"):
        RegionOptions("ignored")
    with pytest.raises(InputError, match="nothing tells which part of it is labelled"):
        imported(raw)
    with pytest.raises(InputError, match="nowhere"):
        imported(raw, regions=f"{tmp_path}/nowhere/*.png")
    Image.fromarray(np.ones((9, 9), np.uint8)).save(raw / "im0_area.png")
    with pytest.raises(InputError, match="9x9 pixels, an image of 80x60"):
        imported(raw, regions=f"{raw}/*_area.png")
    with pytest.raises(InputError, match="no such file"):
        read_rectangles(tmp_path / "none.csv")
