from __future__ import annotations

from typing import Any

import pytest
import torch

from sartorius.callbacks.scored_images import gather_images


def test_one_process_keeps_its_names() -> None:
    names = {3: ("d", "astro")}
    assert gather_images(names) is names


def test_every_process_gets_the_names_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_gather_object(parts: list[Any], own: Any) -> None:
        parts[:] = [own, {0: ("a", "astro"), 2: ("c", "cort")}]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather_object)
    names = gather_images({0: ("a", "astro"), 1: ("b", "cort")})
    assert names == {0: ("a", "astro"), 1: ("b", "cort"), 2: ("c", "cort")}
