"""The layers in which napari shows an image and its cells, kept as they are corrected.

Of cells that overlap the smallest is on top, or the chosen one; each keeps all its pixels in the `Correction`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd
from napari.layers import Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from napari.viewer import Viewer

from sartorius.labelling.correction.edits import Change, Correction
from sartorius.labelling.correction.shapes import EditedCell
from sartorius.structures.arrays import Floats, GreyImage

Colour = tuple[float, float, float, float]

CLEAR: Colour = (0, 0, 0, 0)
CHOSEN: Colour = (1, 1, 1, 1)
ACCEPTED: Colour = (0.2, 0.75, 1, 1)
SHADE: Colour = (0, 0, 0, 0.55)  # over what is not checked
# of scores 0, 0.5 and 1: red, yellow and green
_SCORES = np.array([[0.95, 0.2, 0.15], [0.98, 0.85, 0.2], [0.25, 0.85, 0.3]])
_TYPES = np.array(  # matplotlib's tab10
    [
        (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
        (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
    ]
) / 255  # fmt: skip


def colour_of(cell: EditedCell, by_type: bool = False) -> Colour:
    """Return the colour of a cell: of its type or, of its score, red to green; blue where it is accepted or drawn."""
    if by_type:
        rgb = _TYPES[cell.cell_type % len(_TYPES)]
    elif cell.accepted or np.isnan(cell.score):
        return ACCEPTED
    else:
        rgb = np.array([np.interp(cell.score, [0, 0.5, 1], channel) for channel in _SCORES.T])
    return float(rgb[0]), float(rgb[1]), float(rgb[2]), 1.0


class CellCanvas:
    """Layers of a viewer: the image, a shade over what is not checked, the cells, and the stroke that is being drawn.

    by_type: colours tell types, not scores.
    """

    def __init__(self, viewer: Viewer, types: Collection[str]) -> None:
        self.viewer, self.types, self.by_type = viewer, list(types), False
        self.correction = Correction(1, 1)
        none = np.zeros((1, 1), np.int32)
        self.image = viewer.add_image(none.astype(np.uint8), name="image", contrast_limits=(0, 255))
        self.shade = viewer.add_labels(none, name="not checked", opacity=1.0, blending="translucent")
        self.shade.colormap = DirectLabelColormap(color_dict={None: CLEAR, 0: CLEAR, 1: SHADE})
        self.cells: Labels = viewer.add_labels(none, name="cells", opacity=0.8, blending="translucent")
        self.cells.contour = 1
        self.cells.editable = self.shade.editable = False  # napari's own brushes know nothing of the correction
        self.stroke = viewer.add_points(np.zeros((0, 2)), name="stroke", face_color="yellow", border_width=0)
        self.activate()

    @property
    def layers(self) -> list[Layer]:
        """All layers."""
        return [self.image, self.shade, self.cells, self.stroke]

    def activate(self) -> None:
        """Make the cells the layer that the mouse and the keys are for."""
        self.cells.mode = "pan_zoom"
        self.viewer.layers.selection.active = self.cells

    def show(self, image: GreyImage, correction: Correction) -> None:
        """Show another image and its cells."""
        self.correction = correction
        self.image.data = image
        low, high = np.percentile(image, (0.1, 99.9)).tolist()
        self.image.contrast_limits = (low, max(high, low + 1))
        self.cells.data = np.zeros(image.shape, np.int32)
        self.draw_stroke(np.zeros((0, 2)))
        self._draw((0, 0, *image.shape), ())
        self._draw_region()
        self.recolour(())
        self.viewer.reset_view()

    def change(self, change: Change, chosen: Collection[int]) -> None:
        """Draw what a change touches anew."""
        self.draw(change.touched(), chosen)
        self._draw_region()

    def draw(self, cells: Iterable[EditedCell], chosen: Collection[int]) -> None:
        """Draw the boxes of these cells anew, the chosen cells on top."""
        boxes = [(cell.top, cell.left, cell.bottom, cell.right) for cell in cells]
        if boxes:
            tops, lefts, bottoms, rights = zip(*boxes, strict=True)
            self._draw((min(tops), min(lefts), max(bottoms), max(rights)), chosen)
        self.recolour(chosen)

    def draw_stroke(self, points: Floats, size: float = 2.0) -> None:
        """Show points [P, 2], rows and columns, of a stroke that is being drawn; none take it away."""
        self.stroke.data = points
        if len(points):
            self.stroke.size = size

    def recolour(self, chosen: Collection[int]) -> None:
        """Give each cell its colour, and the line that napari shows of the cell under the mouse."""
        cells = self.correction.cells
        colours: dict[int | None, Colour] = {None: CLEAR, 0: CLEAR}
        colours |= {number: colour_of(cell, self.by_type) for number, cell in cells.items()}
        colours |= {number: CHOSEN for number in chosen if number in cells}
        self.cells.colormap = DirectLabelColormap(color_dict=colours)
        self.cells.features = pd.DataFrame(
            {
                "index": list(cells),
                "score": [round(cell.score, 2) for cell in cells.values()],
                "type": [self.types[cell.cell_type] for cell in cells.values()],
            }
        )

    def _draw(self, box: tuple[int, int, int, int], chosen: Collection[int]) -> None:
        """Draw a box (top, left, bottom, right) of the label image: large cells below small ones."""
        top, left, bottom, right = box
        part = np.zeros((bottom - top, right - left), np.int32)
        within = [
            (number in chosen, -int(cell.mask.sum()), number, cell)
            for number, cell in self.correction.cells.items()
            if cell.top < bottom and cell.left < right and cell.bottom > top and cell.right > left
        ]
        for _, _, number, cell in sorted(within, key=lambda entry: entry[:3]):
            y0, x0 = max(cell.top, top), max(cell.left, left)
            y1, x1 = min(cell.bottom, bottom), min(cell.right, right)
            mask = cell.mask[y0 - cell.top : y1 - cell.top, x0 - cell.left : x1 - cell.left]
            part[y0 - top : y1 - top, x0 - left : x1 - left][mask] = number
        self.cells.data[top:bottom, left:right] = part
        self.cells.refresh()

    def _draw_region(self) -> None:
        region, shade = self.correction.region, np.zeros(self.cells.data.shape, np.int32)
        if region is not None:
            shade[:] = 1
            shade[region.top : region.bottom, region.left : region.right] = ~region.mask
        self.shade.data = shade
        self.shade.visible = region is not None
