"""Long short-term memory with the forget gate: Hochreiter & Schmidhuber (1997), Gers, Schmidhuber & Cummins (2000)."""

import torch
from torch import Tensor
from torch.nn.functional import linear

from pipeline.cell import Cell
from pipeline.stage import State


class LSTM(Cell):
    """i, f, o = sigmoid(W_i. x + b_i. + W_h. h + b_h.);  g = tanh(W_ig x + b_ig + W_hg h + b_hg)
    c(t) = f * c(t-1) + i * g;  h(t) = o * tanh(c(t));  y(t) = h(t).  Weight rows in the order i, f, g, o.

    The state is ``(h, c)``, each ``(B, hidden)``.
    """

    gates = 4

    def initial(self, batch: int) -> State:
        """H = 0, c = 0."""
        return self.zeros(batch, self.hidden), self.zeros(batch, self.hidden)

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """The equations above, for one time step."""
        h, c = state
        i, f, g, o = (projected + linear(h, self.weight_hh, self.bias_hh)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Torch's fused kernel, except for a few steps: on CPU it re-packs its weights in every call."""
        if x.shape[1] < 4:
            return super().forward(x, state)
        h, c = state
        y, h, c = torch.lstm(x, (h[None], c[None]), self.weights, True, 1, 0.0, self.training, False, True)
        return y, (h[0], c[0])
