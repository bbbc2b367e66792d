"""Ids of images."""

from __future__ import annotations

import pytest

from sartorius.errors import InputError
from sartorius.structures.image_ids import check_image_id, id_problem
from tests.bad_ids import BAD_IDS, GOOD_IDS


@pytest.mark.parametrize("bad", [*BAD_IDS, "\udcff", "a\x85b"])
def test_bad_ids(bad: str) -> None:
    with pytest.raises(InputError, match="^f.csv row 3: .*image id") as error:
        check_image_id(bad, "f.csv row 3")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    str(error.value).encode()


@pytest.mark.parametrize("good", GOOD_IDS)
def test_good_ids(good: str) -> None:
    assert check_image_id(good, "f.csv") == good and id_problem(good) is None
