"""Write a kit for a Kaggle notebook without a network: `python -m sartorius.kaggle members=[model.zip] output=kit`.

`<output>/dataset` gets the members and wheels of all that Kaggle's image lacks, `<output>/notebook` a notebook that
predicts, joins and submits within the hours: the members that come last, and before them views, are left out where the
time is short. `dry_run=true` runs it here. `run=KIT` is what the notebook calls; it ends with exit code 3 where images
have no prediction, and so an empty row.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from omegaconf import DictConfig

from sartorius import __version__
from sartorius.errors import InputError
from sartorius.running import console, wiring
from sartorius.running.commands import command
from sartorius.structures.next_step import print_next_program


@command("kaggle", skipped=len)
def main(cfg: DictConfig) -> list[str]:
    """Write a kit, or use one; returns the images that have no prediction."""
    if (cfg.members is None) == (cfg.run is None):
        raise InputError("give members=[FILE,...] to write a kit, or run=KIT to use one as its notebook does")
    if cfg.run is not None:
        return run(cfg)
    write(cfg, Path(str(cfg.output)))
    return []


def run(cfg: DictConfig) -> list[str]:
    """Predict, join and submit with a kit within its hours; returns the images that have no prediction."""
    from sartorius.running.budget.kit import open_session

    session = open_session(Path(str(cfg.run)), Path(str(cfg.inputs)), Path(str(cfg.output)), cfg.started)
    missing = session.run()
    if len(missing) == len(session.rows.texts):
        raise InputError(f"{session.rows.path}: every row is empty, no image was predicted; the lines above tell why")
    return missing


def write(cfg: DictConfig, output: Path) -> None:
    """Write the data set and the notebook of a kit, and try them where the config wants that."""
    from sartorius.exports.kaggle import notebook
    from sartorius.exports.kaggle.dry_run import dry_run
    from sartorius.exports.kaggle.own_wheel import write_own_wheel
    from sartorius.exports.kaggle.wheelhouse import INSTALLED, Wheelhouse, own_requirements, read_freeze
    from sartorius.running.budget.kit import write_kit

    dataset, kernel = output / "dataset", output / "notebook"
    for folder, mark in ((dataset, notebook.KIT), (kernel, notebook.NOTEBOOK)):
        if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).is_file():
            raise InputError(f"{folder}: holds something else than a kit; give another output=")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    names = write_kit(cfg, dataset)
    installed = read_freeze(INSTALLED if cfg.installed is None else Path(str(cfg.installed)), list(cfg.always))
    house = Wheelhouse(dataset, installed, str(cfg.python), None if cfg.wheels is None else Path(str(cfg.wheels)))
    needed = own_requirements(list(cfg.left_out))
    house.add(needed)
    write_own_wheel(dataset, console.PACKAGE, console.CONF_DIR, __version__, needed)
    packages = [*house.names, "sartorius"]
    notebook.write_dataset_metadata(dataset, cfg.user, cfg.name)
    notebook.write_kernel_metadata(kernel, cfg.user, cfg.name, cfg.competition, cfg.gpu)
    notebook.write_notebook(kernel / notebook.NOTEBOOK, cfg.name, names, cfg.hours, packages)
    for sentence in house.kept:
        print(sentence)
    size = sum(path.stat().st_size for path in dataset.iterdir())
    print(f"{output}: {len(names)} members and wheels of {', '.join(packages)}, {size / 1e6:.1f} MB")
    if cfg.dry_run:
        images = None if cfg.images is None else Path(str(cfg.images))
        dry_run(output, images, [*house.names, *wiring.plain(cfg.left_out)])
    if cfg.user == "USERNAME":
        print("put your name on Kaggle in place of USERNAME in both metadata files, or give user=")
    print_next_program("kaggle", "datasets", "create", "-p", str(dataset))
    print_next_program("kaggle", "kernels", "push", "-p", str(kernel))


if __name__ == "__main__":
    main()
