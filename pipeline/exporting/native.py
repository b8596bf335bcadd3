"""Cells as ONNX's own operators RNN, LSTM and GRU, where there is one with their equations.

A runtime computes such an operator as one kernel over time; written step by step, the same cell takes hundreds of
operators.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.cells.cell import Cell
from pipeline.cells.layouts import to_onnx
from pipeline.layers.stage import Stage, State

OPSET = 20
SETTINGS: dict[str, tuple[str, dict[str, int]]] = {
    "Elman": ("RNN", {}),
    "LSTM": ("LSTM", {}),
    "CoupledLSTM": ("LSTM", {"input_forget": 1}),
    "GRU": ("GRU", {"linear_before_reset": 1}),
    "GRUResetBefore": ("GRU", {"linear_before_reset": 0}),
}


class NativeCell(Stage):
    """A dense cell as one operator: ``(B, T, F) -> (B, T, hidden)``, for export alone."""

    def __init__(self, cell: Cell) -> None:
        """ValueError if ONNX has no operator with the cell's equations."""
        super().__init__()
        self.in_shape, self.out_shape, self.hidden = cell.in_shape, cell.out_shape, cell.hidden
        self.initial = cell.initial  # type: ignore[method-assign]
        weights = to_onnx(cell)
        self.operator, self.settings = SETTINGS[type(cell).__name__]
        for name in "WRBP":
            self.register_buffer(name, torch.from_numpy(weights[name]) if name in weights else None)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Time first, and an axis of directions, as ONNX has it."""
        memory = [state] if isinstance(state, Tensor) else list(state)
        given: list[Any] = [x.transpose(0, 1), self.W, self.R, self.B, None, *(part[None] for part in memory)]
        given += [self.P] if self.P is not None else []
        (batch, steps), hidden = x.shape[:2], self.hidden
        y, *last = torch.onnx.ops.symbolic_multi_out(
            self.operator,
            given,
            attrs={"hidden_size": hidden, **self.settings},
            dtypes=[x.dtype] * (1 + len(memory)),
            shapes=[(steps, 1, batch, hidden), *[(1, batch, hidden)] * len(memory)],
            version=OPSET,
        )
        after = tuple(part.squeeze(0) for part in last)
        return y.squeeze(1).transpose(0, 1), after if len(after) > 1 else after[0]


def with_native_cells(module: nn.Module) -> None:
    """Put operators in the place of all cells that have one, for good."""
    for name, part in module.named_children():
        if isinstance(part, Cell):
            try:
                setattr(module, name, NativeCell(part))
            except ValueError:  # no such operator: it is written step by step
                continue
        else:
            with_native_cells(part)
