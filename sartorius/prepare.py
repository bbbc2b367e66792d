"""Write or find a data folder, audit it, assign folds: `python -m sartorius.prepare source=synthetic | competition`.

`source=folder images='raw/**/*.tif' labels='raw/**/*_masks.tif' output=mine` writes own images and labels into `mine`.
`source=livecell | synthetic_livecell` do the same for LIVECell, which comes split: its audit tells what splits share.
Outputs go to `output` (default runs/prepare/<name of the data folder>): audit.txt, audit.csv (a row per image)
and, for the competition's layout, folds.csv. Nothing is written into a folder that was there before, but for the
folds.csv of own labels: images that were added get a fold there, the others keep theirs.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.running import outputs, wiring
from sartorius.running.commands import command
from sartorius.structures.next_step import print_next

if TYPE_CHECKING:
    import pandas as pd

    from sartorius.data.cleaning import Cleaning
    from sartorius.data.livecell.folder import LiveCell


def prepare(
    root: Path,
    output: Path,
    fold_file: Path,
    n_folds: int,
    fold_seed: int,
    cleaning: Cleaning | None,
    cell_types: list[str],
    notes: Sequence[str] = (),
) -> str:
    """Audit the competition folder `root`, write audit.txt and audit.csv into `output`, and folds; returns the text.

    notes: on the page, before those of the audit. Images keep the fold that they have in a file which the folder itself
    keeps. The fold file is not written while images have problems: InputError, after the audit is written.
    """
    from sartorius.data.competition.audit import audit
    from sartorius.data.competition.folder import Competition
    from sartorius.data.competition.folds import FILE, extend_folds, make_folds

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the page says the same
        competition = Competition(root, cell_types, keep_going=True)
        audited = audit(competition, cleaning)
        audited = replace(audited, notes=[*notes, *audited.notes])
        if audited.problems:
            folds = None
        elif fold_file == root / FILE:
            folds = extend_folds(competition, n_folds, fold_seed, fold_file)
            if folds.n_folds != n_folds <= len({*competition.wells.values()}):
                audited.notes.append(f"{fold_file} keeps its {folds.n_folds} folds; delete it for n_folds={n_folds}")
        else:
            folds = make_folds(competition, n_folds, fold_seed)
    text = _write_audit(root, output, audited.text(folds), audited.images, audited.problems)
    assert folds is not None  # there are no problems
    folds.write(fold_file)
    return f"{text}, {fold_file}\n"


def prepare_livecell(folder: LiveCell, output: Path) -> str:
    """Audit a LIVECell folder; write audit.txt and audit.csv into `output`. Returns the page.

    Raises InputError where images have problems, after the audit is written.
    """
    from sartorius.data.livecell.audit import audit_livecell

    audited = audit_livecell(folder)
    return _write_audit(folder.root, output, audited.text(), audited.images, audited.problems) + "\n"


def _write_audit(root: Path, output: Path, text: str, images: pd.DataFrame, problems: list[str]) -> str:
    """Write the page and the table; returns the page with their names. With problems, print it and raise InputError."""
    from sartorius.files import write_csv, write_text

    write_text(output / "audit.txt", text)
    write_csv(output / "audit.csv", images)
    if problems:
        print(text)
        raise InputError(
            f"{len(problems)} problems in {root}, whose images cannot be used ({problems[0]}); all are listed in "
            f"{output / 'audit.txt'}"
        )
    return f"{text}\nwritten: {output / 'audit.txt'}, {output / 'audit.csv'}"


def audit_folder(cfg: DictConfig) -> Path:
    """Return the folder of the audit: `output`, else one named after the folder of the source."""
    if cfg.output:
        return Path(str(cfg.output))
    source = cfg.source
    data = source.folder if "folder" in source else source.root if "root" in source else source._args_[0]
    return Path(cfg.paths.runs_dir, "prepare", Path(str(data)).resolve().name)


@command("prepare", outputs.Output(audit_folder))
def main(cfg: DictConfig) -> Any:
    """Make or find the folder of `cfg.source`, audit it, write folds; prints the page."""
    source = wiring.instantiate(cfg.source)  # the competition's layout: its folder; others: the object
    root = source if isinstance(source, Path) else source.root
    output = audit_folder(cfg)
    imported = cfg.source._target_.startswith("sartorius.labelling.")
    if source is not root and not imported:
        print(prepare_livecell(source, output))
        name = "livecell" if cfg.source._target_.startswith("sartorius.data.") else "synthetic_livecell"
        return print_next("train", {"experiment": "unet_livecell", "data": name, "data.root": root})
    from sartorius.data.competition.about import read_about

    cleaning = wiring.instantiate(cfg.cleaning) if cfg.cleaning else None
    own, notes = read_about(root), source.notes if imported else ()
    fold_file = Path(str(cfg.fold_file)) if cfg.fold_file else (root if own else output) / "folds.csv"
    types = own.cell_types if own else cfg.cell_types
    print(prepare(root, output, fold_file, cfg.n_folds, cfg.fold_seed, cleaning, list(types), notes))
    if own:
        return print_next("plan", {"data.root": root})
    print_next("train", {"experiment": "maskrcnn_r50", "data.root": root, "data.fold_file": fold_file})


if __name__ == "__main__":
    main()
