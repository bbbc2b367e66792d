"""Counts and confluence by well and time: `python -m sartorius.plates tables=predicted well=livecell`.

Reads the images.csv that `predict` and `convert` write with write=[table]. `well=` reads the images' names: a regular
expression with a group (?P<well>...) and, where names hold them, time, field or site, plate, and part (of a photograph
that is stored as several images); or `livecell` or `competition`, whose names are known. Writes `<output>/plates.html`
with heat maps, growth curves and doubling times, each drawing as PNG, wells.csv (mean over fields with a bootstrap
interval, a row a well, time and measure) and growth.csv.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.files import write_csv
from sartorius.running import wiring
from sartorius.running.commands import command
from sartorius.structures.next_step import print_next


@command("plates")
def main(cfg: DictConfig) -> str:
    """Write the page and the tables of the config's images; returns the page's path."""
    from sartorius.reports.plates.growth import growth_of
    from sartorius.reports.plates.names import competition_names, places_of
    from sartorius.reports.plates.page import Plates, write_page
    from sartorius.reports.plates.tables import fields_of, read_images, wells_of

    tables, output = wiring.path_list(cfg.tables), Path(str(cfg.output))
    images = read_images(tables)
    names = {image_id: image_id for image_id in images.image}
    if cfg.train_csv is not None:
        names = competition_names(cfg.train_csv, names)
    places, unmatched = places_of(names, cfg.well, cfg.interval)
    if unmatched and cfg.unmatched == "stop":
        shown = ", ".join(names[image_id] for image_id in unmatched[:3])
        raise InputError(
            f"well={cfg.well}: does not match {len(unmatched)} of {len(names)} images ({shown}); mend it, or leave "
            "them out: unmatched=skip"
        )
    fields = fields_of(images, places)
    wells = wells_of(fields, wiring.plain(cfg.bootstrap))
    growth = growth_of(wells, wiring.plain(cfg.growth.hours), cfg.bootstrap.level)
    write_csv(output / "wells.csv", wells.rename(columns={"time": "hours"}))
    write_csv(output / "growth.csv", growth)
    plates = Plates(fields, wells, growth, unmatched, cfg.bootstrap.level, cfg.plate_wells)
    facts = {"tables": ", ".join(tables), "well": str(cfg.well)}
    size = write_page(plates, output / "plates.html", facts, output / "plots" if cfg.plots else None)
    print(f"{int(fields.table.images.sum())} images of {wells.well.nunique()} wells; left out: {len(fields.bad)} bad, "
          f"{len(unmatched)} of other names")  # fmt: skip
    print(f"{output / 'plates.html'}: {size / 1e6:.1f} MB")
    print_next("report", {"detections": "DETECTIONS", "images": "FOLDER"})
    return str(output / "plates.html")


if __name__ == "__main__":
    main()
