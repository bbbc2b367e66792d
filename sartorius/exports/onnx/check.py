"""The check of an ONNX package by this program's own parts: nothing of its `run.py` is run."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

from sartorius.errors import InputError
from sartorius.exports.onnx.standalone.main import EXAMPLE, EXPECTED, compare_example
from sartorius.exports.onnx.standalone.model import NETWORK, SECOND, SETTINGS, OnnxModel

_MEMBERS = {NETWORK: 2**31, SECOND: 2**31, SETTINGS: 2**22, EXAMPLE: 2**28, EXPECTED: 2**28}  # most bytes unpacked


def is_package(path: Path) -> bool:
    """Whether a file is a zip with the settings of an ONNX package in its only folder."""
    try:
        return zipfile.is_zipfile(path) and _prefix(path) is not None
    except (OSError, ValueError, zipfile.BadZipFile):  # a damaged list of members
        return False


def check_package(path: Path) -> str:
    """Find the cells of a package's example anew and describe how far they are the expected ones.

    Raises InputError where they are others, and for a damaged package.
    """
    prefix = _prefix(path)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            with zipfile.ZipFile(path) as archive:
                for name, most in _MEMBERS.items():
                    if name == SECOND and f"{prefix}/{name}" not in archive.namelist():
                        continue
                    content = archive.open(f"{prefix}/{name}").read(most + 1)
                    if len(content) > most:
                        raise InputError(f"{path}: {name} has more than {most} bytes; fetch the file again")
                    (folder / name).parent.mkdir(exist_ok=True)
                    (folder / name).write_bytes(content)
            return compare_example(OnnxModel(folder), folder)
        except InputError as error:
            raise InputError(f"{path}: {str(error).replace(f'{folder}/', '')}") from error
        except ImportError as error:
            raise InputError(f"{path}: checking it needs ONNX Runtime: pip install onnxruntime ({error})") from error
        except (KeyError, TypeError, ValueError, AttributeError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: damaged ({error!r}); fetch it again") from error


def _prefix(path: Path) -> str | None:
    """Return the folder within a zip that holds settings.json; None where there is none."""
    with zipfile.ZipFile(path) as archive:
        names = [name.partition("/") for name in archive.namelist()]
    return next((folder for folder, _, inner in names if inner == SETTINGS), None)
