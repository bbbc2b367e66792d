import numpy as np
import pytest

from sartorius.errors import InputError
from sartorius.structures import checks


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), {"cort": 0.5, "default": 1}, {}])
def test_a_fraction_passes(value):
    checks.fractions("postprocess", score=value)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, "0.5", None, [0.5]])
def test_the_message_names_the_key_what_was_expected_and_what_came(value):
    with pytest.raises(InputError) as error:
        checks.fractions("postprocess", box_nms=0.5, score=value)
    assert str(error.value) == f"postprocess.score: expected a number from 0 to 1, got {value!r}"


def test_a_value_of_a_mapping_has_a_key_of_its_own():
    with pytest.raises(InputError, match=r"^postprocess\.score\.cort: expected a number from 0 to 1, got 2$"):
        checks.fractions("postprocess", score={"astro": 0.5, "cort": 2})


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: checks.numbers("", 16, size=8), "size: expected a number of at least 16, got 8"),
        (lambda: checks.numbers("a", 1, 100, size=0), "a.size: expected a number from 1 to 100, got 0"),
        (lambda: checks.positive("a", rate=0), "a.rate: expected a number above 0, got 0"),
        (lambda: checks.positive("a", rate=float("inf")), "a.rate: expected a number above 0, got inf"),
        (lambda: checks.whole("a", 1, jobs=2.0), "a.jobs: expected a whole number of at least 1, got 2.0"),
        (lambda: checks.whole("a", 1, jobs=0), "a.jobs: expected a whole number of at least 1, got 0"),
        (lambda: checks.whole("a", 0, jobs=True), "a.jobs: expected a whole number of at least 0, got True"),
        (lambda: checks.one_of("a", ("iou", "iom"), kind="x"), "a.kind: expected one of iou, iom, got 'x'"),
        (
            lambda: checks.spans("a", scale=[2, 1]),
            "a.scale: expected [from, to], in this order, each a number, got [2, 1]",
        ),
        (lambda: checks.spans("a", scale=1), "a.scale: expected [from, to], in this order, each a number, got 1"),
    ],
)
def test_each_check_refuses(check, message):
    with pytest.raises(InputError) as error:
        check()
    assert str(error.value) == message


def test_each_check_passes_what_it_expects():
    checks.numbers("a", 16, size=16)
    checks.positive("a", rate=np.float64(1e-9))
    checks.whole("a", 0, jobs=np.int64(0), members=3)
    checks.one_of("a", ("iou", "iom"), kind="iou")
    checks.spans("a", scale=[1, 1], rotate=(-5, 5))
