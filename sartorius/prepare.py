"""Write or find a data folder, audit it, deal folds: `python -m sartorius.prepare source=synthetic | competition`.

Outputs go to `output` (default runs/prepare/<name of the data folder>): audit.txt, audit.csv (a row per picture)
and folds.csv. Nothing is written into a folder that was there before.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sartorius import wiring
from sartorius.errors import InputError

if TYPE_CHECKING:
    from sartorius.data.cleaning import Cleaning


def prepare(
    root: Path,
    output: Path,
    fold_file: Path,
    n_folds: int,
    fold_seed: int,
    cleaning: Cleaning | None,
    cell_types: list[str],
) -> str:
    """Audit the competition folder `root`, write audit.txt and audit.csv into `output` and the folds; the page of text.

    The fold file is not written while pictures have problems: InputError, after the audit is written.
    """
    from sartorius.data.audit import audit
    from sartorius.data.competition import Competition
    from sartorius.data.folds import make_folds
    from sartorius.files import write_csv, write_text

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the page says the same
        competition = Competition(root, cell_types, keep_going=True)
        found = audit(competition, cleaning)
        folds = make_folds(competition, n_folds, fold_seed) if not found.problems else None
    text = found.text(folds)
    write_text(output / "audit.txt", text)
    write_csv(output / "audit.csv", found.pictures)
    if folds is None:
        print(text)
        raise InputError(
            f"{len(found.problems)} pictures of {root} cannot be used ({found.problems[0]}); all are listed in "
            f"{output / 'audit.txt'}"
        )
    folds.write(fold_file)
    return f"{text}\nwritten: {output / 'audit.txt'}, {output / 'audit.csv'}, {fold_file}\n"


@wiring.verb("prepare")
def main(cfg: DictConfig) -> Any:
    """Make or find the folder of `cfg.source`, audit it, write folds; prints the page."""
    root = Path(wiring.instantiate(cfg.source))
    cleaning = wiring.instantiate(cfg.cleaning) if cfg.cleaning else None
    output = Path(cfg.output) if cfg.output else Path(cfg.paths.runs_dir, "prepare", root.resolve().name)
    fold_file = Path(cfg.fold_file) if cfg.fold_file else output / "folds.csv"
    print(prepare(root, output, fold_file, cfg.n_folds, cfg.fold_seed, cleaning, list(cfg.cell_types)))


if __name__ == "__main__":
    main()
