"""The check of a BioImage.IO package by the zoo's own library, where that is installed."""

from __future__ import annotations

import logging
from pathlib import Path

from sartorius.errors import InputError

log = logging.getLogger(__name__)


def check_package(package: Path, path: Path) -> None:
    """Validate the format of a package with bioimageio.spec; tells it where that is not installed.

    Raises InputError, naming `path`, with what it finds wrong.
    """
    try:
        from bioimageio.spec import load_description
    except ImportError:
        log.warning("%s: its format was not checked: bioimageio.spec is not installed", path)
        return
    summary = load_description(package, perform_io_checks=True).validation_summary
    if summary.status == "failed":
        problems = [
            f"{'.'.join(map(str, error.loc))}: {error.msg}" for part in summary.details for error in part.errors
        ]
        text = " ".join("; ".join(problems).split())
        raise InputError(
            f"{path}: not written, bioimageio.spec refuses it: {text}; where the options are not at fault, update that "
            "package, or write without it"
        )
