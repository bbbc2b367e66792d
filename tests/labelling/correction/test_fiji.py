"""Images that go out to Fiji, and ROI zips that come back as Fiji writes them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import roifile
from PIL import Image

from sartorius.data.competition.folder import Competition
from sartorius.data.files.source import FileImages
from sartorius.errors import InputError
from sartorius.labelling.correction.fiji import FijiFolder
from tests.labelling.correction.test_edits import three
from tests.labelling.correction.test_session import SIZE, TYPES, images, session
from tests.labelling.correction.test_shapes import full

__all__ = ["images"]  # a fixture


@pytest.fixture
def fiji(tmp_path: Path, images: FileImages) -> FijiFolder:
    folder = FijiFolder(session(tmp_path, images, order=["b", "a"]))
    assert folder.write_next(2) == ["b", "a"]
    return folder


def rewrite(path: Path, rois: list[roifile.ImagejRoi]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for k, roi in enumerate(rois):
            archive.writestr(f"{k}-{roi.name}.roi", roi.tobytes())


def polygon(points: list[list[int]], name: str, kind: roifile.ROI_TYPE = roifile.ROI_TYPE.POLYGON) -> roifile.ImagejRoi:
    roi = roifile.ImagejRoi.frompoints(np.array(points), name=name)
    roi.roitype, roi.group = kind, 0
    return roi


def test_what_goes_out(fiji: FijiFolder) -> None:
    assert sorted(path.name for path in fiji.folder.iterdir()) == ["a.png", "a.zip", "b.png", "b.zip", "sent.json"]
    assert (np.asarray(Image.open(fiji.folder / "a.png")) == fiji.session.image("a")).all()
    rois = roifile.roiread(fiji.folder / "a.zip")
    assert [roi.name for roi in rois] == ["00001_round", "00002_long", "00003_round"]
    assert [roi.group for roi in rois] == [1, 2, 1]
    assert fiji.write_next(2) == ["b", "a"] and fiji.write_next(3) == ["b", "a", "c"]
    assert "1 round, 2 long" in fiji.help() and roifile.roiread(fiji.folder / "c.zip") == []


def test_nothing_comes_back_before_it_is_saved(fiji: FijiFolder) -> None:
    assert fiji.read_back() == ({}, []) and fiji.session.status("a") == "open"


def test_edited_rois_become_labels(fiji: FijiFolder, tmp_path: Path) -> None:
    """One deleted, one of another group, one without group and properties, one new, and a part that is checked."""
    first, second, third = roifile.roiread(fiji.folder / "a.zip")
    first.group = 2
    third.group, third.props = 0, ""
    third.name = "00003_round-1"
    new = polygon([[50, 4], [60, 4], [60, 12], [50, 12]], "0008-0055")
    part = polygon([[0, 0], [80, 0], [80, 55], [0, 55]], "Checked")
    rewrite(fiji.folder / "a.zip", [first, third, new, part])
    again = FijiFolder(fiji.session)
    assert again.read_back() == ({"a": 3}, [])
    folder = Competition(tmp_path / "mine", TYPES)
    cells, ignored = folder.instances("a"), folder.ignored("a")
    assert cells.cell_types.tolist() == [1, 0, 0], "the new one has the type of most, the first of equals"
    assert ignored is not None and ignored[55:].all() and not ignored[:55].any()
    masks = [full(three()[0]), full(three()[2]), np.zeros(SIZE, bool)]
    masks[2][4:12, 50:60] = True
    for k, mask in enumerate(masks):
        top, left, crop = cells.crop_mask(k)
        assert (crop == mask[top : top + crop.shape[0], left : left + crop.shape[1]]).all() and crop.sum() == mask.sum()
    assert not (fiji.folder / "a.zip").exists() and not (fiji.folder / "a.png").exists()
    assert again.write_next(2) == ["b", "c"] and fiji.session.status("a") == "checked"
    assert second.group == 2


def test_a_checked_image_goes_out_again(fiji: FijiFolder, tmp_path: Path) -> None:
    rewrite(fiji.folder / "a.zip", roifile.roiread(fiji.folder / "a.zip")[1:])
    assert fiji.read_back() == ({"a": 2}, [])
    assert fiji.write_next(3) == ["b", "c", "film_t000"] and fiji.write_next(4, again=["a"])[3] == "a"
    again = roifile.roiread(fiji.folder / "a.zip")
    assert [roi.name for roi in again] == ["00001_long", "00002_round"]
    rewrite(fiji.folder / "a.zip", again[1:])
    assert fiji.read_back() == ({"a": 1}, []) and len(Competition(tmp_path / "mine", TYPES).record("a")) == 1
    with pytest.raises(InputError, match="again: image x is not among images="):
        fiji.write_next(9, again=["x"])


def test_all_cells_deleted(fiji: FijiFolder, tmp_path: Path) -> None:
    rewrite(fiji.folder / "a.zip", [])
    assert fiji.read_back() == ({"a": 0}, [])
    assert len(Competition(tmp_path / "mine", TYPES).record("a")) == 0


def test_broken_zips_are_named_and_stay(fiji: FijiFolder) -> None:
    rois = roifile.roiread(fiji.folder / "a.zip")
    bad = {
        b"PK\3\4 cut off": "b.zip: not a readable ROI zip",
        b"": "b.zip: not a readable ROI zip",
        "line": "ROI 'scratch' is of the kind line and encloses no pixels; delete it, or draw",
        "outside": "ROI 'far' has no pixels within the image of 80x60; delete it",
        "group": r"ROI '00001_round' is of group 3, but there are 2 cell types \(round, long\); give it a group from 1",
    }
    for content, words in bad.items():
        path = fiji.folder / "b.zip"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content == "group":
            rois[0].group = 3
            rewrite(path, rois)
        elif content == "line":
            line = roifile.ImagejRoi.frompoints([[1, 1], [9, 9]], name="scratch")
            line.roitype = roifile.ROI_TYPE.LINE
            rewrite(path, [rois[1], line])
        else:
            rewrite(path, [polygon([[200, 200], [210, 200], [210, 210]], "far")])
        counts, problems = fiji.read_back()
        assert counts == {} and len(problems) == 1
        with pytest.raises(InputError, match=words):
            raise InputError(problems[0])
        assert path.exists() and fiji.session.status("b") == "open" and "b" in fiji.sent


def test_files_that_were_deleted_go_out_again(fiji: FijiFolder) -> None:
    (fiji.folder / "b.zip").unlink()
    assert fiji.read_back() == ({}, []) and fiji.write_next(2) == ["a", "b"]
    (fiji.folder / "sent.json").write_text("[]")
    with pytest.raises(InputError, match=r"sent\.json: expected a sum"):
        FijiFolder(fiji.session)
