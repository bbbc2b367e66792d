"""Images that have the name of a labelled one: the same image, or another that would be taken for it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sartorius.data.annotated_images import AnnotatedImages
from sartorius.data.files.source import FileImages
from sartorius.structures.progress import progress_bar


def other_images(labelled: AnnotatedImages, images: FileImages, image_ids: Iterable[str]) -> list[str]:
    """Return a line for each of these images that has the id of a labelled one and other pixels, uint8 [H, W].

    Those that are not among both are passed over.
    """
    found = []
    shared = [image_id for image_id in image_ids if image_id in labelled.images and image_id in images.entries]
    for image_id in progress_bar(shared, "comparing with labelled images") if shared else ():
        path = labelled.record(image_id).path
        same = path.resolve() == images.path(image_id).resolve()
        if not same and not np.array_equal(labelled.image(image_id), images.image(image_id)):
            found.append(
                f"{images.path(image_id)}: has the name of {path}, which is labelled and another image, or was read in "
                "another way; rename it, or give another folder of labels"
            )
    return found
