"""Join the detections of any models: `python -m sartorius.ensemble members=[A/detections,B/detections] output=joined`.

A member is a folder of detections, the folders of a model's folds together, or a csv in the submission format; by name:
`members={unet: [F0/detections, F1/detections], theirs: theirs.csv} weights={theirs: 0.5}`. No network is run. Writes
`<output>/detections/`, for evaluate and submit; a stopped run is continued by the same command.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from sartorius.errors import raise_all
from sartorius.running import wiring
from sartorius.running.commands import command
from sartorius.running.resume import resume
from sartorius.structures.next_step import print_next

if TYPE_CHECKING:
    from sartorius.fusion.join import Ensemble
    from sartorius.fusion.joined_folder import JoinedFolder

_LISTED = 5  # unreadable files that are printed


def ensemble(joiner: Ensemble, images: Sequence[str], folder: JoinedFolder, on_error: str) -> None:
    """Join the images into `folder`; those in it that are newer than the files they are made of are kept.

    on_error: `skip` leaves out a file that cannot be read, and an image of which no file can be read; see
    `Ensemble.join`. `stop` raises InputError, after the last image, for all such files; their images are left as they
    are.
    """
    bad: list[str] = []
    left = resume(joiner.join, images, lambda image_id: folder.keep(image_id, joiner.files(image_id)), "joining")
    for image_id, (joined, problems) in left:
        if problems and on_error == "stop":
            bad += problems
        else:
            folder.add(image_id, joined, problems)
    raise_all(bad)


@command("ensemble", skipped=lambda folder: len(folder.problems))
def main(cfg: DictConfig) -> JoinedFolder:
    """Build the ensemble of the config and join all images; returns the folder with its counts."""
    from sartorius.data import provenance
    from sartorius.fusion.join import Ensemble
    from sartorius.fusion.joined_folder import JoinedFolder
    from sartorius.fusion.members import chosen_images, names_of, open_members, seen_images, shared_names, weight_table
    from sartorius.rescoring import saved as saved_filter

    plain = wiring.plain(cfg)
    members = open_members(plain["members"], **plain["submissions"])
    names = shared_names(names_of(members), cfg.cell_types)
    weights = weight_table({member.name: member.knows(names) for member in members}, plain["weights"], names)
    images = chosen_images(members, cfg.images)
    settings = {key: plain[key] for key in ("min_score", "calibrate", "image_type")}
    joiner = Ensemble(members=members, names=names, weights=weights, method=wiring.instantiate(cfg.fusion), **settings)
    about = {
        "cell_types": list(names),
        "mask_size": joiner.mask_size,
        "postprocess": joiner.postprocess(plain["postprocess"]),
        saved_filter.KEY: saved_filter.to_save(cfg.filter, names),
        provenance.KEY: seen_images(members, images),
        "ensemble": {**joiner.settings, "fusion": plain["fusion"], "submissions": plain["submissions"]},
    }
    folder = JoinedFolder(Path(str(cfg.output)) / "detections", about, images, cfg.overwrite)
    ensemble(joiner, images, folder, cfg.on_error)
    for problem in folder.problems[:_LISTED]:
        print(f"skipped: {problem}")
    kept = f", {folder.kept} of them by an earlier run" if folder.kept else ""
    lost = f"; {len(folder.problems)} unreadable files skipped" if folder.skipped else ""
    print(f"{folder.joined + folder.kept} images of {len(members)} members joined in {folder.folder}{kept}{lost}")
    print_next("submit", {"detections": folder.folder, "output": "submission.csv"})
    return folder


if __name__ == "__main__":
    main()
