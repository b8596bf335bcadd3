"""A recurrent cell over images: the same equations, with convolutions in place of the matrix products."""

from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from pipeline.cells.cell import Cell
from pipeline.layers.precision import convolve, shorten


class ConvCell(Cell):
    """``x (B, T, C, H, W) -> y (B, T, hidden, H / stride, W / stride)``; mixed into a dense cell, left of it.

    The states are ``(B, hidden, H / stride, W / stride)``, rounded up. Both convolutions pad with zeros, so that the
    size of images stays (Shi et al. 2015, section 3.1).
    """

    def __init__(
        self,
        *args: Any,
        kernel: PositiveInt = 3,
        dilation: PositiveInt = 1,
        stride: PositiveInt = 1,
        **options: Any,
    ) -> None:
        """``kernel`` (odd) of both convolutions; ``dilation`` and ``stride`` of the one over x."""
        if kernel % 2 == 0:
            raise ValueError(f"{type(self).__name__}: kernel is {kernel}; expected an odd number (cell.kernel)")
        self.kernel, self.dilation, self.stride = kernel, dilation, stride
        super().__init__(*args, **options)

    def arrange(self, shape: tuple[int, ...]) -> None:
        """Kernels in place of matrices: ``weight_ih (blocks * hidden, C, k, k)``, ``weight_hh (..., hidden, k, k)``."""
        if len(shape) != 3:
            raise ValueError(f"{type(self).__name__}: expected images (C, H, W), got steps of shape {shape}")
        channels, height, width = shape
        self.in_shape = shape
        self.out_shape = (self.hidden, -(-height // self.stride), -(-width // self.stride))
        window = (self.kernel, self.kernel)
        self.weight_ih = nn.Parameter(torch.empty(len(self.inputs) * self.hidden, channels, *window))
        self.weight_hh = nn.Parameter(torch.empty(len(self.gates) * self.hidden, self.hidden, *window))

    def map_input(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution over all images at once."""
        padding = self.dilation * (self.kernel // 2)
        y = convolve(x.flatten(0, 1), self.weight_ih, bias, self.stride, padding, self.dilation)
        return y.view(*x.shape[:2], *y.shape[1:])

    def map_memory(self, v: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution over the memory."""
        return convolve(v, weight, bias, padding=self.kernel // 2)

    def lower(self) -> None:
        """Convolve in bfloat16; the memory stays as it is."""
        for weight in (self.weight_ih, self.weight_hh):
            shorten(weight)
