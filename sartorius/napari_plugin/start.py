"""The window of `correct`, opened where napari is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sartorius.errors import InputError

if TYPE_CHECKING:
    from sartorius.labelling.correction.session import CorrectionSession


def correct(session: CorrectionSession) -> None:
    """Let a person correct the images of a session, until the window is closed.

    Raises InputError where napari, or what it draws its windows with, is not installed.
    """
    try:
        import napari

        from sartorius.napari_plugin.window import CorrectionWindow
    except ImportError as error:
        raise InputError(
            f"tool=napari: napari cannot be opened ({error}); pip install 'sartorius[napari]', or give tool=fiji and "
            "correct the cells in Fiji"
        ) from error
    viewer = napari.Viewer(title="sartorius correct")
    CorrectionWindow(viewer, session)
    napari.run()
