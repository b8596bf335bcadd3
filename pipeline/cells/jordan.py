"""Jordan's network, whose memory is its own output: Jordan, "Serial order: a parallel distributed processing approach",
Institute for Cognitive Science Report 8604, UC San Diego (1986).
"""

from typing import Any, Literal

from pipeline.cells.cell import Cell


class Jordan(Cell):
    """h(t) = tanh(W_ih x(t) + b_ih + W_hh y(t-1) + b_hh);  y(t) = s(W_yh h(t) + b_yh).

    The state is y. ``weight_hh`` holds W_hh and below it W_yh, the output's own learned map.
    """

    inputs = ("h",)
    gates = ("h", "y")
    memory = ("y",)

    def __init__(self, *args: Any, output: Literal["tanh", "sigmoid", "linear"] = "tanh", **options: Any) -> None:
        """``output``: the function s."""
        super().__init__(*args, **options)
        if output not in ("tanh", "sigmoid", "linear"):
            raise ValueError(f"Jordan: output is {output!r}; expected tanh, sigmoid or linear (cell.output)")
        self.output = output

    def equations(self, m: Any, x: Any, y: Any) -> tuple[Any, ...]:
        """As above."""
        h = m.tanh(x.h + m.recur(y, "h").h)
        y = m.recur(h, "y").y
        return (m.tanh(y) if self.output == "tanh" else m.gate(y) if self.output == "sigmoid" else y,)

    @property
    def variant(self) -> tuple[Any, ...]:
        """The output function counts."""
        return (*super().variant, self.output)
