"""Convolutions in bfloat16: half the bytes, and about half the time where the processor has instructions for it.

Only weights of convolutions over pictures are lowered; what is remembered, normalised and answered stays float32.
Without such instructions the answers are the same, but later.
"""

from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

Precision: TypeAlias = Literal["fp32", "bf16"]


@runtime_checkable
class Lowers(Protocol):
    """A part of a model that can compute in a lower precision than it remembers in."""

    def lower(self) -> None:
        """Store the weights of the convolutions in bfloat16, for good."""


def lower(model: nn.Module) -> None:
    """Lower every part of a model that can be."""
    for part in model.children():
        lower(part)
        if isinstance(part, Lowers):
            part.lower()


def shorten(weight: Tensor | None) -> None:
    """A convolution's weight, if there is one, to bfloat16, with the channels last, as the kernels want it."""
    if weight is not None:
        weight.data = weight.data.to(torch.bfloat16, memory_format=torch.channels_last)


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Tensor:
    """``conv2d``; in the precision of the weight if that is lower. The answer has that of ``x``."""
    if weight.itemsize >= x.itemsize:
        return conv2d(x, weight, bias, stride, padding, dilation)
    bias = None if bias is None else bias.to(weight.dtype)
    return conv2d(x.to(weight.dtype), weight, bias, stride, padding, dilation).to(x.dtype)
