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

from sartorius import wiring
from sartorius.errors import InputError
from sartorius.progress import watched

if TYPE_CHECKING:
    from sartorius.detections import DetectionsFolder
    from sartorius.fusion.join import Ensemble
    from sartorius.fusion.members import Member

_LISTED = 5  # unreadable files that are printed


@dataclass
class Outcome:
    """Pictures that were joined, those that an earlier run had joined, and unreadable files that were skipped."""

    joined: int = 0
    kept: int = 0
    skipped: list[str] = field(default_factory=list)


def ensemble(
    joiner: Ensemble, pictures: Sequence[str], folder: DetectionsFolder, meta: Mapping[str, Any], skip_bad: bool
) -> Outcome:
    """Join the pictures into `folder`; those in it that are newer than what they are made of are kept.

    meta: entries of meta.json, `skipped` is added. skip_bad: a file that cannot be read is left out and counted, as
    if its member had not looked at the picture, and so is a picture of which nothing can be read; otherwise it raises
    InputError.
    """
    outcome = Outcome(skipped=list(meta.get("skipped", ())))
    folder.write_meta(**{**meta, "skipped": outcome.skipped})
    for picture in watched(pictures, "joining"):
        if _is_current(folder.folder / f"{picture}.npz", joiner.files(picture)):
            outcome.kept += 1
            continue
        bad: list[InputError] = []
        try:
            folder.write(joiner.join(picture, bad if skip_bad else None))
            outcome.joined += 1
        except InputError:
            if not bad:
                raise
        if bad:
            new = [str(error) for error in bad if str(error) not in outcome.skipped]
            outcome.skipped += new
            folder.write_meta(**{**meta, "skipped": outcome.skipped})
    return outcome


def _is_current(made: Path, of: Sequence[Path]) -> bool:
    """Whether a file is there and not older than what it is made of."""
    try:
        return made.stat().st_mtime >= max(path.stat().st_mtime for path in of)
    except FileNotFoundError:
        return False


def prepare_folder(folder: DetectionsFolder, about: Mapping[str, Any], overwrite: bool) -> list[str]:
    """The files that an earlier run of the same ensemble skipped; [] for a new folder.

    about: what decides the result. Raises InputError where the folder holds detections made of anything else;
    `overwrite` deletes them.
    """
    pictures = folder.pictures()
    if not pictures:
        return []
    if overwrite:
        for picture in pictures:
            (folder.folder / f"{picture}.npz").unlink()
        return []
    earlier = folder.meta if (folder.folder / "meta.json").is_file() else {}
    if earlier.get("ensemble") != json.loads(json.dumps(about)):
        raise InputError(
            f"{folder.folder}: holds {len(pictures)} detections of other members or settings; give another output=, or "
            "overwrite=true to delete them"
        )
    return list(earlier.get("skipped", []))


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


@wiring.verb("ensemble")
def main(cfg: DictConfig) -> Outcome:
    """Build the ensemble of the config and join all pictures."""
    from sartorius.detections import DetectionsFolder
    from sartorius.fusion import members as opening
    from sartorius.fusion.join import Ensemble
    from sartorius.fusion.pool import LEVEL

    members = opening.open_members(wiring.plain(cfg.members), **wiring.plain(cfg.submissions))
    names = opening.shared_names(members, cfg.cell_types)
    weights = opening.weight_table(members, wiring.plain(cfg.weights), names)
    pictures = opening.chosen_pictures(members, cfg.pictures)
    method = wiring.instantiate(cfg.fusion)
    settings = {key: wiring.plain(cfg)[key] for key in ("min_score", "level", "picture_type")}
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
    skipped = prepare_folder(folder, about, cfg.overwrite)
    size = max(source.mask_size for one in members for source in one.sources)
    meta = {
        "cell_types": list(names),
        "mask_size": size,
        "postprocess": postprocess,
        "ensemble": about,
        "skipped": skipped,
    }
    outcome = ensemble(joiner, pictures, folder, meta, cfg.skip_bad)
    for problem in outcome.skipped[:_LISTED]:
        print(f"skipped: {problem}")
    kept = f", {outcome.kept} of them by an earlier run" if outcome.kept else ""
    lost = f"; {len(outcome.skipped)} unreadable files skipped" if outcome.skipped else ""
    print(f"{outcome.joined + outcome.kept} pictures of {len(members)} members joined in {folder.folder}{kept}{lost}")
    return outcome


if __name__ == "__main__":
    main()
