"""Tuned thresholds in a checkpoint, for `predict`."""

from __future__ import annotations

from pathlib import Path

from sartorius.errors import InputError
from sartorius.files import atomic_path
from sartorius.networks.builtin import located
from sartorius.networks.bundles import is_bundle
from sartorius.networks.checkpoints import KEY, read_checkpoint
from sartorius.postprocess.finalise import Postprocess
from sartorius.postprocess.saved import to_saved


def check_store(checkpoint: str | Path) -> None:
    """Raise InputError for a bundle, which is written as a whole, and what is no checkpoint of this program."""
    if is_bundle(located(checkpoint)):
        raise InputError(
            f"{checkpoint}: a bundle keeps the thresholds that it was exported with; leave out checkpoint=, then "
            f"export checkpoint={checkpoint} with postprocess.file="
        )
    read_checkpoint(checkpoint)


def store(checkpoint: str | Path, post: Postprocess) -> None:
    """Replace the post-processing of a checkpoint's metadata; everything else in the file stays as it was.

    The file is replaced as a whole, or not at all. Raises InputError as `check_store`.
    """
    import torch

    check_store(checkpoint)
    state = read_checkpoint(checkpoint)
    state[KEY]["postprocess"] = to_saved(post)
    with atomic_path(checkpoint) as temporary:
        torch.save(state, temporary)
