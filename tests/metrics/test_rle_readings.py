"""Hints that predictions fit in another reading."""

from __future__ import annotations

from pathlib import Path

import pytest

from sartorius.data.competition.folder import Competition
from sartorius.formats.submission import read_submission
from sartorius.metrics.rle_readings import reading_hints
from sartorius.structures import rle
from tests.rewritten import WRITTEN, discs, written

HEIGHT, WIDTH = 60, 90


def hint_of(pairs: list[tuple[rle.Runs, rle.Runs]]) -> str | None:
    images = {str(k): pair for k, pair in enumerate(pairs)}
    hints = reading_hints("F.csv", list(images), lambda i: images[i][0], lambda i: images[i][1])
    return hints[0] if hints else None


@pytest.mark.parametrize("side", [HEIGHT, WIDTH])  # square images too
@pytest.mark.parametrize("how", WRITTEN)
def test_the_reading_that_fits_is_named_and_only_that(how: str | None, side: int) -> None:
    truth = rle.parse(discs(side, WIDTH), side, WIDTH)
    near = rle.parse(discs(side, WIDTH, radius=5.9, shift=0.3), side, WIDTH)
    hint = hint_of([(rle.parse(written(near, how), side, WIDTH), truth)] * 3)
    assert hint is None if how is None else f"F.csv: the masks seem to be {how} (mean IoU" in str(hint)


def test_no_hint_for_predictions_that_are_wrong_in_every_reading() -> None:
    truth = rle.parse(discs(HEIGHT, WIDTH), HEIGHT, WIDTH)
    wrong = rle.parse([f"{k} 3" for k in range(100, 5000, 97)], HEIGHT, WIDTH)
    nothing = rle.parse([], HEIGHT, WIDTH)
    for pairs in ([], [(wrong, truth)], [(nothing, truth)], [(wrong, nothing)]):
        assert hint_of(pairs) is None


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize("model", ["maskrcnn", "cellpose"])
def test_predictions_of_real_models(real_data: Path, model: str, how: str | None) -> None:
    truth = Competition(real_data / "sartorius")
    pairs = []
    for image_id, texts in read_submission(real_data / "peer_predictions" / f"{model}.csv").items():
        again = written(rle.parse(texts, 520, 704), how)
        pairs.append((rle.parse(again, 520, 704), truth.runs(image_id)))
    hint = hint_of(pairs)
    assert hint is None if how is None else f"F.csv: the masks seem to be {how} (" in str(hint)
    if how is None:
        assert [hint_of([pair]) for pair in pairs] == [None] * len(pairs)
