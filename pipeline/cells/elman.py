"""Elman's simple recurrent network: Elman, "Finding structure in time", Cognitive Science 14 (1990)."""

from typing import Any

from pipeline.cells.cell import Cell
from pipeline.cells.conv_cell import ConvCell


class Elman(Cell):
    """h(t) = tanh(W_ih x(t) + b_ih + W_hh h(t-1) + b_hh);  y(t) = h(t)."""

    inputs = gates = ("h",)
    torch_kernel = "rnn_tanh"

    def equations(self, m: Any, x: Any, h: Any) -> tuple[Any, ...]:
        """As above."""
        return (m.tanh(x.h + m.recur(h, "h").h),)


class ConvElman(ConvCell, Elman):
    """Elman's network over images: both products are convolutions, W * x and W * h."""
