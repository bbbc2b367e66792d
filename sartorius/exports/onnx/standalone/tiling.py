"""Maps of a whole image by a function of parts of it: tiles that are blended, views that are averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from sartorius.exports.onnx.standalone.resizing import bilinear
from sartorius.inference.views import SYMMETRIES
from sartorius.structures.arrays import Floats32, Plane
from sartorius.structures.windows import Window, five_crops, tiles

Crops = Callable[[Floats32], Floats32]  # [B, 1, h, w] -> [B, C, h, w]


def predict_maps(by: Mapping[str, Any], network: Crops, image: Plane, vectors: slice | None) -> Floats32:
    """Predict maps [C, H, W] of an image [H, W].

    by: `kind` (Whole, Tiles, FiveCrops, Enlarged, Augmented) with its settings. vectors: the channels (dy, dx) in
    pixels, if any; they turn and scale with the image.
    """
    if by["kind"] == "Augmented":
        return _averaged(by, network, image, vectors)
    if by["kind"] == "Enlarged":
        return predict_maps(by["windows"], _enlarging(network, by["factor"], vectors), image, vectors)
    if by["kind"] == "Whole":
        return network(image[None, None])[0]
    return _blended(by, network, image)


def _enlarging(network: Crops, factor: float, vectors: slice | None) -> Crops:
    """Make a function of crops that are enlarged before the network, and its maps shrunk behind it."""

    def shrunk(crops: Floats32) -> Floats32:
        size = [round(length * factor) for length in crops.shape[-2:]]
        maps = bilinear(network(bilinear(crops, *size)), *crops.shape[-2:])
        if vectors is not None:
            maps[:, vectors] *= np.divide(crops.shape[-2:], size).astype(np.float32).reshape(2, 1, 1)
        return maps

    return shrunk


def _averaged(by: Mapping[str, Any], network: Crops, image: Plane, vectors: slice | None) -> Floats32:
    """Average the maps of all views, mirrored, turned and rescaled."""
    result = np.zeros(0, np.float32)
    views = [(scale, *SYMMETRIES[name]) for scale in by["scales"] for name in by["symmetries"]]
    for count, (scale, *turned) in enumerate(views, start=1):
        height, width = (max(round(length * scale), 1) for length in image.shape)
        view = bilinear(image, height, width, antialias=scale < 1)
        view = np.ascontiguousarray(_reversed(view.T if turned[0] else view, turned))
        maps = _turned_back(predict_maps(by["windows"], network, view, vectors), turned, image.shape, vectors)
        result = maps if count == 1 else result + np.float32(1 / count) * (maps - result)
    return result


def _turned_back(maps: Floats32, turned: list[bool], size: tuple[int, ...], vectors: slice | None) -> Floats32:
    """Map back maps [C, h, w] of a view to an image of this size."""
    transpose, up_down, left_right = turned
    maps = _reversed(maps, turned)
    maps = maps.transpose(0, 2, 1) if transpose else maps
    shrink = np.divide(size, maps.shape[-2:]).astype(np.float32).reshape(2, 1, 1)
    maps = bilinear(np.ascontiguousarray(maps), size[0], size[1])
    if vectors is not None:
        pair = maps[vectors] * np.array([-1 if up_down else 1, -1 if left_right else 1], np.float32).reshape(2, 1, 1)
        maps[vectors] = (pair[::-1] if transpose else pair) * shrink
    return maps


def _reversed(maps: Floats32, turned: list[bool]) -> Floats32:
    _, up_down, left_right = turned
    return maps[..., :: -1 if up_down else 1, :: -1 if left_right else 1]


def _blended(by: Mapping[str, Any], network: Crops, image: Plane) -> Floats32:
    """Blend the maps of windows; near an inner edge a window counts less than its neighbour."""
    (height, width), margin = image.shape, by["margin"]
    if by["kind"] == "Tiles":
        windows, shared = tiles(height, width, by["size"], by["overlap"]), [by["overlap"]] * 2
    else:
        windows = five_crops(height, width, by["height"], by["width"])
        shared = [2 * by["height"] - height, 2 * by["width"] - width]
    ramps = [pixels - 2 * margin for pixels in shared]
    result, total = np.zeros(0, np.float32), np.zeros(image.shape, np.float32)
    for window, maps in _predicted(windows, network, image, by["batch"]):
        result = result if result.size else np.zeros((len(maps), *image.shape), np.float32)
        part = window.without(margin, height, width)
        top, left, bottom, right = window.inner_edges(height, width)
        weight = np.outer(_ramp(part.height, top, bottom, ramps[0]), _ramp(part.width, left, right, ramps[1]))
        total[part.rows, part.columns] += weight
        rows, columns = part.top - window.top, part.left - window.left
        found = maps[:, rows : rows + part.height, columns : columns + part.width]
        kept = result[:, part.rows, part.columns]
        kept += weight / total[part.rows, part.columns] * (found - kept)
    if (total == 0).any():
        raise ValueError(f"windows {dict(by)} do not cover an image of {height} x {width} px (height x width)")
    return result


def _predicted(windows: list[Window], network: Crops, image: Plane, batch: int) -> Iterator[tuple[Window, Floats32]]:
    for start in range(0, len(windows), batch):
        chosen = windows[start : start + batch]
        crops = np.stack([image[None, window.rows, window.columns] for window in chosen])
        yield from zip(chosen, network(crops), strict=True)


def _ramp(length: int, low: bool, high: bool, steps: int) -> Floats32:
    """Make weights [length] above 0 that rise to 1 over `steps` pixels from the ends inside the image."""
    rising = (np.arange(1, length + 1, dtype=np.float32) / np.float32(steps + 1)).clip(max=1)
    return (rising if low else np.ones_like(rising)) * (rising[::-1] if high else np.float32(1))
