"""Make or check a submission: `python -m sartorius.submit detections=runs/<run>/detections output=submission.csv`.

Detections become cells by the post-processing that was saved with them; the file is validated before it gets its name
(`submit validate=FILE` checks any file). A picture without cells gets its empty row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from sartorius import wiring
from sartorius.errors import InputError
from sartorius.export.submission import Problem, Row, Sizes, check_rows, validate_submission, write_submission
from sartorius.progress import watched

if TYPE_CHECKING:
    from sartorius.detections import Detections
    from sartorius.postprocess import Finalised


def submit(
    detections: Iterable[Detections],
    postprocess: Callable[[Detections], Finalised],
    output: str | Path,
    sizes: Sizes | None = None,
) -> tuple[int, int]:
    """Write the submission of these pictures, after checking it; returns (pictures, cells).

    sizes: (height, width) of each expected picture; None accepts any. Raises InputError where a picture is missing or
    was not expected, and for detections of another size than their picture.
    """
    rows: dict[str, list[str]] = {}
    own_sizes: dict[str, tuple[int, int]] = {}
    for found in detections:
        rows[found.picture] = postprocess(found).instances.to_rles()
        own_sizes[found.picture] = found.height, found.width
    for picture, size in own_sizes.items():
        if sizes is not None and sizes.get(picture, size) != size:
            raise InputError(
                f"picture {picture}: detections of {size[1]}x{size[0]} pixels, the picture has "
                f"{sizes[picture][1]}x{sizes[picture][0]}; predict it again"
            )
    texts = [(picture, text) for picture, of_picture in rows.items() for text in of_picture or [""]]
    lines = [Row(line, picture, text) for line, (picture, text) in enumerate(texts, start=2)]
    if problems := check_rows(lines, own_sizes if sizes is None else sizes):
        raise InputError(f"{output} was not written: {report(problems)}")
    write_submission(output, rows)
    return len(rows), sum(map(len, rows.values()))


def report(problems: list[Problem], listed: int = 5) -> str:
    """The first problems in one line."""
    more = f"; and {len(problems) - listed} more" if len(problems) > listed else ""
    return "; ".join(map(str, problems[:listed])) + more


def picture_sizes(root: str | Path | None) -> Sizes | None:
    """(height, width) of each picture of <root>/test; None without a root. Raises InputError when there are none."""
    if root is None:
        return None
    from sartorius.data.pictures import list_pictures, read_header

    folder = Path(root) / "test"
    sizes = {path.stem: read_header(path)[:2] for path in list_pictures(folder)}
    if not sizes:
        raise InputError(f"{folder}: no pictures in it; leave data.root out to accept any ids")
    return sizes


def validate(path: str | Path, sizes: Sizes | None, limit: int) -> None:
    """Print every problem of a submission; raises InputError when there is any."""
    problems = validate_submission(path, sizes, limit)
    for problem in problems:
        print(f"{path}: {problem}")
    if problems:
        at_least = "at least " if len(problems) >= limit else ""
        raise InputError(f"{path}: {at_least}{len(problems)} problems; the competition would refuse it")
    print(f"{path}: a valid submission")


@wiring.verb("submit")
def main(cfg: DictConfig) -> None:
    """Write a submission from detections, or check one."""
    if (cfg.detections is None) == (cfg.validate is None):
        raise InputError("give detections=FOLDER to write a submission, or validate=FILE to check one")
    sizes = picture_sizes(cfg.data.root)
    if cfg.validate is not None:
        return validate(cfg.validate, sizes, cfg.limit)
    from sartorius.detections import DetectionsFolder
    from sartorius.fusion.filtered import finish_of, say_saved

    folder = DetectionsFolder(cfg.detections)
    postprocess = finish_of(folder.meta, wiring.plain(cfg.postprocess), cfg.filter, str(cfg.detections))
    if not folder.pictures():
        raise InputError(f"{cfg.detections}: no detections in it; `predict` writes them")
    say_saved([folder.folder], cfg.filter)
    detections = (folder.load(picture) for picture in watched(folder.pictures(), "writing"))
    pictures, cells = submit(detections, postprocess, cfg.output, sizes)
    print(f"{cfg.output}: {cells} cells in {pictures} pictures, a valid submission")


if __name__ == "__main__":
    main()
