"""SIGTERM, in the hands of the command."""

from __future__ import annotations

import signal
import threading

from pytorch_lightning import Callback, LightningModule, Trainer


class Sigterm(Callback):
    """The handler of SIGTERM that was there before Lightning's, while a prediction runs.

    Lightning's calls the other processes from within the signal handler, whatever they are doing.
    """

    def __init__(self) -> None:
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take SIGTERM back; Lightning restores all handlers at the end."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)
