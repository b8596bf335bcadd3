"""Gated recurrent unit: Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014.

In all forms here z keeps the *old* state, as in cuDNN and torch; texts that write h = (1 - z) h' + z n mean 1 - z by z.
"""

from typing import Any

from pipeline.cells.cell import Cell
from pipeline.cells.conv_cell import ConvCell


class GRU(Cell):
    """r = s(W_ir x + b_ir + W_hr h(t-1) + b_hr)
    z = s(W_iz x + b_iz + W_hz h(t-1) + b_hz)
    n = tanh(W_in x + b_in + r (W_hn h(t-1) + b_hn))
    h(t) = (1 - z) n + z h(t-1);  y(t) = h(t)

    The form of cuDNN and torch: the reset gate acts after the recurrent product. Weight rows in the order r, z, n.
    """

    inputs = gates = ("r", "z", "n")
    remember = ("z", 1)
    torch_kernel = "gru"

    def equations(self, m: Any, x: Any, h: Any) -> tuple[Any, ...]:
        """As above."""
        u = m.recur(h, "r", "z", "n")
        r = m.gate(x.r + u.r)
        z = m.gate(x.z + u.z)
        n = m.tanh(x.n + r * u.n)
        return (n + z * (h - n),)


class GRUResetBefore(Cell):
    """n = tanh(W_in x + b_in + W_hn (r h(t-1)) + b_hn), the rest as in the GRU.

    The form of the paper: the reset gate acts on h before the product, which must then wait for r.
    """

    inputs = gates = ("r", "z", "n")
    remember = ("z", 1)

    def equations(self, m: Any, x: Any, h: Any) -> tuple[Any, ...]:
        """As above."""
        u = m.recur(h, "r", "z")
        r = m.gate(x.r + u.r)
        z = m.gate(x.z + u.z)
        n = m.tanh(x.n + m.recur(r * h, "n").n)
        return (n + z * (h - n),)


class ConvGRU(ConvCell, GRU):
    """The GRU over images (Ballas et al., ICLR 2016, arXiv 1511.06432): products are convolutions."""


class ConvGRUResetBefore(ConvCell, GRUResetBefore):
    """The GRU of the paper over images: products are convolutions."""
