"""Images of what a model is trained to predict for a sample, each with a line of text.

U-Net: its maps. Mask R-CNN: the anchors that stand for cells, and the mask targets, each in its box. Crop segmenter:
the crops it gets, with the outlines of the cell and of its neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sartorius.networks.cell_maps import MapLayout, map_targets
from sartorius.networks.matching import BETWEEN, match_boxes
from sartorius.structures.mask_sampling import gather_mask_targets
from sartorius.visualise.overlays import Image, cell_colours, draw_boxes, draw_map, outlines

if TYPE_CHECKING:
    from sartorius.data.dataset import Target

Panel = tuple[str, Image]
CROPS = 36  # of a sample that are drawn at most


def panels(module: nn.Module, image: Tensor, target: Target, canvas: Image, scale: int) -> list[Panel]:
    """(text, image) of each target of a sample; none for a module of another kind.

    image: uint8 [1, H, W]. canvas: RGB [scale*H, scale*W, 3], the sample, which is drawn over in copies.
    """
    kind: Any = module
    if hasattr(module, "layout"):
        return _maps(kind.layout, target, scale)
    if hasattr(kind.network, "rpn"):
        return [_anchors(kind.network, image, target, canvas, scale), _masks(kind.network, target, canvas, scale)]
    if hasattr(kind.network, "crops"):
        return [_crops(kind, image, target, scale)]
    return []


def _maps(layout: MapLayout, target: Target, scale: int) -> list[Panel]:
    truth = map_targets(target.layers, target.cell_types, layout)
    found = []
    for name in layout.slices:
        values = getattr(truth, name).float().numpy()
        if name == "offset":
            reach = max(float(np.abs(values).max()), 1e-6)
            text = f"-{reach:.2f} to {reach:.2f} of {layout.offset_scale:g} px"
            found += [
                (f"offset {axis}, {text}", draw_map(v, -reach, reach, scale))
                for axis, v in zip("yx", values, strict=True)
            ]
        elif name == "types":
            found.append(("types, -1 is none", draw_map(values, -1, max(layout.types - 1, 0), scale)))
        else:
            found.append((name, draw_map(values, 0, 1, scale)))
    return found


def _anchors(network: Any, image: Tensor, target: Target, canvas: Image, scale: int) -> Panel:
    """The anchors that are trained as cells, in the colours of those."""
    with torch.no_grad():
        batch = network.normalise([image])
        features = list(network.backbone(batch).values())
    anchors = torch.cat(network.rpn.anchors(features, (batch.shape[-2], batch.shape[-1])))
    cells = target.boxes * network.scale
    match = match_boxes(anchors, cells, network.rpn.foreground_iou, network.rpn.background_iou, rescue=True)
    chosen = torch.nonzero(match >= 0).flatten()
    drawn = canvas.copy()
    colours = cell_colours(target.boxes.numpy())[1:]
    draw_boxes(drawn, (anchors[chosen] / network.scale).numpy(), colours[match[chosen].numpy()], scale)
    without = len(target) - len(torch.unique(match[chosen]))
    text = f"{len(chosen)} anchors for cells, {int((match == BETWEEN).sum())} in between, of {len(anchors)}"
    return text + (f"; {without} cells without" if without else ""), drawn


def _masks(network: Any, target: Target, canvas: Image, scale: int) -> Panel:
    """The mask targets of the true boxes, as they are, each enlarged into its box."""
    size = 2 * network.roi_heads.mask_align.size
    masks = gather_mask_targets(target.layers, target.layer_of, target.ids, target.boxes, size).numpy()
    drawn = np.zeros_like(canvas)
    colours = cell_colours(target.boxes.numpy())[1:]
    for mask, box, colour in zip(masks, (target.boxes * scale).long().tolist(), colours, strict=True):
        x1, y1, x2, y2 = box
        large = cv2.resize(mask, (x2 - x1, y2 - y1), interpolation=cv2.INTER_NEAREST)
        part = drawn[y1:y2, x1:x2]
        np.maximum(part, (large[..., None] * colour).astype(np.uint8), out=part)
    return f"{len(masks)} masks of {size} x {size} in their boxes", drawn


def _crops(module: Any, image: Tensor, target: Target, scale: int) -> Panel:
    """The crops of the chosen cells with jittered boxes: the cell's outline in yellow, its neighbours' in blue."""
    boxes = module.given_boxes(target)
    chosen = torch.arange(len(target)) if target.chosen is None else target.chosen
    chosen = chosen[:CROPS]
    crops = module.network.crops(image, boxes[chosen])
    truth = module._truth(target, chosen, module.network.regions(boxes[chosen]))
    size = module.network.size
    across = 6
    sheet = np.zeros((max(-(-len(crops) // across), 1) * (size + 4), across * (size + 4), 3), np.uint8)
    for k, (crop, (own, others)) in enumerate(zip(crops.numpy(), truth.numpy(), strict=True)):
        drawn = np.repeat(_grey(crop[0])[..., None], 3, axis=2)
        if len(crop) > 1:  # the prompt: the box
            drawn[outlines((crop[1] > 0.5).astype(np.uint8))] = (0, 170, 0)
        drawn[outlines((others > 0.5).astype(np.uint8))] = (80, 140, 255)
        drawn[outlines((own > 0.5).astype(np.uint8))] = (255, 230, 0)
        row, column = divmod(k, across)
        top, left = row * (size + 4), column * (size + 4)
        sheet[top : top + size, left : left + size] = drawn
    text = f"{len(crops)} crops of {size} px: cell yellow, neighbours blue, box green"
    return text, sheet


def _grey(normalised: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A normalised crop, four deviations either way."""
    return ((normalised / 8 + 0.5).clip(0, 1) * 255).astype(np.uint8)
