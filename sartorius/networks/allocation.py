"""A bound on the memory that building a model may take, known from the weights that it is to hold."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sartorius.errors import InputError

# Beside those of the weights, 1 GB: stages that timm builds and drops (`levels` of an encoder), buffers, a trial run.
SPARE_NUMBERS = 250_000_000
SPARE_CALLS = 10_000


class LimitedAllocation(TorchDispatchMode):
    """A mode in which torch makes no larger tensors, and makes no more calls, than a model with these weights needs.

    Raises InputError, naming `source`, where it would. state: the weights.
    """

    def __init__(self, state: Mapping[str, Tensor], source: str) -> None:
        super().__init__()
        self.source, weights = source, sum(value.numel() for value in state.values())
        self.weights, self.numbers = weights, 2 * weights + SPARE_NUMBERS
        self.calls = 100 * len(state) + SPARE_CALLS

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function of torch unless it makes too large a tensor."""
        self.calls -= 1
        if args and isinstance(args[0], list | tuple) and all(isinstance(length, int) for length in args[0]):
            self.numbers -= prod(args[0])  # empty, zeros, ones, full, rand ... of a size
        if self.numbers < 0 or self.calls < 0:
            raise InputError(
                f"{self.source}: refused, its metadata describe a larger model than its {self.weights} weights; the "
                "file is damaged, or made to fill the memory"
            )
        return func(*args, **(kwargs or {}))
