"""Causal convolution over time: local patterns (syllables, onsets) before the recurrent layers."""

from torch import Tensor, nn
from torch.nn.functional import conv1d, gelu

from pipeline.kernels import passes
from pipeline.lean import Array, Arrays, fits, own, unchanged
from pipeline.stage import Stage, State, left_context

FEW = 64  # steps of all rows up to which the compiled convolution is the faster


class CausalConv(Stage):
    """Convolution, LayerNorm, GELU, dropout: ``(B, T*stride, F) -> (B, T, channels)``.

    Output t sees inputs up to ``(t + 1) * stride`` and ``(kernel - 1) * dilation`` steps before, zeros before the
    start. With equal shapes and stride 1 the input is added (He et al. 2016). The state is the inputs to be seen again.
    """

    def __init__(
        self, inputs: int, channels: int, kernel: int = 5, stride: int = 1, dilation: int = 1, dropout: float = 0.0
    ) -> None:
        """ValueError if the kernel does not span the stride."""
        super().__init__()
        self.in_shape, self.out_shape, self.hop = (inputs,), (channels,), stride
        self.dilation = dilation
        self.past = (kernel - 1) * dilation + 1 - stride
        if self.past < 0:
            raise ValueError(f"a convolution of kernel {kernel} cannot have stride {stride}: inputs would be skipped")
        self.residual = stride == 1 and inputs == channels
        self.conv = nn.Conv1d(inputs, channels, kernel, stride, dilation=dilation)
        self.norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def initial(self, batch: int) -> State:
        """Zeros before the start."""
        return self.zeros(batch, self.past, *self.in_shape)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One output per ``stride`` inputs."""
        joined, state = left_context(state, x)
        y = conv1d(joined.transpose(1, 2), self.conv.weight, self.conv.bias, self.hop, 0, self.dilation)
        y = self.dropout(gelu(self.norm(y.transpose(1, 2))))
        return (x + y if self.residual else y), state

    def lean(self, x: Array, state: Arrays) -> tuple[Array, Arrays] | None:
        """The same for a few steps, without dropout."""
        rows, steps, size = x.shape
        few = rows * steps <= FEW * self.hop and fits(state, (rows, self.past, size))
        if self.training or not few or not unchanged(self.conv, nn.Conv1d) or not unchanged(self.norm, nn.LayerNorm):
            return None
        y, past = passes().convolve(x, state, *own(self.conv), self.hop, self.dilation)
        y = passes().gelu(passes().normalise(y, *own(self.norm), self.norm.eps))
        return (x + y if self.residual else y), past
