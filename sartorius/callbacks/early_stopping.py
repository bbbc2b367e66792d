"""Early stopping whose patience a resumed run may change."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import LightningModule, Trainer


class EarlyStopping(pl.callbacks.EarlyStopping):
    """Lightning's EarlyStopping with the configured patience after a resume, where Lightning takes that of the state.

    A run that it had stopped is trained no further, unless the patience is longer now.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the best score and the validations since."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop a run that is over."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience
