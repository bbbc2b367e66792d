"""The window of `correct`, driven by keys and the mouse: `xvfb-run -a pytest -W ignore tests/napari_plugin`.

It needs napari, which is not among the packages of the other tests, and whose plugin for pytest warns.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sartorius.data.competition.folder import Competition
from sartorius.data.files.source import FileImages
from sartorius.formats.cells import Cells
from sartorius.labelling.correction.session import CorrectionSession
from sartorius.labelling.correction.shapes import EditedCell, instances_of
from tests.labelling.correction.test_session import SIZE, TYPES, images, session
from tests.labelling.correction.test_shapes import discs, full

napari = pytest.importorskip("napari")
if not os.environ.get("DISPLAY"):
    pytest.skip("needs a display: xvfb-run -a pytest -W ignore tests/napari_plugin", allow_module_level=True)

from napari.utils.colormaps import DirectLabelColormap  # noqa: E402
from qtpy.QtCore import QPoint, Qt  # noqa: E402
from qtpy.QtTest import QTest  # noqa: E402

from sartorius.napari_plugin.actions import ACTIONS  # noqa: E402
from sartorius.napari_plugin.canvas import ACCEPTED, CHOSEN, colour_of  # noqa: E402
from sartorius.napari_plugin.window import CorrectionWindow  # noqa: E402

__all__ = ["images"]  # a fixture
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def viewer() -> Iterator[napari.Viewer]:
    viewer = napari.Viewer()
    viewer.window._qt_window.resize(1400, 900)
    yield viewer
    viewer.close()


@pytest.fixture
def window(viewer: napari.Viewer, tmp_path: Path, images: FileImages) -> CorrectionWindow:
    """Of a, b, c and film; a is open, its cells 1 and 2 overlap and 3 has a waist."""
    return CorrectionWindow(viewer, session(tmp_path, images, order=["a", "b"]))


class Hand:
    """Keys and mouse of a person."""

    def __init__(self, window: CorrectionWindow) -> None:
        self.window = window
        self.canvas = window.viewer.window._qt_viewer.canvas.native
        settle()

    def key(self, key: str, shift: bool = False) -> None:
        modifier = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
        QTest.keyClick(self.canvas, Qt.Key[f"Key_{key}"], modifier)
        settle()

    def at(self, row: float, column: float) -> QPoint:
        camera = self.window.viewer.camera
        y = self.canvas.height() / 2 + (row - camera.center[-2]) * camera.zoom
        return QPoint(round(self.canvas.width() / 2 + (column - camera.center[-1]) * camera.zoom), round(y))

    def click(self, row: float, column: float, shift: bool = False) -> None:
        modifier = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
        QTest.mouseClick(self.canvas, Qt.MouseButton.LeftButton, modifier, self.at(row, column))
        settle()

    def draw(self, *points: tuple[float, float]) -> None:
        places = [self.at(*point) for point in points]
        QTest.mousePress(self.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, places[0])
        for place in places[1:]:
            QTest.mouseMove(self.canvas, place)
            settle()
        QTest.mouseRelease(self.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, places[-1])
        settle()


def settle() -> None:
    napari.qt.get_qapp().processEvents()


def test_open_delete_split_merge_save_and_reopen(window: CorrectionWindow, tmp_path: Path, images: FileImages) -> None:
    hand = Hand(window)
    assert window.current == "a" and sorted(window.correction.cells) == [1, 2, 3]
    hand.click(45, 38)
    assert window.chosen == [3]
    hand.key("S")
    assert sorted(window.correction.cells) == [1, 2, 4, 5]
    hand.click(20, 14)
    hand.click(20, 36, shift=True)
    assert window.chosen == [1, 2]
    hand.key("M")
    assert window.chosen == [6] and sorted(window.correction.cells) == [4, 5, 6]
    hand.click(45, 50)
    removed = window.chosen[0]
    hand.key("D")
    assert sorted(window.correction.cells) == sorted({4, 5, 6} - {removed})
    expected = {number: full(cell) for number, cell in window.correction.cells.items()}
    assert all((window.canvas.cells.data == number).sum() == mask.sum() for number, mask in expected.items())
    hand.key("W")
    assert window.current == "b" and "a is saved: 2 cells" in window.panel.message.text()
    assert window.panel.images.item(0).text() == "✓ a" and "1 of 5" in window.panel.progress.text()
    saved = Competition(tmp_path / "mine", TYPES).instances("a")
    found = [np.asarray((saved.layers == k + 1).any(axis=0)) for k in range(2)]
    assert all(any((mask == other).all() for other in found) for mask in expected.values())
    window.open("a")
    assert len(window.correction.cells) == 2 and window.session.status("a") == "checked"


def test_strokes(window: CorrectionWindow) -> None:
    hand = Hand(window)
    hand.key("L")
    hand.draw((30, 38), (45, 38), (58, 38))
    assert sorted(window.correction.cells) == [1, 2, 4, 5] and window.tool is not None
    hand.key("N")
    hand.draw((5, 60), (5, 70), (12, 70), (12, 60))
    drawn = window.correction.cells[6]
    assert 40 <= drawn.mask.sum() <= 120 and drawn.accepted
    hand.key("Escape")
    assert window.tool is None
    hand.click(8, 65)
    assert window.chosen == [6]
    before = int(drawn.mask.sum())
    hand.key("P")
    hand.draw((20, 65), (22, 65))
    painted = int(window.correction.cells[6].mask.sum())
    assert painted > before
    hand.key("E")
    hand.draw((20, 65), (22, 65))
    assert before >= int(window.correction.cells[6].mask.sum()) > 0
    hand.key("R")
    hand.draw((2, 55), (2, 75), (15, 75), (15, 55))
    assert int(window.correction.cells[6].mask.sum()) > before
    hand.key("B")
    hand.draw((0, 0), (20, 20), (59, 40))
    assert window.correction.region is not None and window.canvas.shade.visible
    hand.key("B", shift=True)
    assert window.correction.region is None and not window.canvas.shade.visible
    assert window.canvas.cells.mouse_pan, "the tool is laid aside"


def test_cells_drawn_beyond_what_was_checked_are_saved(window: CorrectionWindow, tmp_path: Path) -> None:
    hand = Hand(window)
    hand.click(20, 14)
    hand.key("A")
    hand.key("W", shift=True)
    assert "a is saved: 1 cells, without 2 that nobody accepted" in window.panel.message.text()
    window.open("a")
    assert len(window.correction.cells) == 1 and window.correction.region is not None
    hand.key("N")
    hand.draw((45, 65), (45, 75), (55, 75), (55, 65))
    drawn = full(window.correction.cells[2])
    hand.key("W")
    assert "a is saved: 2 cells. " in window.panel.message.text()
    saved = Competition(tmp_path / "mine", TYPES).instances("a")
    assert len(saved) == 2 and (saved.foreground() & drawn == drawn).all()


def test_colours_types_and_what_is_wrong(window: CorrectionWindow) -> None:
    hand = Hand(window)
    colours = window.canvas.cells.colormap
    assert isinstance(colours, DirectLabelColormap)
    assert tuple(colours.color_dict[1]) == pytest.approx(colour_of(window.correction.cells[1]))
    red, green, _, _ = colour_of(EditedCell(0, 0, np.ones((1, 1), bool), score=0.0))
    assert red > 0.9 and green < 0.3
    hand.key("D")
    assert window.panel.message.text() == "choose a cell first" and len(window.correction.cells) == 3
    hand.click(20, 25)
    first = window.chosen
    hand.click(20, 25)
    assert sorted([*first, *window.chosen]) == [1, 2], "the cell below it"
    assert tuple(window.canvas.cells.colormap.color_dict[window.chosen[0]]) == CHOSEN
    assert window.canvas.cells.data[20, 25] == window.chosen[0]
    hand.key("2")
    assert window.correction.cells[window.chosen[0]].cell_type == 1 and window.panel.types.currentIndex() == 1
    hand.key("T")
    assert window.correction.cells[window.chosen[0]].cell_type == 0
    hand.key("A", shift=True)
    hand.click(2, 2)
    assert window.chosen == [] and tuple(window.canvas.cells.colormap.color_dict[3]) == pytest.approx(ACCEPTED)
    hand.key("U")
    assert not window.correction.cells[3].accepted
    hand.key("U", shift=True)
    assert window.correction.cells[3].accepted
    hand.key("C")
    assert tuple(window.canvas.cells.colormap.color_dict[3]) != pytest.approx(ACCEPTED)
    hand.key("V")
    hand.key("H")
    assert window.canvas.cells.contour == 0 and not window.canvas.cells.visible
    hand.key("F")
    assert window.current == "b" and window.panel.images.item(0).text() == "● a", "kept as a draft"
    assert len({action.key for action in ACTIONS}) == len(ACTIONS)


def test_an_image_that_cannot_be_opened(viewer: napari.Viewer, tmp_path: Path, images: FileImages) -> None:
    own = session(tmp_path, images, order=["a", "b"])
    own.draft("a").path.parent.mkdir(parents=True)
    own.draft("a").path.write_text("damaged")
    window = CorrectionWindow(viewer, own)
    assert window.current is None and "a.jsonl: not the edits of an image" in window.panel.message.text()
    window.save()
    window.next_image()
    assert window.current == "b" and window.panel.message.text() == ""


def test_the_last_image_stays_open_as_it_was_saved(
    window: CorrectionWindow, tmp_path: Path, images: FileImages
) -> None:
    for image_id in window.session.queue[1:]:
        window.session.save(image_id, window.session.image(image_id), window.session.open(image_id, window.image.shape))
    window.chosen = [1]
    window.delete()
    window.save()
    assert window.current == "a" and "all images are checked" in window.panel.message.text()
    window.undo()
    assert len(window.correction.cells) == 2 and window.session.status("a") == "checked"
    window.chosen = [2]
    window.delete()
    assert list(window.correction.cells) == [1] == list(session(tmp_path, images).open("a", SIZE).cells)


def test_790_cells_open_in_less_than_3_seconds(viewer: napari.Viewer, tmp_path: Path, images: FileImages) -> None:
    """Processor time, from reading the image to what is on the screen."""
    shapes = [discs((10, 10), radius=8)] * 790
    rng = np.random.default_rng(0)
    cells = [
        EditedCell(int(y), int(x), shape[2:19, 2:19], int(k % 2))
        for k, (shape, y, x) in enumerate(
            zip(shapes, rng.integers(0, 500, 790), rng.integers(0, 680, 790), strict=True)
        )
    ]

    def predicted(image_id: str) -> Cells:
        return Cells(image_id, instances_of(cells, 520, 704), rng.random(790).astype(np.float32), TYPES)

    from PIL import Image

    (tmp_path / "large").mkdir()
    Image.fromarray(rng.integers(0, 255, (520, 704)).astype(np.uint8)).save(tmp_path / "large" / "dense.png")
    files = FileImages(str(tmp_path / "large"), levels=images.reading.levels)
    session = CorrectionSession(tmp_path / "mine", files, TYPES, predicted)
    begun = time.process_time()
    window = CorrectionWindow(viewer, session)
    settle()
    viewer.screenshot(canvas_only=False, flash=False)
    seconds = time.process_time() - begun
    print(f"790 cells: {seconds:.2f} s of the processor")
    assert len(window.correction.cells) == 790 and window.image.shape != SIZE
    begun = time.process_time()
    window.choose(*np.argwhere(window.canvas.cells.data > 0)[0].tolist())
    window.delete()
    settle()
    print(f"one edit: {time.process_time() - begun:.3f} s of the processor")
    assert len(window.correction.cells) == 789 and seconds < 3
