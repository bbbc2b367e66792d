"""Write or check a submission: `python -m sartorius.submit detections=runs/<run>/detections output=submission.csv`.

Detections become cells by the post-processing that was saved with them; the file is validated before it gets its name
(`submit validate=FILE` checks any file). An image without cells gets its empty row.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from sartorius.errors import InputError, InputErrors, collected, raise_all
from sartorius.formats.submission import (
    Row,
    Sizes,
    check_rows,
    read_submission,
    submission_hint,
    validate_submission,
    write_submission,
)
from sartorius.running import outputs, wiring
from sartorius.running.commands import command
from sartorius.structures.next_step import print_next_program

if TYPE_CHECKING:
    from sartorius.postprocess import Finalised
    from sartorius.structures.detections import Detections


def submit(
    detections: Iterable[Detections],
    postprocess: Callable[[Detections], Finalised],
    output: str | Path,
    sizes: Sizes | None = None,
) -> tuple[int, int]:
    """Check and write the submission of these images; returns (images, cells).

    sizes: (height, width) of each expected image; None accepts any. Raises InputError where an image is missing or
    was not expected, and for detections of another size than their image.
    """
    rows: dict[str, list[str]] = {}
    own_sizes: dict[str, tuple[int, int]] = {}
    for of_image in detections:
        rows[of_image.image_id] = postprocess(of_image).instances.to_rles()
        own_sizes[of_image.image_id] = of_image.height, of_image.width
    for image_id, size in own_sizes.items():
        if sizes is not None and sizes.get(image_id, size) != size:
            raise InputError(
                f"image {image_id}: detections of {size[1]}x{size[0]} pixels, the image has "
                f"{sizes[image_id][1]}x{sizes[image_id][0]}; predict it again"
            )
    cells = [(image_id, text) for image_id, texts in rows.items() for text in texts or [""]]
    lines = [Row(line, image_id, text) for line, (image_id, text) in enumerate(cells, start=2)]
    if problems := check_rows(lines, own_sizes if sizes is None else sizes):
        raise InputError(f"{output} was not written: {InputErrors(problems)}")
    write_submission(output, rows)
    return len(rows), sum(map(len, rows.values()))


def image_sizes(root: str | Path | None) -> Sizes | None:
    """Read (height, width) of each image of <root>/test; None without a root. Raises InputError when there are none."""
    if root is None:
        return None
    from sartorius.data.image_files import read_header
    from sartorius.data.images import list_images

    folder, sizes = Path(str(root)) / "test", {}
    problems: list[str] = []
    for path in list_images(folder):
        with collected(problems):
            sizes[path.stem] = read_header(path)[:2]
    raise_all(problems)
    if not sizes:
        raise InputError(f"{folder}: no images in it; leave data.root out to accept any ids")
    return sizes


def validate(path: str | Path, sizes: Sizes | None, limit: int) -> None:
    """Print every problem of a submission; raises InputError when there is any, warns of one that is hardly meant."""
    problems = validate_submission(path, sizes, limit)
    for problem in problems:
        print(f"{path}: {problem}")
    if problems:
        at_least = "at least " if len(problems) >= limit else ""
        raise InputError(f"{path}: {at_least}{len(problems)} problems; the competition would refuse it")
    print(f"{path}: a valid submission")
    images = read_submission(path)
    if not any(images.values()):
        warnings.warn(f"{path}: no cell in any image", stacklevel=2)
    if hint := submission_hint(path, images, sizes):
        warnings.warn(hint, stacklevel=2)


def written_file(cfg: DictConfig) -> Path | None:
    """Return the submission to write; None where one is checked."""
    return outputs.output_file(cfg) if cfg.validate is None else None


@command("submit", outputs.Output(written_file, is_folder=False))
def main(cfg: DictConfig) -> None:
    """Write a submission from detections, or check one."""
    if (cfg.detections is None) == (cfg.validate is None):
        raise InputError("give detections=FOLDER to write a submission, or validate=FILE to check one")
    sizes = image_sizes(cfg.data.root)
    if cfg.validate is not None:
        validate(str(cfg.validate), sizes, cfg.limit)
        return print_upload(str(cfg.validate))
    from sartorius.rescoring.saved import print_saved_filters
    from sartorius.running.saved_cells import SavedCells

    folder = str(cfg.detections)
    saved = SavedCells([folder], wiring.plain(cfg.postprocess), cfg.filter)
    if not saved.image_ids:
        raise InputError(f"{folder}: no detections in it; `predict` writes them")
    print_saved_filters([folder], cfg.filter)
    images, cells = submit(saved.read_all("writing"), saved.cells, str(cfg.output), sizes)
    print(f"{cfg.output}: {cells} cells in {images} images, a valid submission")
    if not cells:
        warnings.warn(
            f"{cfg.output}: no cell in any image; lower postprocess.score.threshold.default, or give filter=none",
            stacklevel=2,
        )
    print_upload(str(cfg.output))


def print_upload(file: str) -> None:
    """Print how to upload a valid submission."""
    competition = "sartorius-cell-instance-segmentation"
    print_next_program("kaggle", "competitions", "submit", "-c", competition, "-f", file, "-m", "MESSAGE")


if __name__ == "__main__":
    main()
