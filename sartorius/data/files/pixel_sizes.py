"""The size of a pixel in micrometres, as image files tell it."""

from __future__ import annotations

import logging
from xml.etree import ElementTree

import tifffile

log = logging.getLogger(__name__)

_UNITS = {  # micrometres
    "\u00b5m": 1.0, "\u03bcm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "\\u00b5m": 1.0, "nm": 1e-3, "nanometer": 1e-3, "mm": 1e3, "millimeter": 1e3, "cm": 1e4, "centimeter": 1e4,
    "m": 1e6, "meter": 1e6, "inch": 25_400.0, "\u00e5": 1e-4, "angstrom": 1e-4,
}  # fmt: skip
_RESOLUTION_UNITS = {2: 25_400.0, 3: 10_000.0}  # ResolutionUnit of TIFF: inch, centimetre
# A resolution for printing says nothing of the cells: 72 dots per inch would be pixels of 353 micrometres.
_LARGEST_PRINTED = 10.0
_SQUARE = 0.01  # relative difference of width and height that rounding may make


def in_micrometres(size: float | None, unit: str | None, source: str) -> float | None:
    """Convert a size; None without one, without a unit of length, and for one that no image has."""
    factor = _UNITS.get((unit or "").strip().lower())
    if size is None or factor is None or not 0 < size * factor < 1e6:
        if size not in (None, 0) and unit not in (None, "", "pixel", "pixels"):
            log.warning("%s: a pixel size of %s %s is left out; give pixel_size=", source, size, unit)
        return None
    return float(f"{size * factor:.9g}")


def square(x: float | None, y: float | None, source: str) -> float | None:
    """Return the size of square pixels; None, with a warning, for others."""
    if x is not None and y is not None and abs(x - y) > _SQUARE * max(x, y):
        log.warning(
            "%s: pixels of %g x %g um are not square, so their size is left out; give pixel_size=", source, x, y
        )
        return None
    return x


def of_dots(dots: tuple[float, float] | None) -> float | None:
    """Return the pixel size of a resolution in dots per inch (x, y); None where it is one for printing."""
    if dots is None or min(dots) <= 0 or abs(dots[0] - dots[1]) > _SQUARE * max(dots):
        return None
    size = 25_400 / float(dots[0])
    return float(f"{size:.6g}") if size <= _LARGEST_PRINTED else None


def of_tiff(tiff: tifffile.TiffFile, image: int) -> float | None:
    """Return the pixel size of an OME, ImageJ or other TIFF; image: number of the image in an OME-TIFF."""
    name, page = tiff.filename, tiff.pages.first
    if tiff.ome_metadata:
        return _of_ome(tiff.ome_metadata, image, name)
    across, down = (_ratio(page.tags.valueof(code)) for code in (282, 283))  # XResolution, YResolution
    if across is None or down is None:
        return None
    if tiff.is_imagej:
        unit = str((tiff.imagej_metadata or {}).get("unit") or "")
        x, y = (in_micrometres(1 / ratio, unit, name) for ratio in (across, down))
        return square(x, y, name)
    unit_size = _RESOLUTION_UNITS.get(int(page.tags.valueof(296, 1)))
    return None if unit_size is None else of_dots((across * 25_400 / unit_size, down * 25_400 / unit_size))


def _of_ome(xml: str, image: int, name: str) -> float | None:
    try:
        pixels = [node for node in ElementTree.fromstring(xml).iter() if node.tag.rpartition("}")[2] == "Pixels"]
    except ElementTree.ParseError:
        return None
    if image >= len(pixels):
        return None
    found = pixels[image].attrib
    x, y = (
        in_micrometres(_number(found.get(f"PhysicalSize{axis}")), found.get(f"PhysicalSize{axis}Unit", "um"), name)
        for axis in "XY"
    )
    return square(x, y, name)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _ratio(value: object) -> float | None:
    """Return a positive fraction of TIFF as a number."""
    if not isinstance(value, tuple) or len(value) != 2 or not all(value):
        return None
    return float(value[0]) / float(value[1])
