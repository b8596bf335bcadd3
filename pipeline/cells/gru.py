"""Gated recurrent unit: Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014.

The form of cuDNN and torch: the reset gate acts after the recurrent product, and z keeps the *old* state.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear

from pipeline.cell import Cell
from pipeline.stage import State


class GRU(Cell):
    """r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
    z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
    n = tanh(W_in x + b_in + r * (W_hn h + b_hn))
    h(t) = (1 - z) * n + z * h(t-1);  y(t) = h(t).  Weight rows in the order r, z, n.
    """

    gates = 3

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """The equations above, for one time step."""
        xr, xz, xn = projected.chunk(3, 1)
        hr, hz, hn = linear(state, self.weight_hh, self.bias_hh).chunk(3, 1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        h = n + z * (state - n)
        return h, h

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Torch's fused kernel; for a single step the loop costs less."""
        if x.shape[1] < 2:
            return super().forward(x, state)
        y, h = torch.gru(x, state[None], self.weights, True, 1, 0.0, self.training, False, True)
        return y, h[0]
