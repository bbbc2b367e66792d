"""Turn detections into pseudo-labels: `python -m sartorius.pseudo_label detections=DIR/detections output=FILE.csv`.

Best of an ensemble's detections of unlabelled images. Each image's cells, free of overlaps and of the cell type
that prevails in it, become rows in the columns of train.csv with score, agreement and ignore: sure cells, doubtful ones
(`ignore`), and none below the lower threshold. `data=pseudo_labelled pseudo_labels.file=FILE.csv` trains on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from sartorius.errors import InputError, raise_all
from sartorius.running import outputs, wiring
from sartorius.running.commands import command
from sartorius.running.resume import resume
from sartorius.structures.next_step import print_next

if TYPE_CHECKING:
    from sartorius.metrics.pseudo_labels import Report
    from sartorius.rescoring.pseudo_labels import PseudoLabeller, Texts


def pseudo_label(labeller: PseudoLabeller, truth: Texts | None, workers: int = 1, on_error: str = "stop") -> Report:
    """Write the file, one image in memory at a time; images that a stopped run finished are not done again.

    truth: of all images, to compare with. workers: processes that share the images; the file is the same with any
    number. on_error: `skip` leaves out images whose detections cannot be read or do not fit; `stop` raises InputError
    for all of them, after the last image.

    Raises InputError for fewer than one worker, as the labeller does, where agreement is known of some images only, and
    where no cell is left to write (the parts are deleted then).
    """
    from sartorius.metrics.pseudo_labels import Report
    from sartorius.rescoring.pseudo_labels import count

    image_ids, file, report = labeller.folder.image_ids(), labeller.file, Report()
    report.unpredicted = sorted(set(labeller.images or ()) - set(image_ids))
    for image_id, problem in resume(labeller, image_ids, labeller.is_done, "labelling", workers):
        if problem is not None:
            report.bad[image_id] = problem
    if on_error == "stop":
        raise_all(list(report.bad.values()))
    done = [image_id for image_id in image_ids if image_id not in report.bad]
    known = count(report, (file.read(image_id) for image_id in done), truth)
    if len(report.empty) == len(done):
        file.discard()
        raise InputError(
            f"{file.path} was not written: of {len(image_ids)} images none has a cell from "
            f"pseudo_labels.doubtful_score={labeller.settings.doubtful_score} on ({len(report.bad)} cannot be read); "
            "lower it"
        )
    if len(known) > 1:
        raise InputError(
            f"{labeller.folder.folder}: some images have an agreement and some have none; let one ensemble write all"
        )
    file.finish(done, agreement=True in known)
    return report


@command("pseudo_label", outputs.FILE, skipped=lambda report: len(report.bad))
def main(cfg: DictConfig) -> Report:
    """Write the pseudo-labels of a folder of detections, and print the counts of cells."""
    from sartorius.data.images import list_images
    from sartorius.data.pseudo_labels.settings import PseudoLabels
    from sartorius.formats.pseudo_labels import PseudoLabelFile
    from sartorius.postprocess.saved import from_saved
    from sartorius.rescoring.pseudo_labels import PseudoLabeller, read_truth
    from sartorius.structures.cell_types import CELL_TYPES
    from sartorius.structures.detections import DetectionsFolder

    folder = DetectionsFolder(str(cfg.detections))
    settings: PseudoLabels = wiring.instantiate(cfg.pseudo_labels)
    saved, types = folder.meta.get("postprocess"), folder.meta.get("cell_types", CELL_TYPES)
    postprocess = from_saved(saved, wiring.plain(cfg.postprocess), str(cfg.detections), types)
    images = None if cfg.images is None else {path.stem: path for path in list_images(cfg.images)}
    if not folder.image_ids():
        raise InputError(f"{cfg.detections}: no detections in it; `ensemble` and `predict` write them")
    truth = None if cfg.truth is None else read_truth(str(cfg.truth), folder.image_ids())
    made_with = {"detections": str(folder.folder.resolve()), **settings.limits, "postprocess": repr(postprocess)}
    file = PseudoLabelFile(str(cfg.output), made_with)
    labeller = PseudoLabeller(folder, postprocess, settings, file, images)
    report = pseudo_label(labeller, truth, cfg.workers, cfg.on_error)
    print("\n".join([*report.lines(truth is not None), f"written: {cfg.output}"]))
    print_next("train", {"data": "pseudo_labelled", "pseudo_labels.file": cfg.output})
    return report


if __name__ == "__main__":
    main()
