"""A run as one page that needs nothing else: `python -m sartorius.report run=runs/<run>`.

Curves, score by threshold and cell type, the images worst first with annotated and predicted cells switched on and
off, histograms, confusion, timings, config; parts that a folder lacks are left out and noted. `run=[A,B]` puts runs
side by side with paired intervals; runs that share no image are taken as folds and scored together.
`detections=predicted` shows predictions without truth: each image with its outlines, counts, confluence and mean score,
sorted by any of them, and which images are bad or empty. Before a page is given away: it names the folders of runs and
data as this machine does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.running import outputs, wiring
from sartorius.running.commands import command
from sartorius.structures.next_step import model_of, print_next

if TYPE_CHECKING:
    from sartorius.reports.image_cells import Predicted
    from sartorius.reports.runs import Run
    from sartorius.reports.views import Entry
    from sartorius.structures.arrays import Floats32
    from sartorius.structures.instances import Instances


def from_detections(run: Run) -> Predicted:
    """Open the cells of the run's folders of detections, by each folder's own post-processing.

    Where the folder is `evaluate`'s, its choice of images, its changes to the post-processing and its filter apply:
    these are the cells that it scored. Raises InputError as `postprocess_of` does, and for an image in two folders.
    """
    import numpy as np

    from sartorius.data.out_of_fold import type_names
    from sartorius.reports.image_cells import Predicted
    from sartorius.running.saved_cells import SavedCells

    scored = "bootstrap" in run.config and "detections" in run.config  # written by `evaluate`
    changes, chosen_filter = (run.config.get("postprocess"), run.get("filter")) if scored else (None, "saved")
    saved = SavedCells(run.detections, changes, chosen_filter)
    names = type_names(run.detections, ())

    def cells(image_id: str) -> tuple[Instances, Floats32]:
        detections = saved.detections(image_id)
        final = saved.cells(detections)
        if not names or detections.cell_type_names == names:
            return final.instances, final.scores
        position = np.array([names.index(name) for name in detections.cell_type_names], np.int64)
        return replace(final.instances, cell_types=position[final.instances.cell_types]), final.scores

    shown = set(saved.image_ids) if run.table is None or not scored else set(saved.image_ids) & set(run.table.image_id)
    return Predicted(sorted(shown), cells, names, saved.explain)


def run_folders(cfg: DictConfig) -> list[str]:
    """List the folders of the runs, or of the detections; raises InputError for none or both, and a missing one."""
    from sartorius.reports.runs import check_folder
    from sartorius.structures.detections import DetectionsFolder

    given: Any = wiring.plain(cfg.run)
    if (given is None) == (cfg.detections is None):
        raise InputError(
            f"run={given}, detections={cfg.detections}: expected one of them; run= shows a run with its score, "
            "detections= what was predicted, without truth"
        )
    if cfg.detections is not None:
        places = [DetectionsFolder(folder).folder for folder in wiring.path_list(cfg.detections)]
        given = [str(place.parent if place.name == "detections" else place) for place in places]
    folders = [str(folder) for folder in given.values()] if isinstance(given, Mapping) else wiring.path_list(given)
    if not folders:
        raise InputError("run=[]: name at least one run folder")
    return [str(check_folder(folder)) for folder in folders]


def page_file(cfg: DictConfig) -> Path:
    """Return the page to write, with the suffix of one."""
    folders = run_folders(cfg)
    place = Path(folders[0]) if len(folders) == 1 else Path(cfg.paths.runs_dir) / "report"
    output = Path(str(cfg.output or place / "report.html"))
    # a browser would show another suffix as text
    return output if output.suffix in (".html", ".htm") else output / "report.html"


def print_next_of(entry: Entry) -> None:
    """Print the command that uses what the run of an entry has: its model, or its detections."""
    folder, detections = entry.run.folder, entry.run.detections
    if entry.run.unscored:
        print_next("convert", {"detections": detections, "write": ["table"], "output": "converted"})
    elif (folder / "checkpoints" / "best.ckpt").is_file():
        print_next("predict", model_of(folder / "detections"))
    elif not detections:
        print_next("report", {"run": [folder, "ANOTHER_RUN"]})
    elif entry.labelled:
        print_next("tune", {"detections": detections, "output": "tuned"})
    else:
        print_next("submit", {"detections": detections[0], "data.root": "FOLDER", "output": "submission.csv"})


@command("report", outputs.Output(page_file, is_folder=False))
def main(cfg: DictConfig) -> str:
    """Write the page of the config's runs; returns its path."""
    from sartorius.reports.entries import entry_of
    from sartorius.reports.gallery import Style
    from sartorius.reports.page import write_report
    from sartorius.reports.runs import names_of, read_detections, read_run

    folders, given = run_folders(cfg), wiring.plain(cfg.run)
    names = [str(name) for name in given] if isinstance(given, Mapping) else names_of(folders)
    style = Style(**wiring.plain(cfg.gallery))
    read = read_run if cfg.detections is None else read_detections
    runs = [read(folder, name) for folder, name in zip(folders, names, strict=True)]
    entries = [
        entry_of(run, cfg.data.root, cfg.paths.data_dir, from_detections, wiring.plain(cfg.images)) for run in runs
    ]
    output = page_file(cfg)
    plots = output.parent / "plots" if cfg.plots else None
    size = write_report(entries, output, plots, style, wiring.plain(cfg.bootstrap))
    print(f"{output}: {size / 1e6:.1f} MB")
    print_next_of(entries[0])
    return str(output)


if __name__ == "__main__":
    main()
