"""The cells of one image while a person corrects them: edits, each of which can be undone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from sartorius.errors import InputError
from sartorius.labelling.correction.shapes import (
    EditedCell,
    parted_by_line,
    parted_by_shape,
    united,
    within_polygon,
    without,
)
from sartorius.structures.arrays import Bools

REGION = 0  # number of the region that is checked, which is kept like a cell; cells have numbers from 1


@dataclass(frozen=True)
class Change:
    """The difference that an edit makes: cells by number, before and after it. A cell that only changes is in both."""

    removed: Mapping[int, EditedCell] = field(default_factory=dict)
    added: Mapping[int, EditedCell] = field(default_factory=dict)

    @property
    def reversed(self) -> Change:
        """The change that takes it back."""
        return Change(self.added, self.removed)

    def touched(self) -> Iterator[EditedCell]:
        """Yield all its cells: what they cover may have another look."""
        yield from self.removed.values()
        yield from self.added.values()


class Correction:
    """The cells of one image, by number; overlaps are kept. A number stays with its cell, and none is used twice.

    cells: number -> cell, at first those of the model, or none; given without numbers, they count from 1. region: the
    part of the image that is checked; None for all of it. record: is told of each change before it is made: what it
    raises leaves the cells as they are.

    Edits return their Change, and raise InputError for a number without a cell and for what leaves no pixels.
    """

    def __init__(
        self,
        height: int,
        width: int,
        cells: Iterable[EditedCell] | Mapping[int, EditedCell] = (),
        region: EditedCell | None = None,
        record: Callable[[str, Change], None] = lambda kind, change: None,
    ) -> None:
        self.height, self.width, self.record = height, width, record
        self.cells = dict(cells if isinstance(cells, Mapping) else enumerate(cells, start=1))
        self.region = region
        self.next_number = max(self.cells, default=0) + 1
        self._done: list[Change] = []
        self._undone: list[Change] = []

    def at(self, row: int, column: int) -> list[int]:
        """Return the cells that cover a pixel, the smallest first."""
        found = [number for number, cell in self.cells.items() if cell.covers(row, column)]
        return sorted(found, key=lambda number: int(self.cells[number].mask.sum()))

    def crossed_by(self, line: ArrayLike) -> int:
        """Return the cell that most of a line, [P, 2] rows and columns of pixels, lies on.

        Raises InputError where it meets none.
        """
        points = np.asarray(line, np.float64).reshape(-1, 2)
        dense = np.concatenate([points[:-1] + np.diff(points, axis=0) * t for t in np.linspace(0, 1, 9)])
        met = [number for row, column in np.rint(dense).astype(int).tolist() for number in self.at(row, column)]
        if not met:
            raise InputError("the line meets no cell: draw it across one")
        return max(dict.fromkeys(met), key=met.count)

    def delete(self, numbers: Iterable[int]) -> Change:
        """Remove cells."""
        return self._edit(self._chosen(numbers), [])

    def merge(self, numbers: Iterable[int]) -> Change:
        """Join two or more cells into one, see `united`."""
        chosen = self._chosen(numbers)
        if len(chosen) < 2:
            raise InputError("choose two or more cells to join")
        return self._edit(chosen, [united(list(chosen.values()))])

    def split(self, number: int, line: ArrayLike | None = None) -> Change:
        """Part a cell along a line [P, 2], rows and columns, or at its waists; see `shapes`."""
        chosen = self._chosen([number])
        cell = chosen[number]
        return self._edit(chosen, parted_by_shape(cell) if line is None else parted_by_line(cell, line))

    def add(self, mask: Bools, cell_type: int, top: int = 0, left: int = 0) -> Change:
        """Add a cell of the pixels of a mask [h, w], whose first row and column are `top` and `left`."""
        return self._edit({}, [EditedCell(0, 0, mask, cell_type, accepted=True).with_mask(mask, top, left)])

    def add_polygon(self, points: ArrayLike, cell_type: int) -> Change:
        """Add a cell within a polygon, [P, 2] rows and columns in pixel edges."""
        mask, top, left = within_polygon(points, self.height, self.width)
        return self.add(mask, cell_type, top, left)

    def redraw(self, number: int, mask: Bools, top: int = 0, left: int = 0) -> Change:
        """Give a cell other pixels, as `add`."""
        chosen = self._chosen([number])
        return self._replace({number: replace(chosen[number].with_mask(mask, top, left), accepted=True)})

    def redraw_polygon(self, number: int, points: ArrayLike) -> Change:
        """Give a cell the pixels within a polygon, as `add_polygon`."""
        mask, top, left = within_polygon(points, self.height, self.width)
        return self.redraw(number, mask, top, left)

    def paint(self, number: int, mask: Bools, top: int = 0, left: int = 0, erase: bool = False) -> Change:
        """Add the pixels of a mask, as `add`, to a cell; or take them from it."""
        cell, painted = self._chosen([number])[number], EditedCell(0, 0, mask).with_mask(mask, top, left)
        new = without(cell, painted) if erase else united([cell, painted])
        return self._replace({number: replace(new, cell_type=cell.cell_type, accepted=True)})

    def set_type(self, numbers: Iterable[int], cell_type: int) -> Change:
        """Give cells another type, which accepts them."""
        chosen = self._chosen(numbers).items()
        return self._replace({number: replace(cell, cell_type=cell_type, accepted=True) for number, cell in chosen})

    def accept(self, numbers: Iterable[int], accepted: bool = True) -> Change:
        """Mark cells as right, or no longer."""
        chosen = self._chosen(numbers).items()
        return self._replace(
            {number: replace(cell, accepted=accepted) for number, cell in chosen if cell.accepted != accepted}
        )

    def accept_all(self) -> Change:
        """Mark all cells as right."""
        return self.accept(list(self.cells))

    def mark(self, mask: Bools, top: int = 0, left: int = 0) -> Change:
        """Add the pixels of a mask [h, w] to the part of the image that is checked."""
        marked = EditedCell(0, 0, mask).with_mask(mask, top, left)
        if self.region is None:
            return self._apply(Change({}, {REGION: marked}))
        return self._apply(Change({REGION: self.region}, {REGION: united([self.region, marked])}))

    def mark_polygon(self, points: ArrayLike) -> Change:
        """Add what lies within a polygon to the part that is checked."""
        return self.mark(*within_polygon(points, self.height, self.width))

    def unmark(self) -> Change:
        """Forget the marked part: all of the image is checked."""
        return self._apply(Change({} if self.region is None else {REGION: self.region}, {}))

    def undo(self) -> Change | None:
        """Take the last change back; returns what that changes, None where there is nothing left."""
        return self._back(self._done, self._undone, "undo")

    def redo(self) -> Change | None:
        """Make the last change again that was taken back; None without any."""
        return self._back(self._undone, self._done, "redo")

    def settle(self) -> None:
        """Forget what could be taken back or made again: it is saved."""
        self._done.clear()
        self._undone.clear()

    def apply(self, change: Change) -> Change:
        """Make a change that was recorded before, of these cells. Raises InputError where its cells are not there."""
        state = self.cells if self.region is None else {**self.cells, REGION: self.region}
        if not set(change.removed) <= set(state) or set(change.added) & set(state) - set(change.removed):
            raise InputError("an edit of cells that are not there")
        return self._apply(change)

    def _chosen(self, numbers: Iterable[int]) -> dict[int, EditedCell]:
        wanted = list(dict.fromkeys(numbers))
        if missing := [number for number in wanted if number not in self.cells]:
            raise InputError(f"there is no cell {missing[0]}")
        if not wanted:
            raise InputError("choose a cell first")
        return {number: self.cells[number] for number in wanted}

    def _edit(self, removed: Mapping[int, EditedCell], added: Sequence[EditedCell]) -> Change:
        return self._apply(Change(removed, dict(enumerate(added, start=self.next_number))))

    def _replace(self, cells: Mapping[int, EditedCell]) -> Change:
        return self._apply(Change({number: self.cells[number] for number in cells}, cells))

    def _apply(self, change: Change) -> Change:
        if change.removed or change.added:
            self.record("edit", change)
            self._make(change)
            self._done.append(change)
            self._undone.clear()
        return change

    def _back(self, source: list[Change], target: list[Change], kind: str) -> Change | None:
        if not source:
            return None
        change = source[-1].reversed
        self.record(kind, change)
        self._make(change)
        target.append(change)
        source.pop()
        return change

    def _make(self, change: Change) -> None:
        for number in change.removed:
            self.cells.pop(number, None)
        self.cells.update({number: cell for number, cell in change.added.items() if number != REGION})
        if REGION in change.removed or REGION in change.added:
            self.region = change.added.get(REGION)
        self.next_number = max(self.next_number, *(number + 1 for number in change.added), 1)
