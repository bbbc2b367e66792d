"""The queue of images, and labels that are saved, killed while they are saved, and opened again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sartorius.data.competition.about import About
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import choose_folds
from sartorius.data.competition.labelled_writer import Labelled, write_labelled
from sartorius.data.files.source import FileImages
from sartorius.data.levels import Levels
from sartorius.errors import InputError
from sartorius.formats.cells import Cells
from sartorius.labelling.correction import session as session_module
from sartorius.labelling.correction.session import CorrectionSession, types_of
from sartorius.labelling.correction.shapes import instances_of
from sartorius.labelling.sources.folder import import_folder
from sartorius.structures import rle
from sartorius.structures.instances import Instances
from tests.dying import BEFORE_THE_NAME
from tests.labelling.correction.test_edits import state, three
from tests.labelling.correction.test_shapes import discs, full

TYPES = ("round", "long")
SIZE = (60, 80)
ROOT = Path(__file__).resolve().parents[3]


def predicted(image_id: str) -> Cells | None:
    """Three cells in each image but `c`, whose types are named in another order."""
    if image_id == "c":
        return None
    instances = instances_of(three(), *SIZE)
    swapped = Instances(instances.layers, 1 - instances.cell_types)
    return Cells(image_id, swapped, np.array([0.5, 0.6, 0.7], np.float32), ("long", "round"))


@pytest.fixture
def images(tmp_path: Path) -> FileImages:
    """a, b and c, and a stack of two frames."""
    folder = tmp_path / "raw"
    folder.mkdir()
    drawn = np.random.default_rng(0).integers(90, 170, (5, *SIZE)).astype(np.uint8)
    for name, image in zip("abc", drawn, strict=False):
        tifffile.imwrite(folder / f"{name}.tif", image)
    tifffile.imwrite(folder / "film.tif", drawn[3:], imagej=True, metadata={"axes": "TYX"})
    return FileImages(str(folder), levels=Levels(), pixel_size=0.5)


def session(tmp_path: Path, images: FileImages, **options: object) -> CorrectionSession:
    return CorrectionSession(tmp_path / "mine", images, TYPES, predicted, **options)  # type: ignore[arg-type]


def test_the_queue_begins_with_the_most_doubtful_or_keeps_an_order(tmp_path: Path, images: FileImages) -> None:
    doubt = {"a": 0.1, "b": 0.4, "film_t000": 0.3, "film_t001": 0.3}
    assert session(tmp_path, images, doubt=doubt).queue == ["c", "b", "film_t000", "film_t001", "a"]
    ordered = session(tmp_path, images, order=["b", "unknown", "a", "b"])
    assert ordered.queue == ["b", "a", "c", "film_t000", "film_t001"] and ordered.next_image() == "b"
    following = ["b", *(ordered.next_image(after=image_id) for image_id in ordered.queue)]
    assert following == [*ordered.queue, "b"], "all of them, one behind the other, and anew"
    image = ordered.image("c")
    ordered.open("c", SIZE).add(discs((9, 9), radius=3), 0)
    assert ordered.status("c") == "started" and ordered.next_image() == "c", "what was begun comes first"
    ordered.save("c", image, ordered.open("c", SIZE))
    assert ordered.status("c") == "checked" and ordered.next_image() == "b"
    for image_id in ("b", "a", "film_t000", "film_t001"):
        ordered.save(image_id, ordered.image(image_id), ordered.open(image_id, SIZE))
    assert ordered.next_image() is None


def test_an_image_is_opened_as_predicted_as_left_and_as_saved(tmp_path: Path, images: FileImages) -> None:
    first = session(tmp_path, images)
    correction = first.open("a", SIZE)
    assert [cell.cell_type for cell in correction.cells.values()] == [0, 1, 0]
    assert [round(cell.score, 6) for cell in correction.cells.values()] == [0.5, 0.6, 0.7]
    assert not (tmp_path / "mine").exists(), "opening writes nothing"
    correction.delete([1])
    correction.set_type([2], 0)
    left = session(tmp_path, images).open("a", SIZE)
    assert sorted(left.cells) == [2, 3] and left.cells[2].cell_type == 0
    assert session(tmp_path, images).save("a", images.image("a"), left) == 2
    assert not session(tmp_path, images).draft("a").exists()
    folder = Competition(tmp_path / "mine", TYPES)
    folder.check()
    assert folder.instances("a").cell_types.tolist() == [0, 0] and folder.about is not None
    assert folder.about.pixel_size == 0.5 and folder.about.reading["levels"]["levels"] == "auto"
    assert (folder.image("a") == images.image("a")).all()
    saved = session(tmp_path, images).open("a", SIZE)
    assert len(saved.cells) == 2 and all(cell.accepted for cell in saved.cells.values()) and saved.region is None
    assert len(session(tmp_path, images).open("c", SIZE).cells) == 0


def test_edits_after_a_save_are_resumed_as_they_were_made(tmp_path: Path, images: FileImages) -> None:
    """In a draft of this session, and in one that was resumed; edits from before the save cannot be taken back."""
    own = session(tmp_path, images)
    image, correction = own.image("a"), own.open("a", SIZE)
    for saved in (1, 2):
        correction.delete([saved])
        own.save("a", image, correction)
        assert correction.undo() is None and own.status("a") == "checked"
        correction.add(discs((9, 9), radius=3), 1)
        correction.delete([max(correction.cells)])
        correction.undo()
        correction.mark_polygon([[0, 0], [60, 0], [60, 40], [0, 40]])
        again = session(tmp_path, images)
        resumed = again.open("a", SIZE)
        assert state(resumed) == state(correction) and len(resumed.cells) == 4 - saved
        own, correction = again, resumed
        correction.undo()
        correction.undo()
        assert sorted(correction.cells) == list(range(saved + 1, 4)) and correction.undo() is None


def test_a_marked_part_is_marked_again(tmp_path: Path, images: FileImages) -> None:
    own = session(tmp_path, images)
    correction = own.open("a", SIZE)
    correction.mark_polygon([[0, 0], [60, 0], [60, 40], [0, 40]])
    own.save("a", own.image("a"), correction)
    folder = Competition(tmp_path / "mine", TYPES)
    ignored, covered = folder.ignored("a"), folder.instances("a").foreground()
    assert ignored is not None and (ignored | covered)[:, 40:].all() and not ignored[:, :10].any()
    region = own.open("a", SIZE).region
    assert region is not None and int(region.mask.sum()) == int((~ignored).sum())


def test_cells_drawn_beyond_what_was_saved_are_saved_too(tmp_path: Path, images: FileImages) -> None:
    own = session(tmp_path, images, margin=3)
    correction = own.open("a", SIZE)
    correction.accept([1])
    assert own.save("a", own.image("a"), correction, "accepted") == 1
    again = session(tmp_path, images, margin=3)
    reopened = again.open("a", SIZE)
    assert len(reopened.cells) == 1 and reopened.region is not None
    drawn = discs((50, 70), radius=4)
    reopened.add(drawn, 1)
    assert again.save("a", again.image("a"), reopened) == 2
    folder = Competition(tmp_path / "mine", TYPES)
    cells, ignored = folder.instances("a"), folder.ignored("a")
    assert cells.to_rles() == [rle.of_mask(full(three()[0])), rle.of_mask(drawn)] and cells.cell_types.tolist()[1] == 1
    assert ignored is not None and not ignored[50, 64:77].any() and ignored[50, :64].all()


def test_an_image_without_a_labelled_pixel_is_open(tmp_path: Path, images: FileImages) -> None:
    """It begins with the model's cells, and keeps its group; another image of its name is refused."""
    pixels, none = images.image("a"), Instances.empty(*SIZE)
    blank = Labelled("a", pixels, none, group="dish", ignored=np.ones(SIZE, bool))
    write_labelled(tmp_path / "mine", About(TYPES), [blank])
    own = session(tmp_path, images, order=["a"])
    assert own.status("a") == "open" and own.next_image() == "a" and own.group("a") == "dish"
    assert (own.image("a") == pixels).all()
    correction = own.open("a", SIZE)
    assert len(correction.cells) == 3 and correction.region is None
    own.save("a", pixels, correction)
    folder = Competition(tmp_path / "mine", TYPES)
    assert folder.ids == ("a",) and len(folder.record("a")) == 3 and folder.record("a").well == "dish"
    assert own.status("a") == "checked" == session(tmp_path, images).status("a")
    write_labelled(tmp_path / "mine", About(TYPES), [replace(blank, image=255 - pixels)])
    with pytest.raises(InputError, match=r"raw/a\.tif: .*mine has another image of the name 'a'"):
        session(tmp_path, images).image("a")
    (tmp_path / "mine" / "train_semi_supervised").mkdir()
    Image.fromarray(pixels).save(tmp_path / "mine" / "train_semi_supervised" / "b.png")
    with pytest.raises(InputError, match=r"raw/b\.tif: .*mine has another image of the name 'b'"):
        session(tmp_path, images).image("b")


def test_groups_of_the_folds(tmp_path: Path, images: FileImages) -> None:
    own = session(tmp_path, images)
    assert [own.group(name) for name in ("a", "film_t000", "film_t001")] == ["", "film.tif", "film.tif"]
    shutil.copy(tmp_path / "raw" / "a.tif", tmp_path / "raw" / "astros[x]_G11-4_Vessel-361.tif")
    found = session(tmp_path, images, group="^(?P<group>[a-z])")
    assert [found.group(name) for name in ("a", "film_t000")] == ["a", "f"]
    with pytest.raises(InputError, match=r"group=.* finds nothing in 'a\.tif'"):
        session(tmp_path, images, group="(?P<group>[^_]+)_")
    About(TYPES, group="^(?P<group>f)?").write(tmp_path / "kept")
    kept = CorrectionSession(tmp_path / "kept", images, TYPES, group="^(?P<group>[a-z])")
    assert kept.about.group == "^(?P<group>[a-z])"
    About(TYPES, group="^(?P<group>[a-z])").write(tmp_path / "kept")
    assert CorrectionSession(tmp_path / "kept", images, TYPES).group("film_t000") == "f"
    well = CorrectionSession(tmp_path / "mine", FileImages(str(tmp_path / "raw"), levels=Levels()), TYPES)
    assert well.group("astros[x]_G11-4_Vessel-361") == "astros[x]_G11"
    empty = Labelled("a", own.image("a"), Instances.empty(*SIZE), group="dish")
    write_labelled(tmp_path / "mine", About(TYPES), [empty])
    again = session(tmp_path, images)
    again.save("a", again.image("a"), again.open("a", SIZE))
    assert Competition(tmp_path / "mine", TYPES).wells["a"] == "dish"


def test_images_have_the_groups_that_prepare_gave_theirs(tmp_path: Path) -> None:
    """Of plates and stacks, whether the raw images are corrected or those that the folder keeps without labels."""
    raw, grey = tmp_path / "raw" / "day", np.random.default_rng(0).integers(90, 170, (6, *SIZE)).astype(np.uint8)
    raw.mkdir(parents=True)
    cells = instances_of(three(), *SIZE).layers[0]
    for k in (1, 3):
        tifffile.imwrite(raw / f"pl_A3_{k}.tif", grey[k])
    tifffile.imwrite(raw / "film.tif", grey[4:], imagej=True, metadata={"axes": "TYX"})
    for name in ("pl_A3_1", "day__film_t000"):
        tifffile.imwrite(raw / f"{name}_masks.tif", cells)
    for pattern, expected in ((None, ["day__pl_A3", "day/film.tif"]), (r"(?P<group>\w+)(_\d)?\.tif$", None)):
        mine = tmp_path / f"mine{pattern is None}"
        imported = import_folder(mine, str(tmp_path / "raw"), f"{raw}/*_masks.tif", group=pattern)
        groups = Competition(mine, imported.about.cell_types).wells
        assert expected is None or [groups["day__pl_A3_1"], groups["day__film_t000"]] == expected
        assert (f"1 groups are the plate wells in names of images, such as {'day__pl_A3'}" in str(imported.notes)) == (
            pattern is None
        )
        for images in (str(mine / "train_semi_supervised"), str(tmp_path / "raw")):
            files = FileImages(images, levels=Levels(), leave_out=[*raw.glob("*_masks.tif")])
            own = CorrectionSession(mine, files, ("cell",))
            assert own.group("day__pl_A3_3") == ("day__pl_A3" if pattern is None else "pl_A3_3"), images
            assert own.group("day__film_t001") == groups["day__film_t000"], images
        own.save("day__film_t001", own.image("day__film_t001"), own.open("day__film_t001", SIZE))
        folds = choose_folds(Competition(mine, ("cell",)), 5, 0, None).table.set_index("id")["fold"]
        assert folds["day__film_t001"] == folds["day__film_t000"] != folds["day__pl_A3_1"]


def test_groups_of_the_folder_that_are_called_otherwise(tmp_path: Path, images: FileImages) -> None:
    """As in a csv that was imported, or where an image is alone; several of them have no answer."""

    def write(**groups: str) -> None:
        shutil.rmtree(tmp_path / "mine", ignore_errors=True)
        empty = [Labelled(name, images.image(name), Instances.empty(*SIZE), group=groups[name]) for name in groups]
        write_labelled(tmp_path / "mine", About(TYPES), empty)

    for told, expected in (("dish", "dish"), ("", "film_t000")):
        write(film_t000=told, a="x")
        assert session(tmp_path, images).group("film_t001") == expected
        assert session(tmp_path, images).group("film_t000") == told
        with pytest.raises(InputError, match=r"group=\^.* was written without group=, and 2 of its .*\(a, film_t000\)"):
            session(tmp_path, images, group="^(?P<group>[a-z])")
    shutil.copy(tmp_path / "raw" / "film.tif", tmp_path / "raw" / "pl_B2_7.tif")
    more = FileImages(str(tmp_path / "raw"), levels=Levels(), pixel_size=0.5)
    assert session(tmp_path, more).group("pl_B2_7_t001") == "pl_B2"
    images = more
    write(pl_B2_7_t000="one", film_t000="d", film_t001="e")
    assert session(tmp_path, more).group("film_t001") == "e" and session(tmp_path, more).group("pl_B2_7_t001") == "one"
    shutil.copy(tmp_path / "raw" / "a.tif", tmp_path / "raw" / "pl_B2_8.tif")
    images = FileImages(str(tmp_path / "raw"), levels=Levels(), pixel_size=0.5)
    write(pl_B2_7_t000="one", pl_B2_7_t001="two")
    with pytest.raises(InputError, match=r"pl_B2_8\.tif: image pl_B2_8 is of 'pl_B2' as images of several groups are"):
        session(tmp_path, images)


def test_another_image_of_a_labelled_one_s_name(tmp_path: Path, images: FileImages) -> None:
    own = session(tmp_path, images)
    own.save("a", own.image("a"), own.open("a", SIZE))
    assert session(tmp_path, images).status("a") == "checked", "the same image"
    tifffile.imwrite(tmp_path / "raw" / "a.tif", 255 - images.image("a"))
    with pytest.raises(InputError, match=r"raw/a\.tif: has the name of .*train/a\.png, which is labelled and another"):
        session(tmp_path, FileImages(str(tmp_path / "raw"), levels=Levels()))


def test_the_folder_is_read_once_between_two_saves(
    tmp_path: Path, images: FileImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, opened = session(tmp_path, images), []
    monkeypatch.setattr(
        session_module, "Competition", lambda *args, **rest: opened.append(1) or Competition(*args, **rest)
    )
    own.save("a", own.image("a"), own.open("a", SIZE))
    for _ in range(3):
        assert (own.image("a").shape, own.group("a"), len(own.open("a", SIZE).cells)) == (SIZE, "", 3)
    correction = own.open("a", SIZE)
    correction.delete([1])
    own.save("a", own.image("a"), correction)
    assert len(opened) == 1 and len(own.open("a", SIZE).cells) == 2 and len(opened) == 2


def test_types(tmp_path: Path, own_competition: Path) -> None:
    assert types_of(tmp_path, None, ()) == ["cell"] and types_of(tmp_path, ["b"], ()) == ["b"]
    assert types_of(own_competition, None, ["new", "cort"]) == ["shsy5y", "astro", "cort"]
    assert types_of(tmp_path, None, ["a", "b", "a"]) == ["a", "b"] and types_of(tmp_path, ["c"], ["a"]) == ["c"]
    About(("x", "y")).write(tmp_path)
    assert types_of(tmp_path, None, ["y", "z"]) == ["x", "y"] and types_of(tmp_path, ["y", "x", "z"], ()) == [
        "y",
        "x",
        "z",
    ]
    with pytest.raises(InputError, match=r"cell_types=\[x\]: .* has y too; give these"):
        types_of(tmp_path, ["x"], ())


def test_a_type_that_the_folder_has_not_becomes_the_first(tmp_path: Path, images: FileImages) -> None:
    whole = session(tmp_path, images)
    renamed = CorrectionSession(tmp_path / "other", images, ("long", "new"), whole.predicted)
    first, second = (one.open("a", SIZE).cells for one in (whole, renamed))
    assert {TYPES[cell.cell_type] for cell in first.values()} == {"round", "long"}
    assert {cell.cell_type for cell in second.values()} == {0}


def test_cells_of_another_image_size(tmp_path: Path, images: FileImages) -> None:
    with pytest.raises(InputError, match="image a: cells of 80x60 pixels, the image has 80x61; give the images"):
        session(tmp_path, images).open("a", (61, 80))


KILLED = f"""
import os, signal, sys
from pathlib import Path
from tests.labelling.correction.test_session import *
folder = Path(sys.argv[1])
own = session(folder, FileImages(str(folder / "raw"), levels=Levels()))
correction = own.open("a", SIZE)
correction.add(discs((9, 9), radius=3), 1)
{BEFORE_THE_NAME}
own.save("a", own.image("a"), correction)
"""


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_killed_while_saving(tmp_path: Path, images: FileImages, n: int) -> None:
    """At each file that gets its name: the labels are the old ones or the new ones, and the edits are still there."""
    own = session(tmp_path, images)
    own.save("a", own.image("a"), own.open("a", SIZE))
    before = (tmp_path / "mine" / "train.csv").read_text()
    program = [sys.executable, "-c", KILLED.format(n=n), str(tmp_path)]
    done = subprocess.run(program, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == (-signal.SIGKILL if n < 5 else 0), done.stderr
    folder = Competition(tmp_path / "mine", TYPES)
    folder.check()
    assert ((tmp_path / "mine" / "train.csv").read_text() == before) == (n < 4)
    again = session(tmp_path, images)
    assert len(again.open("a", SIZE).cells) == 4
    assert again.status("a") == ("started" if n < 4 else "checked")
    again.save("a", again.image("a"), again.open("a", SIZE))
    folder = Competition(tmp_path / "mine", TYPES)
    assert len(folder.record("a")) == 4 and choose_folds(folder, 5, 0, None).table["id"].tolist() == ["a"]


def test_images_that_have_a_fold_stay_in_it(tmp_path: Path, images: FileImages) -> None:
    own, before = session(tmp_path, images, n_folds=2), {}
    for image_id in ("film_t001", "b", "film_t000", "a"):
        own.save(image_id, own.image(image_id), own.open(image_id, SIZE))
        table = choose_folds(Competition(tmp_path / "mine", TYPES), 2, 0, None).table
        fold_of = dict(zip(table["id"], table["fold"], strict=True))
        assert image_id in fold_of and before.items() <= fold_of.items()
        before = fold_of
    assert before["film_t000"] == before["film_t001"] != before["b"], "a film is one group"
