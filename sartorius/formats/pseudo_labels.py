"""The file of pseudo-labels: the columns of train.csv with score, agreement and ignore, written image by image.

Finished images are small files beside the output, so that a stopped run over thousands of images continues there; the
whole file appears at once, after the last image.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sartorius.errors import InputError
from sartorius.files import atomic_path, is_current, write_json
from sartorius.structures.reading import read_json

_PART = ".part.json"
_SETTINGS = "settings.json"  # in the folder of parts: their settings


@dataclass(frozen=True)
class ImageLabels:
    """Pseudo-labels of one image: its N cells, and the number of dropped ones.

    annotations: N run-length texts. scores, agreement: N numbers in 0..1 (agreement None: not known), written as they
    are. ignore: N flags, true for a doubtful cell. sample_id: the plate well's text, empty where it is not known. All
    cells are of one type.
    """

    image_id: str
    height: int
    width: int
    cell_type: str
    sample_id: str
    annotations: Sequence[str]
    scores: Sequence[float]
    agreement: Sequence[float] | None
    ignore: Sequence[bool]
    dropped: int

    @property
    def kept(self) -> int:
        """Cells that are sure."""
        return len(self.ignore) - self.doubtful

    @property
    def doubtful(self) -> int:
        """Cells that are neither sure nor background."""
        return sum(self.ignore)


class PseudoLabelFile:
    """Writer of the file: first a folder of parts beside it, then the whole.

    Raises InputError where parts of other settings are in the folder: they would be mixed.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.parts = self.path.with_name(f".{self.path.name}.parts")
        plain = json.loads(json.dumps(settings))  # tuples as lists, as they come back
        known = self._known()
        if known is None:  # killed while deleting parts: the settings of the rest are unknown
            shutil.rmtree(self.parts, ignore_errors=True)
        if known is None or not any(self.parts.glob(f"*{_PART}")):
            write_json(self.parts / _SETTINGS, plain)
        elif known != plain:
            differs = sorted(key for key in known.keys() | plain.keys() if known.get(key) != plain.get(key))
            raise InputError(
                f"{self.parts}: a stopped run left images that were made with another {', '.join(differs)}; delete "
                "that folder to begin anew, or give another output="
            )

    def _known(self) -> dict[str, Any] | None:
        file = self.parts / _SETTINGS
        if not file.is_file():
            return None
        known = read_json(file, "delete the folder to begin anew")
        return known if isinstance(known, dict) else None

    def has(self, image_id: str, made_of: Path) -> bool:
        """Whether the image is finished, and not older than the detections that it is made of."""
        return is_current(self._part(image_id), [made_of])

    def add(self, labels: ImageLabels) -> None:
        """Write an image's part."""
        write_json(self._part(labels.image_id), asdict(labels))

    def read(self, image_id: str) -> ImageLabels:
        """Read a finished image. Raises InputError for a damaged part."""
        try:
            return ImageLabels(**read_json(self._part(image_id), "delete it and run again"))
        except TypeError as error:
            raise InputError(f"{self._part(image_id)}: damaged ({error}); delete it and run again") from error

    def finish(self, images: Iterable[str], agreement: bool) -> None:
        """Join the parts of these images, in this order, into the file, and delete the parts.

        An image of which nothing was kept has no row. agreement: whether there is such a column.
        """
        header = ["id", "annotation", "width", "height", "cell_type", "sample_id", "score"]
        header += ["agreement"] * agreement + ["ignore"]
        with atomic_path(self.path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            for image_id in images:
                writer.writerows(_rows(self.read(image_id), agreement))
        self.discard()

    def discard(self) -> None:
        """Delete the parts."""
        shutil.rmtree(self.parts)

    def _part(self, image_id: str) -> Path:
        return self.parts / f"{image_id}{_PART}"


def _rows(labels: ImageLabels, agreement: bool) -> Iterator[list[str]]:
    about = [str(labels.width), str(labels.height), labels.cell_type, labels.sample_id]
    for k, text in enumerate(labels.annotations):
        numbers = [str(labels.scores[k])]
        if agreement:
            numbers.append(str(labels.agreement[k]) if labels.agreement is not None else "")
        yield [labels.image_id, text, *about, *numbers, str(bool(labels.ignore[k])).lower()]
