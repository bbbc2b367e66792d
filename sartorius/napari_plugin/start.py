"""The window of `correct`, opened where napari is installed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from sartorius.errors import InputError

if TYPE_CHECKING:
    from sartorius.labelling.correction.session import CorrectionSession


def correct(session: CorrectionSession) -> None:
    """Let a person correct the images of a session, until the window is closed.

    Raises InputError where napari, or what it draws its windows with, is not installed, and without a display.
    """
    remedy = "or give tool=fiji and correct the cells in Fiji"
    try:
        import napari

        from sartorius.napari_plugin.window import CorrectionWindow
    except ImportError as error:
        raise InputError(
            f"tool=napari: napari cannot be opened ({error}); pip install 'sartorius[napari]', {remedy}"
        ) from error
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"} & set(os.environ):
        raise InputError(f"tool=napari: there is no display to open a window on; run it on a desktop, {remedy}")
    viewer = napari.Viewer(title="sartorius correct")
    CorrectionWindow(viewer, session)
    napari.run()
