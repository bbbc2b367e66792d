"""A logger that shows everything: it keeps what it is handed."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.loggers.logger import Logger


class Board(Logger):
    def __init__(self) -> None:
        super().__init__()
        self.metrics: dict[str, list[tuple[int, float]]] = {}
        self.cells: dict[str, list[tuple[int, Any]]] = {}
        self.lines: dict[str, list[tuple[int, Any]]] = {}
        self.tables: dict[str, Any] = {}
        self.files: dict[str, Any] = {}
        self.images: dict[str, int] = {}

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

    def log_image(self, key: str, images: list[Any], step: int) -> None:
        self.images[key] = step

    def log_cells(self, key: str, view: Any, step: int) -> None:
        self.cells.setdefault(key, []).append((step, view))

    def log_lines(self, key: str, title: str, lines: Any, axes: tuple[str, str], step: int) -> None:
        self.lines.setdefault(key, []).append((step, lines))

    def log_table(self, key: str, columns: list[str], data: list[list[Any]], step: int) -> None:
        self.tables[key] = (columns, data)

    def log_files(self, name: str, kind: str, paths: list[Any], metadata: dict[str, Any]) -> None:
        self.files[name] = (kind, paths, metadata)
