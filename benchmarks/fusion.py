"""Twenty members' detections of one image of 500 cells, joined, beside a plain average of full-size masks.

Five models and the four flips of each: the cells of a generated image, their boxes moved by up to a pixel, one cell
in twenty missed. The peer is told which detections belong together, pastes each at full size in float32 and averages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks import images
from benchmarks.measure import Row, expect, side_by_side
from sartorius.fusion.clusters import Clusters, cluster
from sartorius.fusion.methods import NMS, WBF, Vote
from sartorius.fusion.pool import MemberDetections, Pool, pool
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import Detections

CELLS, MEMBERS = 500, 5 * 4
PEER_CELLS = 10  # of the 500; the peer takes seconds for all
WBF_ = WBF(box_iou=0.4, mask_iou=0.4, share_power=1.0)
VOTE = Vote(box_iou=0.4, mask_iou=0.4, share_power=1.0, min_share=0.25)
NMS_ = NMS(box_nms=0.7, mask_nms=0.3, mask_iou=0.5)


def members(cells: int, count: int) -> list[MemberDetections]:
    """The detections of `count` members of a generated image."""
    random = np.random.default_rng(0)
    found = Detections.from_instances("image_id", images.generated(cells).instances(), np.ones(cells))
    result = []
    for _ in range(count):
        kept = found.select(random.random(cells) > 1 / 20)
        moved = kept.boxes + np.tile(random.uniform(-1, 1, (len(kept), 2)), 2)
        scores = random.uniform(0.5, 1, len(kept)).astype(np.float32)
        one = replace(kept, boxes=moved.astype(np.float32), scores=scores)
        result.append(MemberDetections(one, np.ones(len(CELL_TYPES)), np.full(len(CELL_TYPES), 0.5)))
    return result


def pooled(given: list[MemberDetections]) -> Pool:
    """All detections of all members."""
    return pool(given, min_score=0.05, calibrate=True, image_type="each")


def full_size_average(everything: Pool, clusters: Clusters, cells: int) -> list[NDArray[np.float32]]:
    """The peer: probabilities [H, W] of the first cells, the weighted mean of one full-size mask a detection."""
    found, means = everything.detections, []
    for k in range(cells):
        rows = clusters.rows[clusters.cell == k]
        whole = np.stack([dense(found, row) for row in rows.tolist()])
        weights = everything.rank[rows] / everything.rank[rows].sum()
        means.append((whole * weights[:, None, None]).sum(axis=0).astype(np.float32))
    return means


def dense(found: Detections, row: int) -> NDArray[np.float32]:
    """One detection at full size, bilinear at pixel centres, 0 outside its box."""
    x1, y1, x2, y2 = found.boxes[row].tolist()
    size, sample = found.mask_size, np.zeros((found.height, found.width), np.float32)
    x, y = np.arange(found.width) + 0.5, np.arange(found.height) + 0.5
    x, y = x[(x >= x1) & (x < x2)], y[(y >= y1) & (y < y2)]
    grid = np.meshgrid((y - y1) / (y2 - y1) * size - 0.5, (x - x1) / (x2 - x1) * size - 0.5, indexing="ij")
    values = ndimage.map_coordinates(found.masks[row].astype(np.float32), grid, order=1, mode="nearest")
    sample[int(y[0]) : int(y[0]) + len(y), int(x[0]) : int(x[0]) + len(x)] = values
    return sample


def agree(everything: Pool, clusters: Clusters, joined: Detections) -> bool:
    """Whether the peer's first cells have the pixels of ours: a mean IoU above 0.9."""
    means = full_size_average(everything, clusters, PEER_CELLS)
    seeds = everything.detections.boxes[clusters.seed[:PEER_CELLS]]
    distance = np.abs(joined.boxes[:, None] - seeds[None]).sum(axis=2)
    ours = joined.select(distance.argmin(axis=0))
    ious = []
    for k, mean in enumerate(means):
        theirs, own = mean > 0.5, dense(ours, k) > 0.5
        ious.append((theirs & own).sum() / (theirs | own).sum())
    return float(np.mean(ious)) > 0.9


def rows() -> Iterator[Row]:
    """Milliseconds an image of 500 cells from 20 members, for each method."""
    given = members(CELLS, MEMBERS)
    everything = pooled(given)
    clusters = cluster(everything, WBF_.box_iou, WBF_.mask_iou)
    same = expect(agree(everything, clusters, WBF_(everything)), "pixels of the joined cells, mean IoU > 0.9")
    for method in (WBF_, VOTE, NMS_):
        ours, some = side_by_side(
            lambda m=method: m(pooled(given)),  # type: ignore[misc]
            lambda: full_size_average(everything, clusters, PEER_CELLS),
        )
        name, peer = type(method).__name__.lower(), some * len(clusters) / PEER_CELLS
        what = f"join {MEMBERS} members' {CELLS} cells, {name}"
        who = f"average of full-size masks, {PEER_CELLS} cells scaled up"
        yield Row(what, "ms", ours, peer, who, same, at_most=1000)
