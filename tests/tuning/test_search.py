from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sartorius.metrics.functional import average_precision_per_image, competition_map
from sartorius.tuning import SearchSpace, crossfit, results
from sartorius.tuning.scorer import PipelineScorer, scorer_of
from sartorius.tuning.search import Effort, Searcher
from sartorius.tuning.space import ByType, thresholds_of
from tests.postprocess.pipelines import pipeline
from tests.tuning.images import NAMES, SETTINGS, START, Images

MAJORITY = pipeline(**SETTINGS, types="image")
SPACE = SearchSpace(
    score={"threshold": {"low": 0.0, "high": 0.9, "step": 0.1}},
    mask={"threshold": {"low": 0.3, "high": 0.6, "step": 0.1}},
    box_nms=None,
    mask_nms=None,
    min_area={"pixels": {"low": 0, "high": 40, "step": 20}},
).grids(START)


def searcher(path: Path, images: Images, trials: int = 24, rounds: int = 2, seed: int = 0) -> Searcher:
    tables = images.tables(MAJORITY if rounds == 1 else START)
    return Searcher(tables, SPACE, Effort(trials, rounds, 1, seed), path / "search.jsonl", lambda _: None)


def start() -> ByType:
    return thresholds_of(START, NAMES)


def same(a: ByType, b: ByType) -> bool:
    return all(np.array_equal(a[key], b[key]) for key in a)


def test_types_of_their_own_images_are_searched_independently(tmp_path: Path) -> None:
    images = Images(4, single=True)
    search = searcher(tmp_path, images, rounds=1)
    best = search.best("final", search.tables.images, start())
    grid = {key: [grid.value(k) for k in range(grid.last + 1)] for key, grid in SPACE.items()}
    for kind, own in ((0, ["p0", "p2"]), (1, ["p1", "p3"])):
        reached = [trial.score for trial in search.trials if trial.cell_type == NAMES[kind]]
        assert len(reached) == 24 and {trial.round for trial in search.trials} == {0}
        rows = PipelineScorer(search.tables, own).rows(best)
        assert competition_map(rows) == max(reached) > competition_map(PipelineScorer(search.tables, own).rows(start()))
        assert all(best[key][kind] in grid[key] for key in grid)
    assert all(best[key][2] == start()[key][2] for key in best), "no image of the third type"
    assert same({"": best["box_nms.threshold"]}, {"": start()["box_nms.threshold"]}), "not searched"


def test_the_first_trial_is_the_start_and_nothing_worse_is_taken(tmp_path: Path) -> None:
    search = searcher(tmp_path, Images(2), trials=1, rounds=1)
    best = search.best("final", search.tables.images, start())
    assert same(best, start()) and search.trials[0].values == {
        "score.threshold": 0.3,
        "mask.threshold": 0.5,
        "min_area.pixels": 0.0,
    }


def test_a_type_with_few_images_is_left_as_it_is(tmp_path: Path) -> None:
    tables = Images(5, single=True).tables(MAJORITY)
    said: list[str] = []
    search = Searcher(tables, SPACE, Effort(12, 1, 3, 0), tmp_path / "search.jsonl", said.append)
    best = search.best("final", tables.images, start())
    assert {trial.cell_type for trial in search.trials} == {"shsy5y"}
    assert all(best[key][1] == start()[key][1] for key in best)
    assert said[1] == "final/astro: 2 images, left as it is" and said[0].startswith("final/shsy5y/0: mAP 0.")


def test_types_that_meet_in_images_improve_in_turn(tmp_path: Path) -> None:
    search = searcher(tmp_path, Images(2), trials=12)
    best = search.best("final", search.tables.images, start())
    order = [(trial.round, trial.cell_type) for trial in search.trials[::12]]
    assert len(set(order)) == len(order) == 6 and [number for number, _ in order] == [0, 0, 0, 1, 1, 1]
    everything = scorer_of(search.tables, search.tables.images)
    assert competition_map(everything.rows(best)) > competition_map(everything.rows(start()))


def test_a_search_that_goes_on_is_one_that_never_stopped(tmp_path: Path) -> None:
    whole = searcher(tmp_path / "a", Images(2))
    at_once = whole.best("final", whole.tables.images, start())
    for trials in (9, 24):
        parts = searcher(tmp_path / "b", Images(2), trials)
        in_parts = parts.best("final", parts.tables.images, start())
    assert same(at_once, in_parts) and parts.trials == whole.trials
    fewer = searcher(tmp_path / "b", Images(2), trials=9)
    fewer.best("final", fewer.tables.images, start())
    assert fewer.trials[:9] == whole.trials[:9], "only the trials asked for count"


def test_what_is_on_the_disk_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = searcher(tmp_path, Images(2, single=True), rounds=1)
    best = first.best("final", first.tables.images, start())
    monkeypatch.setattr("sartorius.tuning.search.SeededStudy", None)
    again = searcher(tmp_path, Images(2, single=True), rounds=1)
    assert same(best, again.best("final", again.tables.images, start()))


def test_trials_on_other_images_are_not_taken(tmp_path: Path) -> None:
    """Folds may be dealt otherwise when the wells are known better: the name of the search is the same then."""
    images = Images(4, single=True)
    for name, own in (("a", ["p0", "p1"]), ("b", ["p2", "p3"])):
        fresh = searcher(tmp_path / name, images, trials=6, rounds=1)
        there = searcher(tmp_path / "both", images, trials=6, rounds=1)
        assert same(*(one.best("without_fold0", own, start()) for one in (fresh, there)))
        assert fresh.trials == there.trials


def test_a_seed_is_a_search_of_its_own(tmp_path: Path) -> None:
    tried = []
    for number, seed in enumerate((0, 0, 1)):
        search = searcher(tmp_path / str(number), Images(1, single=True), rounds=1, seed=seed)
        search.best("final", search.tables.images, start())
        tried.append([trial.values for trial in search.trials])
    assert tried[0] == tried[1] != tried[2]


def test_cross_fitting_does_not_see_the_images_left_out(tmp_path: Path) -> None:
    images = Images(4, single=True)
    search = searcher(tmp_path, images, trials=8, rounds=1)
    looked: dict[str, set[str]] = {}
    best = search.best

    def spied(name: str, own: list[str], begin: ByType) -> ByType:
        search.tables._overlaps.clear()  # so that every image that is needed is loaded again
        images.loaded.clear()
        found = best(name, own, begin)
        looked[name] = set(images.loaded)
        return found

    search.best = spied  # type: ignore[assignment, method-assign]
    tuned = crossfit.tune(search, start(), np.array([0, 0, 1, 1]))
    assert looked == {
        "final": {"p0", "p1", "p2", "p3"}, "without_fold0": {"p2", "p3"}, "without_fold1": {"p0", "p1"},
    }  # fmt: skip
    for fold, own in enumerate((["p0", "p1"], ["p2", "p3"])):
        expected = average_precision_per_image(PipelineScorer(search.tables, own).rows(tuned.of_fold[fold]))
        np.testing.assert_array_equal(tuned.scores["cross_fitted"][2 * fold : 2 * fold + 2], expected)
    assert tuned.scores["tuned"].mean() >= tuned.scores["untuned"].mean()


def test_tables_of_a_tuning(tmp_path: Path) -> None:
    search = searcher(tmp_path, Images(4, single=True), rounds=1)
    tables = search.tables
    tuned = crossfit.tune(search, start(), np.array([0, 0, 1, 1]))
    everything = scorer_of(tables, tables.images)
    table = results.parameter_table(tuned, everything, NAMES).set_index(["cell_type", "parameter"])
    back = {key: values.copy() for key, values in tuned.thresholds.items()}
    back["score.threshold"][0] = 0.3
    worth = competition_map(everything.rows(tuned.thresholds)) - competition_map(everything.rows(back))
    assert table.loc[("shsy5y", "score.threshold"), "gain"] == pytest.approx(worth)
    assert (
        table.loc[("cort", "score.threshold"), "gain"] == 0 and table.loc[("cort", "score.threshold"), "tuned"] == 0.3
    )
    assert (table.low <= table.high).all() and len(table) == 3 * 5
    types = ["shsy5y", "astro", "shsy5y", "astro"]
    numbers = results.summary(tuned, types, {"samples": 100, "seed": 0, "level": 0.9})
    difference = tuned.scores["cross_fitted"] - tuned.scores["untuned"]
    assert numbers["cross_fitted"]["gain"] == pytest.approx(difference.mean())
    assert numbers["untuned"]["gain"] == 0.0 and numbers["images"] == 4
    assert numbers["tuned"]["competition_map_astro"] == pytest.approx(tuned.scores["tuned"][1::2].mean())
    assert results.image_table(tuned, types).columns.tolist() == [
        "image_id", "cell_type", "untuned", "tuned", "cross_fitted",
    ]  # fmt: skip


def test_without_folds_and_without_any_detections(tmp_path: Path) -> None:
    images = Images(2)
    for name in images.found:
        images.found[name] = images.found[name].select([])
    search = searcher(tmp_path, images)
    tuned = crossfit.tune(search, start(), None)
    assert same(tuned.thresholds, start()) and search.trials == []
    assert tuned.scores["untuned"].tolist() == tuned.scores["tuned"].tolist() == [0.0, 0.0]
    numbers = results.summary(tuned, ["astro", "cort"], {"samples": 10, "seed": 0, "level": 0.9})
    assert "cross_fitted" not in numbers
    assert results.parameter_table(tuned, scorer_of(search.tables, ["p0"]), NAMES).high.isna().all()
