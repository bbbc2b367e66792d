"""The check that a network's output is made of numbers: NaN is below every threshold, so it would count as no cell."""

from __future__ import annotations

import torch
from torch import Tensor

from sartorius.errors import InputError


class NonFiniteOutputError(InputError):
    """An output of a network that is NaN or infinite."""


def check_finite(source: str, *outputs: Tensor) -> None:
    """Raise NonFiniteOutputError, naming `source`, where an output holds NaN or infinity."""
    if not all(bool(torch.isfinite(output).all()) for output in outputs):
        raise NonFiniteOutputError(
            f"{source}: the network's output is NaN or infinite, which would pass for no cells; predict with "
            "trainer.precision=32-true, or with another checkpoint"
        )
