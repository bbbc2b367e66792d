"""Decoded images kept in memory, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from sartorius.structures.arrays import GreyImage
from sartorius.structures.instances import Instances


class SampleCache:
    """Decoded images and label maps by id, the least recently used dropped beyond `max_bytes` (0 keeps none)."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self._kept: OrderedDict[str, tuple[GreyImage, Instances]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, image_id: str, load: Callable[[str], tuple[GreyImage, Instances]]) -> tuple[GreyImage, Instances]:
        """Return the cached sample of `image_id`, or `load(image_id)`, which is then cached."""
        if image_id in self._kept:
            self._kept.move_to_end(image_id)
            return self._kept[image_id]
        sample = load(image_id)
        self._kept[image_id] = sample
        self.bytes += _bytes(sample)
        while self.bytes > self.max_bytes:
            self.bytes -= _bytes(self._kept.popitem(last=False)[1])
        return sample


def _bytes(sample: tuple[GreyImage, Instances]) -> int:
    return sample[0].nbytes + sample[1].layers.nbytes
