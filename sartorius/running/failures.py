"""The exceptions that a user can fix, each with one line that tells how. All others are bugs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import CompactHydraException, InstantiationException, OverrideParseException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from sartorius.errors import InputError, one_line
from sartorius.running.settings.typed import unreadable
from sartorius.sweeps.task import PLUGINS

# The packages that bring hydra/launcher/NAME, by NAME: the extra of ours to install.
_EXTRAS = {"joblib": "launchers", "submitit_local": "launchers", "submitit_slurm": "launchers", "ray": "ray"}
_NO_SWEEPERS = f"Unknown plugin class : '{PLUGINS}"  # of Hydra, in a checkout that is not installed


def expected(error: BaseException | None) -> BaseException | None:
    """Find the input error at or below `error` (Hydra wraps what constructors raise); None for a bug."""
    while error is not None:
        if (
            isinstance(error, InputError | OSError | OmegaConfBaseException)
            or _of_trainer(error)
            or _NO_SWEEPERS in str(error)
        ):
            return error
        if isinstance(error, CompactHydraException) and not isinstance(error, InstantiationException):
            return error
        error = error.__cause__ if isinstance(error, InstantiationException) else None
    return None


def _of_trainer(error: BaseException) -> bool:
    """Whether Lightning refuses options, or the machine; by name, for importing it takes seconds."""
    return type(error).__name__ == "MisconfigurationException"


@contextmanager
def as_input_errors() -> Iterator[None]:
    """Raise InputError, of one line, for every error that the user can fix."""
    try:
        yield
    except Exception as error:
        if expected(error) is None:
            raise
        raise InputError(message(error)) from error


def line_of(error: Exception) -> str | None:
    """Describe an error that the user can fix in one line; None for a bug."""
    return None if expected(error) is None else message(error)


def message(error: Exception) -> str:
    """Describe an `expected` error in one line."""
    known = expected(error)
    if isinstance(known, MissingMandatoryValue):
        return missing(known)
    if isinstance(known, OverrideParseException):
        return unreadable(known)
    if isinstance(known, OSError) and known.filename is not None:
        return one_line(f"{known.filename}: {known.strerror}")
    text = f"trainer: {known}" if known is not None and _of_trainer(known) else str(known)
    for name, extra in _EXTRAS.items():
        if f"'hydra/launcher/{name}'" in text:
            return f"this launcher needs packages that are not installed: pip install 'sartorius[{extra}]'"
    if _NO_SWEEPERS in text:
        return "the sweepers are not installed: pip install --no-deps --editable FOLDER_OF_THE_REPOSITORY"
    detail = f"; {known.__cause__}" if isinstance(known, CompactHydraException) and known.__cause__ else ""
    return one_line(f"{text}{detail}")


def missing(error: MissingMandatoryValue) -> str:
    """Describe an option that was not given in one line."""
    key = str(error.full_key).removeprefix("source.")  # which takes them from the top
    return f"'{key}' is not set; give it on the command line: {key}=..."
