"""A recurrent cell over images: the same equations, with convolutions in place of the matrix products."""

from typing import Any, cast

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import conv2d

from pipeline.cells.cell import Cell
from pipeline.layers.kernels import learning, program_of
from pipeline.layers.lean import array, serves
from pipeline.layers.precision import convolve, shorten

ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


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

    def fused(self, x: Tensor, memory: list[Tensor]) -> list[Tensor] | None:
        """Without gradient on a CPU: convolutions with the channels last, and one compiled pass over the gates.

        Every step is computed alone, by the same calls, so that the answer does not depend on where x was cut.
        """
        if not self.plain or not serves(x, 5) or learning(self, x, memory):
            return None
        products, images = Products(self), [channels_last(m) for m in memory]
        y = x.new_empty(x.shape[1], *images[0].shape)
        for t in range(len(y)):
            new = [y[t], *map(torch.empty_like, images[1:])]
            products.step(channels_last(x[:, t]), images, new)
            images = new
        images[0] = images[0].clone()  # the caller may write to y
        return [y.permute(1, 0, 4, 2, 3), *(m.permute(0, 3, 1, 2) for m in images)]


class Products:
    """The convolutions of a cell during one call, and the kernels between them. Images are ``(B, H, W, C)`` here."""

    def __init__(self, cell: ConvCell) -> None:
        """Where x and the memory are convolved alike and only added, one convolution serves both."""
        self.recorded, self.kernels = program_of(cell)
        self.spans, self.width = self.recorded.spans(cell.hidden), len(cell.gates) * cell.hidden
        weight = cast(Tensor, cell.weight_hh)
        self.joint = self.recorded.shared and self.recorded.of == [0] and cell.stride == cell.dilation == 1
        self.none = np.zeros((1, 1, len(cell.inputs) * cell.hidden), np.float32)
        if self.joint:
            bias = None if cell.bias_ih is None or cell.bias_hh is None else cell.bias_ih + cell.bias_hh
            self.both = Map(torch.cat([cell.weight_ih, weight], 1), bias)
        else:
            self.input = Map(cell.weight_ih, cell.bias_ih, cell.stride, cell.dilation)
            shifts = [None if cell.bias_hh is None else cell.bias_hh[span] for span in self.spans]
            self.maps = [Map(weight[span], b) for span, b in zip(self.spans, shifts, strict=True)]
        peep = cell.zeros(0, cell.hidden, 1, 1) if cell.weight_ch is None else cell.weight_ch
        self.peep = array(channels_last(peep).flatten(1, 2))

    def step(self, x: Tensor, memory: list[Tensor], new: list[Tensor]) -> None:
        """One image and the memory to the new memory, for which there is room; the kernels take it as one time step."""
        before, after = ([pixels(m)[None] for m in images] for images in (memory, new))
        of, computed = self.recorded.of, {p: torch.empty_like(memory[0]) for p in self.recorded.computed}
        if self.joint:
            parts, products = self.none, self.both(torch.cat([x, memory[0]], 3))[None]
        elif of == [0]:
            parts, products = self.input(x)[None], self.maps[0](memory[0])[None]
        else:
            parts = self.input(x)[None]
            products = np.empty((*parts.shape[:2], self.width), np.float32)
        given = [parts, products, self.peep, *(pixels(v)[None] for v in computed.values())]
        for p, source in enumerate(of if of != [0] else ()):
            if source is None:
                getattr(self.kernels, f"before{p}")(0, 1, *given, *before)
            products[0, :, self.spans[p]] = self.maps[p](computed[p] if source is None else memory[source])
        self.kernels.after(0, 1, *given, *before, *after)


class Map:
    """A convolution with its weights laid out for many images: ``(B, H, W, C)`` to rows, one for each pixel."""

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int = 1, dilation: int = 1) -> None:
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.to(weight.dtype)
        self.stride, self.padding, self.dilation = stride, dilation * (weight.shape[-1] // 2), dilation

    def __call__(self, images: Tensor) -> Any:
        """Convolve, by oneDNN itself in float32: conv2d does without it for small images, and takes twice as long."""
        x, weight, bias = images.permute(0, 3, 1, 2).to(self.weight.dtype), self.weight, self.bias
        padding, stride, dilation = [[size, size] for size in (self.padding, self.stride, self.dilation)]
        if ONEDNN and x.dtype == torch.float32:
            y = torch.mkldnn_convolution(x, weight, bias, padding, stride, dilation, 1)
        else:
            y = conv2d(x, weight, bias, stride, padding, dilation).float()
        return pixels(channels_last(y))


def channels_last(images: Tensor) -> Tensor:
    """``(B, C, H, W) -> (B, H, W, C)``, in this order in memory."""
    return images.permute(0, 2, 3, 1).contiguous()


def pixels(images: Tensor) -> Any:
    """``(B, H, W, C)`` as rows for a kernel, ``(B * H * W, C)``."""
    return array(images.flatten(0, 2))
