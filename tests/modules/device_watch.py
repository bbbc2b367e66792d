"""A watch over the places where code would be wrong or slow on a GPU, which needs none.

The two modes see every call from Python and every operation below it. Three things are recorded, each with the place:
the innermost function outside torch and this file, as `package.module:Class.function`.

- `homeless`: tensors made without a `device`, or from host memory (`from_numpy`): they would not be on the GPU.
- `to_host`: `.item()`, `.cpu()`, `.numpy()`, `.tolist()`, `.to("cpu")`, `bool()`, `int()`, `float()` of a tensor.
- `waits`: what makes the host wait for the GPU: the above, operations whose result has a length that only the GPU knows
  (`nonzero`, indexing by a bool mask, `unique`, ...), tensors made of Python numbers, and torchvision's NMS.

Not under `torch.inference_mode`, which hides what operations are composed of.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode

FROM_HOST = {torch.tensor, torch.as_tensor, torch.asarray}  # followed by lift_fresh below
FACTORIES = {*_device_constructors(), torch.as_tensor, torch.tensor}
TO_HOST = {"item", "cpu", "numpy", "tolist", "__array__", "__contains__", "__format__"}
TO_HOST |= {"__bool__", "__int__", "__float__", "__index__", "__complex__"}
UNKNOWN_LENGTH = {"aten.nonzero", "aten.argwhere", "aten.masked_select", "aten.bincount", "aten.repeat_interleave"}
UNKNOWN_LENGTH |= {f"aten.{name}" for name in ("_unique", "_unique2", "unique_dim", "unique_consecutive")}
WAITING = UNKNOWN_LENGTH | {"aten._local_scalar_dense", "aten.lift_fresh", "aten.equal", "torchvision.nms"}
INDEXING = {"aten.index", "aten.index_put", "aten.index_put_", "aten._index_put_impl_", "aten._unsafe_index"}

Record = Counter[tuple[str, str]]  # (place, operation)


class DeviceWatch:
    """Record what happens inside a `with`; may be entered again, and goes on counting."""

    def __init__(self) -> None:
        self.homeless: Record = Counter()
        self.to_host: Record = Counter()
        self.waits: Record = Counter()
        self.given_device = False  # the call that is under way makes a tensor on a device that it names
        self._modes = _Calls(self), _Operations(self)

    def __enter__(self) -> Self:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, trace)


class _Calls(TorchFunctionMode):
    def __init__(self, watch: DeviceWatch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name, watch = kwargs or {}, getattr(function, "__name__", ""), self.watch
        if function in FACTORIES:
            if kwargs.get("device") is None and not (args and isinstance(args[0], Tensor)):
                watch.homeless[_place(), name] += 1
                if function not in FROM_HOST:  # it must be moved, and the move is waited for
                    watch.waits[_place(), name] += 1
        elif name in TO_HOST or (
            name == "to" and "cpu" in [x for x in (*args, *kwargs.values()) if isinstance(x, str)]
        ):
            watch.to_host[_place(), name] += 1
            if name in ("cpu", "to") or (name == "tolist" and args[0].ndim):  # the others are an operation below
                watch.waits[_place(), name] += 1
        before, watch.given_device = watch.given_device, function in FACTORIES or name == "new_tensor"
        try:
            return function(*args, **kwargs)
        finally:
            watch.given_device = before


class _Operations(TorchDispatchMode):
    def __init__(self, watch: DeviceWatch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not torch.is_inference_mode_enabled()
        name, kwargs = str(function.overloadpacket), kwargs or {}
        waiting = name in WAITING and kwargs.get("output_size") is None
        if waiting or (name in INDEXING and any(_is_mask(index) for index in args[1])):
            self.watch.waits[_place(), name.split(".")[1]] += 1
        if name == "aten.lift_fresh" and not self.watch.given_device:
            self.watch.homeless[_place(), "from host memory"] += 1
        return function(*args, **kwargs)


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _place() -> str:
    frame = sys._getframe(2)
    while frame.f_back is not None and (
        frame.f_globals["__name__"].split(".")[0] in ("torch", "contextlib") or frame.f_globals is globals()
    ):
        frame = frame.f_back
    return f"{frame.f_globals['__name__']}:{frame.f_code.co_qualname.split('.<locals>')[0]}"


def watched(function: Callable[..., Any], *args: Any) -> DeviceWatch:
    """Call the function under a watch and return the watch."""
    with DeviceWatch() as watch:
        function(*args)
    return watch
