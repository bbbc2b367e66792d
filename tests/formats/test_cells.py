"""Every format reads back: identical masks in each, and scores and types where it holds them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import roifile
import tifffile
from pycocotools.coco import COCO
from skimage.draw import polygon2mask

from sartorius.errors import InputError
from sartorius.formats.cells import Cells
from sartorius.structures.instances import Instances
from tests.formats.crowd import crowd
from tests.formats.test_measures import blobs

SUFFIXES = (".tif", ".txt", ".zip", ".geojson", ".json")


def ragged() -> Cells:
    labels = blobs(1, smooth=0.8)
    return Cells(
        "ragged", Instances.from_label_map(labels, np.zeros(labels.max())), np.ones(labels.max(), np.float32), ("a",)
    )


def none() -> Cells:
    return Cells("none", Instances.empty(7, 9), np.zeros(0, np.float32), ("a",))


@pytest.mark.parametrize("make", [crowd, ragged, none])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reads_back(tmp_path: Path, suffix: str, make: object) -> None:
    cells: Cells = make()  # type: ignore[operator]
    path = cells.save(tmp_path / f"{cells.image_id}{suffix}")
    read = Cells.load(path, cells.height, cells.width)
    assert read.instances.to_rles() == cells.instances.to_rles() and len(read) == len(cells)
    assert (read.image_id, read.height, read.width) == (cells.image_id, cells.height, cells.width)
    if suffix in (".zip", ".geojson", ".json") and len(cells):
        np.testing.assert_allclose(read.scores, cells.scores, atol=1e-4)
        assert read.types == cells.types
    if suffix in (".tif", ".geojson", ".json"):
        assert read.pixel_size == cells.pixel_size
        assert Cells.load(path).labels.tolist() == read.labels.tolist(), "it tells the image's size"


def test_label_image(tmp_path: Path) -> None:
    """What other programs see: pages of uint16, compressed, with the pixel size in the resolution."""
    cells = crowd()
    with tifffile.TiffFile(cells.save(tmp_path / "a.tif")) as file:
        assert len(file.pages) == 2 and np.array_equal(file.asarray(), cells.labels)
        page = file.pages.first
        assert (page.dtype, page.compression) == (np.uint16, tifffile.COMPRESSION.ADOBE_DEFLATE)
        resolution = page.get_resolution(unit="MICROMETER")
        assert resolution == pytest.approx((2.0, 2.0))  # pixels a micrometre
    assert tifffile.imread(none().save(tmp_path / "b.tif")).shape == (7, 9)


def test_roi_zip(tmp_path: Path) -> None:
    """As roifile sees it: a traced polygon, composites of holes and pieces, none outside its rectangle."""
    cells = crowd()
    rois = roifile.roiread(cells.save(tmp_path / "a.zip"))
    assert [roi.name for roi in rois] == ["00001_cort", "00002_astro", "00003_cort", "00004_cort"]
    assert [roi.group for roi in rois] == [1, 2, 1, 1] and rois[0].props == "score: 0.875\ntype: cort\n"
    assert [roi.roitype for roi in rois] == [
        roifile.ROI_TYPE.RECT,
        roifile.ROI_TYPE.TRACED,
        *[roifile.ROI_TYPE.RECT] * 2,
    ]
    assert [len(roi.coordinates(multi=True)) for roi in rois] == [2, 1, 3, 3]
    for roi, box in zip(rois, cells.instances.boxes.tolist(), strict=True):
        assert [roi.left, roi.top, roi.right, roi.bottom] == box
    mask = polygon2mask((48, 64), rois[1].coordinates()[:, ::-1] - 0.5)
    assert np.array_equal(mask, cells.instances.layers.__eq__(2).any(axis=0))


def test_rois_of_a_wide_image(tmp_path: Path) -> None:
    """ImageJ's whole numbers end at 60,535 pixels: beyond, and only there, coordinates are fractions too."""
    layer = np.zeros((4, 80_000), np.uint16)
    layer[1:3, 50_000:50_004] = 1
    layer[1:3, 70_000:70_004] = 2
    layer[1:3, 79_990:] = 3
    layer[2, 79_995] = 0
    layer[1, 79_995] = 0  # two pieces
    cells = Cells("wide", Instances(layer[None], np.zeros(3, np.int64)), np.ones(3, np.float32), ("a",))
    path = cells.save(tmp_path / "wide.zip")
    assert np.array_equal(Cells.load(path, 4, 80_000).labels, layer)
    assert [roi.subpixelresolution for roi in roifile.roiread(path)] == [False, True, False]


def test_geojson_for_qupath(tmp_path: Path) -> None:
    cells = crowd()
    content = json.loads(cells.save(tmp_path / "a.geojson").read_text())
    assert content["type"] == "FeatureCollection" and len(content["features"]) == 4
    ring, disc, pieces, _ = content["features"]
    assert [feature["geometry"]["type"] for feature in content["features"]] == [
        "Polygon",
        "Polygon",
        "MultiPolygon",
        "Polygon",
    ]
    assert (disc["type"], disc["properties"]["objectType"], disc["properties"]["name"]) == ("Feature", "detection", "2")
    assert disc["properties"]["classification"]["name"] == "astro" != ring["properties"]["classification"]["name"]
    assert disc["properties"]["classification"]["color"] != ring["properties"]["classification"]["color"]
    measures = disc["properties"]["measurements"]
    assert measures["Detection probability"] == 0.75
    assert measures["Area µm^2"] == pytest.approx(cells.instances.areas[1] / 4)
    assert len(ring["geometry"]["coordinates"]) == 2 and len(pieces["geometry"]["coordinates"]) == 3
    (outer,) = disc["geometry"]["coordinates"]
    assert outer[0] == outer[-1]
    bare = Cells("a", cells.instances, np.full(4, np.nan, np.float32), ("a", "b"))
    measures = json.loads(bare.save(tmp_path / "b.geojson").read_text())["features"][0]["properties"]["measurements"]
    assert measures["Area px^2"] == cells.instances.areas[0] and not {"Detection probability", "Mean grey"} & set(
        measures
    )


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools with numpy 2
def test_coco_for_pycocotools(tmp_path: Path) -> None:
    cells = crowd()
    coco = COCO(str(cells.save(tmp_path / "a.json")))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["cort", "astro"]
    for k, annotation in enumerate(coco.loadAnns(coco.getAnnIds())):
        top, left, mask = cells.instances.crop_mask(k)
        decoded = coco.annToMask(annotation)
        assert decoded.shape == (48, 64) and decoded.sum() == annotation["area"] == mask.sum()
        assert np.array_equal(decoded[top : top + mask.shape[0], left : left + mask.shape[1]], mask)
        assert annotation["bbox"] == [left, top, mask.shape[1], mask.shape[0]]
        assert annotation["score"] == cells.scores[k]


def test_files_of_others(tmp_path: Path) -> None:
    """A label image with gaps in its numbers, an old export of QuPath, a rectangle of ImageJ's."""
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 7], [900, 900]], np.int32))
    assert Cells.load(tmp_path / "a.tif").labels.tolist() == [[0, 1], [2, 2]]
    square = [[[1.0, 1.0], [4.2, 1.0], [4.2, 3.0], [1.0, 3.0], [1.0, 1.0]]]
    properties = {"measurements": [{"name": "Detection probability", "value": 0.5}], "classification": {"name": "T"}}
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": square}, "properties": properties}
    (tmp_path / "a.geojson").write_text(json.dumps([feature, {**feature, "properties": {}}]))
    read = Cells.load(tmp_path / "a.geojson", 5, 6)
    assert read.types == ["T", "cell"] and read.instances.areas.tolist() == [6, 6] and read.scores[0] == 0.5
    roi = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, left=1, top=2, right=4, bottom=4, name="x")
    roifile.roiwrite(tmp_path / "a.zip", [roi])
    assert Cells.load(tmp_path / "a.zip", 5, 6).instances.areas.tolist() == [6]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tif", b"no tiff", "a.tif: not a readable label image"),
        ("a.zip", b"no zip", "a.zip: not a readable ROI zip"),
        ("a.txt", b"1,2,3", r"a.txt: line 1: expected x,y,x,y"),
        ("a.geojson", b"{}", "expected a FeatureCollection"),
        ("a.geojson", b'{"features": [{"geometry": {"type": "Point", "coordinates": []}}]}', r"features\[0\]: no cell"),
        ("a.json", b"{}", "not a file of cells that this program wrote"),
        ("a.json", b"[", "not valid JSON"),
        ("a.png", b"", "expected a name that ends in"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        Cells.load(tmp_path / name, 5, 6)


def test_sizes_and_stacks_are_asked_for(tmp_path: Path) -> None:
    cells = crowd()
    for suffix in (".zip", ".txt"):
        with pytest.raises(InputError, match="does not tell the size of its image; give height and width"):
            Cells.load(cells.save(tmp_path / f"a{suffix}"))
    with pytest.raises(InputError, match="no such file"):
        Cells.load(tmp_path / "nowhere.tif")
    tifffile.imwrite(tmp_path / "stack.tif", np.ones((2, 4, 5), np.uint8))
    with pytest.raises(InputError, match="each label on one page, 1 is on several of its 2 pages"):
        Cells.load(tmp_path / "stack.tif")
    tifffile.imwrite(tmp_path / "float.tif", np.full((4, 4), 0.5, np.float32))
    with pytest.raises(InputError, match=r"expected labels, whole numbers from 0, got float32 from 0 to 0\.5"):
        Cells.load(tmp_path / "float.tif")


def test_the_same_cells_give_the_same_files(tmp_path: Path) -> None:
    for suffix in (".tif", ".txt", ".geojson", ".json", ".csv"):
        first, second = (crowd().save(tmp_path / f"{k}{suffix}").read_bytes() for k in range(2))
        assert first == second, suffix
    assert zipfile.ZipFile(crowd().save(tmp_path / "a.zip")).testzip() is None
