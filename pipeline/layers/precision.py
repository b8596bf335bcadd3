"""Convolutions in bfloat16: half the bytes, and about half the time where the processor has instructions for it.

Only weights of convolutions over pictures are lowered; what is remembered, normalised and answered stays float32.
Without such instructions the answers are the same, but later.
"""

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

Precision: TypeAlias = Literal["fp32", "bf16"]


def lower(model: nn.Module) -> None:
    """Lower every part of a model that can be, for good: those with a method ``lower``."""
    for part in [*model.modules()]:
        if callable(lowers := getattr(part, "lower", None)):
            lowers()


def shorten(weight: Tensor | None) -> None:
    """A convolution's weight, if there is one, to bfloat16, with the channels last, as the kernels want it."""
    if weight is not None:
        weight.data = weight.data.to(torch.bfloat16, memory_format=torch.channels_last)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """``conv2d``; in the precision of the weight if that is lower. The answer has that of ``x``."""
    if weight.itemsize >= x.itemsize:
        return conv2d(x, weight, bias, stride, padding, dilation, groups)
    bias = None if bias is None else bias.to(weight.dtype)
    return conv2d(x.to(weight.dtype), weight, bias, stride, padding, dilation, groups).to(x.dtype)


class ShortConv(nn.Module):
    """A convolution of somebody else's network, with its weight in bfloat16; between them all stays as it was."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.geometry: tuple[Any, ...] = (conv.stride, conv.padding, conv.dilation, conv.groups)
        shorten(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """As nn.Conv2d."""
        return convolve(x, self.weight, self.bias, *self.geometry)


def shorten_all(net: nn.Module) -> None:
    """Put ``ShortConv`` in place of a network's convolutions (zero-padded ones, as all of torchvision's are)."""
    for name, part in net.named_children():
        if type(part) is nn.Conv2d and part.padding_mode == "zeros":
            setattr(net, name, ShortConv(part))
        else:
            shorten_all(part)
