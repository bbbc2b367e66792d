"""The script that joins two files of hard masks, and its frozen rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import peers_joined
import pytest
import yaml

from sartorius.data.competition.folder import Competition
from sartorius.errors import InputError
from sartorius.formats.submission import read_submission, validate_submission, write_submission
from sartorius.metrics.functional import average_precision_per_image, image_row
from sartorius.structures.rle import parse

ROUND = "1000 5 1704 5 2408 5 3112 5 3816 5"  # 5 x 5 pixels


def test_two_files_become_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = yaml.safe_load(peers_joined.RULES.read_text())
    rules["rules"]["cort"] |= {"smooth": 0.0}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    write_submission(tmp_path / "a.csv", {"p": [ROUND, "200000 4 200704 4 201408 4 202112 4"], "q": []})
    write_submission(tmp_path / "b.csv", {"p": [ROUND], "q": [ROUND]})
    output = tmp_path / "joined.csv"
    peers_joined.main(
        [*(str(tmp_path / name) for name in ("a.csv", "b.csv", "joined.csv")), "--rules", f"{tmp_path}/rules.yaml"]
    )
    assert validate_submission(output) == []
    assert read_submission(output) == {"p": [ROUND], "q": []}, "of round cells those that both have"
    assert "1 cells in 2 images (0 astro, 2 cort, 0 shsy5y)" in capsys.readouterr().out


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    write_submission(tmp_path / "a.csv", {"p": [ROUND]})
    write_submission(tmp_path / "b.csv", {"q": [ROUND]})
    with pytest.raises(InputError, match=r"of other images: 2 are in one of them only \(p\)"):
        peers_joined.read_pair(str(tmp_path / "a.csv"), str(tmp_path / "b.csv"))
    (tmp_path / "c.csv").write_text("id,predicted\np,1 1 1\n")
    with pytest.raises(InputError, match="c.csv: line 2: bad mask"):
        peers_joined.read_pair(str(tmp_path / "c.csv"), str(tmp_path / "a.csv"))


def test_the_rule_is_chosen_on_the_other_images() -> None:
    scores = np.array([[0.1, 0.1, 0.9, 0.5], [0.8, 0.2, 0.0, 0.9]])
    fitted = peers_joined.cross_fitted(scores, ["a", "a", "a", "b"])
    # without the first: 0.5 against 0.1; without the second: 0.5, 0.4; without the third: 0.1, 0.5; the fourth is alone
    assert fitted.tolist() == [0.1, 0.1, 0.0, 0.5]


def test_the_frozen_rules_on_real_predictions(real_data: Path, tmp_path: Path) -> None:
    peers, output = real_data / "peer_predictions", tmp_path / "joined.csv"
    peers_joined.main([str(peers / "maskrcnn.csv"), str(peers / "cellpose.csv"), str(output)])
    truth, joined = Competition(real_data / "sartorius"), read_submission(output)
    rows = [image_row(0, parse(texts, 520, 704), truth.runs(image_id)) for image_id, texts in joined.items()]
    assert len(rows) == 28 and validate_submission(output) == []
    # in-sample: the rules were chosen on these images; the cross-fitted score is in the notebook
    assert average_precision_per_image(np.array(rows)).mean() == pytest.approx(0.401087, abs=1e-6)
