"""Conversion of detectron2's Mask R-CNN and Cascade Mask R-CNN on a ResNet with a pyramid to our names and layout.

Differences (detectron2/modeling: backbone/resnet.py, backbone/fpn.py, proposal_generator/rpn.py, anchor_generator.py,
roi_heads/fast_rcnn.py, roi_heads/cascade_rcnn.py, roi_heads/mask_head.py; checkpoint/c2_model_loading.py for the older
names of ImageNet's ResNets):

- names; background is the last class there and the first here; box regression and masks have no rows for background
- a location's anchors go through the ratios of one size, then of the next; here through the sizes of one ratio
- the same: fc1 reads [channel, row, column], deconvolutions are [in, out, 2, 2], the eps of a frozen norm is 1e-5
- the first convolution reads BGR there. Our images are one grey channel three times, so that the order does not matter
  and stays. But those weights were trained on images minus (103.5, 116.3, 123.7) that were not divided
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from sartorius.errors import InputError

_STATISTICS = {
    "s": "weight", "gamma": "weight", "b": "bias", "beta": "bias",
    "rm": "running_mean", "running_mean": "running_mean", "riv": "running_var", "running_var": "running_var",
}  # fmt: skip
_CAFFE2 = rf"bn_({'|'.join(_STATISTICS)})"
_BRANCHES = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_BODY = r"(?:backbone\.)?(?:bottom_up\.)?"
_LAYER = r"(?:weight|norm\.(\w+))"
_UNUSED = re.compile(
    r"pixel_mean|pixel_std|(.*\.)?anchor_generator\.(.*\.)?cell_anchors.*|.*num_batches_tracked|.*_momentum|"
    rf"(fc1000|pred)_[wb]|conv1_b|{_BODY}(stem\.fc|linear)\.(weight|bias)"
)
# A file holds all of a part, or nothing of it
PARTS = (
    "backbone.body.", "backbone.fpn.", "rpn.head.",
    "roi_heads.box_head.", "roi_heads.box_predictor.", "roi_heads.mask_head.", "roi_heads.mask_predictor.",
)  # fmt: skip


def _stem(statistic: str | None) -> str:
    """Make our name of the first convolution, or of a statistic of its norm."""
    return "backbone.body." + (f"bn1.{statistic}" if statistic else "conv1.weight")


def _block(stage: str, block: str, place: str, statistic: str | None) -> str:
    """Make our name of a convolution of a residual block (`conv1` ... `shortcut`), or of a statistic of its norm."""
    layer = "downsample." if place == "shortcut" else "bn" if statistic else "conv"
    number = str(int(bool(statistic))) if place == "shortcut" else place[-1]
    return f"backbone.body.layer{int(stage) - 1}.{block}.{layer}{number}.{statistic or 'weight'}"


_RULES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (rf"{_BODY}stem\.conv1\.{_LAYER}", lambda m: _stem(m[1])),
    (rf"{_BODY}res(\d)\.(\d+)\.(conv[123]|shortcut)\.{_LAYER}", lambda m: _block(m[1], m[2], m[3], m[4])),
    # Caffe2's names, of ImageNet's ResNets
    (r"conv1_w", lambda m: _stem(None)),
    (rf"res_conv1_{_CAFFE2}", lambda m: _stem(_STATISTICS[m[1]])),
    (
        rf"res(\d)_(\d+)_branch(1|2a|2b|2c)_(?:w|{_CAFFE2})",
        lambda m: _block(m[1], m[2], _BRANCHES[m[3]], _STATISTICS.get(m[4])),
    ),
    (r"backbone\.fpn_lateral(\d)\.(weight|bias)", lambda m: f"backbone.fpn.inner_blocks.{int(m[1]) - 2}.0.{m[2]}"),
    (r"backbone\.fpn_output(\d)\.(weight|bias)", lambda m: f"backbone.fpn.layer_blocks.{int(m[1]) - 2}.0.{m[2]}"),
    (r"proposal_generator\.rpn_head\.conv\.(\w+)", lambda m: f"rpn.head.conv.0.0.{m[1]}"),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(\w+)", lambda m: f"rpn.head.cls_logits.{m[1]}"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(\w+)", lambda m: f"rpn.head.bbox_pred.{m[1]}"),
    (
        r"roi_heads\.box_head\.(\d+\.)?fc([12])\.(\w+)",
        lambda m: f"roi_heads.box_head.{m[1] or ''}fc{int(m[2]) + 5}.{m[3]}",
    ),
    (r"roi_heads\.box_predictor\.(\d+\.)?(cls_score|bbox_pred)\.(\w+)", lambda m: m[0]),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.(\w+)", lambda m: f"roi_heads.mask_head.{int(m[1]) - 1}.0.{m[2]}"),
    (r"roi_heads\.mask_head\.deconv\.(\w+)", lambda m: f"roi_heads.mask_predictor.conv5_mask.{m[1]}"),
    (r"roi_heads\.mask_head\.predictor\.(\w+)", lambda m: f"roi_heads.mask_predictor.mask_fcn_logits.{m[1]}"),
)


def is_detectron2(names: Iterable[str]) -> bool:
    """Tell whether these are names of detectron2's (or of the ResNets of its model zoo)."""
    marks = ("backbone.bottom_up.", "proposal_generator.", "stem.conv1.", "res2.0.conv1.", "conv1_w", "res2_0_")
    return any(name.startswith(marks) for name in names)


def convert(state: Mapping[str, Tensor], anchor_sizes: int, source: str) -> dict[str, Tensor]:
    """Convert tensors of detectron2 to the names and the layout of a `mask_rcnn` here, or of a cascade.

    anchor_sizes: of a level, see `AnchorGrid`; the file has as many. Means of pixels, anchors and ImageNet's classifier
    are left out. Raises InputError for a name of another architecture.
    """
    converted = {}
    for name, value in state.items():
        if _UNUSED.fullmatch(name):
            continue
        matches = ((re.fullmatch(pattern, name), rename) for pattern, rename in _RULES)
        if (renamed := next((rename(match) for match, rename in matches if match), None)) is None:
            raise InputError(
                f"{source}: '{name}' is of no Mask R-CNN or Cascade Mask R-CNN of detectron2 on a ResNet with a "
                "pyramid, as far as they are read here (fully connected box heads, no norms beside those of the ResNet)"
            )
        converted[renamed] = value
    _add_statistics(converted)
    _reorder(converted, anchor_sizes)
    return converted


def _add_statistics(state: dict[str, Tensor]) -> None:
    """Add mean 0 and variance 1 to norms that were fused to a factor and an offset, as in Caffe2's files."""
    for name in list(state):
        place = name.removesuffix(".weight")
        if place != name and re.search(r"\.(bn\d|downsample\.1)$", place):
            state.setdefault(f"{place}.running_mean", torch.zeros_like(state[name]))
            state.setdefault(f"{place}.running_var", torch.ones_like(state[name]))


def _reorder(state: dict[str, Tensor], anchor_sizes: int) -> None:
    """Reorder rows: background first, anchors by ratio."""
    for name, value in list(state.items()):
        place, _, kind = name.rpartition(".")
        if name.startswith("rpn.head.cls_logits"):
            state[name] = _by_ratio(value, anchor_sizes, 1)
        elif name.startswith("rpn.head.bbox_pred"):
            state[name] = _by_ratio(value, anchor_sizes, 4)
        elif place.endswith("cls_score"):
            state[name] = value.roll(1, dims=0)
            types = len(value) - 1
            boxes = f"{place.removesuffix('cls_score')}bbox_pred.{kind}"
            if boxes in state and len(state[boxes]) == 4 * types and not re.search(r"\.\d+\.cls_score$", place):
                state[boxes] = _with_background(state[boxes], 4)
        elif place.endswith("mask_fcn_logits"):
            state[name] = _with_background(value, 1)


def _by_ratio(value: Tensor, sizes: int, rows: int) -> Tensor:
    """Reorder [sizes * ratios * rows, ...] to [ratios * sizes * rows, ...], where `sizes` divides it."""
    if len(value) % (sizes * rows):
        return value
    return value.unflatten(0, (sizes, -1, rows)).transpose(0, 1).flatten(0, 2).contiguous()


def _with_background(value: Tensor, rows: int) -> Tensor:
    """Add rows of zeros before those of the types: nothing reads them."""
    return torch.cat((value.new_zeros(rows, *value.shape[1:]), value))


def check_parts(converted: Iterable[str], wanted: Iterable[str], source: str) -> None:
    """Raise InputError where a part of the network (PARTS) is there in pieces only, or is another one.

    A part that is missing as a whole is no error: ImageNet's ResNets have no heads.
    """
    names = [name for name in wanted if not name.endswith("num_batches_tracked")]
    for part in PARTS:
        there = {name for name in converted if name.startswith(part)}
        here = {name for name in names if name.startswith(part)}
        if not there or there == here:
            continue
        if missing := sorted(here - there):
            what = f"lacks {len(missing)} tensors of {part.rstrip('.')} here, such as {missing[0]}"
        else:
            more = sorted(there - here)
            what = f"has {len(more)} tensors more than {part.rstrip('.')} here, such as {more[0]}"
        raise InputError(
            f"{source}: a file of detectron2's that {what}. It is damaged or of another model; choose "
            "model=cascade_r50 for a cascade, model.body for another ResNet, and model.network.norm=frozen_batch"
        )
