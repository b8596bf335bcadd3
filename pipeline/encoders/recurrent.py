"""Recurrent layers over time: any cell, dense or convolutional, stacked by the encoder."""

from collections.abc import Callable

from torch import Tensor, nn

from pipeline.cells.cell import Cell
from pipeline.layers.stage import Stage, State


class RecurrentLayer(Stage):
    """A cell over time, then LayerNorm over channels (Ba et al. 2016) and dropout: ``(B, T, *shape)`` to
    ``(B, T, hidden)``, or ``(B, T, hidden, H, W)`` for a cell over images.

    ``residual`` adds the input where the shapes allow it (He et al. 2016).
    """

    def __init__(
        self,
        cell: Callable[..., Cell],
        shape: tuple[int, ...],
        hidden: int,
        layer_norm: bool = True,
        dropout: float = 0.0,
        residual: bool = False,
    ) -> None:
        """``cell`` makes the cell from ``shape`` and ``hidden``."""
        super().__init__()
        self.cell = cell(shape=shape, hidden=hidden)
        self.in_shape, self.out_shape = self.cell.in_shape, self.cell.out_shape
        self.residual = residual and self.in_shape == self.out_shape
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
        y = self.after(y.movedim(2, -1)).movedim(-1, 2)
        return (x + y if self.residual else y), state
