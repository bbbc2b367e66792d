from __future__ import annotations

from pathlib import Path

import pytest

from sartorius.errors import InputError
from sartorius.running.precision import Hardware, has_amx_bf16, read_hardware, resolve

PLAIN = Hardware()
AMX = Hardware(amx_bf16=True)
H200, V100, MIXED = (Hardware(gpus=gpus, amx_bf16=True) for gpus in ((9, 9), (7,), (8, 7)))
APPLE = Hardware(mps=True)


@pytest.mark.parametrize(
    ("hardware", "accelerator", "expected"),
    [
        (PLAIN, "auto", "32-true"),
        (PLAIN, "cpu", "32-true"),
        (AMX, "auto", "bf16-mixed"),
        (AMX, "cpu", "bf16-mixed"),
        (H200, "auto", "bf16-mixed"),
        (H200, "gpu", "bf16-mixed"),
        (Hardware(gpus=(8,)), "cuda", "bf16-mixed"),
        (Hardware(gpus=(9,)), "cpu", "32-true"),  # its CPU, without AMX
        (V100, "auto", "16-mixed"),
        (V100, "cpu", "bf16-mixed"),  # its CPU, with AMX
        (MIXED, "auto", "16-mixed"),  # the processes of all GPUs take the same
        (APPLE, "auto", "32-true"),
        (APPLE, "mps", "32-true"),
        (APPLE, "gpu", "32-true"),
        (AMX, "tpu", "32-true"),
    ],
)
def test_auto_is_the_fastest_precision_that_is_not_emulated(
    hardware: Hardware, accelerator: str, expected: str
) -> None:
    precision, reason = resolve("auto", accelerator, hardware)
    assert precision == expected
    assert reason


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", 32, "64-true"])
@pytest.mark.parametrize("hardware", [PLAIN, H200, V100])
def test_a_precision_that_was_asked_for_is_taken(precision: str | int, hardware: Hardware) -> None:
    assert resolve(precision, "auto", hardware) == (precision, "")


@pytest.mark.parametrize("precision", ["16-mixed", "16-true", 16])
def test_half_precision_needs_a_gpu(precision: str | int) -> None:
    assert resolve(precision, "auto", V100) == (precision, "")
    assert resolve(precision, "mps", APPLE) == (precision, "")
    for hardware, accelerator in ((PLAIN, "auto"), (AMX, "cpu"), (H200, "cpu")):
        with pytest.raises(InputError, match=f"trainer.precision={precision}: fp16 needs a GPU"):
            resolve(precision, accelerator, hardware)


def test_the_flags_of_a_processor(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    assert not has_amx_bf16(file), "there is no such file on macOS"
    file.write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_tile\nbugs\t\t: amx_bf16\n")
    assert not has_amx_bf16(file)
    file.write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_bf16 amx_tile amx_int8\n")
    assert has_amx_bf16(file)


def test_this_machine_can_be_read() -> None:
    precision, _ = resolve("auto", "cpu", read_hardware())
    assert precision in ("32-true", "bf16-mixed")
