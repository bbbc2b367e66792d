"""The rows of the last layers that belong to cell types, carried over to other cell types by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sartorius.errors import InputError

# Layers of a Mask R-CNN or a cascade with rows for background and each type, and how many rows each has
_LAYERS = {"cls_score": 1, "bbox_pred": 4, "mask_fcn_logits": 1}
_NAME = re.compile(rf"roi_heads\.(?:.+\.)?({'|'.join(_LAYERS)})\.(?:weight|bias)")
_MAPS = re.compile(r"head\.(?:weight|bias)")  # of a U-Net: the last channels are the types


class ClassMapping:
    """The cell type of a file of weights that each cell type here starts from.

    theirs, ours: cell types in the order of the rows. names: our type -> theirs, where they are called differently. A
    type without counterpart starts from the mean of all theirs: "any cell".

    Raises InputError, which names `source`, for names of types that are not there.
    """

    def __init__(self, theirs: Sequence[str], ours: Sequence[str], names: Mapping[str, str], source: str) -> None:
        for our_name, their_name in names.items():
            if our_name not in ours:
                raise InputError(
                    f"model.class_mapping: '{our_name}' is no cell type here; expected some of {', '.join(ours)}"
                )
            if their_name not in theirs:
                raise InputError(
                    f"model.class_mapping.{our_name}={their_name}: {source} was trained on {', '.join(theirs)}; name "
                    "one of those"
                )
        self.theirs, self.ours = tuple(theirs), tuple(ours)
        wanted = [names.get(name, name) for name in ours]
        self.rows = [self.theirs.index(name) if name in self.theirs else None for name in wanted]

    @property
    def same(self) -> bool:
        """Whether the types are the same, in the same order."""
        return self.rows == list(range(len(self.theirs)))

    def __str__(self) -> str:
        """The mapping in words."""
        pairs = list(zip(self.ours, self.rows, strict=True))
        texts = [f"{name} from {self.theirs[row]}" for name, row in pairs if row is not None]
        if unknown := [name for name, row in pairs if row is None]:
            texts.append(f"{', '.join(unknown)} from the mean of all {len(self.theirs)}")
        return "; ".join(texts)

    def apply(self, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Put the rows of the types in `state` where `wanted`, the state of the network here, has them.

        Background keeps its rows, and so do the maps of a U-Net that are no types. A tensor whose rows are not as
        expected (class-agnostic boxes, other maps) stays as it is.
        """
        return {name: self._layer(name, value, wanted.get(name)) for name, value in state.items()}

    def _layer(self, name: str, value: Tensor, wanted: Tensor | None) -> Tensor:
        if wanted is None:
            return value
        if match := _NAME.fullmatch(name):
            before = rows = _LAYERS[match[1]]
        elif _MAPS.fullmatch(name):
            before, rows = len(value) - len(self.theirs), 1
        else:
            return value
        if before < 0 or any(
            len(tensor) != before + rows * len(types) for tensor, types in ((value, self.theirs), (wanted, self.ours))
        ):
            return value
        types = value[before:].unflatten(0, (len(self.theirs), rows))
        picked = [types.mean(dim=0) if row is None else types[row] for row in self.rows]
        return torch.cat((value[:before], *picked))
