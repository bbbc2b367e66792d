"""Ids of images. They name files of outputs, so an id from a file must be the name of a file and nothing else."""

from __future__ import annotations

import re

from sartorius.errors import InputError

_LONGEST = 200  # bytes: file systems allow 255 with what names of files add
_REFUSED = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # separators, control characters, undecodable bytes


def id_problem(image_id: str) -> str | None:
    """Tell what is wrong with an id, None for a good one.

    It is not empty, has at most 200 bytes, does not begin with a dot, and has no slash, backslash, control character or
    byte that is no text.
    """
    if not image_id:
        return "no image id; name the image, or remove the row"
    if not image_id.startswith(".") and not _REFUSED.search(image_id) and len(image_id.encode()) <= _LONGEST:
        return None
    shown = repr(image_id if len(image_id) <= 60 else f"{image_id[:60]}...")
    return (
        f"{shown} cannot be an image id: expected the name of a file, without folder, leading dot and control "
        f"characters, of at most {_LONGEST} bytes; rename the image"
    )


def check_image_id(image_id: str, where: object) -> str:
    """Return the id; raises InputError naming `where` it came from, a file or its row, unless it is a good one."""
    if (problem := id_problem(image_id)) is not None:
        raise InputError(f"{where}: {problem}")
    return image_id
