"""The filter: its features, its training out of fold, its file, and what it leaves of an image."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from sartorius.errors import InputError
from sartorius.metrics.functional import competition_map, image_row
from sartorius.postprocess.candidates import Candidates
from sartorius.rescoring import training
from sartorius.rescoring.cell_features import FEATURES, cell_features
from sartorius.rescoring.examples import Example
from sartorius.rescoring.filter import FalsePositiveFilter
from sartorius.rescoring.saved import with_filter
from sartorius.rescoring.trees import Trees
from sartorius.structures import rle
from sartorius.structures.arrays import Floats
from sartorius.structures.detections import Detections
from tests.postprocess.pipelines import pipeline

POST = pipeline(score=0.1, mask=0.5, box_nms=1.0, mask_nms=1.0, min_area=0)
GROW = partial(
    HistGradientBoostingRegressor, max_iter=10, learning_rate=0.3, max_leaf_nodes=4, min_samples_leaf=5,
    early_stopping=False, random_state=0,
)  # fmt: skip


def found(boxes: list[tuple[int, ...]], scores: list[float] | None = None, name: str = "p") -> Detections:
    n = len(boxes)
    return Detections(
        name, 60, 80, np.array(boxes, np.float32).reshape(n, 4),
        np.linspace(0.9, 0.4, n).astype(np.float32) if scores is None else np.array(scores, np.float32),
        np.arange(n) % 2, np.ones((n, 8, 8), np.float16),
    )  # fmt: skip


def make_image(k: int) -> tuple[Detections, rle.Runs]:
    """Right cells are squares, wrong ones are flat, with the same scores: only the shape tells them apart."""
    random = np.random.default_rng(k)
    right = [(x, 5, x + 8, 13) for x in range(2, 70, 10)]
    wrong = [(x, 30 + int(random.integers(0, 9)), x + 9, 0) for x in range(2, 70, 10)]
    wrong = [(x1, y1, x2, y1 + 3) for x1, y1, x2, _ in wrong]
    truth = np.zeros((60, 80), np.int64)
    for value, (x1, y1, x2, y2) in enumerate(right, start=1):
        truth[y1:y2, x1:x2] = value
    scores = random.uniform(0.4, 0.9, len(right) + len(wrong)).tolist()
    return found([*right, *wrong], scores, f"p{k}"), rle.from_layers(truth)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [Example.of(d, POST(d), truth) for d, truth in map(make_image, range(6))]


FOLDS = np.array([0, 1, 2, 0, 1, 2])


def candidates_of(detections: Detections) -> Candidates:
    """What is left of the detections before the filter."""
    *_, (_, candidates) = POST.run(detections)
    return candidates


def features_of(detections: Detections) -> Floats:
    cells = POST(detections)
    return cell_features(detections, cells.source, cells.instances.to_runs())


def test_features_of_two_squares() -> None:
    detections = found([(10, 10, 20, 20), (15, 10, 35, 20)], [0.8, 0.4])
    detections = replace(detections, masks=np.where(np.arange(8) < 4, 0.9, 0.7).astype(np.float16) * detections.masks)
    table = dict(zip(FEATURES, features_of(detections).T, strict=True))
    assert table["score"] == pytest.approx([0.8, 0.4]) and table["agreement"].tolist() == [-1, -1]
    assert table["area"].tolist() == [10 * 10, 15 * 10], "the overlap goes to the better score"
    assert table["box_long"].tolist() == [10, 20] and table["box_short"].tolist() == [10, 10]
    assert table["left"] == pytest.approx([1, 15 / 20])
    assert table["inside"] == pytest.approx([(0.9 + 0.7) / 2] * 2, abs=1e-3)
    assert table["undecided"].tolist() == [0.5, 0.5]
    assert table["neighbours"].tolist() == [1, 1]
    distance = 27.5 - 15
    assert table["nearest"] == pytest.approx([distance / np.sqrt(100 / np.pi), distance / np.sqrt(150 / np.pi)])
    assert table["relative_area"] == pytest.approx([100 / 125, 150 / 125])
    assert table["cells"].tolist() == [2, 2] and table["covered"] == pytest.approx([250 / 4800] * 2)
    assert table["type"].tolist() == [0, 1] and table["image_type"].tolist() == [0, 0]
    agreed = replace(detections, agreement=np.array([0.25, 1.0], np.float32))
    assert features_of(agreed)[:, 1].tolist() == [0.25, 1.0]


def test_features_of_one_cell_and_of_none() -> None:
    alone = found([(1, 1, 9, 9)])
    features = features_of(alone)
    assert features.shape == (1, len(FEATURES)) and np.isfinite(features).all()
    assert features_of(found([])).shape == (0, len(FEATURES))


def test_rows_agree_with_the_metric(examples: list[Example]) -> None:
    for k, example in enumerate(examples):
        detections, truth = make_image(k)
        cells = POST(detections).instances
        keep = np.random.default_rng(k).random(len(cells)) < 0.6
        assert example.row(keep).tolist() == image_row(0, cells.select(keep), truth).tolist()
    assert sorted(set(examples[0].iou.tolist())) == [0.0, 1.0]


def test_the_filter_learns_what_is_false(examples: list[Example]) -> None:
    plain, filtered = training.unfiltered(examples), training.cross_fitted(examples, FOLDS, [0.0, 0.5], GROW)
    assert competition_map(plain) == pytest.approx(7 / 14)
    assert competition_map(filtered) == 1.0
    fitted = training.fit(examples, FOLDS, [0.0, 0.5], GROW, ("shsy5y", "astro", "cort"))
    assert fitted.threshold == 0.5
    detections, truth = make_image(99)
    left = with_filter(POST, fitted)(detections)
    assert len(left) == truth.count and len(left.scores) == len(left.source) == 7
    assert set(left.source.tolist()) == set(range(7)), "the squares"
    assert image_row(0, left.instances, truth)[1:].tolist() == [7] * 12
    assert len(with_filter(POST, fitted)(found([]))) == 0


def test_a_score_has_no_part_in_its_own_filter(examples: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    chosen_for: list[set[str]] = []
    fit_trees, best_threshold = training.fit_trees, training.best_threshold
    monkeypatch.setattr(
        training, "fit_trees", lambda part, how: seen.append({e.image_id for e in part}) or fit_trees(part, how)
    )
    monkeypatch.setattr(
        training,
        "best_threshold",
        lambda part, *more: chosen_for.append({e.image_id for e in part}) or best_threshold(part, *more),
    )
    training.cross_fitted(examples, FOLDS, [0.0, 0.5], GROW)
    for fold, chosen_on in enumerate(chosen_for):
        inside = {e.image_id for e, k in zip(examples, FOLDS, strict=True) if k == fold}
        *inner, last = seen[3 * fold : 3 * fold + 3]  # two inner folds, then all of the training images
        assert not inside & chosen_on and not inside & last and len(last) == 4
        assert all(len(part) == 2 and not part & inside for part in inner)


def test_the_same_again(examples: list[Example]) -> None:
    first, second = (training.fit(examples, FOLDS, [0.0, 0.3], GROW, ("a",)) for _ in range(2))
    for name, values in first.trees.arrays().items():
        assert np.array_equal(values, second.trees.arrays()[name]), name


def test_of_equally_good_thresholds_the_lowest(examples: list[Example]) -> None:
    expected = [example.iou for example in examples]
    assert training.best_threshold(examples, expected, [0.9, 0.2, 0.5]) == 0.2
    assert training.best_threshold(examples, [np.ones(14)] * 6, [0.5, 0.0]) == 0.0, "no gain, no filter"


def test_too_little_to_train_on(examples: list[Example]) -> None:
    with pytest.raises(InputError, match="2 folds hold images"):
        training.cross_fitted(examples, FOLDS % 2, [0.0], GROW)
    nothing = found([])
    empty = Example.of(nothing, POST(nothing), make_image(0)[1])
    with pytest.raises(InputError, match="no cell in 2 images"):
        training.cross_fitted([empty] * 4, np.arange(4), [0.0], GROW)
    rows = training.cross_fitted([*examples, empty], np.append(FOLDS, 0), [0.5], GROW)
    assert rows[-1].tolist() == [6, *[0] * 10, 0, 7], "an image in which nothing was found takes part"


def constant(value: float, threshold: float) -> FalsePositiveFilter:
    """A filter that expects the same of every cell."""
    leaf = np.zeros(1, np.int64)
    trees = Trees(np.float64(value), leaf, leaf - 1, np.zeros(1), leaf, leaf, np.zeros(1))
    return FalsePositiveFilter(trees, threshold, ("shsy5y", "astro", "cort"))


def test_saved_and_loaded(examples: list[Example], tmp_path: Path) -> None:
    path = tmp_path / "deep" / "filter.npz"
    fitted = training.fit(examples, FOLDS, [0.5], GROW, ("shsy5y", "astro", "cort"))
    fitted.save(path)
    detections, _ = make_image(7)
    read = FalsePositiveFilter.load(path)
    candidates = candidates_of(detections)
    assert (read.expected_iou(candidates) == fitted.expected_iou(candidates)).all()
    assert (read.threshold, read.cell_type_names) == (0.5, ("shsy5y", "astro", "cort"))
    assert len(with_filter(POST, read)(detections)) == 7


def test_all_or_nothing_may_be_left() -> None:
    detections, _ = make_image(0)
    assert len(with_filter(POST, constant(0.3, 0.3))(detections)) == 14
    none = with_filter(POST, constant(0.2, 0.3))(detections)
    assert len(none) == 0 and not none.instances.layers.any()


def test_files_and_detections_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "filter.npz"
    with pytest.raises(InputError, match="no such file; `python -m sartorius.fit_filter`"):
        FalsePositiveFilter.load(path)
    path.write_bytes(b"PK no filter")
    with pytest.raises(InputError, match="not a readable filter"):
        FalsePositiveFilter.load(path)
    np.savez(path, version=2, features=np.array(["score"]))
    with pytest.raises(InputError, match="another version"):
        FalsePositiveFilter.load(path)
    np.savez(path, version=np.array([{}], dtype=object), features=np.array(FEATURES))
    with pytest.raises(InputError, match="not a readable filter"):
        FalsePositiveFilter.load(path)
    foreign = replace(make_image(0)[0], cell_type_names=("a", "b"))
    with pytest.raises(InputError, match="image p0: cell types a, b, the filter was trained on shsy5y, astro, cort"):
        constant(1, 0).expected_iou(candidates_of(foreign))
