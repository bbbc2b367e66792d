"""Values of images gathered from all processes."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

T = TypeVar("T")


def gather_images(values: dict[int, T]) -> dict[int, T]:
    """Return the values (picklable) of all processes by image index, each image once; `values` itself in a single one.

    A collective call.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, values)
    return {index: value for part in parts for index, value in part.items()}
