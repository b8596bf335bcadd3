"""Minimal gated unit: Zhou et al., "Minimal gated unit for recurrent neural networks", IJAC 13 (2016)."""

from typing import Any

from pipeline.cells.cell import Cell


class MGU(Cell):
    """f = s(W_if x + b_if + W_hf h(t-1) + b_hf)
    n = tanh(W_in x + b_in + W_hn (f h(t-1)) + b_hn)
    h(t) = (1 - f) h(t-1) + f n;  y(t) = h(t)

    One gate both resets and updates. A *small* f keeps the memory. Weight rows in the order f, n.
    """

    inputs = gates = ("f", "n")
    remember = ("f", -1)

    def equations(self, m: Any, x: Any, h: Any) -> tuple[Any, ...]:
        """As above."""
        f = m.gate(x.f + m.recur(h, "f").f)
        n = m.tanh(x.n + m.recur(f * h, "n").n)
        return (h + f * (n - h),)
