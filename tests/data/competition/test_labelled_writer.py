"""Folders that `write_labelled` wrote, read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sartorius.data.cleaning import CleanedSource, Cleaning
from sartorius.data.competition.about import About, read_about
from sartorius.data.competition.audit import audit
from sartorius.data.competition.cell_chunks import CellChunks
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import update_folds
from sartorius.data.competition.labelled_writer import Labelled, write_labelled
from sartorius.data.dataset import InstanceDataset
from sartorius.errors import InputError
from sartorius.structures.instances import Instances

ABOUT = About(("round", "long"), 0.5, {"channel": 1})


def labelled(image_id: str, group: str = "", ignored: bool = False) -> Labelled:
    masks = np.zeros((3, 40, 50), bool)
    masks[0, 3:9, 4:10] = masks[1, 6:12, 4:10] = masks[2, 20:30, 20:30] = True  # the first two overlap
    region = np.zeros((40, 50), bool)
    region[:, 25:] = True
    image = np.arange(2000).reshape(40, 50) % 251
    instances = Instances.from_masks(masks, [0, 1, 1])
    return Labelled(image_id, image.astype(np.uint8), instances, "", group, region if ignored else None)


def test_images_come_back_with_types_of_each_cell_groups_and_regions(tmp_path: Path) -> None:
    first, second = labelled("x", "dish1", ignored=True), labelled("y", "dish2")
    assert write_labelled(tmp_path, ABOUT, [first, second]) == 2
    competition = Competition(tmp_path, ("long", "round"))
    competition.check()
    assert competition.about == ABOUT == read_about(tmp_path)
    assert competition.wells == {"x": "dish1", "y": "dish2"} and competition.cell_type("x") == "long"
    cells = competition.instances("x")
    assert cells.to_rles() == first.instances.to_rles() and cells.cell_types.tolist() == [1, 0, 0]
    assert (competition.image("x") == first.image).all()
    region = competition.ignored("x")
    assert region is not None and first.ignored is not None and competition.ignored("y") is None
    assert (region == first.ignored & ~cells.foreground()).all()


def test_unlabelled_pixels_are_ignored_where_no_cell_covers_them(tmp_path: Path) -> None:
    write_labelled(tmp_path, ABOUT, [labelled("x", ignored=True)])
    _, target = InstanceDataset(Competition(tmp_path, ("round", "long")), ["x"])[0]
    assert len(target) == 3 and target.ignored is not None
    assert int(target.ignored.sum()) == 25 * 40 - 10 * 5  # without the part of the last cell that lies in it


def test_cleaned_cells_and_chunks_of_cells_know_unlabelled_pixels(tmp_path: Path) -> None:
    write_labelled(tmp_path, ABOUT, [labelled("x", ignored=True), labelled("y")])
    competition = Competition(tmp_path, ("round", "long"))
    source = CleanedSource(competition, Cleaning(min_area=51))
    region = competition.ignored("x")
    assert region is not None and (source.ignored("x") == region).all() and source.ignored("y") is None
    _, target = InstanceDataset(source, ["x"])[0]
    small = competition.instances("x").areas <= 50
    assert small.any() and len(target) == 3 - small.sum() and target.ignored is not None
    assert (target.ignored.numpy() == region).all()
    chunks = CellChunks(competition, ["x"], [3], 2)
    chosen = [chunks[k][1].chosen for k in range(len(chunks))]
    assert len(chosen) == 2 and sorted(torch.cat([c for c in chosen if c is not None]).tolist()) == [0, 1, 2]


def test_an_image_without_cells_has_no_type_unless_one_is_given(tmp_path: Path) -> None:
    """It counts neither in the audit nor in the scores of a type."""
    empty, grey = Instances.empty(40, 50), np.zeros((40, 50), np.uint8)
    grey[0, 0] = 9
    images = [Labelled("blank", grey, empty), Labelled("told", grey + 1, empty, cell_type="long"), labelled("x")]
    write_labelled(tmp_path, ABOUT, images)
    competition = Competition(tmp_path, ("round", "long"))
    competition.check()
    assert [competition.cell_type(name) for name in competition.ids] == ["", "long", "long"]
    page = audit(competition).text(update_folds(tmp_path, 3))
    rows = [line.split()[:2] for line in page.splitlines() if line.startswith(("no cells", "long", "round"))]
    assert ["long", "2"] in rows and not [row for row in rows if row[0] == "round"]
    assert page.count("\nno cells ") == 2 and ["no", "cells"] in rows
    data = InstanceDataset(competition, competition.ids)
    assert len(data[0][1].ids) == 0 and data.others("blank") == []
    text = (tmp_path / "train.csv").read_text().replace("told,,50,40,long", "told,,50,40,oval")
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(InputError, match="image told has cell type 'oval', expected one of round, long"):
        Competition(tmp_path, ("round", "long"))


def test_an_image_is_replaced_and_others_stay(tmp_path: Path) -> None:
    write_labelled(tmp_path, ABOUT, [labelled("x"), labelled("y")])
    before = (tmp_path / "train.csv").read_text().splitlines()
    (tmp_path / "train_semi_supervised").mkdir()
    (tmp_path / "train_semi_supervised" / "x.png").write_bytes(b"")
    empty = Labelled("x", np.zeros((40, 50), np.uint8), Instances.empty(40, 50), "long")
    write_labelled(tmp_path, ABOUT, [empty])
    after = (tmp_path / "train.csv").read_text().splitlines()
    assert after == [before[0], *(row for row in before if row.startswith("y,")), "x,,50,40,long,"]
    assert not list((tmp_path / "train_semi_supervised").iterdir())


def test_nothing_to_write_writes_nothing(tmp_path: Path) -> None:
    assert write_labelled(tmp_path / "new", ABOUT, []) == 0
    assert not (tmp_path / "new").exists()


def test_bad_images_are_refused_and_the_old_table_stays(tmp_path: Path) -> None:
    write_labelled(tmp_path, ABOUT, [labelled("x")])
    before = (tmp_path / "train.csv").read_bytes()
    image, cells = np.zeros((40, 50), np.uint8), labelled("z").instances
    for bad, words in (
        ([labelled("y"), labelled("y")], "two images have the id 'y'"),
        ([Labelled("../y", image, cells)], r"\.\./y"),
        ([Labelled("y", image[:30], cells)], "50x30 pixels, but its labels are 50x40"),
        ([Labelled("y", image, cells, ignored=np.zeros((40, 51), bool))], "its labels are 51x40"),
        ([Labelled("y", image, Instances(cells.layers, np.zeros(4, np.int64)))], "cell 4 has no pixels"),
    ):
        with pytest.raises(InputError, match=words):
            write_labelled(tmp_path, ABOUT, bad)
        assert (tmp_path / "train.csv").read_bytes() == before


def test_types_of_a_folder_are_different_names() -> None:
    for types in ((), ("a", "a"), ("a", "unlabelled"), ("",)):
        with pytest.raises(InputError, match="expected different names"):
            About(types)


@pytest.mark.parametrize("text", ["[]", '{"version": 9}', '{"version": 1, "cell_types": "a"}', "{"])
def test_a_malformed_dataset_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset\.json"):
        read_about(tmp_path)


def test_several_types_in_an_image_of_the_competition_are_refused(tmp_path: Path) -> None:
    write_labelled(tmp_path, ABOUT, [labelled("x")])
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(InputError, match="has cell_type 'long', but row 2 says 'round'"):
        Competition(tmp_path, ("round", "long"))


def test_a_type_that_is_not_among_the_given_ones_is_named_with_its_row(tmp_path: Path) -> None:
    write_labelled(tmp_path, ABOUT, [labelled("x", ignored=True)])
    with pytest.raises(InputError, match=r"row 3: image x has cell type 'long'.*cell_types=\[round,long\]$"):
        Competition(tmp_path, ("round",))


def test_an_image_with_unlabelled_regions_only_needs_a_type(tmp_path: Path) -> None:
    write_labelled(tmp_path, ABOUT, [labelled("x", ignored=True)])
    rows = (tmp_path / "train.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\n".join([rows[0], rows[-1]]) + "\n")
    with pytest.raises(InputError, match="row 2: image x has unlabelled regions only"):
        Competition(tmp_path, ("round", "long"))
