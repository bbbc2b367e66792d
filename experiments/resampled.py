"""Resample a folder of labelled images, so that its cells are larger or smaller.

    python experiments/resampled.py FOLDER FACTOR OUTPUT

Images are averaged over areas where they shrink and interpolated where they grow, labels take the nearest pixel. Cells
of which no pixel is left are dropped. Wells stay together in the folds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from sartorius.data.augmentation.crops import resized
from sartorius.data.competition.about import About
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.labelled_writer import Labelled, write_labelled
from sartorius.structures.instances import Instances


def resampled(competition: Competition, factor: float) -> Iterator[Labelled]:
    """Yield each image and its cells, `factor` times as large."""
    for image_id, record in competition.images.items():
        height, width = max(1, round(record.height * factor)), max(1, round(record.width * factor))
        cells = competition.instances(image_id)
        image, layers, _ = resized(competition.image(image_id), cells.layers, height, width)
        cells = Instances(layers, cells.cell_types)
        yield Labelled(image_id, image, cells.select(cells.areas > 0), record.cell_type, record.well or "")


def main() -> None:
    """Write the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("factor", type=float)
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    competition = Competition(given.folder)
    about = competition.about or About(competition.cell_type_names)
    print(f"{given.output}: {write_labelled(given.output, about, resampled(competition, given.factor))} images")


if __name__ == "__main__":
    main()
