"""Copy-paste by config: over any data, off by default, validation without it, typos named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig

from sartorius.data.augmentation.copy_paste import CopyPaste
from sartorius.errors import InputError
from sartorius.running import wiring


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        return compose("train", list(overrides))


def test_off_by_default() -> None:
    assert not composed().data.copy_paste


@pytest.mark.parametrize(
    "chosen",
    [
        ["data=copy_paste"],
        ["data=copy_paste", "experiment=maskrcnn_r50"],
        ["data=copy_paste", "experiment=unet_cpu", "debug=fast"],
        ["data=synthetic", "copy_paste=default"],
        ["data=livecell", "copy_paste=default"],
        ["data=synthetic_livecell", "copy_paste=default"],
        ["data=cells", "copy_paste=default"],
    ],
)
def test_over_any_data(chosen: list[str]) -> None:
    cfg = composed(*chosen, "trainer.max_epochs=10")
    mix = wiring.instantiate(cfg.data.copy_paste)
    assert isinstance(mix, CopyPaste)
    assert (mix.until, mix.epochs) == (0.7, 10)
    assert mix.cells == [5, 60]


def test_it_is_the_labelled_data_otherwise() -> None:
    plain, pasted = wiring.plain(composed().data), wiring.plain(composed("data=copy_paste").data)
    assert {key for key in plain if plain[key] != pasted[key]} == {"copy_paste"}
    assert set(plain) == set(pasted)


def test_the_data_module_pastes_into_training_images_only(tiny_competition: Path) -> None:
    cfg = composed("data=copy_paste", f"data.root={tiny_competition}", "transform=none", "copy_paste.probability=1")
    datamodule = wiring.instantiate(cfg.data)
    datamodule.setup("fit")
    assert isinstance(datamodule._train.mix, CopyPaste)
    assert datamodule._val.mix is None


@pytest.mark.parametrize("typo", ["copy_paste.probabilty=1", "copy_paste.cell=[1,2]"])
def test_a_typo_fails_and_names_the_key(typo: str) -> None:
    with pytest.raises(ConfigCompositionException, match=typo.split("=")[0].rpartition(".")[2]):
        composed("data=copy_paste", typo)


def test_a_bad_value_names_the_key() -> None:
    with pytest.raises(InputError, match="copy_paste.min_visible: expected a number from 0 to 1, got 2"):
        wiring.instantiate(composed("data=copy_paste", "copy_paste.min_visible=2").data)
    with pytest.raises(InputError, match="copy_paste.cells: expected .*, got 3"):
        wiring.instantiate(composed("data=copy_paste", "copy_paste.cells=3").data)
    with pytest.raises(InputError, match="copy_paste.epochs, which is -1"):
        wiring.instantiate(composed("data=copy_paste", "trainer.max_epochs=-1").data)
