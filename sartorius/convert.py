"""Write cells for other programs: `python -m sartorius.convert detections=predicted/detections write=[rois,geojson]`.

Detections become cells by the post-processing and the filter that were saved with them, as in `predict`, without a
network; options of the post-processing and `filter=` change them. `images=` gives the images that were predicted, for
overlays and the mean grey of each cell.

`<output>/` gets labels/, outlines/, rois/, geojson/, overlays/, coco.json and tables/, those of `write=`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.running import outputs, wiring
from sartorius.running.commands import command
from sartorius.structures.next_step import print_next

if TYPE_CHECKING:
    from sartorius.data.files.source import FileImages
    from sartorius.formats.folder import CellsFolder
    from sartorius.postprocess.finalise import Keeping
    from sartorius.running.saved_cells import SavedCells
    from sartorius.structures.blocks import Blocks


def convert(saved: SavedCells, files: CellsFolder, images: FileImages | None, overlaps: Keeping, large: Blocks) -> int:
    """Write the files of all images; returns the number of cells. Raises InputError for an image of another size.

    Images that the prediction skipped have their rows in images.csv.
    """
    from sartorius.formats.cells import Cells
    from sartorius.formats.large_cells import LargeCells
    from sartorius.structures.large_image import reader_of

    count = 0
    for detections in saved.read_all("writing"):
        image = None if images is None else images.load(detections.image_id)
        if image is not None and image.shape[-2:] != (detections.height, detections.width):
            raise InputError(
                f"image {detections.image_id}: detections of {detections.width}x{detections.height} pixels, the image "
                f"has {image.shape[-1]}x{image.shape[-2]}; give the images that were predicted"
            )
        cells: Cells | LargeCells
        if large.needed(detections.height, detections.width):
            runs = saved.large_cells(detections, large, overlaps)
            cells = LargeCells.of(runs, detections, None if image is None else reader_of(image), large.block)
        else:
            grey = None if image is None else reader_of(image)(slice(None), slice(None))
            cells = Cells.of(saved.cells(detections, overlaps), detections, grey)
        files.add(cells)
        count += len(cells)
    files.finish(saved.image_ids, saved.skipped)
    return count


def open_images(cfg: DictConfig, image_ids: list[str]) -> FileImages | None:
    """Open the images, None without any; raises InputError where one of the images is missing in it."""
    if cfg.images is None:
        if "overlay" in cfg.write:
            raise InputError("write=[overlay] draws over the images: give images=FOLDER, or leave overlay out")
        return None
    from sartorius.data.files.source import predicted_images
    from sartorius.structures.detections import DetectionsFolder

    first = DetectionsFolder(wiring.path_list(cfg.detections)[0])
    images = predicted_images(wiring.path_list(cfg.images), first.meta, wiring.instantiate(cfg.large))
    if missing := sorted(set(image_ids) - set(images.ids)):
        raise InputError(f"{cfg.images}: of {len(image_ids)} predicted images {len(missing)} are missing: {missing[0]}")
    return images


@command("convert", outputs.FOLDER)
def main(cfg: DictConfig) -> None:
    """Write the cells of detections in the formats of `write`."""
    from sartorius.formats.folder import CellsFolder
    from sartorius.rescoring.saved import print_saved_filters
    from sartorius.running.saved_cells import SavedCells

    folders = wiring.path_list(cfg.detections)
    saved = SavedCells(folders, wiring.plain(cfg.postprocess), cfg.filter)
    if not saved.image_ids:
        raise InputError(f"{', '.join(folders)}: no detections in it; `predict` writes them")
    print_saved_filters(folders, cfg.filter)
    images = open_images(cfg, saved.image_ids)
    files = CellsFolder(Path(str(cfg.output)), cfg.write)
    files.check_others(saved.image_ids)
    count = convert(saved, files, images, cfg.overlaps, wiring.instantiate(cfg.large))
    print(f"{count} cells in {len(saved.image_ids)} images: {', '.join(cfg.write)} in {cfg.output}")
    print_next("report", {"detections": folders})


if __name__ == "__main__":
    main()
