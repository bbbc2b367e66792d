"""The floating-point precision of a run: what `trainer.precision=auto` stands for on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sartorius.errors import InputError

AUTO = "auto"
_CPU_FLAGS = Path("/proc/cpuinfo")
_AMPERE = 8  # compute capability from which on GPUs compute in bfloat16 themselves


@dataclass(frozen=True)
class Hardware:
    """Capabilities that the choice of a precision depends on.

    gpus: the major compute capability of each visible CUDA device. mps: whether there is an Apple GPU. amx_bf16:
    whether the CPU multiplies bfloat16 matrices in AMX; without it, bfloat16 may be emulated and slower than float32.
    """

    gpus: tuple[int, ...] = ()
    mps: bool = False
    amx_bf16: bool = False


def read_hardware() -> Hardware:
    """The capabilities of this machine."""
    import torch

    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return Hardware(
        gpus=tuple(torch.cuda.get_device_capability(gpu)[0] for gpu in gpus),
        mps=torch.backends.mps.is_available(),
        amx_bf16=has_amx_bf16(),
    )


def has_amx_bf16(cpu_flags: Path = _CPU_FLAGS) -> bool:
    """Whether the processor has AMX for bfloat16, by Linux's list of its flags; False where that cannot be read."""
    try:
        lines = cpu_flags.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any("amx_bf16" in line.split() for line in lines if line.startswith("flags"))


def resolve(precision: str | int, accelerator: str, hardware: Hardware) -> tuple[str | int, str]:
    """The precision for Lightning, and the reason for it ("" where it was asked for and not `auto`).

    `auto` is bf16-mixed where all GPUs, or the CPU that is used, compute in bfloat16 themselves, 16-mixed on older
    GPUs and 32-true elsewhere.

    Raises InputError for half precision (fp16) without a GPU, where Lightning would take bfloat16 instead.
    """
    on_gpu = bool(hardware.gpus) and accelerator in ("auto", "gpu", "cuda")
    on_mps = hardware.mps and not on_gpu and accelerator in ("auto", "gpu", "mps")
    if str(precision).startswith("16") and not (on_gpu or on_mps):
        raise InputError(
            f"trainer.precision={precision}: fp16 needs a GPU, and this run is on the CPU "
            f"(trainer.accelerator={accelerator}); set trainer.precision=bf16-mixed or 32-true"
        )
    if precision != AUTO:
        return precision, ""
    if on_gpu:
        newer = min(hardware.gpus) >= _AMPERE
        return ("bf16-mixed", "GPU with bfloat16") if newer else ("16-mixed", "GPU without bfloat16")
    if accelerator not in ("auto", "cpu"):
        return "32-true", f"accelerator {accelerator}"
    if on_mps:
        return "32-true", "Apple GPU"
    return ("bf16-mixed", "CPU with AMX") if hardware.amx_bf16 else ("32-true", "CPU without AMX")
