"""The image files that a person names: a folder, a glob, a list, one file or an OME-Zarr folder."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from sartorius.data.files import other_formats, zarr_images
from sartorius.data.images import SUFFIXES
from sartorius.errors import InputError, raise_all
from sartorius.structures.image_ids import id_problem

log = logging.getLogger(__name__)

_ALSO = (".btf", ".tf8", ".pgm", ".pnm")  # BigTIFF, and plain text's relative of BMP
_LISTED = 5  # files that a line names


def list_files(
    images: str | Sequence[str], output: str | Path | None = None, leave_out: Collection[Path] = ()
) -> dict[str, Path]:
    """List image files, and OME-Zarr folders, by id: path within the folder without suffix, its parts joined by `__`.

    images: a folder, whose sub-folders are searched too, a glob (`**` for any folders), a file, or a list of these; a
    list counts from the folder that all its files are in. Hidden files and folders are left out, and results of this
    program: folders that hold detections, and `output`. Files of other image formats are left out with a warning.
    leave_out: paths that are no images, as labels among them.

    Raises InputError where there is none, and for two files with one id.
    """
    wanted = [images] if isinstance(images, str) else [str(image) for image in images]
    found: list[Path] = []
    left_out: list[Path] = []
    unwanted = {path.resolve() for path in leave_out}
    for name in wanted:
        _, paths = expanded(name)
        for path in paths:
            if path.is_dir() and not zarr_images.is_image(path):
                for inner in _walk(path, None if output is None else Path(output).resolve(), set()):
                    (found if _is_image(inner) else left_out).append(inner)
            elif len(paths) == 1 or _is_image(path):  # one that is named is tried, whatever its suffix
                found.append(path)
            elif _looks_like_image(path):
                left_out.append(path)
    base = base_of(images)
    if found and unwanted.issuperset(path.resolve() for path in found):
        raise InputError(f"{images}: no images in it but what is labels too; labels= names them all, narrow it")
    if unwanted:
        found = [path for path in found if path.resolve() not in unwanted]
    _check(found, left_out, images)
    return _by_id(found, base)


def base_of(images: str | Sequence[str]) -> Path:
    """Return the folder that ids of `list_files` count from; raises InputError for an empty list, and as that does."""
    bases = [expanded(name)[0] for name in ([images] if isinstance(images, str) else map(str, images))]
    if not bases:
        raise InputError("images: an empty list; give a folder, a glob, files or an OME-Zarr folder")
    return bases[0] if len(bases) == 1 else Path(os.path.commonpath([os.path.abspath(base) for base in bases]))


def expanded(name: str) -> tuple[Path, list[Path]]:
    """Return the folder that ids count from, and what a name stands for: itself or the matches of a glob.

    Those are files, or folders where no file matches.
    """
    path = Path(name)
    if path.exists():
        walked = path.is_dir() and not zarr_images.is_image(path)
        return (path if walked else path.parent), [path]
    if not glob.has_magic(name):
        raise InputError(f"{name}: no such file or folder of images")
    fixed = Path(*[part for k, part in enumerate(path.parts) if not glob.has_magic("".join(path.parts[: k + 1]))])
    matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
    files = [match for match in matches if match.is_file() or zarr_images.is_image(match)]
    if not matches:
        raise InputError(f"{name}: no file has such a name")
    return fixed, files or matches


def _walk(folder: Path, output: Path | None, seen: set[Path]) -> Iterator[Path]:
    """Yield all files below a folder that are or look like images, sorted; a link to a folder is followed once."""
    real = folder.resolve()
    if real == output or real in seen or any(folder.glob("detections*/meta.json")):
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        visible = sorted((folder / entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    for path, is_folder in visible:
        if is_folder and not zarr_images.is_image(path):
            yield from _walk(path, output, seen)
        elif is_folder or _is_image(path) or _looks_like_image(path):
            yield path


def _is_image(path: Path) -> bool:
    """Whether a path is read as an image: by its suffix, a folder for being one of Zarr."""
    suffix = path.suffix.lower()
    return path.is_dir() or suffix in SUFFIXES + _ALSO or (other_formats.is_other(path) and other_formats.can_read())


def _looks_like_image(path: Path) -> bool:
    return path.suffix.lower() in other_formats.MICROSCOPES + other_formats.OTHERS


def _check(found: Sequence[Path], left_out: Sequence[Path], images: object) -> None:
    names = ", ".join(map(str, left_out[:_LISTED]))
    names += f" and {len(left_out) - _LISTED} more" if len(left_out) > _LISTED else ""
    remedy = "pip install 'sartorius[formats]' reads some of them, or save them as TIFF"
    if not found:
        others = f"; of formats that are not read: {names} ({remedy})" if left_out else ""
        raise InputError(f"{images}: no images in it; expected files ending in {', '.join(SUFFIXES)}{others}")
    if left_out:
        log.warning("left out, of formats that are not read: %d files (%s); %s", len(left_out), names, remedy)


def _by_id(paths: Sequence[Path], base: Path) -> dict[str, Path]:
    """Name paths by id, sorted; a path that was found twice counts once."""
    by_id: dict[str, Path] = {}
    problems: list[str] = []
    root = os.path.abspath(base)
    for path in paths:
        relative = Path(os.path.relpath(os.path.abspath(path), root))
        stem = relative.name if path.is_dir() and not path.suffix else relative.stem
        image_id = "__".join([*relative.parts[:-1], stem.removesuffix(".ome")])
        if (problem := id_problem(image_id)) is not None:
            problems.append(f"{path}: {problem}")
        elif by_id.setdefault(image_id, path) != path:
            problems.append(f"{by_id[image_id]} and {path} have the same id '{image_id}'; rename one")
    raise_all(problems)
    return dict(sorted(by_id.items()))
