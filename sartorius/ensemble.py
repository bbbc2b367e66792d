"""Join the detections of any models: `python -m sartorius.ensemble members=[A/detections,B/detections] output=joined`.

A member is a folder of detections, the folders of a model's folds together, or a csv in the submission format; by name:
`members={unet: [F0/detections, F1/detections], theirs: theirs.csv} weights={theirs: 0.5}`. No network is run. Writes
`<output>/detections/`, for evaluate and submit; a stopped run is continued by the same command.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.files import is_current, remove_partial
from sartorius.running import wiring
from sartorius.running.commands import command
from sartorius.running.progress import progress_bar

if TYPE_CHECKING:
    from sartorius.fusion.join import Ensemble
    from sartorius.fusion.members import Member
    from sartorius.structures.detections import DetectionsFolder

_LISTED = 5  # unreadable files that are printed


@dataclass
class Outcome:
    """Images that were joined, those that an earlier run had joined, and what could not be read of an image."""

    joined: int = 0
    kept: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """A line for each unreadable file."""
        return [problem for problems in self.skipped.values() for problem in problems]

    def note(self, image_id: str, problems: list[str]) -> None:
        """Replace the problems of an image; they stay sorted by image."""
        others = {name: old for name, old in self.skipped.items() if name != image_id}
        self.skipped = dict(sorted({**others, image_id: problems}.items())) if problems else others


def ensemble(
    joiner: Ensemble, images: Sequence[str], folder: DetectionsFolder, meta: Mapping[str, Any], skip_bad: bool
) -> Outcome:
    """Join the images into `folder`; those in it that are newer than what they are made of are kept.

    meta: entries of meta.json; `skipped`, problems by image, is continued. skip_bad: a file that cannot be read is
    left out and counted, as if its member had not looked at the image, and so is an image of which nothing can be
    read; otherwise it raises InputError.
    """
    outcome = Outcome(skipped=dict(meta["skipped"]))
    folder.write_meta(**{**meta, "skipped": outcome.skipped})
    for image_id in progress_bar(images, "joining"):
        made = folder.folder / f"{image_id}.npz"
        if is_current(made, joiner.files(image_id)):
            outcome.kept += 1
            continue
        bad: list[InputError] = []
        found = joiner.join(image_id, bad if skip_bad else None)
        problems = [str(error) for error in bad]
        if problems != outcome.skipped.get(image_id, []):  # said before the image: a kill in between loses nothing
            outcome.note(image_id, problems)
            folder.write_meta(**{**meta, "skipped": outcome.skipped})
        if found is None:
            made.unlink(missing_ok=True)  # made of files that could be read at the time
        else:
            folder.write(found)
            outcome.joined += 1
    return outcome


def prepare_folder(
    folder: DetectionsFolder, about: Mapping[str, Any], images: Sequence[str], overwrite: bool
) -> dict[str, list[str]]:
    """What an earlier run of the same ensemble could not read, by image; {} for a new folder.

    about: what decides the result. Raises InputError where the folder holds detections made of anything else, or of
    images that are not to be joined; `overwrite` deletes those.
    """
    remove_partial(folder.folder)
    earlier = folder.meta if (folder.folder / "meta.json").is_file() else {}
    same = earlier.get("ensemble") == json.loads(json.dumps(about))
    wanted = set(images) if same else set()
    if others := [image_id for image_id in folder.image_ids() if image_id not in wanted]:
        if not overwrite:
            what = "images" if same else "members or settings"
            raise InputError(
                f"{folder.folder}: holds {len(others)} detections of other {what}; give another output=, or "
                "overwrite=true to delete them"
            )
        for image_id in others:
            (folder.folder / f"{image_id}.npz").unlink()
    return {image_id: problems for image_id, problems in (earlier.get("skipped") or {}).items() if image_id in wanted}


def saved_postprocess(members: Sequence[Member], changes: Mapping[str, Any], cut: float | None) -> dict[str, Any]:
    """The post-processing to save with the result: that of the first member which has one, with `changes` on top.

    cut: where masks are cut unless `changes` say; None keeps the saved one's. Raises InputError as `from_saved` does.
    """
    from sartorius.postprocess.saved import from_saved, merge, without_none

    saved = [getattr(source, "meta", {}).get("postprocess") for member in members for source in member.sources]
    first: Mapping[str, Any] = next((one for one in saved if one), {})
    changed = without_none(changes)
    values = dict(changed) if "_target_" in changed else merge(first, changed)
    if cut is not None and "mask" not in changed:
        values["mask"] = cut
    if not first and "_target_" not in changed:
        values = {}  # submissions alone bring none
    from_saved(values, None, "postprocess")
    return values


@command("ensemble")
def main(cfg: DictConfig) -> Outcome:
    """Build the ensemble of the config and join all images."""
    from sartorius.fusion import members as opening
    from sartorius.fusion.join import Ensemble
    from sartorius.fusion.pool import LEVEL
    from sartorius.rescoring import saved as filtered
    from sartorius.structures.detections import DetectionsFolder

    members = opening.open_members(wiring.plain(cfg.members), **wiring.plain(cfg.submissions))
    names = opening.shared_names(members, cfg.cell_types)
    weights = opening.weight_table(members, wiring.plain(cfg.weights), names)
    images = opening.chosen_images(members, cfg.images)
    method = wiring.instantiate(cfg.fusion)
    settings = {key: wiring.plain(cfg)[key] for key in ("min_score", "level", "image_type")}
    joiner = Ensemble(members=members, names=names, weights=weights, method=method, **settings)
    about = {
        "members": {one.name: [os.path.abspath(source.path) for source in one.sources] for one in members},
        "weights": {name: values.tolist() for name, values in weights.items()},
        "fusion": wiring.plain(cfg.fusion),
        "submissions": wiring.plain(cfg.submissions),
        **settings,
    }
    cut = LEVEL if cfg.level or method.voted else None
    postprocess = saved_postprocess(members, wiring.plain(cfg.postprocess), cut)
    folder = DetectionsFolder(Path(cfg.output) / "detections")
    skipped = prepare_folder(folder, about, images, cfg.overwrite)
    size = max(source.mask_size for one in members for source in one.sources)
    meta = {
        "cell_types": list(names),
        "mask_size": size,
        "postprocess": postprocess,
        filtered.KEY: filtered.to_save(cfg.filter, names),
        "ensemble": about,
        "skipped": skipped,
    }
    outcome = ensemble(joiner, images, folder, meta, cfg.skip_bad)
    for problem in outcome.problems[:_LISTED]:
        print(f"skipped: {problem}")
    kept = f", {outcome.kept} of them by an earlier run" if outcome.kept else ""
    lost = f"; {len(outcome.problems)} unreadable files skipped" if outcome.skipped else ""
    print(f"{outcome.joined + outcome.kept} images of {len(members)} members joined in {folder.folder}{kept}{lost}")
    return outcome


if __name__ == "__main__":
    main()
