"""Samples as tensors, the input of networks and callbacks.

A sample's randomness is a function of (seed, epoch, image, repeat), independent of the worker and of earlier samples.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sartorius.data.images import ImageSource
from sartorius.data.sample_cache import SampleCache
from sartorius.errors import InputError
from sartorius.structures.arrays import GreyImage, Ints
from sartorius.structures.cell_types import DOUBTFUL
from sartorius.structures.instances import Instances

Transform = Callable[[GreyImage, Instances, np.random.Generator], Any]
Load = Callable[[str], tuple[GreyImage, Instances]]


class Mix(Protocol):
    """Mixing of other images into one, before its transform."""

    def __call__(
        self,
        epoch: int,
        image: GreyImage,
        instances: Instances,
        others: Sequence[str],
        load: Load,
        rng: np.random.Generator,
    ) -> Any:
        """Return an object with `image`, `instances` and `kept` (int64 [n]: index among the given ones, -1: added).

        others: the images to take from, see `InstanceDataset.others`; `load(id)` gives image and cells of one. image
        and instances belong to the cache and must not be written to.
        """


class _Movable:
    """A dataclass of tensors that Lightning moves and the loader pins."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return a copy with every tensor moved by `Tensor.to(...)`."""
        return _apply(self, lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Self:
        """Return a copy with every tensor in pinned memory."""
        return _apply(self, Tensor.pin_memory)


def _apply(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list):
        return [_apply(item, function) for item in value]
    if isinstance(value, _Movable):
        return replace(value, **{name: _apply(item, function) for name, item in vars(value).items()})  # type: ignore[type-var]
    return value


@dataclass
class Target(_Movable):
    """The cells of one (possibly cropped) image.

    image_id: id.  index: its place among all images of its source, the same over epochs and folds.
    layers: int32 [L, H, W], 0 is background.  layer_of: int64 [N].  boxes: float32 [N, 4], x1, y1, x2, y2, half-open
    pixel edges.  cell_types: int64 [N], class index.  ids: int64 [N], the value of each cell in its layer.
    cell_type: name of the image's type, also without cells; "" where it is not known.
    chosen: int64 [n], indices (0 to N - 1) of the cells to train on; None for all.
    ignored: bool [H, W], pixels of doubtful cells and those that nobody has labelled: neither cell nor background to
    any loss or score; None for none.
    weight: of this image in every loss.
    scale: factor by which the network sees a predicted image larger.  pixel_size: micrometres; None where not known.
    """

    image_id: str
    index: int
    layers: Tensor
    layer_of: Tensor
    boxes: Tensor
    cell_types: Tensor
    ids: Tensor
    cell_type: str = ""
    chosen: Tensor | None = None
    ignored: Tensor | None = None
    weight: float = 1.0
    scale: float = 1.0
    pixel_size: float | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def from_instances(
        cls, image_id: str, index: int, instances: Instances, cell_type: str = "", weight: float = 1.0
    ) -> Target:
        """Convert `instances` to tensors; an image without cells has N = 0 and one empty layer.

        Cells of type DOUBTFUL become `ignored` pixels where no other cell covers them.
        """
        ignored = None
        if (doubtful := instances.cell_types == DOUBTFUL).any():
            certain, rest = instances.select(~doubtful), instances.select(doubtful)
            ignored = torch.from_numpy(rest.foreground() & ~certain.foreground())
            instances = certain
        return cls(
            image_id=image_id,
            index=index,
            layers=torch.from_numpy(instances.layers.astype(np.int32)),
            layer_of=torch.from_numpy(instances.layer_of.copy()),
            boxes=torch.from_numpy(instances.boxes.copy()),
            cell_types=torch.from_numpy(instances.cell_types.astype(np.int64)),
            ids=torch.arange(1, len(instances) + 1),
            cell_type=cell_type,
            ignored=ignored,
            weight=weight,
        )


@dataclass
class Batch(_Movable):
    """images: one uint8 [1, H, W] an image, 0 to 255, of any sizes.  targets: one an image, in the same order.

    In prediction a `LargeImage` may stand for an image, with a target of no size.
    """

    images: list[Tensor]
    targets: list[Target]

    def __len__(self) -> int:
        return len(self.images)


def collate(samples: Sequence[tuple[Tensor, Target]]) -> Batch:
    """Join (image, target) samples into a batch; nothing is stacked or padded."""
    return Batch([image for image, _ in samples], [target for _, target in samples])


class InstanceDataset(Dataset[tuple[Tensor, Target]]):
    """Samples of some images of a source: image uint8 [1, H, W] and Target.

    images: ids; item `i` is image `i // samples_per_image`.  transform: called with (image, instances, generator),
    returns an object with `image`, `instances` and `kept` (int64 [n], indices among the given ones); None gives images
    whole and cells exact.
    cache_bytes: memory for decoded images and label maps, per process (2.2 MB a competition image).
    mix: copies other images into one before the transform, see `Mix`.  weight: of these images in every loss.

    Raises InputError where an id is not in the source.
    """

    def __init__(
        self,
        source: ImageSource,
        images: Sequence[str],
        transform: Transform | None = None,
        seed: int = 0,
        samples_per_image: int = 1,
        cache_bytes: int = 0,
        mix: Mix | None = None,
        weight: float = 1.0,
    ) -> None:
        self.index_of = {image_id: index for index, image_id in enumerate(source.ids)}
        if unknown := [image_id for image_id in images if image_id not in self.index_of]:
            raise InputError(f"no image '{unknown[0]}'; ids look like {', '.join(source.ids[:3])}")
        self.source, self.images, self.transform = source, list(images), transform
        self.seed, self.samples_per_image = seed, samples_per_image
        self.cache, self.mix, self.weight = SampleCache(cache_bytes), mix, weight
        self._of_type: dict[str, list[str]] = {}
        for image_id in sorted(set(self.images)) if mix is not None else ():
            self._of_type.setdefault(source.cell_type(image_id), []).append(image_id)

    @property
    def places(self) -> int:
        """Different samples before randomness: one an image."""
        return len(self.images)

    def __len__(self) -> int:
        return self.places * self.samples_per_image

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[Tensor, Target]:
        """Return the sample of (epoch, index), or of an index in epoch 0."""
        epoch, index = item if isinstance(item, tuple) else (0, item)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.sample(epoch, *self._place(index))

    def _place(self, index: int) -> tuple[int, int]:
        """Return place and repeat of a sample."""
        return divmod(index, self.samples_per_image)

    def sample(self, epoch: int, place: int, repeat: int) -> tuple[Tensor, Target]:
        """Return the sample of one of the `places`; each `repeat` is drawn anew."""
        image, target, _ = self._sample(epoch, self.images[place], repeat)
        return image, target

    def _sample(self, epoch: int, image_id: str, repeat: int) -> tuple[Tensor, Target, Ints]:
        """Return image, target and, for each cell of the target, its place among the image's cells (-1: of another)."""
        image, instances = self.load(image_id)
        kept = np.arange(len(instances))
        rng = self._generator(epoch, image_id, repeat)
        if self.mix is not None:
            result = self.mix(epoch, image, instances, self.others(image_id), self.load, rng)
            image, instances, kept = result.image, result.instances, result.kept
        if self.transform is not None:
            result = self.transform(image, instances, rng)
            image, instances, kept = result.image, result.instances, kept[result.kept]
        cell_type = self.source.cell_type(image_id)
        target = Target.from_instances(image_id, self.index_of[image_id], instances, cell_type, self.weight)
        return torch.from_numpy(image.copy())[None], target, kept[instances.cell_types != DOUBTFUL]

    def others(self, image_id: str) -> list[str]:
        """Return the other images of this dataset that have the same known cell type; sorted."""
        cell_type = self.source.cell_type(image_id)
        return [other for other in self._of_type.get(cell_type, ()) if other != image_id] if cell_type else []

    def load(self, image_id: str) -> tuple[GreyImage, Instances]:
        """Load an image and its cells from the source, kept in the cache; not to be written to."""
        return self.cache.get(image_id, self._load)

    def preload(self) -> None:
        """Fill the cache before worker processes are forked: they then share one copy of it."""
        for image_id in self.images:
            if self.cache.bytes >= self.cache.max_bytes:
                return
            self.load(image_id)[1].areas  # noqa: B018 - computed once, kept with the instances

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the cached samples: a spawned worker reads its own instead of receiving gigabytes."""
        return {**self.__dict__, "cache": SampleCache(self.cache.max_bytes)}

    def _load(self, image_id: str) -> tuple[GreyImage, Instances]:
        instances, ignored = self.source.instances(image_id), self.source.ignored(image_id)
        return self.source.image(image_id), instances if ignored is None else instances.with_region(ignored, DOUBTFUL)

    def _generator(self, epoch: int, image_id: str, repeat: int) -> np.random.Generator:
        # The id, not its index: an image has the same randomness in another fold or subset.
        return np.random.default_rng((self.seed, epoch, zlib.crc32(image_id.encode()), repeat))
