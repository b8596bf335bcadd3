"""Recurrent layers over time: any cell, stacked."""

from collections.abc import Callable

from torch import Tensor, nn

from pipeline.cell import Cell
from pipeline.stage import Stage, State


class RecurrentLayer(Stage):
    """A cell over time, then LayerNorm (Ba et al. 2016) and dropout: ``(B, T, F) -> (B, T, hidden)``."""

    def __init__(
        self, cell: Callable[..., Cell], inputs: int, hidden: int, layer_norm: bool = True, dropout: float = 0.0
    ) -> None:
        """``cell`` makes the cell from ``inputs`` and ``hidden``."""
        super().__init__()
        self.cell = cell(inputs=inputs, hidden=hidden)
        self.in_shape, self.out_shape = self.cell.in_shape, self.cell.out_shape
        self.after = nn.Sequential(
            nn.LayerNorm(hidden) if layer_norm else nn.Identity(),
            nn.Dropout(dropout),
        )

    def initial(self, batch: int) -> State:
        """The cell's state."""
        return self.cell.initial(batch)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The state is the cell's own: normalisation acts on what is passed on, not on what is remembered."""
        y, state = self.cell(x, state)
        return self.after(y), state
