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
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from sartorius.errors import InputError, raise_all
from sartorius.running import outputs, wiring
from sartorius.running.commands import command
from sartorius.structures.next_step import print_next

if TYPE_CHECKING:
    from sartorius.data.files.source import FileImages
    from sartorius.labelling.correction.session import CorrectionSession
    from sartorius.running.saved_cells import SavedCells


def build_session(cfg: DictConfig) -> CorrectionSession:
    """Open images, detections and the folder of labels; raises InputError where they do not belong together."""
    from sartorius.data.annotation_rows import read_table
    from sartorius.formats.cells import Cells
    from sartorius.labelling.correction.session import CorrectionSession, types_of
    from sartorius.running.saved_cells import SavedCells
    from sartorius.structures.detections import DetectionsFolder

    root = Path(str(cfg.output))
    paths = [] if cfg.detections is None else wiring.path_list(cfg.detections)
    folders = [DetectionsFolder(path).folder for path in paths]
    saved = SavedCells(folders, wiring.plain(cfg.postprocess), cfg.filter) if folders else None
    images = open_images(cfg, root, folders)
    order = [] if cfg.order is None else read_table(Path(str(cfg.order)), ("id",))["id"].tolist()
    given = None if cfg.cell_types is None else list(cfg.cell_types)
    options = {"order": order, **{key: cfg[key] for key in ("group", "margin", "n_folds", "fold_seed")}}
    if saved is None:
        return CorrectionSession(root, images, types_of(root, given, ()), **options)
    folder_of = {image_id: folder for image_id, folder in saved.folder_of.items() if image_id in images.ids}
    if not folder_of:
        raise InputError(
            f"{', '.join(map(str, folders))}: no detections of these images; give the images that were predicted"
        )
    found = list(dict.fromkeys(str(name) for folder in {*folder_of.values()} for name in folder.meta["cell_types"]))
    names = types_of(root, given, found)
    if others := [name for name in found if name not in names]:
        print(f"{root} has no {', '.join(others)}: such cells are {names[0]} to begin with, of {', '.join(names)}")

    def predicted(image_id: str) -> Cells | None:
        if image_id not in folder_of:
            return None
        detections = saved.detections(image_id)
        return Cells.of(saved.cells(detections, cfg.overlaps), detections)

    doubt = {} if order else doubts(saved, list(folder_of))
    return CorrectionSession(root, images, names, predicted, doubt, **options)


def open_images(cfg: DictConfig, root: Path, folders: Sequence[Path]) -> FileImages:
    """Open images as the network was shown them; else as the folder of labels tells, or the options.

    Those of the folder itself have been converted, and stay as they are.
    Raises InputError for all that cannot be opened.
    """
    from sartorius.data.competition.about import read_about
    from sartorius.data.files.source import FileImages, predicted_images
    from sartorius.data.levels import Levels
    from sartorius.structures.detections import DetectionsFolder

    paths, about = wiring.path_list(cfg.images), read_about(root)
    own = all(Path(path).absolute().is_relative_to(root.absolute()) for path in paths)
    if folders:
        images = predicted_images(paths, DetectionsFolder(folders[0]).meta)
    elif own:
        images = FileImages(paths, levels=Levels(levels="exact"), pixel_size=about.pixel_size if about else None)
    elif about is not None and about.reading:
        images = predicted_images(paths, {"reading": {"pixel_size": about.pixel_size, **about.reading}})
    else:
        images = FileImages(paths, levels=Levels(), channel=cfg.channel, pages=cfg.pages, pixel_size=cfg.pixel_size)
    raise_all(list(images.problems.values()))
    return images


def doubts(saved: SavedCells, image_ids: Sequence[str]) -> dict[str, float]:
    """Measure how doubtful the detections of each image are: 1 minus their mean score, weighted by the scores.

    Weighted so, as candidates of a low score hardly count, no threshold is needed. An image without detections has 1.
    """
    from sartorius.structures.progress import progress_bar

    found = {}
    for image_id in progress_bar(image_ids, "ordering"):
        scores = saved.detections(image_id).scores.astype(float)
        found[image_id] = 1 - float((scores**2).sum() / scores.sum()) if scores.sum() else 1.0
    return found


def through_fiji(session: CorrectionSession, waiting: int, again: Sequence[str]) -> None:
    """Take what was corrected, write what is next, and tell what to do; raises InputError for all bad zips."""
    from sartorius.labelling.correction.fiji import FijiFolder

    fiji = FijiFolder(session)
    taken, problems = fiji.read_back()
    for image_id, count in taken.items():
        print(f"{image_id}: checked, {count} cells")
    out = fiji.write_next(waiting, again)
    if out:
        print(f"{len(out)} images in {fiji.folder}: {', '.join(out)}\n{fiji.help()}")
    raise_all(problems)


@command("correct", outputs.FOLDER)
def main(cfg: DictConfig) -> None:
    """Correct the cells of images in napari, or through Fiji."""
    session = build_session(cfg)
    if cfg.tool == "fiji":
        through_fiji(session, cfg.waiting, list(cfg.again or ()))
    else:
        from sartorius.napari_plugin.start import correct

        correct(session)
    checked = sum(session.status(image_id) == "checked" for image_id in session.queue)
    print(f"{checked} of {len(session.queue)} images are checked; labels in {session.root}")
    if checked:
        options = {"experiment": "unet_cpu", "data.root": session.root, "cell_types": session.about.cell_types}
        print_next("train", options)


if __name__ == "__main__":
    main()
