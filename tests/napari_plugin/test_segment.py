"""The widget Segment with the model that comes along; it needs napari and a display, as `test_window`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from sartorius.exports.bundle.example import read_example
from sartorius.networks.builtin import located

napari = pytest.importorskip("napari")
if not os.environ.get("DISPLAY"):
    pytest.skip("needs a display: xvfb-run -a pytest -W ignore tests/napari_plugin", allow_module_level=True)

from sartorius.napari_plugin.segment import segment, shown_plane  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_the_cells_of_the_plane_that_is_shown() -> None:
    example = read_example(located("builtin"))
    viewer = napari.Viewer()
    stack = viewer.add_image(np.stack([np.zeros_like(example.image), example.image]), scale=(1, 0.5, 0.5), name="x")
    viewer.dims.set_current_step(0, 1)
    pixels, _ = shown_plane(stack, viewer.dims.current_step)
    assert (pixels == example.image).all()
    widget = segment()
    viewer.window.add_dock_widget(widget, name="Segment")
    widget.image.value = stack
    worker = widget()
    until = time.monotonic() + 120
    while "x cells" not in viewer.layers and time.monotonic() < until:
        napari.qt.get_qapp().processEvents()
        time.sleep(0.02)
    assert worker is not None
    found = viewer.layers["x cells"]
    assert found.data.shape == example.image.shape and found.scale[-1] == 0.5
    assert abs(int(found.data.max()) - len(example.cell_types)) <= 0.1 * len(example.cell_types)
    assert set(found.features) >= {"index", "score", "type"}
    rgb = napari.layers.Image(np.zeros((4, 5, 3), np.uint8), rgb=True)
    assert shown_plane(rgb, (0, 0))[0].shape == (4, 5, 3)
    viewer.close()


def test_napari_finds_the_plugin() -> None:
    from npe2 import PluginManifest

    file = Path(__file__).resolve().parents[2] / "sartorius" / "napari_plugin" / "napari.yaml"
    manifest = PluginManifest.from_file(file)
    manifest.validate_imports()
    assert [widget.display_name for widget in manifest.contributions.widgets or ()] == ["Segment"]
