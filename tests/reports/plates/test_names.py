"""Wells, times and fields that names hold: those that are known, those of a pattern, and bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from sartorius.errors import InputError
from sartorius.reports.plates.names import Place, competition_names, places_of, position


def place(name: str, pattern: str, interval: float = 1.0) -> Place:
    return places_of({name: name}, pattern, interval)[0][name]


def test_names_of_livecell() -> None:
    assert place("A172_Phase_A7_1_01d04h30m_3", "livecell") == Place("A172", "A7", 28.5, "1", "3")
    assert place("train__SkBr3_Phase_H03_2_00d00h00m_4", "livecell") == Place("SkBr3", "H3", 0.0, "2", "4")
    assert place("Huh7_Phase_A10_2_00d08h00m", "livecell").part == ""


def test_names_of_the_competition() -> None:
    """An unlabelled image has date and time in its name, from which hours are counted on each plate."""
    names = [f"cort[density]_C6-1_Vessel-{plate}_2020-11-{day}_13h30m00s_Ph_4"
             for plate, day in ((376, "03"), (376, "04"), (377, "07"))]  # fmt: skip
    places, unmatched = places_of(dict(zip(names, names, strict=True)), "competition")
    assert [places[name] for name in names] == [
        Place("376", "C6", 0.0, "1", "4"), Place("376", "C6", 24.0, "1", "4"), Place("377", "C6", 0.0, "1", "4"),
    ]  # fmt: skip
    assert unmatched == []
    assert place("astros[cereb]_G11-4_Vessel-361_Ph_4", "competition") == Place("361", "G11", None, "4", "4")


def test_images_of_train_csv_have_the_names_of_its_columns(tmp_path: Path) -> None:
    csv = tmp_path / "train.csv"
    csv.write_text(
        "id,annotation,plate_time,sample_date,sample_id\n"
        "a,1 1,11h30m00s,2020-09-11,astros[cereb]_G11-4_Vessel-361_Ph_4\n"
        "a,3 1,11h30m00s,2020-09-11,astros[cereb]_G11-4_Vessel-361_Ph_4\n"
        "b,3 1,09h30m00s,2020-09-12,astros[cereb]_G11-4_Vessel-361_Ph_4\n"
    )
    named = competition_names(csv, ["b", "a", "c"])
    assert named == {
        "b": "astros[cereb]_G11-4_Vessel-361_2020-09-12_09h30m00s_Ph_4",
        "a": "astros[cereb]_G11-4_Vessel-361_2020-09-11_11h30m00s_Ph_4", "c": "c",
    }  # fmt: skip
    places, unmatched = places_of(named, "competition")
    assert places == {"b": Place("361", "G11", 22.0, "4", "4"), "a": Place("361", "G11", 0.0, "4", "4")}
    assert unmatched == ["c"]
    csv.write_text("id,annotation\na,1 1\n")
    with pytest.raises(InputError, match="no column sample_id, sample_date, plate_time"):
        competition_names(csv, ["a"])


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("7", 3.5), ("007", 3.5), ("2.5", 1.25), ("12h", 12.0), ("01d12h30m", 36.5), ("90s", 0.025),
        ("2019y06m16d_11h30m", 0.0), ("2020-11-03_13h30m00s", 0.0), ("2020-11-03T13:30", 0.0), ("20201103_1330", 0.0),
        ("2020-11-03", 0.0), ("2020-01-01_09h", 0.0),
    ],
)  # fmt: skip
def test_times(text: str, hours: float) -> None:
    assert place(f"A1 {text}", "(?P<well>..) (?P<time>.+)", 0.5).time == hours


def test_dates_are_counted_to_the_second() -> None:
    names = ["A1 2019y06m16d_23h30m", "A1 2019-06-17 00:15:30", "A1 20190616_2330"]
    places, _ = places_of(dict(zip(names, names, strict=True)), "(?P<well>..) (?P<time>.+)")
    assert [places[name].time for name in names] == [0, pytest.approx(0.75 + 30 / 3600), 0]


def test_wells() -> None:
    assert [position(well) for well in ("A1", "a01", "P24", "H12")] == [(0, 0), (0, 0), (15, 23), (7, 11)]
    assert [position(well) for well in ("Q1", "A0", "A25", "AA1", "control", "")] == [None] * 6
    assert place("b07", "(?P<well>.+)").well == "B7" and place("control", "(?P<well>.+)").well == "control"


def test_site_and_field_tell_images_apart_together() -> None:
    assert place("A1_s2_f3", "(?P<well>..)_s(?P<site>.)_f(?P<field>.)").field == "2-3"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(?P<well>[A-H", "unterminated character set at position 9; expected livecell or competition, or a regular"),
        (r"[A-H]\d+", r"no named group in it; expected livecell or competition, or .* with a group \(\?P<well>"),
        ("(?P<time>.+)", "only the groups time in it"),
        ("(?P<well>..)(?P<tme>.*)", "unknown group tme; expected well, time, site, field, plate, part"),
        ("(?P<well>[A-H]1)", r"matches none of 2 images \(x_A1, A1 noon, ...\); it must describe the whole name"),
        ("(?P<well>..) (?P<time>.*)", "image A1 noon: time 'noon'; expected a number, a duration such as 02d04h30m"),
    ],
)
def test_bad_patterns(pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        places_of({name: name for name in ("x_A1", "A1 noon")}, pattern)


def test_bad_times() -> None:
    with pytest.raises(InputError, match="time '2020-13-01'.*month must be in"):
        place("A1 2020-13-01", "(?P<well>..) (?P<time>.+)")
    mixed = {name: name for name in ("A1 3", "A1 2020-11-01")}
    with pytest.raises(InputError, match="times '3' and '2020-11-01' cannot be put on one axis"):
        places_of(mixed, "(?P<well>..) (?P<time>.+)")


def test_names_that_do_not_match_are_told() -> None:
    places, unmatched = places_of({"A1": "A1", "notes": "notes"}, r"(?P<well>[A-H]\d)")
    assert list(places) == ["A1"] and unmatched == ["notes"]
