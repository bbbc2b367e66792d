"""U-Net: an encoder's feature maps, upsampled to the image's resolution step by step, with skip connections.

Our own decoder and not segmentation_models_pytorch's: it takes plain vision transformers too, ends at full resolution
where the encoder starts below it, has group norm, and pads an image of any size itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sartorius.errors import InputError
from sartorius.networks.cell_maps import MapLayout
from sartorius.networks.encoders import Encoder, conv_block
from sartorius.networks.normalisation import normalise
from sartorius.structures import checks
from sartorius.structures.constructible import constructible


@constructible
class UNet(nn.Module):
    """A network that gives `outputs` logits, or one for each channel of a layout, for each pixel of an image.

    channels: of the decoder's blocks, the coarsest first; each block doubles the resolution. With fewer blocks than the
    encoder has halvings, the logits are interpolated to the image's size: cheaper, hardly less exact. norm: of the
    decoder, as in `conv_block`. mean, std: grey levels that normalise an image, see `normalise`. scale: images are
    enlarged by this factor before everything; logits come back at the size of the image. foreground: probability at
    which the first output starts everywhere (None: at that of the random weights). Few pixels are cells: starting at
    their share saves the first steps of learning it (Lin et al. 2017, 3.3).

    divisor: the network itself needs heights and widths that are multiples of it; `forward` takes any.
    """

    def __init__(
        self,
        encoder: Encoder,
        outputs: int | MapLayout,
        *,
        channels: Sequence[int],
        norm: str,
        mean: float | None,
        std: float | None,
        scale: float = 1.0,
        foreground: float | None = None,
    ) -> None:
        super().__init__()
        checks.numbers("model.network", 0.1, 16, scale=scale)
        self.encoder, self.mean, self.std, self.scale = encoder, mean, std, scale
        skips, self.reductions, self.divisor = encoder.channels, encoder.reductions, encoder.reductions[-1]
        inputs, reduction, blocks = skips[-1], self.divisor, []
        for width in channels:
            reduction //= 2
            skip = skips[self.reductions.index(reduction)] if reduction in self.reductions else 0
            blocks.append(conv_block(inputs + skip, width, norm))
            inputs = width
        if reduction < 1:
            raise InputError(
                f"model.network.channels={list(channels)}: {len(channels)} decoder blocks double more often than the "
                f"encoder halves ({self.divisor.bit_length() - 1} times); give fewer channels, or more encoder levels"
            )
        self.blocks = nn.ModuleList(blocks)
        count = outputs.channels if isinstance(outputs, MapLayout) else outputs
        self.head = nn.Conv2d(inputs, count, 3, padding=1)
        if foreground is not None and self.head.bias is not None:
            with torch.no_grad():
                self.head.bias[0] = torch.logit(torch.tensor(foreground))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Predict logits [B, outputs, H, W] of images [B, in_channels, H, W], uint8 or float, any H and W >= 1."""
        height, width = images.shape[-2:]
        x = normalise(images, self.mean, self.std)
        if self.scale != 1.0:
            x = F.interpolate(x, scale_factor=self.scale, mode="bilinear")
        inner = x.shape[-2:]
        x = reflect_to_multiple(x, self.divisor).contiguous(memory_format=torch.channels_last)
        logits = self.head(self._decode(self.encoder(x)))
        if logits.shape[-2:] != x.shape[-2:]:
            logits = F.interpolate(logits, x.shape[-2:], mode="bilinear")
        logits = logits[..., : inner[0], : inner[1]]
        return logits if self.scale == 1.0 else F.interpolate(logits, (height, width), mode="bilinear")

    def _decode(self, features: list[Tensor]) -> Tensor:
        skips = dict(zip(self.reductions, features, strict=True))
        x, reduction = features[-1], self.divisor
        for block in self.blocks:
            reduction //= 2
            skip = skips.get(reduction)
            if not self.training and x.device.type == "cpu":
                assert isinstance(block, nn.Sequential) and isinstance(block[0], nn.Conv2d)
                x = block[1:](upsampled_conv(block[0], x, skip))
                continue
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(x if skip is None else torch.cat([x, skip], dim=1))
        return x


def upsampled_conv(conv: nn.Conv2d, x: Tensor, skip: Tensor | None) -> Tensor:
    """Apply a 3x3 convolution to `x` [B, C, H, W] at twice its size, followed by the channels of `skip` [B, S, 2H, 2W].

    The result, [B, out, 2H, 2W], is that of nearest-neighbour upsampling and concatenation, to rounding. Each pixel of
    `x` stands four times side by side, so a transposed 4x4 convolution with sums of the weights, 4 products an output
    instead of 9, does the same on `x` itself.
    """
    weight = conv.weight[:, : x.shape[1]]
    for axis in (2, 3):
        first, middle, last = weight.unbind(axis)
        weight = torch.stack([last, middle + last, first + middle, first], axis)
    result = F.conv_transpose2d(x, weight.transpose(0, 1), conv.bias, stride=2, padding=1)
    return result if skip is None else result + F.conv2d(skip, conv.weight[:, x.shape[1] :], padding=1)


def reflect_to_multiple(images: Tensor, divisor: int) -> Tensor:
    """Mirror images [..., H, W] at the bottom and the right edge until H and W are multiples of `divisor`.

    Mirrors as often as needed, so that an image may be smaller than what is missing (torch's own padding refuses).
    """
    for axis in (-2, -1):
        size = images.shape[axis]
        wanted = -(-size // divisor) * divisor
        if wanted != size:
            period = max(2 * size - 2, 1)
            place = torch.arange(wanted, device=images.device) % period
            images = images.index_select(
                images.ndim + axis, torch.minimum(place, period - place) if size > 1 else place
            )
    return images
