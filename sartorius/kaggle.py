"""Write a kit for a Kaggle notebook without a network: `python -m sartorius.kaggle members=[model.zip] output=kit`.

`<output>/dataset` gets the members and wheels of all that Kaggle's image lacks, `<output>/notebook` a notebook that
predicts, joins and submits within the hours: the members that come last, and before them views, are left out where the
time is short. `dry_run=true` runs it here. `run=KIT` is what the notebook calls; it ends with exit code 3 where images
have no prediction, and so an empty row.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from sartorius import __version__
from sartorius.errors import InputError
from sartorius.files import atomic_folder
from sartorius.running import console, wiring
from sartorius.running.commands import command
from sartorius.structures.next_step import print_next_program

_OF_WRITING = ("weights", "installed", "wheels", "dry_run", "images")


@command("kaggle", skipped=len)
def main(cfg: DictConfig) -> list[str]:
    """Write a kit, or use one; returns the images that have no prediction."""
    if (cfg.members is None) == (cfg.run is None):
        raise InputError("give members=[FILE,...] to write a kit, or run=KIT to use one as its notebook does")
    unused = _OF_WRITING if cfg.run is not None else ("started",) if cfg.dry_run else ("started", "images")
    if given := [key for key in unused if cfg[key] not in (None, False)]:
        what = "run=" if cfg.run is not None else "members= without dry_run=true" if given == ["images"] else "members="
        raise InputError(f"{given[0]}: has no effect with {what}; leave it out")
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
    """Write the data set and the notebook of a kit, and try them where the config wants that.

    A kit that is there is replaced at the end; where anything fails it stays.
    """
    from sartorius.data.images import list_images
    from sartorius.exports.kaggle import notebook
    from sartorius.exports.kaggle.dry_run import dry_run

    images = None if cfg.images is None else Path(str(cfg.images))
    if images is not None and not list_images(images):
        raise InputError(f"images={images}: no images in it")
    dataset, kernel = output / "dataset", output / "notebook"
    for folder, mark in ((dataset, notebook.KIT), (kernel, notebook.NOTEBOOK)):
        empty = folder.is_dir() and not any(folder.iterdir())
        if folder.exists() and not empty and not (folder / mark).is_file():
            raise InputError(f"{folder}: holds something else than a kit; give another output=")
    with atomic_folder(dataset) as new_dataset, atomic_folder(kernel) as new_kernel:
        names, fetched = fill(cfg, new_dataset, new_kernel)
    size = sum(path.stat().st_size for path in dataset.iterdir())
    print(f"{output}: {len(names)} members and wheels of {', '.join([*fetched, 'sartorius'])}, {size / 1e6:.1f} MB")
    if cfg.dry_run:
        dry_run(output, images, [*fetched, *wiring.plain(cfg.left_out)])
    if cfg.user == "USERNAME":
        print("put your name on Kaggle in place of USERNAME in both metadata files, or give user=")
    print_next_program("kaggle", "datasets", "create", "-p", str(dataset))
    print_next_program("kaggle", "kernels", "push", "-p", str(kernel))


def fill(cfg: DictConfig, dataset: Path, kernel: Path) -> tuple[list[str], list[str]]:
    """Fill the folders of a data set and its notebook; returns the members and the packages that came along."""
    from sartorius.exports.kaggle import notebook
    from sartorius.exports.kaggle.own_wheel import write_own_wheel
    from sartorius.exports.kaggle.wheelhouse import INSTALLED, Wheelhouse, own_requirements, read_freeze
    from sartorius.running.budget.kit import write_kit

    names = write_kit(cfg, dataset)
    installed = read_freeze(INSTALLED if cfg.installed is None else Path(str(cfg.installed)), list(cfg.always))
    house = Wheelhouse(dataset, installed, str(cfg.python), None if cfg.wheels is None else Path(str(cfg.wheels)))
    needed = own_requirements(list(cfg.left_out))
    house.add(needed)
    write_own_wheel(dataset, console.PACKAGE, console.CONF_DIR, __version__, needed)
    notebook.write_dataset_metadata(dataset, cfg.user, cfg.name)
    notebook.write_kernel_metadata(kernel, cfg.user, cfg.name, cfg.competition, cfg.gpu)
    notebook.write_notebook(kernel / notebook.NOTEBOOK, cfg.name, names, cfg.hours, [*house.names, "sartorius"])
    for sentence in house.kept:
        print(sentence)
    return names, house.names


if __name__ == "__main__":
    main()
