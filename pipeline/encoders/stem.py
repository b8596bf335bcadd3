"""What works on each picture alone, before, between and after recurrent layers."""

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import gelu, max_pool2d

from pipeline.layers.precision import convolve, shorten
from pipeline.layers.stage import Stage, State


class ImageConv(Stage):
    """Convolution, LayerNorm over channels, GELU, dropout: ``(B, T, C, H, W) -> (B, T, channels, H/stride, W/stride)``.

    Sizes are rounded up; borders are padded with zeros.
    """

    def __init__(self, shape: tuple[int, ...], channels: int, kernel: int, stride: int, dropout: float = 0.0) -> None:
        """``shape`` of a step (C, H, W); ValueError if the kernel is even."""
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"encoder.stem: kernel is {kernel}; expected an odd number")
        self.in_shape, self.stride = shape, stride
        self.out_shape = (channels, -(-shape[1] // stride), -(-shape[2] // stride))
        self.conv = nn.Conv2d(shape[0], channels, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Stateless."""
        conv = self.conv
        y = convolve(x.flatten(0, 1), conv.weight, conv.bias, self.stride, conv.kernel_size[0] // 2)
        y = gelu(self.norm(y.movedim(1, -1))).movedim(-1, 1)
        return self.dropout(y).view(*x.shape[:2], *self.out_shape), state

    def lower(self) -> None:
        """Convolve in bfloat16."""
        shorten(self.conv.weight)


class ImagePool(Stage):
    """The greatest value of each ``size`` x ``size`` square: ``(B, T, C, H, W) -> (B, T, C, H/size, W/size)``."""

    def __init__(self, shape: tuple[int, ...], size: int) -> None:
        """Sizes are rounded up."""
        super().__init__()
        self.in_shape, self.size = shape, size
        self.out_shape = (shape[0], -(-shape[1] // size), -(-shape[2] // size))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Stateless."""
        y = max_pool2d(x.flatten(0, 1), self.size, ceil_mode=True)
        return y.view(*x.shape[:2], *self.out_shape), state


class ToVector(Stage):
    """Images to vectors: the ``mean`` or the ``max`` over all pixels, ``(B, T, C)``, or all in a row (``flatten``)."""

    def __init__(self, shape: tuple[int, ...], how: Literal["mean", "max", "flatten"]) -> None:
        super().__init__()
        self.in_shape, self.how = shape, how
        self.out_shape = (shape[0] * shape[1] * shape[2],) if how == "flatten" else shape[:1]

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Stateless."""
        if self.how == "flatten":
            return x.flatten(2), state
        # Over channels that are last in memory, amax is four times as slow as over a copy.
        return (x.mean((-2, -1)) if self.how == "mean" else x.contiguous().flatten(3).amax(-1)), state
