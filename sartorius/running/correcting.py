"""Images, detections and the folder of labels, opened for `correct`, and the training that may follow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from sartorius.data.annotation_rows import read_table
from sartorius.data.competition.about import NAME, read_about
from sartorius.data.competition.folds import FILE
from sartorius.data.files.reading import note_of_sizes
from sartorius.data.files.source import FileImages, predicted_images
from sartorius.data.levels import Levels
from sartorius.errors import InputError, raise_all
from sartorius.formats.cells import Cells
from sartorius.labelling.correction.session import CorrectionSession, types_of
from sartorius.running import wiring
from sartorius.running.saved_cells import SavedCells
from sartorius.structures.detections import DetectionsFolder
from sartorius.structures.next_step import model_of
from sartorius.structures.progress import progress_bar


def build_session(cfg: DictConfig) -> CorrectionSession:
    """Open images, detections and the folder of labels; raises InputError where they do not belong together."""
    root = Path(str(cfg.output))
    paths = [] if cfg.detections is None else wiring.path_list(cfg.detections)
    folders = [DetectionsFolder(path).folder for path in paths]
    saved = SavedCells(folders, wiring.plain(cfg.postprocess), cfg.filter) if folders else None
    images = open_images(cfg, root, folders)
    order = [] if cfg.order is None else _order(Path(str(cfg.order)), images)
    given = None if cfg.cell_types is None else list(cfg.cell_types)
    options = {"order": order, **{key: cfg[key] for key in ("group", "margin", "n_folds", "fold_seed")}}
    if saved is None:
        return CorrectionSession(root, images, types_of(root, given, ()), **options)
    folder_of = {image_id: folder for image_id, folder in saved.folder_of.items() if image_id in images.entries}
    if not folder_of:
        raise InputError(
            f"{', '.join(map(str, folders))}: no detections of these images; give the images that were predicted"
        )
    found = list(dict.fromkeys(str(name) for folder in {*folder_of.values()} for name in folder.meta["cell_types"]))
    names = types_of(root, given, found)
    if others := [name for name in found if name not in names]:
        print(f"{root} has no {', '.join(others)}: such cells become {names[0]}, until you give them another type")
    if not given and not (root / "train.csv").is_file():
        print(f"cell types are those of the detections, {', '.join(names)}; cell_types=[NAME,...] gives others")

    def predicted(image_id: str) -> Cells | None:
        if image_id not in folder_of:
            return None
        detections = saved.detections(image_id)
        return Cells.of(saved.cells(detections, cfg.overlaps), detections)

    doubt = {} if order else doubts(saved, list(folder_of))
    return CorrectionSession(root, images, names, predicted, doubt, **options)


def open_images(cfg: DictConfig, root: Path, folders: Sequence[Path]) -> FileImages:
    """Open images as the network was shown them; else as the folder of labels tells, or the options.

    Those of the folder itself have been converted, and stay as they are; where `images` holds the folder among others,
    they are left out. A pixel size that is not known, of an image or the folder, is none that differs.

    Raises InputError for all that cannot be opened, for images that are read in another way than those of the folder or
    have another pixel size, and for an option that says otherwise.
    """
    paths, about = wiring.path_list(cfg.images), read_about(root)
    own = all(Path(path).absolute().is_relative_to(root.absolute()) for path in paths)
    options = {key: cfg[key] for key in ("channel", "pages", "pixel_size") if cfg[key] is not None}
    left_out = [] if own else [*root.rglob("*.png")]
    meta = DetectionsFolder(folders[0]).meta if folders else {}
    if own:
        size = about.pixel_size if about else None
        told, images = "", FileImages(paths, levels=Levels(levels="exact"), pixel_size=size)
    elif meta.get("reading"):
        told, images = f"of {folders[0]} is", predicted_images(paths, meta, leave_out=left_out)
    elif about is not None and about.reading:
        read = {"reading": {**about.reading, "pixel_size": cfg.pixel_size}}
        told, images = f"of {root / NAME} is", predicted_images(paths, read, leave_out=left_out)
    else:
        told, images = "", FileImages(paths, levels=Levels(), leave_out=left_out, **options)
    raise_all(list(images.problems.values()))
    used = {**images.reading.options(), "pixel_size": images.pixel_size}
    if wrong := [key for key, value in options.items() if value != used[key]]:
        key = wrong[0]
        now = f"images of {root} have been converted" if own else f"that {told} {used[key]}".replace("None", "null")
        raise InputError(f"{key}={options[key]}: {now}; leave {key}= out, or give another output=")
    if about is None:
        for note in note_of_sizes(images.pixel_sizes):
            print(note)
    elif not own:
        known = about.pixel_size if cfg.pixel_size is None else cfg.pixel_size
        sizes = [known if size is None or about.pixel_size is None else size for size in images.pixel_sizes]
        about.check_same(root, images.reading, sizes)
    return images


def _order(path: Path, images: FileImages) -> list[str]:
    """Read the ids that come first; raises InputError where none is of the images, tells where some are not."""
    order = [str(name) for name in read_table(path, ("id",))["id"]]
    known = sum(image_id in images.entries for image_id in order)
    if not known:
        raise InputError(f"order={path}: none of its {len(order)} ids is among images=; leave order= out, or give both")
    if known < len(order):
        print(f"order: {known} of the {len(order)} ids in {path} are among images=; the others are passed over")
    return order


def doubts(saved: SavedCells, image_ids: Sequence[str]) -> dict[str, float]:
    """Measure how doubtful the detections of each image are: 1 minus their mean score, weighted by the scores.

    Weighted so, as candidates of a low score hardly count, no threshold is needed. An image without detections has 1.
    """
    found = {}
    for image_id in progress_bar(image_ids, "ordering"):
        scores = saved.detections(image_id).scores.astype(float)
        found[image_id] = 1 - float((scores**2).sum() / scores.sum()) if scores.sum() else 1.0
    return found


def training(cfg: DictConfig, session: CorrectionSession) -> dict[str, object] | None:
    """Return the options of a training on the labels, from the detections' model where it is known.

    None where the labels are of one fold, so that nothing would be left to validate on.
    """
    path = session.root / FILE
    if not path.is_file() or read_table(path, ("id", "fold"))["fold"].nunique() < 2:
        return None
    options = {"data.root": session.root, "cell_types": session.about.cell_types}
    weights = None
    if cfg.detections is not None:
        folder = DetectionsFolder(wiring.path_list(cfg.detections)[0])
        of_run = model_of(folder.folder)["checkpoint"]
        weights = folder.meta.get("checkpoint") or (of_run if Path(of_run).is_file() else None)
    if not isinstance(weights, str):
        return {"experiment": "unet_cpu", **options}
    experiment = "unet_cpu" if weights == "builtin" else "EXPERIMENT"  # what it was trained by is not known here
    return {"experiment": experiment, "model.weights": weights, **options}
