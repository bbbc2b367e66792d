"""Tuned thresholds in a checkpoint, for `predict`."""

from __future__ import annotations

from pathlib import Path

from sartorius.files import atomic_path
from sartorius.networks.checkpoints import KEY, read_checkpoint
from sartorius.postprocess.finalise import Postprocess
from sartorius.postprocess.saved import to_saved


def store(checkpoint: str | Path, post: Postprocess) -> None:
    """Replace the post-processing of a checkpoint's metadata; everything else in the file stays as it was.

    The file is replaced as a whole, or not at all. Raises InputError for what is no checkpoint of this program.
    """
    import torch

    state = read_checkpoint(checkpoint)
    state[KEY]["postprocess"] = to_saved(post)
    with atomic_path(checkpoint) as temporary:
        torch.save(state, temporary)
