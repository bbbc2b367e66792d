"""Mistakes of a training that are found before torch is imported."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sartorius.callbacks import competition_score, pixel_report
from sartorius.errors import InputError
from sartorius.metrics.instance_scores import MEANINGS
from sartorius.running import early, wiring
from sartorius.running.wiring import CONF_DIR

EXPERIMENTS = sorted(path.stem for path in (CONF_DIR / "experiment").glob("*.yaml"))
PACKAGE = Path(early.__file__).parents[1]
LITERAL = re.compile(r'^[^#]*?f?"val/([\w{}]+)"', re.MULTILINE)


@pytest.fixture
def compose(tiny_competition: Path, tmp_path: Path):
    return lambda *overrides: wiring.compose("train", [f"data.root={tiny_competition}", *overrides])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_metrics_that_experiments_monitor_are_logged(compose, experiment: str) -> None:
    cfg = compose(f"experiment={experiment}")
    if "livecell" not in str(cfg.data._target_):
        early.check_training(cfg)
    cfg.data.root = None
    early.check_training(cfg)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["monitor=val/mapp"], "^monitor=val/mapp: did you mean val/map[?] This training logs train/loss, "),
        (["monitor=val/dice"], "^monitor=val/dice: .*val/map"),
        (["callbacks.best_checkpoint.monitor=x"], "^callbacks.best_checkpoint.monitor=x: This training logs"),
        (["monitor=val/box_ap", "callbacks.competition_score.box_ap=false"], "^monitor=val/box_ap: did you mean"),
        (["monitor=val/pq"], "^monitor=val/pq"),
        (["callbacks.competition_score=null"], "^monitor=val/map"),
        (["data.root=nowhere"], "^nowhere: not found; get the data with"),
        (["data=livecell", "data.root=nowhere"], "^nowhere: not found; "),
    ],
)
def test_mistakes(compose, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        early.check_training(compose(*overrides))


def test_options_decide_what_is_logged(compose) -> None:
    early.check_training(compose("monitor=val/pq", "callbacks.competition_score.instance_scores=true"))
    early.check_training(compose("monitor=val/map_cort"))
    early.check_training(compose("monitor=anything", "+callbacks.mine={_target_: mine.Callback}"))
    early.check_training(OmegaConf.merge(compose("monitor=anything"), {"model": {"_target_": "mine.Module"}}))


def test_every_metric_of_a_validation_is_listed() -> None:
    """Names in the sources of callbacks and modules that begin with val/."""
    listed = {entry.rpartition("?")[2] for names in early.LOGGED.values() for entry in names.split()}
    found = set()
    for path in [*PACKAGE.glob("callbacks/*.py"), *PACKAGE.glob("modules/*.py")]:
        found |= {f"val/{name}" for name in LITERAL.findall(path.read_text())}
    found = {re.sub(r"{\w+}", "*", name) for name in found if not name.endswith("_")}
    found -= {"val/*", "val/*_*"}
    assert {"val/map", "val/map_*", "val/box_ap", "val/crop_iou"} <= found
    assert found <= listed
    assert {f"val/{name}" for name in MEANINGS} <= listed
    pixels = {f"val/{'pixel_' * (name == 'accuracy')}{name}" for name in pixel_report._LOGGED}
    assert pixels <= listed
    assert competition_score.CompetitionScore.__module__ + ".CompetitionScore" in early.LOGGED


@pytest.mark.parametrize("override", ["monitor=val/mapp", "data.root=nowhere"])
def test_torch_is_not_imported(override: str, tiny_competition: Path, tmp_path: Path) -> None:
    arguments = ["train", f"data.root={tiny_competition}", override, f"hydra.run.dir={tmp_path / 'run'}"]
    code = (
        "import sys; from sartorius import train\n"
        f"sys.argv = {arguments}\n"
        "try: train.main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "1 False"
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
