"""Images of any files, as grey levels that a network was trained on: the images to predict on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sartorius.data.files.listing import base_of, list_files
from sartorius.data.files.named_image import NamedImage
from sartorius.data.files.reading import Reading
from sartorius.data.files.regions import FileImage, RegionReader, joined
from sartorius.data.files.stacks import Index, Stack, open_stacks
from sartorius.data.image_files import MAX_PIXELS, within_memory
from sartorius.data.levels import Levels
from sartorius.errors import InputError
from sartorius.structures.arrays import GreyImage
from sartorius.structures.blocks import Blocks
from sartorius.structures.instances import Instances
from sartorius.structures.large_image import LargeImage, reader_of


def split_planes(axes: Mapping[str, int], pages: str) -> Iterator[tuple[Index, list[Index]]]:
    """Yield each image of a stack with these axes: its place on the axes that stay apart, and its planes.

    pages: see `FileImages`.
    """
    if pages == "first":
        yield {}, [{}]
        return
    within = [axis for axis in ("z", "p") if axis in axes and pages in ("max", "mean")]
    apart = [axis for axis in "tzp" if axis in axes and axis not in within]
    for place in _places(axes, apart):
        yield place, [{**place, **inner} for inner in _places(axes, within)]


def _places(axes: Mapping[str, int], names: Sequence[str]) -> Iterator[dict[str, int]]:
    """Yield all places on some of the axes; one empty place on none of them."""
    return (dict(zip(names, place, strict=True)) for place in product(*(range(axes[name]) for name in names)))


class FileImages:
    """Images of any files, an `ImageSource` with empty `instances`.

    images, output, leave_out: see `listing.list_files`. levels: what the grey levels become. channel: which of several,
    counted from 0. pages: of stacks, `each` plane becomes an image, its id ending in `_t000_z000` with the axes that
    the stack has (t time, z focus, p pages, s one of several stacks of a file); `first` takes the first plane of a
    file; `max` and `mean` join focus and pages, and time stays apart. pixel_size: micrometres, in place of what files
    tell.

    large: of images that are read by regions; None reads all whole.

    ids: sorted. problems: of files that cannot be opened, by id. reading: levels, channel and pages.
    """

    def __init__(
        self,
        images: str | Sequence[str],
        *,
        levels: Levels,
        channel: int | None = None,
        pages: str = "each",
        pixel_size: float | None = None,
        output: str | Path | None = None,
        large: Blocks | None = None,
        leave_out: Collection[Path] = (),
    ) -> None:
        self.reading = Reading(channel, pages, levels)
        self.base = base_of(images)
        self.pixel_size, self.large = pixel_size, large
        self._readers: dict[str, RegionReader] = {}  # of large images, once measured
        self.entries: dict[str, FileImage] = {}
        self.problems: dict[str, str] = {}
        for image_id, path in list_files(images, output, leave_out).items():
            try:
                found = self._images_of(path)
            except InputError as error:
                self.problems[image_id] = str(error)
                continue
            for suffix, image in found.items():
                if image_id + suffix in self.entries:
                    raise InputError(f"{path}: its image '{image_id + suffix}' has the id of another file; rename one")
                self.entries[image_id + suffix] = image
        self.entries = dict(sorted(self.entries.items()))

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the images, sorted."""
        return tuple(self.entries)

    @property
    def pixel_sizes(self) -> list[float | None]:
        """The pixel sizes of the images in micrometres, None where not known, by their ids."""
        return [image.pixel_size for image in self.entries.values()]

    def _images_of(self, path: Path) -> dict[str, FileImage]:
        """List the images of a file by what is added to its id."""
        found: dict[str, FileImage] = {}
        with open_stacks(path) as stacks:
            for number, stack in enumerate(stacks[:1] if self.reading.pages == "first" else stacks):
                channel = self._place_of_channel(path, stack)
                size = self.pixel_size if self.pixel_size is not None else stack.pixel_size
                for place, planes in split_planes(stack.axes, self.reading.pages):
                    where = {"s": number, **place} if len(stacks) > 1 and self.reading.pages != "first" else place
                    suffix = "".join(f"_{axis}{k:03d}" for axis, k in where.items())
                    chosen = tuple({**channel, **plane} for plane in planes)
                    found[suffix] = FileImage(path, number, chosen, stack.height, stack.width, size)
        return found

    def _place_of_channel(self, path: Path, stack: Stack) -> Index:
        """Return the place on the axis of channels; empty without that axis. Raises InputError where none is chosen."""
        if (count := stack.axes.get("c", 1)) == 1:
            return {}
        if self.reading.channel is None or self.reading.channel >= count:
            came = "" if self.reading.channel is None else f", not {self.reading.channel}"
            raise InputError(f"{path}: {count} channels; give channel=0 to {count - 1}, the one to predict on{came}")
        return {"c": self.reading.channel}

    def image(self, image_id: str) -> GreyImage:
        """Read the pixels of an image, uint8 [H, W]; raises InputError where its file cannot be read."""
        return self._whole(image_id)[0]

    def load(self, image_id: str) -> GreyImage | LargeImage:
        """Do the same, of a large image by regions later."""
        return self.load_and_reason(image_id)[0]

    def load_and_reason(self, image_id: str) -> tuple[GreyImage | LargeImage, str]:
        """Load an image, and why its levels do not stay as they are in the file; "" where they do."""
        image = self.entries[image_id]
        if self.large is None or not self.large.needed(image.height, image.width):
            return self._whole(image_id)
        with image.opened() as stack:
            by_parts = all(stack.rows_at_once(plane, self._channel(stack)) for plane in image.planes)
        if not by_parts:
            grey, reason = self._whole(image_id)
            return LargeImage(image.height, image.width, reader_of(grey), self.large), reason
        if image_id not in self._readers:
            with image.opened() as stack:
                reader = RegionReader(image, self._channel(stack), self.reading.pages)
            reader.mapping = self.reading.levels.mapping(reader.raw(), str(image.path))
            self._readers[image_id] = reader
        reader = self._readers[image_id]
        assert reader.mapping is not None
        return LargeImage(image.height, image.width, reader, self.large), reader.mapping.reason

    def _whole(self, image_id: str) -> tuple[GreyImage, str]:
        path = self.entries[image_id].path
        with within_memory(path):
            pixels = self._pixels(image_id)
            mapping = self.reading.levels.mapping([pixels], str(path))
            return mapping(pixels), mapping.reason

    def _pixels(self, image_id: str) -> NDArray[Any]:
        """Read numbers [H, W], or [H, W, 3] of colours."""
        image = self.entries[image_id]
        with image.opened() as stack:
            if image.height * image.width > MAX_PIXELS:
                raise InputError(f"{image.path}: {image.width}x{image.height} pixels, more than {MAX_PIXELS}")
            return joined((stack.read(plane, self._channel(stack)) for plane in image.planes), self.reading.pages)

    def _channel(self, stack: Stack) -> int | None:
        """Return the channel within a pixel; None where channels are planes."""
        return None if "c" in stack.axes else self.reading.channel

    def path(self, image_id: str) -> Path:
        """Return the file, or OME-Zarr folder, of an image."""
        return self.entries[image_id].path

    def named(self) -> dict[str, NamedImage]:
        """Name all images by their paths within the folder that ids count from."""
        return {
            image_id: NamedImage.within(self.base, image_id, image.path) for image_id, image in self.entries.items()
        }

    def size(self, image_id: str) -> tuple[int, int]:
        """Return height and width in pixels."""
        image = self.entries[image_id]
        return image.height, image.width

    def instances(self, image_id: str) -> Instances:
        """Return no cells, at the size of the image."""
        return Instances.empty(*self.size(image_id))

    def ignored(self, image_id: str) -> None:
        """Return None: there are no labels."""

    def cell_type(self, image_id: str) -> str:
        """Return "": not known."""
        return ""


def predicted_images(
    images: str | Sequence[str], meta: Mapping[str, Any], large: Blocks | None = None, leave_out: Collection[Path] = ()
) -> FileImages:
    """Open images as a network was shown them, whose detections came with this meta.json; else by default settings.

    Raises InputError as `FileImages` and `Reading.parse` do.
    """
    told = meta.get("reading") or {}
    read = Reading.parse(told, "meta.json")
    return FileImages(
        images,
        levels=read.levels,
        channel=read.channel,
        pages=read.pages,
        pixel_size=told.get("pixel_size"),
        large=large,
        leave_out=leave_out,
    )
