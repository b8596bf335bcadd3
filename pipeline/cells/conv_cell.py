"""A recurrent cell over images: the same equations, with convolutions in place of the matrix products."""

from typing import Any, cast

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import conv2d

from pipeline.cells.cell import Cell
from pipeline.layers.kernels import Program, learning, program_of
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
        products, images = Products(self, program_of(self)), [channels_last(m) for m in memory]
        y = x.new_empty(x.shape[1], *images[0].shape)
        for t in range(len(y)):
            new = [torch.empty_like(m) for m in images]
            products.step(channels_last(x[:, t]), images, new, y[t])
            images = new
        return [y.permute(1, 0, 4, 2, 3), *map(channels_first, images)]


class Products:
    """The convolutions of a cell during one call, and the kernels between them. Images are ``(B, H, W, C)`` here."""

    def __init__(self, cell: ConvCell, program: Program) -> None:
        """Where x and the memory are convolved alike and only added, one convolution serves both."""
        self.cell, self.program, self.spans = cell, program, program.spans(cell.hidden)
        self.joint = program.joint and cell.stride == cell.dilation == 1
        weight = cast(Tensor, cell.weight_hh)
        if self.joint:
            bias = None if cell.bias_ih is None or cell.bias_hh is None else cell.bias_ih + cell.bias_hh
            self.both = Map(torch.cat([cell.weight_ih, weight], 1), bias)
        else:
            self.input = Map(cell.weight_ih, cell.bias_ih, cell.stride, cell.dilation)
            shifts = [None if cell.bias_hh is None else cell.bias_hh[span] for span in self.spans]
            self.maps = [Map(weight[span], b) for span, b in zip(self.spans, shifts, strict=True)]
        peep = cell.zeros(0, cell.hidden, 1, 1) if cell.weight_ch is None else cell.weight_ch
        self.peep = array(channels_last(peep).flatten(1, 2))

    def step(self, x: Tensor, memory: list[Tensor], new: list[Tensor], y: Tensor) -> None:
        """One image and the memory to the new memory and the output, for which there is room."""
        rest = [self.peep, *map(pixels, (*memory, *new, y))]
        if self.joint:
            self.program.kernels.joint(self.both(torch.cat([x, memory[0]], 3)), *rest)
        else:
            parts = self.input(x)
            self.program.kernels.apart(parts, self.recurrent(parts, memory), *rest)

    def recurrent(self, parts: Any, memory: list[Tensor]) -> Any:
        """The products of the memory, block beside block; ``parts`` are those of x."""
        if self.program.of == [0]:
            return self.maps[0](memory[0])
        found = np.empty((len(parts), len(self.cell.gates) * self.cell.hidden), np.float32)
        computed = {p: torch.empty_like(memory[0]) for p in self.program.computed}
        others = [pixels(v)[None] for v in (*computed.values(), *memory)]
        for p, (of, span) in enumerate(zip(self.program.of, self.spans, strict=True)):
            if of is None:
                before = getattr(self.program.kernels, f"before{p}")
                before(0, 1, parts[None], found[None], self.peep, *others)
            found[:, span] = self.maps[p](computed[p] if of is None else memory[of])
        return found


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
            return rows(torch.mkldnn_convolution(x, weight, bias, padding, stride, dilation, 1))
        return rows(conv2d(x, weight, bias, stride, padding, dilation).float())


def channels_last(images: Tensor) -> Tensor:
    """``(B, C, H, W) -> (B, H, W, C)``, in this order in memory."""
    return images.permute(0, 2, 3, 1).contiguous()


def channels_first(images: Tensor) -> Tensor:
    """The way back, as a view: torch convolves it with the channels last."""
    return images.permute(0, 3, 1, 2)


def pixels(images: Tensor) -> Any:
    """``(B, H, W, C)`` as rows for a kernel, ``(B * H * W, C)``."""
    return array(images.flatten(0, 2))


def rows(images: Tensor) -> Any:
    """``(B, C, H, W)`` as rows for a kernel."""
    return pixels(channels_last(images))
