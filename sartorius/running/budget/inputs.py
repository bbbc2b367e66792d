"""The images of the competition, wherever its data are mounted."""

from __future__ import annotations

import os
from pathlib import Path

from sartorius.data.images import list_images
from sartorius.errors import InputError, collected
from sartorius.formats.submission import read_submission

SAMPLE = "sample_submission.csv"


def find_test(inputs: Path) -> Path:
    """Find the folder `test` beside sample_submission.csv, at any depth; raises InputError unless there is one."""
    found: list[Path] = []
    for root, folders, files in os.walk(inputs):
        if "test" in folders and SAMPLE in files:
            found.append(Path(root, "test"))
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(("train", "."))]  # of thousands of images
    if len(found) != 1:
        names = ", ".join(map(str, found)) or "none"
        raise InputError(
            f"{inputs}: expected one folder `test` beside {SAMPLE} in it, found {names}; add the competition's data "
            "to the notebook, and no other's"
        )
    return found[0]


def expected_ids(test: Path, problems: list[str]) -> list[str]:
    """List the images that a submission must have, sorted: those of the folder, and those of sample_submission.csv.

    The latter are appended to `problems` where the folder lacks them, and so is a sample that cannot be read.
    """
    there = [path.stem for path in list_images(test)]
    sample = test.with_name(SAMPLE)
    named: list[str] = []
    with collected(problems):
        named = list(read_submission(sample))
    absent = sorted(set(named) - set(there))
    problems += [f"image {image_id}: in {SAMPLE}, but without a file in {test}" for image_id in absent]
    return sorted({*there, *absent})
