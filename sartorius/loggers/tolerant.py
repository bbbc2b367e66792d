"""Logging that may fail: what goes wrong in it is a warning, and the training goes on."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_warn


class Tolerance:
    """`with tolerance:` around what must not stop a training; errors of the given kinds end the block and no more.

    The first one is a warning that says what failed, why, and what is lost by it; later ones are counted in `failures`.
    Ctrl-C and other kinds of errors pass.

    Args:
        what: the name of what may fail, for the warning: "logger.wandb", "batches.csv".
        lost: what is missing when it does.
        errors: the kinds.
    """

    def __init__(self, what: str, lost: str, errors: type[Exception] | tuple[type[Exception], ...] = Exception) -> None:
        self.what, self.lost, self.errors = what, lost, errors
        self.failures = 0

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, self.errors):
            return False
        self.failures += 1
        if self.failures == 1:
            reason = " ".join(str(error).split())[:300]
            rank_zero_warn(
                f"{self.what} failed ({type(error).__name__}: {reason}); the training goes on. {self.lost}. "
                "Later failures of it are not reported"
            )
        return True


class TolerantLogger(Logger):
    """A logger whose failures do not stop a training: each call is tried, and one that fails is lost.

    Whatever else the logger can do (`log_image`, ...) is reached through this one, as tolerantly.

    Args:
        logger: any of Lightning's kind.
        what: the config key that it comes from, for the warning.
    """

    def __init__(self, logger: Logger, what: str) -> None:
        super().__init__()
        self.logger = logger
        self.tolerance = Tolerance(what, "What it was given meanwhile may be missing from it; every call is tried")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "logger" not in self.__dict__:  # copying and pickling ask before there is one
            raise AttributeError(name)
        value = getattr(self.logger, name)
        return self._tolerant(value) if callable(value) else value

    def _tolerant(self, call: Any) -> Any:
        def tried(*args: Any, **kwargs: Any) -> Any:
            with self.tolerance:
                return call(*args, **kwargs)

        return tried

    @property
    def name(self) -> str | None:
        """The logger's."""
        return self.logger.name

    @property
    def version(self) -> int | str | None:
        """The logger's."""
        return self.logger.version

    @property
    def root_dir(self) -> str | None:
        """The logger's."""
        return self.logger.root_dir

    @property
    def log_dir(self) -> str | None:
        """The logger's."""
        return self.logger.log_dir

    @property
    def save_dir(self) -> str | None:
        """The logger's."""
        return self.logger.save_dir

    @property
    def experiment(self) -> Any:
        """The logger's, which Lightning asks for before a fit; None where it cannot be had or there is none."""
        with self.tolerance:
            return getattr(self.logger, "experiment", None)
        return None

    @property
    def group_separator(self) -> str:
        """The logger's."""
        return self.logger.group_separator

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        """Try the logger's."""
        self._tolerant(self.logger.log_metrics)(*args, **kwargs)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Try the logger's."""
        self._tolerant(self.logger.log_hyperparams)(*args, **kwargs)

    def log_graph(self, *args: Any, **kwargs: Any) -> None:
        """Try the logger's."""
        self._tolerant(self.logger.log_graph)(*args, **kwargs)

    def save(self) -> None:
        """Try the logger's."""
        self._tolerant(self.logger.save)()

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Try the logger's."""
        self._tolerant(self.logger.after_save_checkpoint)(checkpoint_callback)

    def finalize(self, status: str) -> None:
        """Try the logger's."""
        self._tolerant(self.logger.finalize)(status)
