"""The members that callbacks and commands rely on, and their defaults."""

from __future__ import annotations

import pytest
import torch

from sartorius.errors import InputError
from sartorius.inference.windows import Whole
from sartorius.modules.base import BoxPromptedModule, ForegroundModule, SegmentationModule
from tests.doubles import ToyModule
from tests.toy_segmenter import ToySegmenter


class Windowed(SegmentationModule):
    def __init__(self) -> None:
        super().__init__(["a"])
        self.inference = Whole()


def test_windows_are_for_modules_that_have_some() -> None:
    module, other = Windowed(), Whole()
    module.change_windows(lambda windows: other)
    assert module.inference is other
    with pytest.raises(InputError, match="a ToyModule takes whole images only; leave out inference= and tta="):
        ToyModule().change_windows(lambda windows: other)


def test_defaults() -> None:
    module = Windowed()
    assert module.cell_type_names == ("a",) and module.hparams == {}
    assert module.export_settings is None and module.memory_advice("training") == []
    assert module.target_panels(torch.zeros(1, 2, 2), None, None, 1) == []  # type: ignore[arg-type]


def test_a_module_is_told_by_its_members() -> None:
    assert isinstance(ToySegmenter(), ForegroundModule) and not isinstance(ToyModule(), ForegroundModule)
    assert not isinstance(ToySegmenter(), BoxPromptedModule)
