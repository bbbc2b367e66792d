"""Read plate, well, time and field from the names of images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sartorius.data.annotation_rows import read_table
from sartorius.errors import InputError, collected, raise_all

_WELL = r"(?P<well>[A-P]\d{1,2})"
# Ready-made patterns; images of sub-folders are named `sub__name`.
PATTERNS: Mapping[str, str] = {
    # A172_Phase_A7_1_00d00h00m_1: cell line, well, site, time, and one of four parts of a photograph
    "livecell": rf"(?:.+__)?(?P<plate>[^_]+)_Phase_{_WELL}_(?P<site>\d+)_(?P<time>\d+d\d+h\d+m)(?:_(?P<part>\d+))?",
    # cort[density]_C6-1_Vessel-376_2020-11-03_13h30m00s_Ph_4; a sample_id has no date and time
    "competition": rf"(?:.+__)?[^_]+_{_WELL}-(?P<site>\d+)_Vessel-(?P<plate>\d+)"
    r"(?:_(?P<time>\d{4}-\d\d-\d\d_(?:\d+h)?(?:\d+m)?(?:\d+s)?))?_Ph_(?P<part>\d+)",
}
GROUPS = ("well", "time", "site", "field", "plate", "part")
_PLATE_WELL = re.compile(r"([A-Pa-p])0*([1-9]|1\d|2[0-4])")
_DATE = re.compile(
    r"((?:19|20)\d\d)[-y]?(\d\d)[-m]?(\d\d)d?(?:[_T ]?(\d\d)(?:[h:-]?(\d\d)m?(?:[:-]?(\d\d)s?)?|h))?", re.ASCII
)
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


@dataclass(frozen=True)
class Place:
    """The origin of an image.

    time: hours, since the plate's first image where names hold dates; None without. field: of the well. part: of a
    photograph that is stored as several images. plate, field and part are "" where the pattern has none.
    """

    plate: str
    well: str
    time: float | None
    field: str
    part: str


def position(well: str) -> tuple[int, int] | None:
    """Return row and column, from 0, of a well of a plate of at most 16 x 24; None for another name."""
    match = _PLATE_WELL.fullmatch(well)
    return None if match is None else (ord(match[1].upper()) - ord("A"), int(match[2]) - 1)


def compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern, or the ready-made one of that name.

    Raises InputError for no regular expression, and where the group `well` is missing or another is unknown.
    """
    hint = f"expected {' or '.join(PATTERNS)}, or a regular expression with a group (?P<well>...)"
    try:
        expression = re.compile(PATTERNS.get(pattern, pattern), re.ASCII)
    except re.error as error:
        raise InputError(f"well={pattern}: {error}; {hint}") from error
    groups = set(expression.groupindex)
    if "well" not in groups:
        named = f"only the groups {', '.join(sorted(groups))}" if groups else "no named group"
        raise InputError(f"well={pattern}: {named} in it; {hint}")
    if unknown := sorted(groups - set(GROUPS)):
        raise InputError(f"well={pattern}: unknown group {', '.join(unknown)}; expected {', '.join(GROUPS)}")
    return expression


def places_of(names: Mapping[str, str], pattern: str, interval: float = 1.0) -> tuple[dict[str, Place], list[str]]:
    """Return the places of images, and the images whose name does not match the pattern as a whole.

    names: by image id. pattern: see `compiled`. interval: hours between two time points where times are numbers.
    Raises InputError as `compiled` does, where no name matches, and for a time that cannot be read.
    """
    expression = compiled(pattern)
    matches = {image_id: expression.fullmatch(name) for image_id, name in names.items()}
    if not any(matches.values()):
        shown = ", ".join(list(names.values())[:3])
        raise InputError(
            f"well={pattern}: matches none of {len(names)} images ({shown}, ...); it must describe the whole name, .* "
            "stands for any text"
        )
    texts = {image_id: {k: v or "" for k, v in m.groupdict().items()} for image_id, m in matches.items() if m}
    times = _times({image_id: groups.get("time", "") for image_id, groups in texts.items()},
                   {image_id: groups.get("plate", "") for image_id, groups in texts.items()}, interval)  # fmt: skip
    places = {
        image_id: Place(
            groups.get("plate", ""), _tidy(groups["well"]), times[image_id],
            "-".join(filter(None, (groups.get("site", ""), groups.get("field", "")))), groups.get("part", ""),
        )
        for image_id, groups in texts.items()
    }  # fmt: skip
    return places, [image_id for image_id, match in matches.items() if not match]


def competition_names(csv: str | Path, image_ids: Iterable[str]) -> dict[str, str]:
    """Name images by the competition's train.csv: as an unlabelled image of that sample, date and time is.

    An id without a row there keeps its own name. Raises InputError as `read_table` does.
    """
    table = read_table(Path(csv), ("id", "sample_id", "sample_date", "plate_time")).drop_duplicates("id")
    named = {}
    for row in table[["id", "sample_id", "sample_date", "plate_time"]].itertuples(index=False):
        image_id, sample, date, time = map(str, row)
        named[image_id] = f"_{date}_{time}_Ph_".join(sample.rsplit("_Ph_", 1))
    return {image_id: named.get(image_id, image_id) for image_id in image_ids}


def _tidy(well: str) -> str:
    """Write A7 for a07; other names stay."""
    place = position(well)
    return well if place is None else f"{'ABCDEFGHIJKLMNOP'[place[0]]}{place[1] + 1}"


def _times(texts: Mapping[str, str], plates: Mapping[str, str], interval: float) -> dict[str, float | None]:
    """Return hours by image: None for "", dates counted from the first of each plate."""
    read: dict[str, float | datetime | None] = {}
    problems: list[str] = []
    for image_id, text in texts.items():
        with collected(problems):
            read[image_id] = _time(image_id, text, interval)
    raise_all(problems)
    kinds = {type(value): image_id for image_id, value in read.items()}
    if len(kinds) > 1:
        one, other = list(kinds.values())[:2]
        raise InputError(
            f"images {one} and {other}: times '{texts[one]}' and '{texts[other]}' cannot be put on one axis; expected "
            "dates only, or hours only"
        )
    first: dict[str, datetime] = {}
    for image_id, value in read.items():
        if isinstance(value, datetime):
            first[plates[image_id]] = min(value, first.get(plates[image_id], value))
    return {
        image_id: (value - first[plates[image_id]]).total_seconds() / 3600 if isinstance(value, datetime) else value
        for image_id, value in read.items()
    }


def _time(image_id: str, text: str, interval: float) -> float | datetime | None:
    """Read a date, a duration such as 02d04h30m, or a number of time points."""
    if not text:
        return None
    if match := _DATE.fullmatch(text):
        try:
            year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
            return datetime(year, month, day, hour, minute, second)
        except ValueError as error:
            raise InputError(f"image {image_id}: time '{text}': {error}; rename the image") from error
    if _NUMBER.fullmatch(text):
        return float(text) * interval
    if match := _DURATION.fullmatch(text):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return 24.0 * days + hours + minutes / 60 + seconds / 3600
    raise InputError(
        f"image {image_id}: time '{text}'; expected a number, a duration such as 02d04h30m, or a date such as "
        "2020-11-03_13h30m: mend the group (?P<time>...) of well="
    )
