"""Selection of the pseudo-labelled images that may be trained on: none of a validation image or its plate well.

Unlabelled images come from the plate wells of labelled ones, fields or days apart, and copies have other names.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Collection

from sartorius.data.annotation_rows import well_of
from sartorius.data.competition.folder import Competition
from sartorius.data.pseudo_labels.source import PseudoLabelled
from sartorius.errors import InputError
from sartorius.structures.arrays import GreyImage

log = logging.getLogger(__name__)


def admitted(
    source: PseudoLabelled, competition: Competition, training: Collection[str], validation: Collection[str]
) -> list[str]:
    """Choose the images of `source` that may be trained on beside the labelled images `training`; sorted ids.

    Left out, and counted in one line of the log, are labelled images (by id, or those of the two lists by their
    pixels) and those that share a plate well with `validation`. Where it has images, warns of wells that are not
    known. Decodes every image. Raises InputError where none is left, and for a damaged one.
    """
    labelled = set(source.ids) & set(competition.ids)
    if validation:
        _warn_of_unknown_wells(source, competition, labelled)
    wells = {competition.wells[image_id] for image_id in validation}
    # by both: the file's column sample_id or the name may be wrong
    shared = {image_id for image_id in source.ids if wells & {source.well(image_id), well_of(image_id)}}
    known = {_fingerprint(competition.image(image_id)) for image_id in {*training, *validation}}
    rest = [image_id for image_id in source.ids if image_id not in shared | labelled]
    left = [image_id for image_id in rest if _fingerprint(source.image(image_id)) not in known]
    summary = (
        f"{source.csv}: {len(left)} of {len(source.ids)} images are trained on; left out are "
        f"{len(labelled) + len(rest) - len(left)} labelled ones and {len(shared - labelled)} that share a plate well "
        "with validation images"
    )
    if not left:
        raise InputError(f"{summary}; give pseudo-labels of other images, or set pseudo_labels=null")
    log.info("%s", summary)
    return left


def _warn_of_unknown_wells(source: PseudoLabelled, competition: Competition, labelled: Collection[str]) -> None:
    nameless = [image_id for image_id in source.ids if source.well(image_id) == image_id and image_id not in labelled]
    if not competition.has_wells:
        what = f"{competition.csv} has no column sample_id"
    elif nameless:
        what = f"{len(nameless)} images of {source.csv} have no plate well in their names ({', '.join(nameless[:3])})"
    else:
        return
    warnings.warn(
        f"{what}: whether pseudo-labelled images share plate wells with validation images is not known, and scores "
        "may flatter",
        stacklevel=3,
    )


def _fingerprint(image: GreyImage) -> bytes:
    return hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).digest()
