"""Logging that may fail: an error in it is a warning, and the training continues."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_warn


class SuppressErrors:
    """A context for what must not stop a training: an error of the given kinds ends the block and no more.

    The first one is a warning that names what failed, why, and what is lost by it; later ones are counted in
    `failures`. Ctrl-C and other kinds of errors pass.

    what: the name of what may fail, for the warning: "logger.wandb", "batches.csv". lost: what is missing when it does.
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
                f"{self.what} failed ({type(error).__name__}: {reason}); the training continues. {self.lost}. "
                "Later failures of it are not reported"
            )
        return True


class TolerantLogger:
    """A logger whose failures do not stop a training: each call is tried, and one that fails is lost.

    It stands in for the logger inside it: every method and property of that one is reached through this one.

    logger: any of Lightning's kind. what: the config key that it comes from, for the warning.
    """

    def __init__(self, logger: Logger, what: str) -> None:
        self.logger = logger
        self.suppress_errors = SuppressErrors(what, "Some calls are missing from it; every call is tried")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "logger" not in self.__dict__:  # copying and pickling ask before there is one
            raise AttributeError(name)
        value = getattr(self.logger, name)  # whatever the caller asked for
        if not callable(value):
            return value

        def tried(*args: Any, **kwargs: Any) -> Any:
            with self.suppress_errors:
                return value(*args, **kwargs)

        return tried

    @property
    def experiment(self) -> Any:
        """The logger's, which Lightning asks for before a fit; None where it cannot be had or there is none."""
        with self.suppress_errors:
            return getattr(self.logger, "experiment", None)  # Lightning's base class has none
        return None
