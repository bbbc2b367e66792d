"""Correct predicted cells by hand: `python -m sartorius.correct images=FOLDER detections=predicted output=mine`.

Opens napari (`pip install 'sartorius[napari]'`) with each image and its cells, those that need it most first, to
accept, delete, split, join, draw and retype them. An image that is saved is checked: its labels are in the folder
`output=`, for `train data.root=mine`. Each edit is on the disk as it is made, so that the same command goes on where a
crash or a kill ended it.

`tool=fiji` needs no napari: it writes <output>/to_correct/<id>.png with a ROI zip, and the same command given again
reads the zips that were saved since.

Without `detections=` images start without cells; those that the output holds already start with their labels, so that
`images=mine/train` opens them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from sartorius.errors import raise_all
from sartorius.running import outputs
from sartorius.running.commands import command
from sartorius.structures.next_step import print_next

if TYPE_CHECKING:
    from sartorius.labelling.correction.session import CorrectionSession


def through_fiji(session: CorrectionSession, waiting: int, again: Sequence[str]) -> None:
    """Take what was corrected, write what is next, and tell what to do; raises InputError for all bad zips."""
    from sartorius.labelling.correction.fiji import FijiFolder

    fiji = FijiFolder(session)
    taken, told, problems = fiji.read_back()
    for line in (*(f"{image_id}: checked, {count} cells" for image_id, count in taken.items()), *told):
        print(line)
    before = [*fiji.sent]
    if out := fiji.write_next(waiting, again):
        print(f"{len(out)} images in {fiji.folder}: {', '.join(out)}")
        if before:
            print(f"as they were written before: {', '.join(before)}; delete ID.zip to have the cells of ID anew")
        print(fiji.help())
    raise_all(problems)


@command("correct", outputs.FOLDER)
def main(cfg: DictConfig) -> None:
    """Correct the cells of images in napari, or through Fiji."""
    from sartorius.running.correcting import build_session, training

    session = build_session(cfg)
    if cfg.tool == "fiji":
        through_fiji(session, cfg.waiting, list(cfg.again or ()))
    else:
        from sartorius.napari_plugin.start import correct

        correct(session)
    checked = sum(session.status(image_id) == "checked" for image_id in session.queue)
    print(f"{checked} of {len(session.queue)} images are checked; labels in {session.root}")
    if checked and (options := training(cfg, session)):
        print_next("train", options)


if __name__ == "__main__":
    main()
