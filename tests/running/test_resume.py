from __future__ import annotations

import pytest

from sartorius.errors import InputError
from sartorius.running.resume import resume

IMAGES = ["a", "b", "c", "d"]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_done_is_left_out_and_the_order_stays(workers: int) -> None:
    assert list(resume(str.upper, IMAGES, "bd".__contains__, "doing", workers)) == [("a", "A"), ("c", "C")]
    assert list(resume(str.upper, [], "bd".__contains__, "doing", workers)) == []


def test_one_image_at_a_time() -> None:
    worked: list[str] = []
    for image_id, _ in resume(worked.append, IMAGES, "a".__contains__, "doing"):
        assert worked[-1] == image_id, "nothing is computed ahead of its result"
    assert worked == IMAGES[1:]


def test_too_few_workers() -> None:
    with pytest.raises(InputError, match="workers: expected a whole number of at least 1, got 0"):
        list(resume(str.upper, IMAGES, "".__contains__, "doing", 0))
