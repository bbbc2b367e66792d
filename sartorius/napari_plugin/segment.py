"""The widget Segment: the cells of a layer, found by a model of `train`, `export` or the one that comes along.

magicgui makes the widget of the annotations, which must be types, not their text.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui import magic_factory
from napari.layers import Image
from napari.qt.threading import FunctionWorker, thread_worker
from napari.types import LayerDataTuple
from napari.viewer import Viewer
from numpy.typing import NDArray

from sartorius.errors import InputError
from sartorius.napari_plugin.model_process import find_cells

if TYPE_CHECKING:
    from sartorius.formats.cells import Cells
    from sartorius.napari_plugin.layer_files import LayerTuple


@magic_factory(
    call_button="Segment",
    image={"tooltip": "of a stack the plane that is shown"},
    model={
        "filter": "*.ckpt *.zip",
        "tooltip": "a checkpoint of `train`, a bundle of `export`, or builtin: trained on generated images",
    },
    tiles={"text": "in tiles", "tooltip": "of large images"},
    views={"text": "eight views", "tooltip": "better, and eight times as slow"},
    pixel_size={"label": "pixel size, µm", "min": 0.0, "max": 1000.0, "step": 0.01, "tooltip": "0: not known"},
)
def segment(
    viewer: Viewer,
    image: Image,
    model: Path = Path("builtin"),
    tiles: bool = False,
    views: bool = False,
    pixel_size: float = 0.0,
) -> FunctionWorker[list[LayerDataTuple]]:
    """Find the cells of an image layer in the background, and add them as layers of labels."""
    if image is None:
        raise InputError("Segment: open an image first")
    pixels, place = shown_plane(image, viewer.dims.current_step)
    options = ("inference=tiles",) * tiles + ("tta=d4",) * views
    path = str(model) if str(model) == "builtin" else str(Path(model).expanduser())
    name, scale = image.name, np.asarray(image.scale)[-2:]

    @thread_worker(start_thread=False)
    def find() -> list[LayerDataTuple]:
        cells = find_cells(path, options, pixels, pixel_size or None, name)
        return [LayerDataTuple(layer) for layer in layers_of(cells, name, scale, place)]

    worker = find()
    worker.start()
    return worker


def shown_plane(image: Image, step: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[np.floating]]:
    """Return the pixels of a layer that are shown, [H, W] or [H, W, 3], and row and column of its first pixel.

    step: place on the axes of the viewer, whose last ones are the layer's.
    """
    data = image.data[0] if image.multiscale else image.data
    apart = data.ndim - 2 - int(image.rgb)
    own = tuple(step)[-image.ndim :]
    pixels = np.asarray(data[tuple(own[:apart])] if apart else data)
    return pixels, np.asarray(image.translate)[-2:]


def layers_of(cells: "Cells", name: str, scale: NDArray[Any], translate: NDArray[Any]) -> list["LayerTuple"]:
    """Return layers of labels: one, or several where cells overlap; the line at the mouse tells score and type."""
    features = {
        "index": np.arange(1, len(cells) + 1),
        "score": np.round(cells.scores, 2),
        "type": cells.types,
    }
    attributes = {"features": features, "scale": scale, "translate": translate}
    layers = cells.instances.layers.astype(np.int32)
    names = [f"{name} cells"] + [f"{name} cells, overlap {k}" for k in range(1, len(layers))]
    return [(layer, {**attributes, "name": own}, "labels") for layer, own in zip(layers, names, strict=True)]
