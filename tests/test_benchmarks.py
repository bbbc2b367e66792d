"""The benchmarks' own arithmetic and inputs; what they measure is checked by running them (`make bench`)."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import __main__ as program
from benchmarks import (
    copy_paste,
    decode,
    images,
    inference,
    inference_peers,
    instance_scores,
    loader,
    measure,
    rle_text,
    score,
    submission,
)
from benchmarks.augmentation import masks_of
from benchmarks.measure import Disagreement, Row, expect
from sartorius.data.competition.folder import Competition
from sartorius.structures import coco_rle, rle
from sartorius.structures.cell_types import HEIGHT, WIDTH


@pytest.fixture(autouse=True)
def generated_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SARTORIUS_REAL_DATA", str(tmp_path / "absent"))
    images.densest.cache_clear()
    images.crowded.cache_clear()


def row(ours: float = 2.0, peer: float = 10.0, **bars: float) -> Row:
    return Row("what", "ms", ours, peer, "peer", "same", **bars)


@pytest.mark.parametrize(
    ("bars", "bar", "met"),
    [
        ({}, "", True),
        ({"at_least": 5}, ">= 5x", True),
        ({"at_least": 5.1}, ">= 5.1x", False),
        ({"at_most": 2}, "<= 2 ms", True),
        ({"at_most": 1.9}, "<= 1.9 ms", False),
    ],
)
def test_row_bar(bars: dict[str, float], bar: str, met: bool) -> None:
    assert row(**bars).bar == bar
    assert row(**bars).met is met


def test_row_ratio() -> None:
    assert row().ratio == 10 / 2
    assert row(ours=0.0).ratio is None
    assert program.line(row(ours=-1.0))[4] == "-"
    assert row(ours=-1.0, at_least=2, at_most=0).met


def test_expect_refuses_to_compare_different_results() -> None:
    assert expect(True, "the masks") == "the masks"
    with pytest.raises(Disagreement, match="the masks"):
        expect(False, "the masks")


def test_side_by_side_takes_turns_and_returns_medians() -> None:
    calls: list[str] = []
    times = measure.side_by_side(lambda: calls.append("ours"), lambda: calls.append("peer"), seconds=0)
    assert calls == ["ours", "peer"] * 3
    assert all(time >= 0 for time in times)


def test_in_subprocess_returns_the_value_and_shows_errors() -> None:
    assert measure.in_subprocess("operator:add", [1], [2]) == [1, 2]
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        measure.in_subprocess("operator:truediv", 1, 0)


def test_peak_is_that_of_the_process_itself() -> None:
    """A child must not inherit its parent's peak, as getrusage's ru_maxrss does on Linux."""
    block = np.ones(40_000_000)  # 320 MB
    assert measure.peak_megabytes() > 320
    del block
    assert measure.in_subprocess("benchmarks.measure:peak_megabytes") < 200


def test_lines_are_aligned() -> None:
    lines = [program.line(row(at_least=5)), program.line(row(at_least=6))]
    assert lines[0][4:7] == ("5x", ">= 5x", "met")
    assert lines[1][6] == "MISSED"
    first, second = map(program.table_line, lines)
    assert [k for k, sign in enumerate(first) if sign == "|"] == [k for k, sign in enumerate(second) if sign == "|"]


def test_a_row_is_printed_before_the_next_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[int] = []

    def rows() -> Iterator[Row]:
        for _ in range(2):
            yield row()
            printed.append(capsys.readouterr().out.count("| what "))

    monkeypatch.setattr("sys.argv", ["benchmarks", "--only", "rle_text"])
    monkeypatch.setattr(rle_text, "rows", rows)
    assert program.main() == 0
    assert printed == [1, 1]


def test_every_module_is_listed_and_has_rows() -> None:
    folder = Path(program.__file__).parent
    with_rows = {path.stem for path in folder.glob("*.py") if "def rows(" in path.read_text()}
    assert with_rows == set(program.MODULES)
    assert all(callable(importlib.import_module(f"benchmarks.{name}").rows) for name in program.MODULES)


def test_program_prints_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "--only", "rle_text", "--json"])
    monkeypatch.setattr(rle_text, "rows", lambda: [row(at_least=6)])
    assert program.main() == 1
    (printed,) = json.loads(capsys.readouterr().out)
    assert printed["ratio"] == 5
    assert printed["met"] is False


@pytest.mark.parametrize("cells", [1, 40, 547])
def test_generated_image(cells: int) -> None:
    image_id = images.generated(cells)
    runs = rle.parse(image_id.texts, HEIGHT, WIDTH)  # sorted, disjoint, inside
    assert len(image_id.texts) == runs.count == cells
    assert runs.areas.min() > 50
    assert 150 < runs.areas.mean() < 220
    assert image_id.image.shape == (HEIGHT, WIDTH)
    assert not image_id.real


def test_generated_inputs_have_as_many_cells_as_the_real_ones(tmp_path: Path) -> None:
    assert len(images.densest().texts) == images.DENSEST_CELLS
    assert len(images.crowded().texts) == 600
    scored, source = images.scored()
    assert (len(scored), source) == (28, "generated")
    assert all(len(predicted) == len(true) for predicted, true in scored)
    assert len(Competition(images.competition_folder(tmp_path, 3)).ids) == 3


def test_sides_agree_on_text() -> None:
    texts = images.generated(30).texts
    assert rle_text.ours(texts) == rle_text.peer(texts) == texts


def test_sides_agree_on_the_instance_scores() -> None:
    sides = instance_scores.sides(images.generated(40))
    ours = instance_scores.ours(*sides)
    assert ours == pytest.approx(instance_scores.peer(*sides)) and 0.3 < ours[1] <= ours[2] < 1


def test_sides_agree_on_the_score() -> None:
    true = images.generated(30).texts
    predicted = rle.format(images._moved(rle.parse(true, HEIGHT, WIDTH), 2))
    counts = score.counts_from_text(predicted, true)
    masks = [score.masks_of(score.instances(texts)) for texts in (predicted, true)]
    assert counts == score.peer_from_text(predicted, true) == score.peer_from_masks(*masks)
    assert 0 < counts[4] <= counts[0] == 30


def test_sides_of_the_submission() -> None:
    image_id = images.generated(30)
    truth = rle.parse(image_id.texts, HEIGHT, WIDTH)
    detections = submission.perfect(image_id)
    assert len(submission.ours(detections)) == 30
    assert submission.mean_iou(submission.finalised(detections).to_runs(), truth) > 0.95
    assert submission.mean_iou(coco_rle.decode(submission.peer(detections), HEIGHT, WIDTH), truth) > 0.9


def test_sides_of_the_decoding() -> None:
    instances = images.generated(200).instances()
    maps = decode.maps_of(instances)
    peer, regions = decode.peer_regions(maps), decode.above(maps, decode.WATERSHED(maps).regions)
    assert decode.agree(regions, peer, instances)
    assert decode.agree(decode.above(maps, decode.OFFSET_VOTING(maps).regions), peer, instances)
    detections, (boxes, masks) = decode.detections_of(maps), decode.peer_detections(maps)
    again = decode.pasted(detections.boxes, detections.masks, regions.shape)
    assert decode.agree(again, decode.pasted(boxes, masks, regions.shape), instances)
    with pytest.raises(Disagreement, match="cells, mean best IoU"):
        decode.agree(regions * 0, regions, instances)


def test_sides_of_copy_paste_agree_on_masks() -> None:
    image_id, donor = images.generated(30), images.generated(40, seed=1)
    found = copy_paste.check(image_id.image, image_id.instances(), (donor.image, donor.instances()))
    assert found.endswith("without turning")
    image, masks = copy_paste.peer(image_id.image, masks_of(image_id.instances()), [])
    np.testing.assert_array_equal(image, image_id.image)
    assert len(masks) == 30


def test_sides_of_the_loader_agree_on_boxes(tmp_path: Path) -> None:
    competition = Competition(images.competition_folder(tmp_path, 2))
    assert loader.check(competition, list(competition.ids))


def test_both_sides_of_inference_are_measured_alike(tmp_path: Path) -> None:
    """The peers need their own environment; ours runs from a checkpoint that it makes."""
    path, read = str(tmp_path / "a.png"), []
    Image.fromarray(images.generated(30).image[:64, :96]).save(path)
    found = inference_peers.measured(read.append, [path] * 2, repeats=3)
    assert read == [path] * 7 and found["seconds"] >= 0 and found["megabytes"] > 50
    inference.save_random(tmp_path / "random.ckpt")
    mine = inference.ours([path], str(tmp_path / "random.ckpt"), "32-true", repeats=1)
    assert set(mine) == {"seconds", "megabytes", "cells"}


def test_inference_without_the_peers_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SARTORIUS_PEERS", raising=False)
    assert list(inference.rows()) == [] and "inference_peers.sh" in capsys.readouterr().err


def test_real_images(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = real_data if (real_data / "sartorius").is_dir() else real_data.parent
    monkeypatch.setenv("SARTORIUS_REAL_DATA", str(folder))
    images.densest.cache_clear()
    image_id = images.densest()
    assert image_id.real
    assert len(image_id.texts) == images.DENSEST_CELLS
    images.densest.cache_clear()
