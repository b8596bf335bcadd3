"""The sequence autoencoder of Srivastava, Mansimov & Salakhutdinov (ICML 2015): LSTM, RepeatVector, LSTM in Keras."""

from collections.abc import Callable

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from pipeline.cells.cell import Cell
from pipeline.encoders.unroll import repeat
from pipeline.layers.stage import Stage, State

LEAST = 1e-12  # of a mean square, whose root has no slope at 0


class Autoencoder(Stage):
    """What a code of ``steps`` steps cannot tell: ``(B, T*steps, *shape)`` to the root mean square of each number's
    error, ``(B, T, *shape)``.

    A cell reads the steps; its last output is their code. Another cell is told the code at each step, and a linear map
    makes the steps of what it says. It is trained by its own square. Nothing is remembered from one code to the next.
    """

    def __init__(
        self, shape: tuple[int, ...], cell: Callable[..., Cell], hidden: PositiveInt = 64, steps: PositiveInt = 25
    ) -> None:
        """``shape`` of a step; ``hidden`` numbers of a code."""
        super().__init__()
        self.in_shape = self.out_shape = shape
        self.hop = steps
        size = torch.Size(shape).numel()
        self.reader, self.writer = cell(shape=(size,), hidden=hidden), cell(shape=(hidden,), hidden=hidden)
        self.map = nn.Linear(hidden, size)

    def code(self, x: Tensor) -> Tensor:
        """Codes ``(N, hidden)`` of N stretches ``(N, steps, F)``: also an embedding."""
        return self.reader(x, self.reader.initial(x.shape[0]))[0][:, -1]

    def decoded(self, code: Tensor) -> Tensor:
        """Stretches ``(N, steps, F)`` of their codes ``(N, hidden)``."""
        y, _ = self.writer(repeat(code, self.hop), self.writer.initial(code.shape[0]))
        made: Tensor = self.map(y)
        return made

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One output for each code."""
        parts = x.reshape(-1, self.hop, self.map.out_features)
        error = (parts - self.decoded(self.code(parts))).square().mean(1)
        return (error + LEAST).sqrt().reshape(x.shape[0], -1, *self.out_shape), state
