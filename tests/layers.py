"""The layer contract of `lint-imports`, with the commands on top."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from importlinter.contracts.layers import Layer, LayersContract, ModuleTail
from importlinter.domain.contract import ContractCheck


def commands(root: Path) -> list[str]:
    """Name the commands of a working copy: each has a file at the top of its conf/."""
    return sorted(path.stem for path in (root / "conf").glob("*.yaml"))


class CommandLayers(LayersContract):
    """Layers below one that holds the commands, which do not know each other. Run from the root of a working copy."""

    def check(self, graph: Any, verbose: bool) -> ContractCheck:
        top = Layer({ModuleTail(name) for name in commands(Path.cwd())})
        self.layers = [top, *self.layers]  # type: ignore[assignment, misc]
        return super().check(graph, verbose)
