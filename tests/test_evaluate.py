"""The evaluate command on a handwritten competition folder, and on the two real prediction files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from sartorius import evaluate
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import make_folds
from sartorius.errors import InputError
from sartorius.formats.submission import write_submission
from sartorius.metrics.functional import image_row, precision_per_image
from sartorius.running import loading, wiring
from sartorius.structures import rle
from sartorius.structures.detections import Detections, DetectionsFolder
from tests.doubles import ToyModule
from tests.postprocess.pipelines import saved
from tests.rewritten import WRITTEN, written

POST = saved(score=0.5, mask=0.5, box_nms=0.9, mask_nms=0.5, min_area=0)
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tiny_competition: Path, tmp_path: Path) -> Run:
    """Run the command in this process with overrides; returns metrics.json."""

    def program(*overrides: str, root: Path | None = tiny_competition) -> dict[str, Any]:
        given = [f"output={tmp_path}/report", *overrides, *([f"data.root={root}"] if root else [])]
        with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
            cfg = compose("evaluate", overrides=given)
        returned = evaluate.main(cfg)
        written = json.loads((tmp_path / "report" / "metrics.json").read_text())
        assert written == json.loads(json.dumps(returned))
        return written

    return program


@pytest.fixture(scope="module")
def truth(tiny_competition: Path) -> Competition:
    return Competition(tiny_competition)


def disjoint_texts(truth: Competition, image_id: str) -> list[str]:
    """The image's cells with overlaps given to the first, as texts."""
    cells = truth.instances(image_id)
    label_map = np.zeros((cells.height, cells.width), np.uint16)
    for k in reversed(range(len(cells))):
        label_map[cells.layers[cells.layer_of[k]] == k + 1] = k + 1
    return [t for t in cells.from_label_map(label_map, cells.cell_types).to_rles() if t]


def detections(truth: Competition, image_id: str, score: float = 0.9) -> Detections:
    cells = truth.instances(image_id)
    scores = np.full(len(cells), score)
    return Detections.from_instances(image_id, cells, scores, cell_type_names=truth.cell_type_names)


def folder(path: Path, truth: Competition, images: list[str], postprocess: Any = POST) -> Path:
    written = DetectionsFolder(path)
    written.write_meta(cell_types=list(truth.cell_type_names), mask_size=28, postprocess=postprocess)
    for image_id in images:
        written.write(detections(truth, image_id))
    return path


def test_a_submission_of_the_truth(run: Run, truth: Competition, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    write_submission(path, {image_id: disjoint_texts(truth, image_id) for image_id in truth.ids})
    numbers = run(f"predictions={path}")
    table = pd.read_csv(tmp_path / "report" / "per_image.csv")
    assert numbers["images"] == 12 and numbers["cells"] == numbers["predictions"] == len(truth_cells(truth))
    assert numbers["precision_by_threshold"]["0.50"] == 1.0
    assert table.average_precision[table.image_id == "cort03"].item() == 1.0, "no cells and no predictions"
    assert numbers["competition_map"] == pytest.approx(table.average_precision.mean())
    for kind in truth.cell_type_names:
        of_kind = table.average_precision[table.cell_type == kind]
        assert numbers[f"competition_map_{kind}"] == pytest.approx(of_kind.mean()) and len(of_kind) == 4


def truth_cells(truth: Competition) -> list[str]:
    return [text for image_id in truth.ids for text in truth.record(image_id).annotations]


def test_images_not_in_the_file_score_0_or_are_left_out(run: Run, truth: Competition, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    write_submission(path, {"astro01": disjoint_texts(truth, "astro01"), "astro02": []})
    assert (
        run(f"predictions={path}", "images=[astro01,astro02,astro03,cort03]")["competition_map"] == (1 + 0 + 0 + 1) / 4
    )
    numbers = run(f"predictions={path}", "only_predicted=true")
    assert numbers["competition_map"] == (1 + 0) / 2 and numbers["images"] == 2
    assert numbers["labelled_images"] == 12
    assert numbers["competition_map_cort"] is None and numbers["competition_map_astro"] == 0.5


def test_overlapping_masks_and_unknown_images_are_refused_by_row(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("id,predicted\nastro01,1 5\nastro01,5 2\nnowhere,1 1\n")
    with pytest.raises(InputError, match="line 3: overlap: shares 1 pixels with line 2.*line 4: unknown id: 'nowhere'"):
        run(f"predictions={path}")


def test_folders_of_detections_are_joined(
    run: Run, truth: Competition, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = folder(tmp_path / "fold0", truth, ["astro01", "cort02", "cort03"])
    second = folder(tmp_path / "fold1", truth, ["shsy5y01"])
    numbers = run(f"detections=[{first},{second}]")
    assert numbers["images"] == 4 and numbers["competition_map"] == 1.0
    assert numbers["labelled_images"] == 12 and "scored 4 of 12 labelled images" in capsys.readouterr().out
    assert numbers["box_ap"] == pytest.approx(1.0) and numbers["box_ap_astro"] == pytest.approx(1.0)
    assert run(f"detections={first}")["images"] == 3
    assert run(f"detections={first}", "images=cort02")["images"] == 1
    assert run(f"detections=[{first}]", "postprocess.score.threshold.astro=0.95")["competition_map_astro"] == 0.0
    larger = run(f"detections=[{first}]", "postprocess=default", "postprocess.min_area.pixels.cort=91")
    assert larger["competition_map_cort"] < 1


def test_the_fields_scores_beside_the_competitions(
    run: Run, truth: Competition, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of three images one is right, of one nothing is found, and one has neither cells nor predictions."""
    first = folder(tmp_path / "fold0", truth, ["astro01", "cort03"])
    DetectionsFolder(first).write(Detections.empty("cort02", 48, 64, cell_type_names=truth.cell_type_names))
    numbers = run(f"detections=[{first}]")
    for name in ("f1", "f1_precision", "f1_recall", "pq", "sq", "aji", "aji_plus"):
        assert (numbers[name], numbers[f"{name}_cort"]) == (pytest.approx((1 + 0 + 1) / 3), (0 + 1) / 2)
        assert numbers[f"{name}_shsy5y"] is None and len(numbers[f"{name}_interval"]) == 2
    found, cells = len(truth.instances("astro01")), len(truth.instances("astro01")) + len(truth.instances("cort02"))
    assert numbers["pooled_f1"] == numbers["pooled_pq"] == 2 * found / (found + cells)
    assert (numbers["mask_ap_astro"], numbers["mask_ap_cort"], numbers["mask_ap_shsy5y"]) == (pytest.approx(1), 0, None)
    assert numbers["mask_ap"] == numbers["mask_ap_50"] == pytest.approx((1 + 0) / 2)
    recalls = np.linspace(0, 1, 101) <= found / cells
    assert numbers["mask_ap_agnostic"] == pytest.approx(recalls.mean())
    table = pd.read_csv(tmp_path / "report" / "per_image.csv").set_index("image_id")
    assert table.pq.to_dict() == table.aji.to_dict() == {"astro01": 1, "cort02": 0, "cort03": 1}
    printed = capsys.readouterr().out
    assert "beside it, means over images (IoU above 0.50)" in printed
    line = next(line for line in printed.splitlines() if line.startswith("│ PQ "))
    assert [cell.strip() for cell in line.split("│")[2:6]] == ["", "1.000", "0.500", "0.667"]
    assert "│ mask AP50 " in printed
    written = tmp_path / "s.csv"
    write_submission(written, {"astro01": disjoint_texts(truth, "astro01")})
    numbers = run(f"predictions={written}", "only_predicted=true")
    assert numbers["pq"] == 1 and "mask_ap" not in numbers, "a submission has no scores to rank by"


def test_an_image_is_explained(
    run: Run, truth: Competition, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = folder(tmp_path / "fold0", truth, ["astro01", "cort02"])
    run(f"detections=[{first}]", "images=[astro01]", "explain=true")
    count = len(truth.instances("astro01"))
    assert f"\nastro01: {count}; 0 of {count} cells missed\n" in capsys.readouterr().out
    run(f"detections=[{first}]", "explain=true", "postprocess.score.threshold.astro=0.95")
    printed = capsys.readouterr().out
    assert f"\nastro01: {count} -> score 0; {count} of {count} cells missed\n  cell 0 at (" in printed
    assert printed.count(", score 0.90: dropped by score\n") == count
    other = len(truth.instances("cort02"))
    assert f"\ncort02: {other}; 0 of {other} cells missed\n" in printed
    with pytest.raises(InputError, match="explain= is of detections"):
        run(f"predictions={first}", "explain=true")


def test_cell_types_come_with_the_detections_or_the_config(
    run: Run, own_competition: Path, truth: Competition, tmp_path: Path
) -> None:
    csv = own_competition / "train.csv"
    csv.write_text(csv.read_text().replace(",astro,", ",glia,"))
    found = folder(tmp_path / "fold0", Competition(own_competition, ("shsy5y", "glia", "cort")), ["astro01"])
    assert run(f"detections=[{found}]", root=own_competition)["competition_map_glia"] == 1.0
    write_submission(tmp_path / "s.csv", {"astro01": disjoint_texts(truth, "astro01")})
    given = (f"predictions={tmp_path / 's.csv'}", "only_predicted=true")
    with pytest.raises(InputError, match="cell type 'glia', expected one of shsy5y, astro, cort"):
        run(*given, root=own_competition)
    numbers = run(*given, "cell_types=[shsy5y,glia,cort]", root=own_competition)
    assert numbers["competition_map_glia"] == 1.0 and "competition_map_astro" not in numbers


def test_a_image_in_two_folders_is_refused(run: Run, truth: Competition, tmp_path: Path) -> None:
    first = folder(tmp_path / "fold0", truth, ["astro01"])
    second = folder(tmp_path / "fold1", truth, ["cort01", "astro01"])
    with pytest.raises(InputError, match="image astro01 is in .*fold0 and in .*fold1"):
        run(f"detections=[{first},{second}]")


def test_folders_that_cannot_be_scored(run: Run, truth: Competition, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no meta.json"):
        run(f"detections=[{tmp_path}]")
    with pytest.raises(InputError, match="no detections in it"):
        run(f"detections=[{folder(tmp_path / 'empty', truth, [])}]")
    with pytest.raises(InputError, match="no post-processing was saved.*postprocess=default"):
        run(f"detections=[{folder(tmp_path / 'bare', truth, ['astro01'], None)}]")
    foreign = folder(tmp_path / "foreign", truth, ["astro01"])
    DetectionsFolder(foreign).write(Detections.empty("elsewhere", 48, 64))
    with pytest.raises(InputError, match="no labelled image 'elsewhere'"):
        run(f"detections=[{foreign}]")
    other_size = folder(tmp_path / "size", truth, [])
    DetectionsFolder(other_size).write(Detections.empty("astro01", 64, 48))
    with pytest.raises(InputError, match="image astro01: images of 48x64 and 64x48"):
        run(f"detections=[{other_size}]")


def test_the_baseline_beside_it_and_alone(run: Run, truth: Competition, tmp_path: Path) -> None:
    first = folder(tmp_path / "fold0", truth, ["astro01", "cort02"])
    numbers = run(f"detections=[{first}]", "baseline=otsu_watershed", "baseline.min_area=20")
    other = numbers["baseline"]
    assert other["name"] == "otsu_watershed" and other["images"] == 2
    assert other["difference"]["mean"] == pytest.approx(1.0 - other["competition_map"])
    assert other["difference"]["images"] == 2
    assert len(pd.read_csv(tmp_path / "report" / "per_image_otsu_watershed.csv")) == 2
    alone = run("baseline=otsu_watershed", "baseline.min_area=20", "images=[astro01,cort02]")
    assert alone["competition_map"] == other["competition_map"]
    assert not list((tmp_path / "report").glob("per_image_*")), "of another call"


def test_images_of_a_fold(run: Run, truth: Competition, tmp_path: Path) -> None:
    run("baseline=otsu_watershed", "data.fold=1", "data.n_folds=4")
    scored = pd.read_csv(tmp_path / "report" / "per_image.csv").image_id.tolist()
    assert scored == make_folds(truth, 4, 0).split(1)[1] and len(scored) == 3


def test_against_another_run(run: Run, truth: Competition, tmp_path: Path) -> None:
    images = ["astro01", "cort02", "shsy5y01"]
    pd.DataFrame({"image_id": [*images, "more"], "average_precision": [0.5, 0.25, 1.0, 0.0]}).to_csv(
        tmp_path / "per_image.csv", index=False
    )
    first = folder(tmp_path / "fold0", truth, images)
    numbers = run(f"detections=[{first}]", f"against={tmp_path}")
    assert numbers["against"]["mean"] == pytest.approx((0.5 + 0.75 + 0) / 3) and numbers["against"]["images"] == 3
    low, high = numbers["against"]["interval"]
    assert 0 <= low < high <= 0.75


def test_a_checkpoint_is_run_over_its_validation_images(
    run: Run, tiny_competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {
        "_target_": "sartorius.data.competition.datamodule.SupervisedDataModule",
        "root": str(tiny_competition),
        "n_folds": 4,
        "fold": 2,
        "train_transform": {"_target_": "os.system"},
    }
    module = ToyModule()
    module.hparams.update(config={"data": data}, postprocess=POST, data="tiny", model={})
    asked = []
    monkeypatch.setattr(loading, "load_module", lambda _, windows: asked.append(windows) or module.eval())
    common = ("checkpoint=some.ckpt", "data.num_workers=0", "trainer.accelerator=cpu")
    common += ("postprocess.score.threshold.default=0.1",)
    numbers = run(*common, root=None)
    assert asked == [{}], "the checkpoint's own windows"
    assert numbers["images"] == numbers["predictions"] == 3
    assert len(DetectionsFolder(tmp_path / "report" / "detections").image_ids()) == 3
    with pytest.raises(InputError, match="holds detections already"):
        run(*common, root=None)
    data["_target_"] = "os.system"
    with pytest.raises(InputError, match="was trained on os.system"):
        run(*common, f"output={tmp_path / 'other'}", root=None)


def test_exactly_one_source(run: Run) -> None:
    with pytest.raises(InputError, match="got none of them"):
        run()
    with pytest.raises(InputError, match="got detections and predictions"):
        run("detections=[x]", "predictions=y")
    with pytest.raises(InputError, match="inference= .* goes with checkpoint= only"):
        run("detections=[x]", "inference=tiles")


def test_the_command_prints_one_line_for_bad_input(tiny_competition: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sartorius.evaluate", "predictions=missing.csv", f"data.root={tiny_competition}"]
    done = subprocess.run([*command, f"output={tmp_path / 'out'}"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.strip() == "error: missing.csv: no such file; expected a csv with the header id,predicted"


@pytest.mark.filterwarnings("ignore:.*rows that repeat another one")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("maskrcnn", {"": 0.375868, "_astro": 0.2530, "_cort": 0.4786, "_shsy5y": 0.1214}),
        ("cellpose", {"": 0.297364, "_astro": 0.1574, "_cort": 0.3943, "_shsy5y": 0.1214}),
    ],
)
def test_real_predictions_score_what_others_measured(
    run: Run, real_data: Path, name: str, expected: dict[str, float]
) -> None:
    file = real_data / "peer_predictions" / f"{name}.csv"
    numbers = run(f"predictions={file}", "only_predicted=true", root=real_data / "sartorius")
    assert numbers["images"] == 28
    for suffix, value in expected.items():
        assert numbers[f"competition_map{suffix}"] == pytest.approx(value, abs=1e-6 if not suffix else 5e-5)


def test_predictions_that_fit_in_another_reading_are_hinted_at(run: Run, truth: Competition, tmp_path: Path) -> None:
    file, images = tmp_path / "p.csv", [image_id for image_id in truth.ids if len(truth.record(image_id))]
    for how in WRITTEN:
        texts = {i: written(rle.parse(disjoint_texts(truth, i), 48, 64), how) for i in images}
        write_submission(file, texts)
        with nullcontext() if how is None else pytest.warns(UserWarning, match=f"p.csv: the masks seem to be {how} "):
            score = run(f"predictions={file}")["competition_map"]
        own = [image_row(0, rle.parse(texts[i], 48, 64), truth.runs(i)) for i in images]
        expected = [1.0 if image_id not in texts else 0.0 for image_id in truth.ids]
        for image_id, row in zip(images, own, strict=True):
            expected[truth.ids.index(image_id)] = float(precision_per_image(row[None]).mean())
        assert score == pytest.approx(np.mean(expected)), "the number is that of the file as it stands"


def test_a_truth_row_that_stands_twice_counts_twice_with_a_warning(
    run: Run, own_competition: Path, tmp_path: Path
) -> None:
    lines = (own_competition / "train.csv").read_text().splitlines()
    image_id, text = lines[1].split(",")[:2]
    write_submission(tmp_path / "p.csv", {image_id: [text]})
    given = (f"predictions={tmp_path / 'p.csv'}", f"images=[{image_id}]")
    assert run(*given, root=own_competition)["cells"] == 2
    (own_competition / "train.csv").write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.warns(UserWarning, match=r"rows that repeat another one: 1 \(row 32 is row 2 again\)"):
        assert run(*given, root=own_competition)["cells"] == 3


def test_all_damaged_detections_are_named(run: Run, truth: Competition, tmp_path: Path) -> None:
    first = folder(tmp_path / "fold0", truth, ["astro01", "cort02", "shsy5y01"])
    for name in ("astro01", "shsy5y01"):
        (first / f"{name}.npz").write_bytes(b"none")
    with pytest.raises(InputError, match="astro01.npz: not a readable.*; .*shsy5y01.npz: not a readable"):
        run(f"detections=[{first}]")
