"""The window of `correct`: what keys, clicks and strokes do to the cells of an image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from napari.viewer import Viewer

from sartorius.errors import InputError
from sartorius.labelling.correction.checked import Part
from sartorius.labelling.correction.edits import Change, Correction
from sartorius.labelling.correction.session import CorrectionSession
from sartorius.labelling.correction.shapes import brushed
from sartorius.napari_plugin.actions import ACTIONS, Action
from sartorius.napari_plugin.canvas import CellCanvas
from sartorius.napari_plugin.mouse import follow
from sartorius.napari_plugin.panel import CorrectionPanel
from sartorius.structures.arrays import Floats, GreyImage


class CorrectionWindow:
    """A viewer with the image that needs correction most, and a dock of actions; each is a method too.

    chosen: numbers of the chosen cells, in the order of their clicks. tool: the action that waits for a stroke.
    """

    def __init__(self, viewer: Viewer, session: CorrectionSession) -> None:
        self.viewer, self.session = viewer, session
        self.canvas = CellCanvas(viewer, session.about.cell_types)
        self.current: str | None = None
        self._asked_for: str | None = None  # `current`, or an image that cannot be opened
        self.image: GreyImage = np.zeros((1, 1), np.uint8)
        self.correction = Correction(1, 1)
        self.chosen: list[int] = []
        self.tool: Action | None = None
        self.new_type = 0
        types = session.about.cell_types
        self.panel = CorrectionPanel(session.queue, types, ACTIONS, self.run, self.open, self.set_type)
        viewer.window.add_dock_widget(self.panel, name="correct", area="right")
        viewer.mouse_drag_callbacks.append(lambda viewer, event: follow(self, event))
        for action in ACTIONS:
            self._bind(action.key, partial(self.run, action))
        for k in range(min(9, len(types))):
            self._bind(str(k + 1), partial(self.set_type, k))
        self._bind("Escape", self.cancel)
        self._bind("Control-Z", partial(self.attempt, self.undo))
        self.next_image()

    def open(self, image_id: str) -> None:
        """Open an image; edits of the one before it are kept in its draft."""

        def load() -> None:
            image = self.session.image(image_id)
            correction = self.session.open(image_id, (image.shape[0], image.shape[1]))
            self.image, self.correction, self.current, self.chosen = image, correction, image_id, []
            self.canvas.show(image, correction)
            self.viewer.title = f"sartorius correct: {image_id}"

        self._asked_for = image_id
        self.attempt(load)
        self._show_state(every_image=True)

    def run(self, action: Action) -> None:
        """Do an action, or wait for its stroke; what is wrong with it is told in the dock."""
        self._use(action if action.draws and action != self.tool else None)
        if not action.draws:
            methods: dict[str, Callable[[], object]] = {
                "accept": self.accept, "accept_all": self.accept_all, "delete": self.delete, "merge": self.merge,
                "split": self.split, "unmark": self.unmark, "next_type": self.next_type, "undo": self.undo,
                "redo": self.redo, "save": self.save, "save_accepted": self.save_accepted,
                "next_image": self.next_image, "fill": self.fill, "hide": self.hide, "colours": self.colours,
            }  # fmt: skip
            self.attempt(methods[action.name])

    def choose(self, row: int, column: int, more: bool = False) -> None:
        """Choose the cell at a pixel, at a second time the next one below it; more: beside those that are chosen."""
        found, before = self.correction.at(row, column), list(self.chosen)
        if more:
            self.chosen += [number for number in found if number not in self.chosen][:1]
        elif found:
            place = found.index(before[0]) + 1 if len(before) == 1 and before[0] in found else 0
            self.chosen = [found[place % len(found)]]
        else:
            self.chosen = []
        touched = [self.correction.cells[number] for number in {*before, *self.chosen} & set(self.correction.cells)]
        self.canvas.draw(touched, self.chosen)
        self._show_state()

    def accept(self) -> None:
        """Mark the chosen cells as right."""
        self._edited(self.correction.accept(self.chosen))

    def accept_all(self) -> None:
        """Mark all cells as right."""
        self._edited(self.correction.accept_all())

    def delete(self) -> None:
        """Remove the chosen cells."""
        self._edited(self.correction.delete(self.chosen))

    def merge(self) -> None:
        """Join the chosen cells; the result is chosen."""
        self._edited(self.correction.merge(self.chosen), choose=True)

    def split(self) -> None:
        """Part the chosen cell at its waist."""
        self._edited(self.correction.split(self._one()))

    def unmark(self) -> None:
        """Check all of the image."""
        self._edited(self.correction.unmark())

    def set_type(self, cell_type: int) -> None:
        """Give the chosen cells a type, and those that are drawn from now on."""
        self.new_type = cell_type
        if self.chosen:
            self.attempt(lambda: self._edited(self.correction.set_type(self.chosen, cell_type)))
        self._show_state()

    def next_type(self) -> None:
        """Give the chosen cells the type behind that of the first one."""
        kind = self.correction.cells[self.chosen[0]].cell_type if self.chosen else self.new_type
        self.set_type((kind + 1) % len(self.session.about.cell_types))

    def undo(self) -> None:
        """Take the last edit back."""
        self._edited(self.correction.undo() or Change())

    def redo(self) -> None:
        """Make it again."""
        self._edited(self.correction.redo() or Change())

    def save(self) -> None:
        """Write the labels and open the next image."""
        self._save("marked")

    def save_accepted(self) -> None:
        """Write the accepted cells alone and open the next image."""
        self._save("accepted")

    def next_image(self) -> None:
        """Open the image that needs correction most; tells where all are checked."""
        following = self.session.next_image(after=self._asked_for)
        if following is None:
            if self.current is not None:
                self.open(self.current)  # as it was saved
            self._show_state(every_image=True)
            self.panel.tell("all images are checked; click one to open it again")
        else:
            self.open(following)

    def fill(self) -> None:
        """Show outlines or filled cells."""
        self.canvas.cells.contour = 0 if self.canvas.cells.contour else 1
        self.canvas.cells.opacity = 0.8 if self.canvas.cells.contour else 0.35

    def hide(self) -> None:
        """Hide the cells, or show them."""
        self.canvas.cells.visible = not self.canvas.cells.visible

    def colours(self) -> None:
        """Colour by scores or types."""
        self.canvas.by_type = not self.canvas.by_type
        self.canvas.recolour(self.chosen)

    def cancel(self) -> None:
        """Lay the tool aside, or forget the choice."""
        if self.tool is None:
            self.choose(-1, -1)
        self._use(None)

    def stroke(self, points: Floats) -> None:
        """Do what the tool does with a stroke, [P, 2] rows and columns of pixels."""
        tool, edges = self.tool, points + 0.5
        if tool is None or self.current is None:
            return
        if tool.name == "cut":
            crossed = self.chosen[0] if len(self.chosen) == 1 else self.correction.crossed_by(points)
            self._edited(self.correction.split(crossed, edges))
        elif tool.name == "redraw":
            self._edited(self.correction.redraw_polygon(self._one(), edges))
        elif tool.name == "new":
            self._edited(self.correction.add_polygon(edges, self.new_type))
        elif tool.name == "mark":
            (y0, x0), (y1, x1) = edges[0], edges[-1]
            self._edited(self.correction.mark_polygon([[y0, x0], [y1, x0], [y1, x1], [y0, x1]]))
        else:
            mask, top, left = brushed(points, self.panel.brush.value(), *self.image.shape)
            if tool.name == "paint" and not self.chosen:
                self._edited(self.correction.add(mask, self.new_type, top, left), choose=True)
            else:
                self._edited(self.correction.paint(self._one(), mask, top, left, tool.name == "erase"))

    def _one(self) -> int:
        if len(self.chosen) != 1:
            raise InputError(f"choose one cell first: {len(self.chosen)} are chosen")
        return self.chosen[0]

    def _save(self, part: Part) -> None:
        if self.current is None:
            return
        image_id = self.current
        count = self.session.save(image_id, self.image, self.correction, part)
        left = len(self.correction.cells) - count
        others = f", without {left} that nobody accepted" if left else ""
        self.next_image()
        self.panel.tell(f"{image_id} is saved: {count} cells{others}. {self.panel.message.text()}")

    def _edited(self, change: Change, choose: bool = False) -> None:
        if choose:
            self.chosen = list(change.added)
        self.chosen = [number for number in self.chosen if number in self.correction.cells]
        self.canvas.change(change, self.chosen)
        self._show_state()

    def _use(self, tool: Action | None) -> None:
        self.tool = tool
        self.canvas.activate()
        self.canvas.cells.mouse_pan = tool is None
        self.panel.show_tool(None if tool is None else tool.name)
        self.panel.tell("" if tool is None else f"{tool.tip}. Esc ends it.")

    def attempt(self, action: Callable[[], object]) -> None:
        """Do something, and tell in the dock what is wrong with it."""
        try:
            self.panel.tell("")
            action()
        except (InputError, OSError) as error:
            self.panel.tell(str(error), bad=True)

    def _bind(self, key: str, action: Callable[[], object]) -> None:
        for target in (self.viewer, *self.canvas.layers):
            target.bind_key(key, lambda _: action() and None, overwrite=True)

    def _show_state(self, every_image: bool = False) -> None:
        cells, chosen = self.correction.cells, self.chosen
        accepted = sum(cell.accepted for cell in cells.values())
        region = "" if self.correction.region is None else ", in the marked part"
        self.panel.counts.setText(f"{len(cells)} cells, {accepted} accepted, {len(chosen)} chosen{region}")
        kind = cells[chosen[0]].cell_type if chosen else self.new_type
        self.panel.types.setCurrentIndex(kind)
        session, own = self.session, [] if self.current is None else [self.current]
        status = {name: session.status(name) for name in (session.queue if every_image else own)}
        self.panel.show_images(status, self.current, len(session.checked & set(session.queue)))
