"""A logger that shows everything: it keeps what it is handed."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.loggers.logger import Logger


class Board(Logger):
    def __init__(self) -> None:
        super().__init__()
        self.metrics: dict[str, list[tuple[int, float]]] = {}
        self.cells: dict[str, list[tuple[int, Any]]] = {}
        self.tables: dict[str, Any] = {}
        self.files: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return "board"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append((step or 0, value))

    def log_cells(self, key: str, view: Any, step: int) -> None:
        self.cells.setdefault(key, []).append((step, view))

    def log_rows(self, key: str, columns: list[str], rows: list[list[Any]], step: int) -> None:
        self.tables[key] = (columns, rows)

    def log_files(self, name: str, kind: str, paths: list[Any], metadata: dict[str, Any]) -> None:
        self.files[name] = (kind, paths, metadata)
