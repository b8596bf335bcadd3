"""Elman's simple recurrent network: Elman, "Finding structure in time", Cognitive Science 14 (1990)."""

import torch
from torch import Tensor
from torch.nn.functional import linear

from pipeline.cell import Cell
from pipeline.stage import State


class Elman(Cell):
    """h(t) = tanh(W_ih x(t) + b_ih + W_hh h(t-1) + b_hh);  y(t) = h(t)."""

    gates = 1

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """The equation above, for one time step."""
        h = torch.tanh(projected + linear(state, self.weight_hh, self.bias_hh))
        return h, h

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Torch's fused kernel; for a single step the loop costs less."""
        if x.shape[1] < 2:
            return super().forward(x, state)
        y, h = torch.rnn_tanh(x, state[None], self.weights, True, 1, 0.0, self.training, False, True)
        return y, h[0]
