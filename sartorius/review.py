"""Order images by what to label next: `python -m sartorius.review detections=PREDICTED oof=[RUN0/detections,...]`.

Unlabelled images come in the order in which labels help most: badly predicted, and unlike all images that are labelled
or come before. The score of each image is predicted, with an interval, from how sure its cells look and how far models
agree; this is calibrated on `oof`, detections of labelled images by the same models, which were not trained on them.
`detections={a: A/detections, b: B/detections}` compares several models; of an ensemble or of joined views the agreement
counts that its detections hold. Writes review.csv, which `correct order=` takes, and review.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.files import write_csv, write_json
from sartorius.running import wiring
from sartorius.running.commands import command
from sartorius.structures.next_step import print_next

if TYPE_CHECKING:
    import pandas as pd

    from sartorius.labelling.review.prediction import Calibration


def members_of(value: Any) -> dict[str, list[str]]:
    """Read an option that names folders of one model, or of several by name; {} for null."""
    plain = wiring.plain(value)
    if isinstance(plain, Mapping):
        return {str(name): wiring.path_list(folders) for name, folders in plain.items()}
    return {"model": folders} if (folders := wiring.path_list(plain)) else {}


def check_options(cfg: DictConfig) -> None:
    """Raise InputError without detections, for `oof` of other models, and without the labels of its images."""
    detections, oof = members_of(cfg.detections), members_of(cfg.oof)
    if not detections:
        raise InputError("detections=null: give predictions of unlabelled images, of `predict` or `ensemble`")
    if oof and {*oof} != {*detections}:
        raise InputError(
            f"oof: of {', '.join(oof)}, but detections= of {', '.join(detections)}; give both of the same models"
        )
    if oof and cfg.data.root is None:
        raise InputError("oof: needs the labels of its images; give their folder with data.root=")


def print_first(table: pd.DataFrame, count: int, level: float) -> None:
    """Print the first images of the table, a line each."""
    shown = table.head(count)
    scored = table["predicted_score"].notna().any()
    with_what = f", with predicted scores and {level:.0%} intervals" if scored else ""
    print(f"label next: the first {len(shown)} of {len(table)} images{with_what}")
    names = ("rank", "id", "predicted_score", "low", "high", "reason")
    for rank, name, score, low, high, reason in shown[list(names)].to_numpy():
        predicted = "no predicted score" if math.isnan(score) else f"{score:.2f} ({low:.2f} to {high:.2f})"
        print(f"{rank:>5}  {name}  {f'{predicted}  ' if scored else ''}{reason}")


def write_review(output: Path, table: pd.DataFrame, calibration: Calibration | None, level: float) -> None:
    """Write review.csv, and review.json: how well scores are predicted."""
    about = None if calibration is None else {
        "images": len(calibration.scores), "rank_correlation": calibration.rank_correlation,
        "mean_error": calibration.mean_error, "agreement": calibration.agreement,
    }  # fmt: skip
    write_csv(output / "review.csv", table)
    write_json(output / "review.json", {"images": len(table), "level": level, "calibration": about})


@command("review")
def main(cfg: DictConfig) -> pd.DataFrame:
    """Order the images that the config names, write review.csv and review.json; returns the table."""
    from sartorius.labelling.review.table import review_table
    from sartorius.running.reviewing import ModelPredictions, calibrate, looks_of, open_images, open_labelled

    check_options(cfg)
    members, oof = members_of(cfg.detections), members_of(cfg.oof)
    folders = [folder for of in (members, oof) for one in of.values() for folder in one]
    truth = open_labelled(cfg.data.root, folders, list(cfg.cell_types))
    predictions = ModelPredictions(members, "detections")
    images = [image_id for image_id in predictions.images if truth is None or image_id not in truth.images]
    labelled = len(predictions.images) - len(images)
    if not images:
        raise InputError(f"detections: all {labelled} images are labelled in {cfg.data.root}; predict others")
    source = open_images(wiring.plain(cfg.images), predictions, images, truth)
    qualities = list(predictions.qualities(images, "cells").values())
    calibration = None
    if oof and truth is not None:
        agreement = all(quality.agreement is not None for quality in qualities if quality.features is not None)
        settings = {"least": cfg.least_images, "alpha": cfg.alpha, "folds": cfg.folds}
        calibration = calibrate(ModelPredictions(oof, "oof", truth), truth, agreement=agreement, **settings)
    looks, known = looks_of(source, images, truth)
    files = {image_id: source.path(image_id) for image_id in images}
    table = review_table(files, qualities, looks, known, calibration, cfg.level)
    write_review(Path(str(cfg.output)), table, calibration, cfg.level)
    print_first(table, cfg.show, cfg.level)
    more = f"; {labelled} images are labelled already" if labelled else ""
    print(f"{Path(str(cfg.output)) / 'review.csv'}: {len(images)} images{more}")
    place, own = cfg.images or predictions.first.meta.get("images"), truth is not None and truth.about is not None
    options = {"images": place if isinstance(place, str) else "FOLDER", "detections": folders[0]}
    written = {"order": Path(str(cfg.output)) / "review.csv", "output": cfg.data.root if own else "FOLDER"}
    print_next("correct", options | written)
    return table


if __name__ == "__main__":
    main()
