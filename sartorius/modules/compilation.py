"""torch.compile of a network in place: names of weights stay, checkpoints are the same with it and without."""

from __future__ import annotations

from typing import Any

from torch import nn

from sartorius.errors import InputError

_COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")


def compile_network(network: nn.Module, part: str | None, mode: str, dynamic: bool | None, fullgraph: bool) -> None:
    """Compile the network, or its part of that name, at its first call; the other arguments are torch.compile's.

    Raises InputError for a part that the network does not have and for a mode that torch does not know.
    """
    from torch._inductor import list_mode_options

    known = dict.fromkeys(("default", *list_mode_options()))
    if mode not in known:
        raise InputError(f"compile.mode={mode}: torch.compile knows {', '.join(known)}")
    try:
        target = network.get_submodule(part or "")
    except AttributeError as error:
        children = ", ".join(name for name, _ in network.named_children())
        raise InputError(f"compile.part={part}: the network has no such part; it has {children}") from error
    target.compile(mode=mode, dynamic=dynamic, fullgraph=fullgraph)


def explain_compilation(error: BaseException) -> InputError | None:
    """Make the error to raise in place of the compiler's, which comes at the first batch; None for any other error."""
    chain: Any = error
    while chain is not None:
        if type(chain).__module__.startswith(_COMPILERS):
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return InputError(
                f"torch.compile failed: {lines[0][:300]}. It needs a C++ compiler (g++ or clang++; with a GPU "
                "triton and a C compiler); compile a part only (compile.part=backbone), or train without: compile=null"
            )
        chain = chain.__cause__
    return None
