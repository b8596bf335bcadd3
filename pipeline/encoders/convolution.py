"""Causal convolutions over time, and over time and frequency: local patterns before the recurrent layers."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, gelu, linear

from pipeline.layers.stage import Stage, State, left_context


class Convolved(Stage):
    """Base: a causal convolution, LayerNorm, GELU, dropout; where shapes are equal the input is added (He et al. 2016).

    The state is the inputs that are seen again, zeros before the start.
    """

    def __init__(
        self, conv: nn.Conv1d | nn.Conv2d, inputs: int, size: int, hop: int, past: int, residual: bool, dropout: float
    ) -> None:
        """``inputs`` and ``size``: numbers of a step before and after; ``past``: inputs that are seen again."""
        super().__init__()
        self.in_shape, self.out_shape, self.hop = (inputs,), (size,), hop
        self.past, self.residual = past, residual
        self.conv, self.norm, self.dropout = conv, nn.LayerNorm(size), nn.Dropout(dropout)

    def initial(self, batch: int) -> State:
        """Zeros before the start."""
        return self.zeros(batch, self.past, *self.in_shape)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One output per ``hop`` inputs."""
        joined, state = left_context(state, x)
        y = self.dropout(gelu(self.norm(self.convolved(joined))))
        return (x + y if self.residual else y), state

    def convolved(self, x: Tensor) -> Tensor:
        """``(B, past + T*hop, inputs) -> (B, T, size)``."""
        raise NotImplementedError(f"{type(self).__name__} has no convolution")


class CausalConv(Convolved):
    """Over time: ``(B, T*stride, F) -> (B, T, channels)``.

    Output t sees inputs up to ``(t + 1) * stride`` and ``(kernel - 1) * dilation`` steps before.
    """

    def __init__(
        self, inputs: int, channels: int, kernel: int = 5, stride: int = 1, dilation: int = 1, dropout: float = 0.0
    ) -> None:
        """ValueError if the kernel does not span the stride."""
        past = (kernel - 1) * dilation + 1 - stride
        if past < 0:
            raise ValueError(f"a convolution of kernel {kernel} cannot have stride {stride}: inputs would be skipped")
        conv = nn.Conv1d(inputs, channels, kernel, stride, dilation=dilation)
        super().__init__(conv, inputs, channels, stride, past, stride == 1 and inputs == channels, dropout)
        self.dilation = dilation

    def convolved(self, x: Tensor) -> Tensor:
        """Over steps; in a graph that is exported as one product, which runtimes compute faster."""
        if torch.compiler.is_exporting():
            steps, kernel = x.shape[1] - (self.conv.kernel_size[0] - 1) * self.dilation, self.conv.weight
            seen = [x[:, k * self.dilation : k * self.dilation + steps : self.hop] for k in range(kernel.shape[2])]
            return linear(torch.cat(seen, -1), kernel.transpose(1, 2).flatten(1), self.conv.bias)
        return conv1d(x.transpose(1, 2), self.conv.weight, self.conv.bias, self.hop, 0, self.dilation).transpose(1, 2)


class SpectrumConv(Convolved):
    """Over time and bands: ``(B, T*stride, planes*bands)`` to ``(B, T, channels*bands')``, where ``squeeze`` bands
    become one.

    A spectrum is one plane of bands. The same pattern is known wherever it lies in frequency, so voices of another
    pitch need fewer examples (as in Tang and Lin 2018). Causal in time, zeros beyond the lowest and highest band.
    """

    def __init__(
        self,
        inputs: int,
        planes: int,
        channels: int,
        kernel: int = 3,
        stride: int = 1,
        squeeze: int = 1,
        dropout: float = 0.0,
    ) -> None:
        """``inputs`` numbers a step, in ``planes``. ValueError if the kernel is even or does not span the strides."""
        if kernel % 2 == 0:
            raise ValueError(
                f"encoder.spectrum: got a kernel of {kernel}; expected an odd one, which has a middle band"
            )
        if kernel < max(stride, squeeze):
            raise ValueError(
                f"a convolution of kernel {kernel} cannot have stride {max(stride, squeeze)}: inputs would be skipped"
            )
        bands, residual = inputs // planes, stride == squeeze == 1 and planes == channels
        conv = nn.Conv2d(planes, channels, kernel, (stride, squeeze), (0, kernel // 2))
        size = channels * ((bands - 1) // squeeze + 1)
        super().__init__(conv, inputs, size, stride, kernel - stride, residual, dropout)
        self.planes, self.bands = planes, bands

    def convolved(self, x: Tensor) -> Tensor:
        """Over steps and bands."""
        planes = x.view(*x.shape[:2], self.planes, self.bands).transpose(1, 2)
        y = conv2d(planes, self.conv.weight, self.conv.bias, self.conv.stride, self.conv.padding)
        return y.transpose(1, 2).flatten(2)
