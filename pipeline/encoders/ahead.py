"""How far steps lie from what a recurrent network expected of them (Malhotra et al. 2015, ESANN)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.cells.cell import Cell
from pipeline.encoders.encoder import Encoder
from pipeline.layers.stage import State


class Ahead(Encoder):
    """x(t) - guess(t), where the guess is made of all steps before t: ``(B, T, *shape)`` to the same.

    It is trained by its own square. Settings: see ``Encoder``.
    """

    def __init__(self, shape: tuple[int, ...], cell: Callable[..., Cell], **options: Any) -> None:
        """``shape`` of a step. ValueError for convolutions with strides."""
        super().__init__(shape, cell, **options)
        if self.hop != 1:
            raise ValueError(
                f"encoder.convolutions: their strides make a hop of {self.hop}; expected 1, to guess steps"
            )
        self.guess = nn.Linear(self.out_shape[0], torch.Size(shape).numel())
        self.out_shape = shape

    def initial(self, batch: int) -> State:
        """The network's state, and its guess of the first step: the mean of the training data, which is zero."""
        return super().initial(batch), self.zeros(batch, 1, *self.out_shape)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """What was not foreseen."""
        hidden, inner = super().forward(x, state[0])
        guesses = torch.cat([state[1], self.guess(hidden).reshape(x.shape)], 1)
        return x - guesses[:, :-1], (inner, guesses[:, -1:].clone())
