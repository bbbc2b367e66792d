"""Selection of the pseudo-labelled images that may be trained on: none of a validation image, its plate well or group.

Unlabelled images come from the plate wells of labelled ones, fields or days apart, and copies have other names.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Collection, Mapping

from sartorius.data.annotated_images import AnnotatedImages
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.groups import places_of
from sartorius.data.pseudo_labels.source import PseudoLabelled
from sartorius.errors import InputError
from sartorius.structures.arrays import GreyImage

log = logging.getLogger(__name__)


def admitted(
    source: PseudoLabelled, competition: Competition, training: Collection[str], validation: Collection[str]
) -> list[str]:
    """Choose the images of `source` that may be trained on beside the labelled images `training`; sorted ids.

    Left out, and counted in one line of the log, are labelled images (by id, or those of the two lists by their
    pixels) and those that share a plate well or group with `validation`. Where it has images, warns of wells and
    groups that are not known. Decodes every image. Raises InputError where none is left, and for a damaged one.
    """
    labelled = set(source.ids) & set(competition.ids)
    # by all that tells it: the file's column sample_id or the name may be wrong
    places = _places(competition, source)
    own = _places(competition, competition)
    taken = {place for image_id in validation for place in (competition.wells[image_id], *own[image_id])}
    shared = {image_id for image_id in source.ids if taken & {image_id, *places[image_id]}}
    if validation:
        unknown = [image_id for image_id in source.ids if not places[image_id] and image_id not in labelled]
        _warn_of_unknown_places(source, competition, unknown)
    known = {_fingerprint(competition.image(image_id)) for image_id in {*training, *validation}}
    rest = [image_id for image_id in source.ids if image_id not in shared | labelled]
    left = [image_id for image_id in rest if _fingerprint(source.image(image_id)) not in known]
    summary = (
        f"{source.csv}: {len(left)} of {len(source.ids)} images are trained on; left out are "
        f"{len(labelled) + len(rest) - len(left)} labelled ones and {len(shared - labelled)} that share a "
        f"{competition.well_name} with validation images"
    )
    if not left:
        raise InputError(f"{summary}; give pseudo-labels of other images, or set pseudo_labels=null")
    log.info("%s", summary)
    return left


def _places(competition: Competition, images: AnnotatedImages) -> Mapping[str, Collection[str]]:
    """Return the plate wells and groups that each image may be of."""
    records = [images.record(image_id) for image_id in images.ids]
    found = places_of(competition.root, competition.about, {record.id: record.path for record in records})
    return {record.id: [*found[record.id], *([record.well] if record.well else [])] for record in records}


def _warn_of_unknown_places(source: PseudoLabelled, competition: Competition, unknown: Collection[str]) -> None:
    if not competition.has_wells:
        what = f"{competition.csv} has no column sample_id"
    elif unknown:
        lack = "plate well in their names" if competition.about is None else "known group"
        what = f"{len(unknown)} images of {source.csv} have no {lack} ({', '.join([*unknown][:3])})"
    else:
        return
    warnings.warn(
        f"{what}: whether pseudo-labelled images share {competition.well_name}s with validation images is not known, "
        "and scores may flatter",
        stacklevel=3,
    )


def _fingerprint(image: GreyImage) -> bytes:
    return hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).digest()
