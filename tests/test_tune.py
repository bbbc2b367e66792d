"""The tune verb on a handwritten competition folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from sartorius import evaluate, pseudo_label, submit, tune
from sartorius.data.competition.folder import Competition
from sartorius.errors import InputError
from sartorius.networks.checkpoints import FORMAT_VERSION, KEY
from sartorius.postprocess.saved import from_saved, to_saved
from sartorius.running import wiring
from sartorius.structures.detections import Detections, DetectionsFolder
from tests.postprocess.pipelines import saved

POST = saved(score=0.9, mask=0.5, box_nms=0.9, mask_nms=0.5, min_area=0)
Run = Callable[..., dict[str, Any]]


def call(verb: Any, name: str, *overrides: str) -> Any:
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        cfg = compose(name, overrides=list(overrides))
    return verb.main(cfg)


@pytest.fixture(scope="module")
def truth(tiny_competition: Path) -> Competition:
    return Competition(tiny_competition)


def folder(path: Path, truth: Competition, images: list[str], postprocess: Any = POST) -> Path:
    """Each cell at a score of 0.6, and a false one at 0.4: above 0.9 nothing is left, between them all is right."""
    written = DetectionsFolder(path)
    written.write_meta(cell_types=list(truth.cell_type_names), mask_size=28, postprocess=postprocess)
    for image_id in images:
        cells = truth.instances(image_id)
        kind = truth.cell_type_names.index(truth.cell_type(image_id))
        found = Detections.from_instances(image_id, cells, np.full(len(cells), 0.6))
        arrays = [
            np.concatenate([found.boxes, [[50, 40, 60, 46]]]).astype(np.float32),
            np.append(found.scores, np.float32(0.4)),
            np.append(found.cell_types, kind),
            np.concatenate([found.masks, np.ones((1, 28, 28), np.float16)]),
        ]
        written.write(Detections(image_id, found.height, found.width, *arrays))
    return path


@pytest.fixture(scope="module")
def folders(truth: Competition, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("folds")
    split = truth.ids[0::2], truth.ids[1::2]
    return "[{}]".format(",".join(str(folder(root / f"fold{k}", truth, list(own))) for k, own in enumerate(split)))


@pytest.fixture
def run(folders: str, tiny_competition: Path, tmp_path: Path) -> Run:
    def program(*overrides: str) -> dict[str, Any]:
        given = {"detections": folders, "data.root": tiny_competition, "output": tmp_path / "out"}
        given |= {"trials": 25, "folds": 2, "least_images": 1, "bootstrap.samples": 50}
        own = {text.split("=")[0] for text in overrides}
        return call(tune, "tune", *(f"{key}={value}" for key, value in given.items() if key not in own), *overrides)

    return program


def test_thresholds_are_found_and_taken_by_the_other_verbs(
    run: Run, folders: str, tiny_competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = run(*(f"search.{name}=null" for name in ("box_nms", "mask_nms", "min_area")))
    assert numbers["untuned"]["competition_map"] == 1 / 12, "no detection has 0.9; one image has no cells"
    file = tmp_path / "out" / "postprocess.yaml"
    tuned = yaml.safe_load(file.read_text())
    assert all(0.4 < tuned["score"]["threshold"][kind] <= 0.6 for kind in ("shsy5y", "astro", "cort")), tuned["score"]
    assert numbers["tuned"]["competition_map"] > 0.8 < numbers["cross_fitted"]["competition_map"]
    printed = capsys.readouterr().out
    assert "without_fold1/cort/0: mAP" in printed and f"postprocess.file={file}" in printed
    given = (f"detections={folders}", f"data.root={tiny_competition}", f"output={tmp_path / 'scored'}")
    scored = call(evaluate, "evaluate", *given, f"postprocess.file={file}")
    assert scored["competition_map"] == pytest.approx(numbers["tuned"]["competition_map"], abs=1e-12)
    worse = call(evaluate, "evaluate", *given, f"postprocess.file={file}", "postprocess.score.threshold.astro=0.9")
    assert worse["competition_map_astro"] == 0.0 < worse["competition_map_cort"]
    one = folders.strip("[]").split(",")[0]
    call(submit, "submit", f"detections={one}", f"output={tmp_path / 's.csv'}", f"postprocess.file={file}")
    assert len(pd.read_csv(tmp_path / "s.csv").dropna()) > 6
    parameters = pd.read_csv(tmp_path / "out" / "parameters.csv")
    assert parameters[parameters.parameter == "score.threshold"].gain.min() > 0.1
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == numbers


def test_score_thresholds_of_pseudo_labels(
    run: Run, folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cells at 0.6 are right and false ones at 0.4 are not: from 0.6 on all are, of the types asked for."""
    run("trials=1", "pseudo_labels={precision: {astro: 1.0, cort: 0.9}, least_cells: 3}")
    file = tmp_path / "out" / "pseudo_labels.yaml"
    found = yaml.safe_load(file.read_text())
    assert found["min_score"] == {"astro": pytest.approx(0.6), "cort": pytest.approx(0.6)}
    cells = 1 + 1 + 2 + 3 + 4  # astro00 has one more, over its first
    astro = found["measured"]["astro"]
    assert (astro["asked"], astro["cells"], astro["precision"]) == (1.0, astro["cross_fitted_cells"], 1.0)
    assert cells - 2 <= astro["cells"] <= cells
    assert "astro: sure from score 0.6 on:" in capsys.readouterr().out
    one = folders.strip("[]").split(",")[0]
    given = (f"detections={one}", f"output={tmp_path / 'p.csv'}", "pseudo_labels.doubtful_score=0.1")
    call(pseudo_label, "pseudo_label", *given, f"pseudo_labels.thresholds={file}")
    rows = pd.read_csv(tmp_path / "p.csv")
    sure = rows[~rows["ignore"]]
    assert set(sure.cell_type) == {"shsy5y", "astro", "cort"}, "shsy5y by its 0.5 of the config"
    assert sure.score.min() == 0.6 > rows[rows["ignore"]].score.max()
    for precision, message in (("2", "precision.shsy5y: expected a share above 0, up to 1, got 2"),
                               ("{x: 0.9}", "no cell type x; there are shsy5y, astro, cort")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            run(f"pseudo_labels.precision={precision}")
    (tmp_path / "bad.yaml").write_text("score: 1")
    for name, message in (("bad.yaml", "no min_score by cell type in it"), ("absent.yaml", "cannot be read")):
        with pytest.raises(InputError, match=f"pseudo_labels.thresholds=.*{name}: {message}"):
            call(pseudo_label, "pseudo_label", *given, f"pseudo_labels.thresholds={tmp_path / name}")


def test_a_second_call_goes_on(run: Run, tmp_path: Path) -> None:
    first = run("trials=5")
    assert len(pd.read_csv(tmp_path / "out" / "trials.csv")) == 3 * 3 * 5, "3 types; all images and without 2 folds"
    whole = run("trials=8")
    assert len(pd.read_csv(tmp_path / "out" / "trials.csv")) == 3 * 3 * 8
    assert whole == run("trials=8", f"output={tmp_path / 'other'}")
    assert whole["tuned"]["competition_map"] >= first["tuned"]["competition_map"]


def test_another_search_in_the_folder_is_refused(run: Run, tmp_path: Path) -> None:
    run("trials=2", "folds=0", "accept_loss=true")
    for change, name in (("images=[astro01,cort01]", "detections"), ("seed=1", "seed"), ("search=unet", "search"),
                         ("postprocess.mask.threshold.astro=0.4", "postprocess")):  # fmt: skip
        with pytest.raises(InputError, match=f"out: holds a search with other {name}; give another output="):
            run("trials=2", "folds=0", change)
    (tmp_path / "out" / "study.json").write_text("{")
    with pytest.raises(InputError, match="study.json: not valid JSON"):
        run("folds=0")


def test_a_checkpoint_gets_the_thresholds(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    metadata = {"format_version": FORMAT_VERSION, "postprocess": POST, "model": {"a": [1, None]}}
    state = {"state_dict": {"w": torch.arange(3.0)}, KEY: metadata, "optimizer_states": [{"lr": 0.1}], "epoch": 4}
    torch.save(state, path)
    run("trials=10", "folds=0", "accept_loss=true", f"checkpoint={path}")
    stored = torch.load(path, weights_only=True)
    written = yaml.safe_load((tmp_path / "out" / "postprocess.yaml").read_text())
    assert {"format_version": 2, **stored[KEY]["postprocess"]} == written
    assert stored[KEY]["postprocess"] != POST
    assert stored[KEY]["model"] == metadata["model"] and stored["epoch"] == 4
    assert torch.equal(stored["state_dict"]["w"], torch.arange(3.0)) and stored["optimizer_states"] == [{"lr": 0.1}]
    assert to_saved(from_saved(stored[KEY]["postprocess"], None, "here")) == stored[KEY]["postprocess"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.ckpt", "out"]
    with pytest.raises(InputError, match="no such checkpoint"):
        run(f"checkpoint=[{path},{tmp_path / 'absent.ckpt'}]", f"output={tmp_path / 'unused'}")
    assert not (tmp_path / "unused").exists()


def test_thresholds_that_lose_on_other_images_are_not_written(run: Run, truth: Competition, tmp_path: Path) -> None:
    """In every second image the false cells have the higher score: a threshold that helps one hurts the next."""
    written = DetectionsFolder(
        folder(tmp_path / "odd", truth, list(truth.ids), {**POST, "score": {**POST["score"], "threshold": 0.1}})
    )
    for image_id in truth.ids[1::2]:
        found = written.load(image_id)
        written.write(replace(found, scores=np.float32(1) - found.scores))
    path = tmp_path / "best.ckpt"
    metadata = {"format_version": FORMAT_VERSION, "postprocess": POST, "model": {}}
    torch.save({"state_dict": {}, KEY: metadata}, path)
    before, file = path.read_bytes(), tmp_path / "out" / "postprocess.yaml"
    given = (f"detections={written.folder}", "folds=12", "trials=10", f"checkpoint={path}")
    given += tuple(f"search.{name}=null" for name in ("box_nms", "mask_nms", "min_area", "mask"))
    with pytest.raises(
        InputError, match=r"postprocess.yaml: not written, for it changes mAP by -0\.\d+ \(cross-fitted\)"
    ):
        run(*given)
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert numbers["cross_fitted"]["gain"] < 0 <= numbers["tuned"]["gain"]
    assert not file.exists() and path.read_bytes() == before
    run(*given, "accept_loss=true")
    assert file.is_file() and path.read_bytes() != before
    with pytest.raises(InputError, match="not written"):
        run(*given)
    assert not file.exists(), "left by the call before, it would be taken for this one's"


def test_a_gain_that_is_not_known_counts_as_none(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not written, for folds=0 leaves open whether it gains .* accept_loss=true"):
        run("trials=2", "folds=0")
    assert not (tmp_path / "out" / "postprocess.yaml").exists()
    run("trials=2", "folds=0", "accept_loss=true")
    assert (tmp_path / "out" / "postprocess.yaml").is_file()


def test_what_cannot_be_tuned(run: Run, truth: Competition, own_competition: Path, tmp_path: Path) -> None:
    first = folder(tmp_path / "a", truth, ["astro01"])
    second = folder(tmp_path / "b", truth, ["astro01", "cort01"])
    other = folder(tmp_path / "c", truth, ["cort02"], {**POST, "mask": {**POST["mask"], "threshold": 0.7}})
    empty = folder(tmp_path / "d", truth, [])
    for overrides, message in (
        (["detections=null"], "give detections="),
        ([f"detections={empty}"], "d: no detections in it"),
        ([f"detections=[{first},{second}]"], "image astro01 is in .*a and in .*b"),
        ([f"detections=[{first},{other}]"], "c and .*a were saved with different post-processing"),
        ([f"detections={first}", "images=[cort01]"], "images: no detections of 'cort01' in .*a"),
        (["folds=13"], "folds=13: the detections are of 12 plate wells"),
        (["folds=1"], "folds=1: .*, so 2 to 12 folds, or folds=0"),
        (["trials=0"], "trials: expected a whole number of at least 1, got 0"),
        (["least_images=0"], "least_images: expected a whole number of at least 1, got 0"),
        (["search.mask.threshold.step=0.3"], "search.mask.threshold: steps of 0.3 from 0.2 do not end at 0.9"),
        (["postprocess.file=nowhere.yaml"], "postprocess.file=nowhere.yaml: no such file; .*sartorius.tune"),
    ):
        with pytest.raises(InputError, match=message):
            run(*overrides)
    for image_id in ("astro01", "cort01"):
        (second / f"{image_id}.npz").write_bytes(b"half a file")
    with pytest.raises(InputError, match="astro01.npz: not a readable .*; .*cort01.npz: not a readable "):
        run(f"detections={second}", "folds=0")
    shutil.rmtree(own_competition / "train")
    table = pd.read_csv(own_competition / "train.csv")
    (own_competition / "train").mkdir()
    shutil.copytree(truth.root / "train", own_competition / "train", dirs_exist_ok=True)
    (own_competition / "train" / "astro01.png").unlink()
    table[table.id != "astro01"].to_csv(own_competition / "train.csv", index=False)
    with pytest.raises(InputError, match="no labelled image 'astro01'"):
        run(f"detections={first}", f"data.root={own_competition}")
