"""Long short-term memory: Hochreiter & Schmidhuber, Neural Computation 9 (1997), with the forget gate of Gers,
Schmidhuber & Cummins (2000), the peepholes of Gers & Schmidhuber (2000), and gates coupled as in Greff et al. (2017).
"""

from typing import Any

from pipeline.cells.cell import Cell
from pipeline.cells.conv_cell import ConvCell


class LSTM(Cell):
    """i = s(W_ii x + b_ii + W_hi h(t-1) + b_hi [+ w_ci c(t-1)])
    f = s(W_if x + b_if + W_hf h(t-1) + b_hf [+ w_cf c(t-1)])
    g = tanh(W_ig x + b_ig + W_hg h(t-1) + b_hg)
    c(t) = f c(t-1) + i g
    o = s(W_io x + b_io + W_ho h(t-1) + b_ho [+ w_co c(t)])
    h(t) = o tanh(c(t));  y(t) = h(t)

    s is the sigmoid, products of gates are per unit, [] are the peepholes. Weight rows in the order i, f, g, o; the
    peepholes ``weight_ch`` in the order i, f, o. The state is ``(h, c)``.
    """

    inputs: tuple[str, ...] = ("i", "f", "g", "o")
    gates = inputs
    memory = ("h", "c")
    remember = ("f", 1)
    torch_kernel: str | None = "lstm"

    def __init__(self, *args: Any, peephole: bool = False, **options: Any) -> None:
        """``peephole``: the gates see c."""
        if peephole:
            self.seen = tuple(name for name in self.gates if name != "g")
        super().__init__(*args, **options)

    def equations(self, m: Any, x: Any, h: Any, c: Any) -> tuple[Any, ...]:
        """As above."""
        r = m.recur(h, "i", "f", "g", "o")
        i = m.gate(x.i + r.i + m.peep("i", c))
        f = m.gate(x.f + r.f + m.peep("f", c))
        c = f * c + i * m.tanh(x.g + r.g)
        o = m.gate(x.o + r.o + m.peep("o", c))
        return o * m.tanh(m.norm(c)), c

    @property
    def variant(self) -> tuple[Any, ...]:
        """The peepholes count."""
        return (*super().variant, self.seen)


class CoupledLSTM(LSTM):
    """The LSTM whose input gate is i = 1 - f: what is forgotten makes room for what comes.

    Weight rows in the order f, g, o; peepholes f, o.
    """

    inputs = gates = ("f", "g", "o")
    torch_kernel = None

    def equations(self, m: Any, x: Any, h: Any, c: Any) -> tuple[Any, ...]:
        """As in the LSTM, without i."""
        r = m.recur(h, "f", "g", "o")
        f = m.gate(x.f + r.f + m.peep("f", c))
        c = f * c + (1 - f) * m.tanh(x.g + r.g)
        o = m.gate(x.o + r.o + m.peep("o", c))
        return o * m.tanh(m.norm(c)), c


class ConvLSTM(ConvCell, LSTM):
    """Shi et al., "Convolutional LSTM network", NeurIPS 2015 (arXiv 1506.04214): the LSTM over images.

    Products are convolutions; a peephole has a weight per channel and pixel, as in their equation 3.
    """
