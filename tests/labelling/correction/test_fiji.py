"""Images that go out to Fiji, and ROI zips that come back as Fiji writes them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import roifile
from PIL import Image

from sartorius.data.competition.about import read_about
from sartorius.data.competition.folder import Competition
from sartorius.data.files.source import FileImages
from sartorius.errors import InputError
from sartorius.labelling.correction.fiji import FijiFolder
from sartorius.labelling.correction.session import CorrectionSession
from sartorius.structures import rle
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
    assert fiji.read_back() == ({}, [], []) and fiji.session.status("a") == "open"


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
    assert again.read_back() == ({"a": 3}, [], [])
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
    assert fiji.read_back() == ({"a": 2}, [], [])
    assert fiji.write_next(3) == ["b", "c", "film_t000"] and fiji.write_next(4, again=["a"])[3] == "a"
    again = roifile.roiread(fiji.folder / "a.zip")
    assert [roi.name for roi in again] == ["00001_long", "00002_round"]
    rewrite(fiji.folder / "a.zip", again[1:])
    assert fiji.read_back() == ({"a": 1}, [], []) and len(Competition(tmp_path / "mine", TYPES).record("a")) == 1
    with pytest.raises(InputError, match="again: image x is not among images="):
        fiji.write_next(9, again=["x"])


def test_cells_drawn_beyond_the_checked_part(fiji: FijiFolder, tmp_path: Path) -> None:
    """What is drawn, changed or given a type is a label; what nobody changed is none, which is told."""
    first, second, third = roifile.roiread(fiji.folder / "a.zip")
    second.group = 1
    new = polygon([[65, 4], [75, 4], [75, 12], [65, 12]], "0008-0055")
    part = polygon([[0, 0], [24, 0], [24, 30], [0, 30]], "checked")  # most of the first
    rewrite(fiji.folder / "a.zip", [first, second, third, new, part])
    lost = "a: 1 cells beyond the checked part that nobody changed are no labels"
    assert fiji.read_back() == ({"a": 3}, [lost], [])
    folder = Competition(tmp_path / "mine", TYPES)
    ignored, drawn = folder.ignored("a"), np.zeros(SIZE, bool)
    drawn[4:12, 65:75] = True
    assert folder.instances("a").to_rles() == [rle.of_mask(m) for m in (*map(full, three()[:2]), drawn)]
    assert ignored is not None and not ignored[4:12, 60:].any() and ignored[full(three()[2])].any()
    fiji.write_next(3, again=["a"])
    again = roifile.roiread(fiji.folder / "a.zip")
    rewrite(fiji.folder / "a.zip", [*again[:2], again[3]])
    assert FijiFolder(fiji.session).read_back() == ({"a": 2}, [], []), "a cell that was deleted"


def test_a_save_that_was_interrupted_is_finished(
    fiji: FijiFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By folds that cannot be written, or killed before the files are gone, or before they are forgotten."""
    for image_id in "ab":
        rewrite(fiji.folder / f"{image_id}.zip", roifile.roiread(fiji.folder / f"{image_id}.zip")[1:])
    assert fiji.read_back()[0] == {"a": 2, "b": 2}
    fiji.write_next(1, again=["a"])
    rewrite(fiji.folder / "a.zip", roifile.roiread(fiji.folder / "a.zip")[1:])
    picture, folds = tmp_path / "mine" / "train" / "b.png", tmp_path / "mine" / "folds.csv"
    picture.rename(tmp_path / "away.png")
    folds.unlink()
    counts, _, problems = FijiFolder(fiji.session).read_back()
    assert counts == {} and len(problems) == 1 and "b.png" in problems[0]
    assert len(Competition(tmp_path / "mine", TYPES, keep_going=True).record("a")) == 1, "the labels are there"
    (tmp_path / "away.png").rename(picture)
    unlink = Path.unlink
    with monkeypatch.context() as patched:
        dying = fiji.folder / "a.png"
        patched.setattr(Path, "unlink", lambda path, **rest: 1 / 0 if path == dying else unlink(path, **rest))
        with pytest.raises(ZeroDivisionError):
            FijiFolder(fiji.session).read_back()
    assert folds.is_file()
    with monkeypatch.context() as patched:
        patched.setattr(FijiFolder, "_forget", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            FijiFolder(fiji.session).read_back()
    assert not (fiji.folder / "a.zip").exists()
    again = FijiFolder(fiji.session)
    assert again.read_back() == ({}, [], []) and again.sent == {} and {*again.taken} == {"a", "b"}


def test_all_cells_deleted(fiji: FijiFolder, tmp_path: Path) -> None:
    rewrite(fiji.folder / "a.zip", [])
    assert fiji.read_back() == ({"a": 0}, [], [])
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
        counts, _, problems = fiji.read_back()
        assert counts == {} and len(problems) == 1
        with pytest.raises(InputError, match=words):
            raise InputError(problems[0])
        assert path.exists() and fiji.session.status("b") == "open" and "b" in fiji.sent


def test_files_that_were_deleted_go_out_again(fiji: FijiFolder) -> None:
    (fiji.folder / "b.zip").rename(fiji.folder / "mine.zip")
    _, told, problems = fiji.read_back()
    assert told == ["b: b.zip is gone, so that nothing of it is read"]
    assert len(problems) == 1 and "mine.zip: no image of this name is out, so it is not read" in problems[0]
    assert fiji.write_next(2) == ["a", "b"]
    (fiji.folder / "c.roi").write_bytes(b"saved once more")
    assert len(fiji.read_back()[2]) == 2 and fiji.write_next(3, again=["c"]) == ["a", "b", "film_t000"]
    assert (fiji.folder / "c.roi").read_bytes() == b"saved once more" and not (fiji.folder / "c.zip").exists()
    for content in ("[]", '{"sent": {"a": "sum"}, "taken": {}}'):
        (fiji.folder / "sent.json").write_text(content)
        with pytest.raises(InputError, match=r"sent\.json: expected what was sent"):
            FijiFolder(fiji.session)


def test_an_image_goes_out_beyond_those_that_wait(fiji: FijiFolder) -> None:
    rewrite(fiji.folder / "a.zip", [])
    assert fiji.read_back() == ({"a": 0}, [], [])
    assert fiji.write_next(1) == ["b"] and fiji.write_next(1, again=["a", "b", "a"]) == ["b", "a"]


@pytest.mark.parametrize("suffix", [".roi", ".zip.roi"])
def test_a_single_roi(fiji: FijiFolder, tmp_path: Path, suffix: str) -> None:
    """As the only one of an image without cells."""
    part = polygon([[0, 0], [80, 0], [80, 60], [0, 60]], "checked")
    part.tofile(fiji.folder / f"a{suffix}")
    rewrite(fiji.folder / "b.zip", [])
    part.tofile(fiji.folder / f"b{suffix}")
    counts, _, problems = fiji.read_back()
    assert counts == {"a": 0} and len(problems) == 1 and f"b.zip: b{suffix} was saved too" in problems[0]
    folder = Competition(tmp_path / "mine", TYPES)
    assert folder.ids == ("a",) and len(folder.record("a")) == 0 and folder.ignored("a") is None
    assert sorted(path.name for path in fiji.folder.glob("a*")) == []


def test_a_part_that_was_checked_stays_so(fiji: FijiFolder, tmp_path: Path) -> None:
    """Of labels, and of a draft."""
    rewrite(fiji.folder / "a.zip", [polygon([[0, 0], [80, 0], [80, 30], [0, 30]], "checked")])
    assert fiji.read_back() == ({"a": 0}, [], [])
    fiji.session.open("c", SIZE).mark_polygon([[0, 0], [20, 0], [20, 20], [0, 20]])
    assert fiji.write_next(3, again=["a"]) == ["b", "a", "c"]
    for image_id, rows, columns in (("a", 30, 80), ("c", 20, 20)):
        (region,) = roifile.roiread(fiji.folder / f"{image_id}.zip")
        assert (region.name, region.group) == ("checked", 0)
        rewrite(fiji.folder / f"{image_id}.zip", [region, polygon([[2, 2], [columns // 2, 2], [9, 9]], image_id)])
        assert FijiFolder(fiji.session).read_back() == ({image_id: 1}, [], [])
        ignored = Competition(tmp_path / "mine", TYPES).ignored(image_id)
        assert ignored is not None and not ignored[:rows, :columns].any()
        assert ignored[rows:].all() and ignored[:, columns:].all()


def test_a_group_is_of_the_types_that_went_out(fiji: FijiFolder, tmp_path: Path, images: FileImages) -> None:
    """Those of another order, and without one of them, are given when it comes back; dataset.json has them too."""
    about = read_about(tmp_path / "mine")
    assert about is not None and about.cell_types == TYPES and about.pixel_size == 0.5
    first, second, third = roifile.roiread(fiji.folder / "a.zip")
    rewrite(fiji.folder / "a.zip", [first, third])
    rewrite(fiji.folder / "b.zip", [second])
    other = FijiFolder(CorrectionSession(tmp_path / "mine", images, ("new", "round")))
    counts, _, problems = other.read_back()
    assert counts == {"a": 2} and Competition(tmp_path / "mine", ("new", "round")).cell_type("a") == "round"
    assert len(problems) == 1 and "is of group 2, which was long when the image went out" in problems[0]
    swapped = FijiFolder(CorrectionSession(tmp_path / "mine", images, ("long", "new", "round")))
    assert swapped.read_back() == ({"b": 1}, [], [])
    assert Competition(tmp_path / "mine", ("long", "round")).cell_type("b") == "long"


def test_groups_of_types_that_were_added(fiji: FijiFolder, tmp_path: Path, images: FileImages) -> None:
    rois = roifile.roiread(fiji.folder / "a.zip")
    rois[0].group = 3
    rewrite(fiji.folder / "a.zip", rois)
    other = FijiFolder(CorrectionSession(tmp_path / "mine", images, ("new", *TYPES)))
    assert "of group 3, but there are 2 cell types (round, long)" in other.read_back()[2][0]
    other.write_next(3)
    assert "(1 round, 2 long in b, a; 1 new, 2 round, 3 long in c)" in other.help()
    more = FijiFolder(CorrectionSession(tmp_path / "mine", images, (*TYPES, "new")))
    assert more.read_back()[0] == {"a": 3}
    types = Competition(tmp_path / "mine", (*TYPES, "new")).instances("a").cell_types
    assert types.tolist() == [2, 1, 0]


def test_rois_of_another_image(fiji: FijiFolder, tmp_path: Path) -> None:
    """The ROI Manager held those of the image before; cells that were predicted alike in both are not meant."""
    drawn = polygon([[50, 4], [60, 4], [60, 12], [50, 12]], "0008-0055")
    sent = roifile.roiread(fiji.folder / "a.zip")
    rewrite(fiji.folder / "a.zip", [*sent, drawn])
    rewrite(fiji.folder / "b.zip", [drawn, *sent])
    counts, _, problems = fiji.read_back()
    assert counts == {} and len(problems) == 2
    assert "a.zip: ROIs 0008-0055 are in image b too, as the ROI Manager keeps" in problems[1]
    rewrite(fiji.folder / "b.zip", [*sent, sent[0], sent[2]])
    counts, _, problems = fiji.read_back()
    assert counts == {"a": 4} and len(problems) == 1
    assert "b.zip: ROIs 00001_round, 00003_round, 00001_round, 00003_round cover the same pixels" in problems[0]
    fiji.write_next(3)
    rewrite(fiji.folder / "c.zip", [drawn])
    rewrite(fiji.folder / "b.zip", sent)
    counts, _, problems = FijiFolder(fiji.session).read_back()
    assert counts == {"b": 3} and len(problems) == 1 and "c.zip: ROIs 0008-0055 are in image a too" in problems[0]
    assert Competition(tmp_path / "mine", TYPES).ids == ("a", "b")


def test_edits_in_napari_are_not_lost(fiji: FijiFolder, tmp_path: Path) -> None:
    """A draft that was begun since, labels that were saved since; a draft that went out may be replaced."""
    own, sent = fiji.session, roifile.roiread(fiji.folder / "a.zip")
    for image_id in "ab":
        own.open(image_id, SIZE).delete([1])
        rewrite(fiji.folder / f"{image_id}.zip", sent[2:])
    own.save("b", own.image("b"), own.open("b", SIZE))
    counts, _, problems = fiji.read_back()
    assert counts == {} and len(problems) == 2 and len(own.open("a", SIZE).cells) == 2
    assert "a.zip: the image has edits in napari too; save these and delete this file, or delete" in problems[1]
    assert "b.zip: since the image went out it was saved with other labels than this file has" in problems[0]
    (fiji.folder / "a.zip").unlink()
    assert len(fiji.read_back()[1]) == 1 and fiji.write_next(2) == ["b", "a"]
    rewrite(fiji.folder / "a.zip", roifile.roiread(fiji.folder / "a.zip")[1:])
    assert fiji.read_back()[0] == {"a": 1} and len(Competition(tmp_path / "mine", TYPES).record("a")) == 1
