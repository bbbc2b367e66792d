"""Edits of the cells of an image, taken back and kept in a draft."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest

from sartorius.errors import InputError
from sartorius.labelling.correction.checked import checked_labels, region_of
from sartorius.labelling.correction.draft import Draft
from sartorius.labelling.correction.edits import Correction
from sartorius.labelling.correction.shapes import EditedCell, cells_of
from sartorius.structures import rle
from tests.labelling.correction.test_shapes import cell, discs, full

TYPES = ("round", "long")


def state(correction: Correction) -> dict[int, tuple[bytes, int, bool]]:
    return {
        number: (full(c).tobytes(), c.cell_type, c.accepted)
        for number, c in [*sorted(correction.cells.items()), *([(0, correction.region)] if correction.region else [])]
    }


def three() -> list[EditedCell]:
    """Two discs that overlap, and two that touch as one cell."""
    masks = [discs((20, 20), radius=8), discs((20, 30), radius=8), discs((45, 30), (45, 46))]
    return [cell(mask, cell_type=k % 2, score=0.5 + k / 10) for k, mask in enumerate(masks)]


def edit(correction: Correction) -> None:
    """One edit of each kind."""
    correction.accept([1])
    correction.merge([1, 2])  # 4
    correction.split(3)  # 5, 6
    correction.delete([5])
    correction.add(discs((10, 70), radius=4), 1)  # 7
    correction.split(4, [[20, 10], [20, 50]])  # 8, 9
    correction.redraw(6, discs((45, 60), radius=5))
    correction.set_type([7, 8], 0)
    correction.add_polygon([[50, 5], [58, 5], [58, 15], [50, 15]], 1)  # 10
    correction.mark_polygon([[0, 0], [60, 0], [60, 40], [0, 40]])


def test_each_edit() -> None:
    correction = Correction(60, 80, three())
    assert sorted(correction.at(20, 25)) == [1, 2] and correction.at(0, 0) == []
    assert correction.crossed_by([[45, 10], [45, 60]]) == 3 and correction.crossed_by([[20, 9], [20, 22]]) == 1
    with pytest.raises(InputError, match="meets no cell"):
        correction.crossed_by([[0, 0], [0, 70]])
    edit(correction)
    assert sorted(correction.cells) == [6, 7, 8, 9, 10]
    cells = correction.cells
    assert (full(cells[8]) | full(cells[9]) == discs((20, 20), (20, 30), radius=8)).all()
    assert (full(cells[6]) == discs((45, 60), radius=5)).all() and cells[6].accepted
    assert cells[7].cell_type == cells[8].cell_type == 0 and np.isnan(cells[7].score)
    assert cells[10].mask.shape == (8, 10) and cells[10].mask.all()
    assert correction.region is not None and correction.region.mask.shape == (60, 40)
    correction.paint(10, np.ones((2, 3), bool), 48, 5)
    correction.paint(10, np.ones((1, 10), bool), 57, 5, erase=True)
    assert int(correction.cells[10].mask.sum()) == 8 * 10 + 6 - 10 and correction.cells[10].cell_type == 1
    correction.mark_polygon([[0, 50], [10, 50], [10, 60], [0, 60]])
    assert int(correction.region.mask.sum()) == 60 * 40 + 100
    correction.unmark()
    assert correction.region is None


def test_everything_is_taken_back_and_made_again() -> None:
    correction = Correction(60, 80, three())
    states = [state(correction)]
    correction.record = lambda kind, change: states.append({}) if kind == "edit" else None
    edit(correction)
    last, count = state(correction), len(states) - 1
    for _ in range(count):
        assert correction.undo() is not None
    assert correction.undo() is None and state(correction) == states[0]
    for _ in range(count):
        assert correction.redo() is not None
    assert correction.redo() is None and state(correction) == last
    correction.undo()
    correction.delete([6])
    assert correction.redo() is None, "an edit ends what could be made again"


def test_wrong_edits_change_nothing() -> None:
    correction = Correction(60, 80, three())
    before = state(correction)
    for wrong, words in (
        (lambda: correction.delete([1, 9]), "there is no cell 9"),
        (lambda: correction.delete([]), "choose a cell first"),
        (lambda: correction.merge([2, 2]), "choose two or more"),
        (lambda: correction.split(1), "no waist"),
        (lambda: correction.add(np.zeros((60, 80), bool), 0), "at least one pixel"),
        (lambda: correction.add_polygon([[70, 90], [80, 90], [75, 95]], 0), "at least one pixel"),
    ):
        with pytest.raises(InputError, match=words):
            wrong()
    assert state(correction) == before and correction.undo() is None
    assert not correction.accept([1], accepted=False).added and correction.undo() is None, "nothing changed"


def test_an_edit_that_cannot_be_kept_is_not_made() -> None:
    def full_disk(kind: str, change: object) -> None:
        raise OSError("no space left")

    correction = Correction(60, 80, three(), record=full_disk)
    with pytest.raises(OSError, match="no space"):
        correction.delete([1])
    assert sorted(correction.cells) == [1, 2, 3]


def test_a_draft_is_resumed_with_all_that_can_be_taken_back(tmp_path: Path) -> None:
    draft = Draft(tmp_path / "drafts" / "x.jsonl", TYPES)
    correction = draft.begin(60, 80, three(), None)
    assert not draft.exists()
    edit(correction)
    correction.undo()
    correction.undo()
    correction.redo()
    resumed = Draft(draft.path, ("long", "round", "more")).resume()
    renamed = {k: (m, 1 - t if k else t, a) for k, (m, t, a) in state(correction).items()}
    assert state(resumed) == renamed and resumed.next_number == correction.next_number
    assert {k: c.score for k, c in resumed.cells.items() if c.score == c.score} == {
        k: c.score for k, c in correction.cells.items() if c.score == c.score
    }
    resumed.redo()
    assert resumed.region is not None
    again = draft.resume()
    while again.undo() is not None:
        pass
    assert state(again) == state(Correction(60, 80, three()))
    draft.delete()
    assert not draft.exists()


def test_a_cut_line_is_left_out_and_damage_is_named(tmp_path: Path) -> None:
    draft = Draft(tmp_path / "x.jsonl", TYPES)
    correction = draft.begin(60, 80, three(), None)
    correction.delete([1])
    whole = draft.path.read_bytes()
    draft.path.write_bytes(whole + b'{"kind": "edit", "remo')
    assert sorted(draft.resume().cells) == [2, 3] and draft.path.read_bytes() == whole
    first, second = whole.decode().splitlines()
    other = json.loads(first)
    for lines in (
        [""], ["{}"], ["[]", second], [first, second, second], [first, '{"kind": "edit"}'], [first, "[1]"],
        [json.dumps(other | {"version": 2})], [json.dumps(other | {"types": ["else"]})],
        [json.dumps(other | {"cells": [[1, [55, 0, 10, 10], "1 3", 0, None, False]]})],
        [json.dumps(other | {"cells": [[1, [0, 0, 10, 10], "1 300", 0, None, False]]})],
        [json.dumps(other | {"cells": [[1, [0, 0, 10, 10], "", 0, None, False]]})],
    ):  # fmt: skip
        draft.path.write_text("\n".join(lines) + "\n")
        with pytest.raises(InputError, match=r"x\.jsonl: not the edits of an image .*move the file away"):
            draft.resume()


def test_an_edit_that_a_full_disk_cuts_off_is_the_only_one_that_is_lost(tmp_path: Path) -> None:
    draft = Draft(tmp_path / "x.jsonl", TYPES)
    correction = draft.begin(60, 80, three(), None)
    correction.accept([1])
    whole = draft.path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 30, before[1]))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match=r"x\.jsonl"):
                correction.delete([2])
            assert draft.path.read_bytes() == whole and sorted(correction.cells) == [1, 2, 3]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    correction.delete([3])
    correction.undo()
    resumed = draft.resume()
    assert state(resumed) == state(correction) and sorted(resumed.cells) == [1, 2, 3]
    resumed.redo()
    assert sorted(resumed.cells) == [1, 2]


def test_labels_of_the_whole_image_and_of_a_part() -> None:
    correction = Correction(60, 80, three())
    labels, ignored = checked_labels(correction)
    assert len(labels) == 3 and ignored is None and len(labels.layers) == 2
    correction.mark_polygon([[0, 0], [60, 0], [60, 24], [0, 24]])  # most of the first alone
    labels, ignored = checked_labels(correction)
    assert ignored is not None and labels.to_rles() == checked_labels(Correction(60, 80, three()[:1]))[0].to_rles()
    expected = np.ones((60, 80), bool)
    expected[:, :24] = False
    second, third = full(three()[1]), full(three()[2])
    assert (ignored == expected | second | third).all() and second[:, :24].any()
    region = region_of(ignored)
    assert region is not None and (full(region) == ~ignored).all()
    assert region_of(None) is None and region_of(np.zeros((6, 8), bool)) is None


def test_accepted_cells_beyond_the_marked_part_are_labels() -> None:
    """With their surroundings, as where accepted cells alone are saved; those of the model are none."""
    correction = Correction(60, 80, three())
    correction.mark_polygon([[0, 0], [60, 0], [60, 24], [0, 24]])  # most of the first alone
    correction.add(discs((9, 70), radius=4), 1)
    correction.add(discs((40, 70), radius=4), 0)
    labels, ignored = checked_labels(correction, margin=5)
    drawn = [full(correction.cells[number]) for number in (4, 5)]
    assert labels.to_rles() == [rle.of_mask(mask) for mask in (full(three()[0]), *drawn)]
    assert labels.cell_types.tolist() == [0, 1, 0] and ignored is not None
    rows, columns = np.nonzero(drawn[0] | drawn[1])
    y, x = np.mgrid[:60, :80]
    labelled = ((y[..., None] - rows) ** 2 + (x[..., None] - columns) ** 2).min(axis=2) <= 25
    labelled[:, :24] = True
    second, third = full(three()[1]), full(three()[2])
    assert (third & labelled).any(), "the model's cell ends beside a drawn one, and is not checked"
    assert (ignored == ~labelled | second | third).all()
    again = Correction(60, 80, cells_of(labels, [1] * 3, accepted=True), region_of(ignored))
    saved, unknown = checked_labels(again, margin=5)
    assert saved.to_rles() == labels.to_rles() and unknown is not None and (unknown == ignored).all()


def test_a_part_of_which_no_pixel_would_be_labelled_is_refused() -> None:
    correction = Correction(60, 80, three())
    correction.mark(np.ones((2, 2), bool), 19, 19)  # within the first, a small part of it
    with pytest.raises(InputError, match="only pixels of cells that lie mostly outside"):
        checked_labels(correction)


def test_labels_of_accepted_cells_alone() -> None:
    correction = Correction(60, 80, three())
    with pytest.raises(InputError, match="no cell is accepted yet"):
        checked_labels(correction, "accepted")
    correction.accept([1])
    labels, ignored = checked_labels(correction, "accepted", margin=10)
    rows, columns = np.nonzero(full(three()[0]))
    y, x = np.mgrid[:60, :80]
    squares = (y[..., None] - rows) ** 2 + (x[..., None] - columns) ** 2
    near = squares.min(axis=2) <= 100
    assert len(labels) == 1 and ignored is not None
    assert (ignored == ~near | full(three()[1]) | full(three()[2])).all()
