"""Peak memory of training steps, and how it grows with the number of cells: ours beside torchvision's Mask R-CNN.

The R50 experiment's network on one image of 520 x 704, two steps, each measurement in a process of its own. The same
image is taken with its first 36 cells and with all 547, so that nothing else differs; both networks are told to
sample the same number of regions for their heads, and the numbers that went through are checked.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks import images
from benchmarks.measure import Row, expect, in_subprocess, peak_megabytes

FEW, MANY = 36, images.DENSEST_CELLS
BOX_REGIONS, MASK_REGIONS = 128, 32  # an image, of which the latter are cells: 36 cells fill them
EXPERIMENT = "maskrcnn_r50"
GROWTH_MB = 150
REPEATS = 3  # the allocator leaves some 60 MB to chance; the median counts


def ours(cells: int) -> dict[str, Any]:
    """The experiment's network, as configured but for the scale and the number of regions."""
    import torch
    from hydra import compose, initialize_config_dir

    from sartorius.running.wiring import CONF_DIR, instantiate

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("train", [f"experiment={EXPERIMENT}"])
    torch.manual_seed(0)
    network = instantiate(config.model.network).train()
    network.scale = 1.0
    heads = network.roi_heads
    heads.batch, heads.positive_fraction, heads.mask_batch = BOX_REGIONS, MASK_REGIONS / BOX_REGIONS, MASK_REGIONS
    sample = images.densest()
    known = sample.instances().select(np.arange(cells))
    target = SimpleNamespace(
        boxes=torch.from_numpy(known.boxes),
        cell_types=torch.from_numpy(known.cell_types),
        layers=torch.from_numpy(known.layers.astype(np.int32)),
        layer_of=torch.from_numpy(known.layer_of),
        ids=torch.arange(1, cells + 1),
        ignored=None,
        weight=1.0,
    )
    image = torch.from_numpy(sample.image.copy())[None]
    return _train(network, lambda: network([image], [target]))


def peer(cells: int) -> dict[str, Any]:
    """torchvision's network with a mask of full size for every cell."""
    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.manual_seed(0)
    network = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=4, min_size=520, max_size=704,
        box_batch_size_per_image=BOX_REGIONS, box_positive_fraction=MASK_REGIONS / BOX_REGIONS,
    ).train()  # fmt: skip
    sample = images.densest()
    known = sample.instances().select(np.arange(cells))
    masks = np.zeros((cells, *sample.image.shape), np.uint8)
    for layer in known.layers:
        y, x = np.nonzero(layer)
        masks[layer[y, x].astype(int) - 1, y, x] = 1
    target = {
        "boxes": torch.from_numpy(known.boxes),
        "labels": torch.from_numpy(known.cell_types) + 1,
        "masks": torch.from_numpy(masks),
    }
    image = (torch.from_numpy(sample.image.copy()) / 255).expand(3, -1, -1)
    return _train(network, lambda: network([image], [target]))


def _train(network: Any, losses: Callable[[], dict[str, Any]], steps: int = 2) -> dict[str, Any]:
    """Peak memory in MB of the process, the last loss, and the regions that each head saw in a step."""
    import torch

    regions: dict[str, int] = {}
    for name in ("box_head", "mask_head"):
        head = getattr(network.roi_heads, name)
        head.register_forward_hook(lambda _, inputs, __, name=name: regions.update({name: len(inputs[0])}))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    for _ in range(steps):
        loss = sum(losses().values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"peak": peak_megabytes(), "loss": loss.item(), "regions": regions}


def measure(side: str, cells: int) -> list[dict[str, Any]]:
    """What `ours` or `peer` returns, `REPEATS` times."""
    return [in_subprocess(f"benchmarks.training_memory:{side}", cells) for _ in range(REPEATS)]


def rows() -> Iterator[Row]:
    """The peak with 547 cells, and its growth from 36, both in fp32."""
    runs = {(side, cells): measure(side, cells) for side in ("ours", "peer") for cells in (FEW, MANY)}
    wanted = {"box_head": BOX_REGIONS, "mask_head": MASK_REGIONS}
    same = expect(
        all(run["regions"] == wanted and math.isfinite(run["loss"]) for each in runs.values() for run in each),
        f"{BOX_REGIONS} regions for boxes, {MASK_REGIONS} for masks, finite losses",
    )
    peak = {key: statistics.median(run["peak"] for run in each) for key, each in runs.items()}
    peaks = [peak[side, MANY] for side in ("ours", "peer")]
    growth = [peak[side, MANY] - peak[side, FEW] for side in ("ours", "peer")]
    source, name = images.densest().source, "torchvision Mask R-CNN R50"
    yield Row(f"training step, {MANY} {source} cells, peak memory", "MB", peaks[0], peaks[1], name, same, at_least=1)
    yield Row(f"its growth from {FEW} to {MANY} cells", "MB", growth[0], growth[1], name, same, at_most=GROWTH_MB)
