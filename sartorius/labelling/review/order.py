"""Order images so that each next one is badly predicted and unlike all that are labelled by then.

Greedy k-center (Gonzalez 1985; Sener & Savarese, "Active learning for convolutional neural networks: a core-set
approach", 2018) with the distance of each image weighted by its need, as uncertainty and diversity are joined in Yang
et al., "Suggestive annotation" (2017) and Ash et al., "BADGE" (2020): without the need, outliers come first; without
the distance, near copies of the worst image.
"""

from __future__ import annotations

import numpy as np

from sartorius.structures.arrays import Floats, Ints


def review_order(need: Floats, images: Floats, labelled: Floats) -> tuple[Ints, Floats]:
    """Order N images by need x distance from the nearest image that is labelled or comes before.

    need: float64 [N], 0 or more. images: features, float64 [N, F]; labelled: [M, F], M may be 0: the image that needs
    it most is then the first, and its distance is NaN. Returns positions, int64 [N], the first to label first, and
    float64 [N], the distance of each image (in the order of `images`) when it was chosen. Of equal products the farther
    one is first, then the needier one, then the earlier one.
    """
    count = len(images)
    nearest = np.full(count, np.inf)
    for one in labelled:
        nearest = np.minimum(nearest, np.linalg.norm(images - one, axis=1))
    order, distance = np.zeros(count, np.int64), np.zeros(count)
    left = np.ones(count, bool)
    for place in range(count):
        known = nearest if np.isfinite(nearest).all() else np.ones(count)
        candidates = np.flatnonzero(left)
        keys = (-candidates, need[candidates], known[candidates], need[candidates] * known[candidates])
        chosen = int(candidates[np.lexsort(keys)[-1]])
        order[place], distance[chosen], left[chosen] = chosen, nearest[chosen], False
        nearest = np.minimum(nearest, np.linalg.norm(images - images[chosen], axis=1))
    return order, np.where(np.isfinite(distance), distance, np.nan)
