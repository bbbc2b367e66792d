"""Join two submission files of hard masks, without scores, into one: the better model's first.

    python experiments/peers_joined.py maskrcnn.csv cellpose.csv joined.csv
    python experiments/peers_joined.py maskrcnn.csv cellpose.csv joined.csv --data FOLDER  # also: cross-fitted score

The rules are those of peers_joined.yaml (`--rules`), by the cell type that an image's shapes show. With `--data`, the
competition's folder with annotations of these images, the choice of the rules is scored: each image by rules chosen
without it, out of the file's grid. The frozen rules were chosen on 28 images; their score there is in-sample.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hard_masks import JoinRule  # beside this file
from numpy.typing import NDArray
from shape_types import ShapeTypes

from sartorius.errors import InputError
from sartorius.formats.submission import read_submission, validate_submission, write_submission
from sartorius.structures import rle
from sartorius.structures.cell_types import HEIGHT, WIDTH
from sartorius.structures.rle import Runs

Floats = NDArray[np.float64]
RULES = Path(__file__).with_suffix(".yaml")


def read_pair(first: str, second: str) -> dict[str, tuple[Runs, Runs]]:
    """The cells of both files by image, 520 x 704. Raises InputError for bad files, or files of other images."""
    files = []
    for path in (first, second):
        if problems := validate_submission(path):
            raise InputError(f"{path}: {problems[0]}")
        files.append(read_submission(path))
    if differ := sorted(files[0].keys() ^ files[1].keys()):
        raise InputError(
            f"{first} and {second} are of other images: {len(differ)} are in one of them only ({differ[0]}); "
            "an image without cells needs a row with nothing predicted"
        )
    return {p: (rle.parse(files[0][p], HEIGHT, WIDTH), rle.parse(files[1][p], HEIGHT, WIDTH)) for p in files[0]}


def cross_fitted(scores: Floats, kinds: Sequence[str]) -> Floats:
    """Each image's score [P] by the rule that is best on the other images of its kind; scores is [rules, P].

    The first of equally good rules is taken, and the first rule where an image is the only one of its kind.
    """
    names, result = np.asarray(kinds), np.zeros(scores.shape[1])
    for k, kind in enumerate(names):
        others = (names == kind) & (np.arange(len(names)) != k)
        best = int(scores[:, others].mean(axis=1).argmax()) if others.any() else 0
        result[k] = scores[best, k]
    return result


def report(cells: dict[str, tuple[Runs, Runs]], kinds: Sequence[str], grid: dict[str, list[Any]], data: str) -> None:
    """Print the cross-fitted score of choosing from the grid, beside the first file's."""
    from sartorius.data.competition.folder import Competition
    from sartorius.metrics.bootstrap import paired_bootstrap
    from sartorius.metrics.functional import average_precision_per_image, image_row

    competition = Competition(data)
    truth = {image_id: competition.runs(image_id) for image_id in cells}

    def score(joined: dict[str, Runs]) -> Floats:
        rows = [image_row(k, joined[image_id], truth[image_id]) for k, image_id in enumerate(cells)]
        return average_precision_per_image(np.array(rows))

    rules = [JoinRule(*values) for values in product(*grid.values())]
    scores = np.array([score({p: rule(*pair) for p, pair in cells.items()}) for rule in rules])
    alone, fitted = score({p: pair[0] for p, pair in cells.items()}), cross_fitted(scores, kinds)
    gain = paired_bootstrap(fitted, alone)
    print(f"first file alone {alone.mean():.6f}, joined and cross-fitted {fitted.mean():.6f}")
    print(f"difference {gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}, 95 % over {len(cells)} images)")
    for kind in sorted(set(kinds)):
        best = int(scores[:, np.asarray(kinds) == kind].mean(axis=1).argmax())
        print(f"{kind}: best on all {kinds.count(kind)}, in-sample: {rules[best]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Join the files, and score the choice of the rules where there is a truth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("first", "second", "output"):
        parser.add_argument(name)
    parser.add_argument("--rules", default=RULES)
    parser.add_argument("--data")
    given = parser.parse_args(arguments)
    settings = yaml.safe_load(Path(given.rules).read_text(encoding="utf-8"))
    cells, type_of = read_pair(given.first, given.second), ShapeTypes(**settings["types"])
    rules = {kind: JoinRule(**values) for kind, values in settings["rules"].items()}
    kinds = [type_of(first) for first, _ in cells.values()]
    joined = {p: rules[kind](*pair) for (p, pair), kind in zip(cells.items(), kinds, strict=True)}
    write_submission(given.output, {image_id: rle.format(runs) for image_id, runs in joined.items()})
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in rules)
    print(f"{given.output}: {sum(runs.count for runs in joined.values())} cells in {len(joined)} images ({counts})")
    if given.data is not None:
        report(cells, kinds, settings["grid"], given.data)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
