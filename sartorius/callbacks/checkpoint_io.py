"""Checkpoint files that survive a kill and a full disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from sartorius.files import atomic_path
from sartorius.networks.checkpoints import KEY

_WEIGHTS = ("state_dict", KEY, "epoch", "global_step", "pytorch-lightning_version")  # all that prediction needs


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint files that are written under a temporary name and moved: a kill leaves the previous file whole.

    Lightning's own goes through the system's temporary folder, and a move between file systems is a copy.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unwritten: dict[str, str] = {}  # paths whose last save failed, and why
        self._weights_only = False

    @contextmanager
    def weights_only(self) -> Iterator[None]:
        """Leave out, within the context, what only a resumed training needs.

        Lightning's own option leaves out the changes of callbacks too, and with them the average of the weights.
        """
        self._weights_only = True
        try:
            yield
        finally:
            self._weights_only = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save; where that fails (a full disk) warn, keep the previous file and let the training continue.

        The training is worth more than a clean end; the next save tries again.
        """
        if self._weights_only:
            checkpoint = {key: value for key, value in checkpoint.items() if key in _WEIGHTS}
        try:
            with atomic_path(path) as temporary:
                torch.save(checkpoint, temporary)
            self.unwritten.pop(str(path), None)
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            self.unwritten[str(path)] = reason
            kept = "the previous one stays" if Path(path).is_file() else "there is none"
            rank_zero_warn(
                f"{path}: THE CHECKPOINT of epoch {checkpoint.get('epoch')}, step {checkpoint.get('global_step')}, "
                f"COULD NOT BE WRITTEN ({reason}); {kept}, and the training continues. Is the disk full?"
            )
