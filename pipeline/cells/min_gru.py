"""minGRU: Feng et al., "Were RNNs all we needed?", arXiv 2410.01201 (2024)."""

from typing import Any

from pipeline.cells.cell import Cell


class MinGRU(Cell):
    """z = s(W_iz x + b_iz);  n = W_in x + b_in
    h(t) = (1 - z) h(t-1) + z n;  y(t) = h(t)

    The gate sees x alone, so that nothing but a running weighted mean is left in the time loop. A *small* z keeps the
    memory. Weight rows in the order z, n; there is no ``weight_hh``.
    """

    inputs = ("z", "n")
    gates = ()
    remember = ("z", -1)

    def equations(self, m: Any, x: Any, h: Any) -> tuple[Any, ...]:
        """As above."""
        z = m.gate(x.z)
        return (h + z * (x.n - h),)
