"""Trained weights of other libraries' recurrent layers into our cells, and ours out to ONNX.

All hold the same numbers: blocks of rows (or columns) per gate, in an order of their own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.cells.cell import Cell

# Our cells by their class, and our gates in the order of the other library.
TORCH = {"Elman": "RNN_TANH", "LSTM": "LSTM", "GRU": "GRU"}
KERAS = {
    "Elman": ("h",),
    "LSTM": ("i", "f", "g", "o"),
    "GRU": ("z", "r", "n"),
    "GRUResetBefore": ("z", "r", "n"),
    "ConvLSTM": ("i", "f", "g", "o"),
}
ONNX = {
    "Elman": ("h",),
    "LSTM": ("i", "o", "f", "g"),
    "CoupledLSTM": ("i", "o", "f", "g"),
    "GRU": ("z", "r", "n"),
    "GRUResetBefore": ("z", "r", "n"),
}
PEEPHOLES = ("i", "o", "f")


def ordered(tensor: Tensor, given: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Blocks of rows in another order."""
    parts = dict(zip(given, tensor.chunk(len(given)), strict=True))
    return torch.cat([parts[name] for name in wanted])


def same(cell: Cell, names: dict[str, Any], library: str, peepholes: bool = False, hard: bool = False) -> Any:
    """What ``names`` has for this cell; ValueError if the other library has no layer with its equations."""
    kind = type(cell).__name__
    if kind not in names:
        raise ValueError(f"{library} has no layer with the equations of {kind}")
    strange = {
        "layer_norm": cell.norms is not None,
        "zoneout": cell.zoneout > 0,
        "peephole": cell.seen and not peepholes,
    }
    strange["gate=hard_sigmoid"] = cell.gate != "sigmoid" and not hard
    for option in (option for option, on in strange.items() if on):
        raise ValueError(f"{library} has no layer with the equations of {kind} with {option}")
    return names[kind]


@torch.no_grad()
def assign(cell: Cell, **weights: Tensor | None) -> None:
    """Copy weights in; ValueError names those whose shape is another."""
    for name, weight in weights.items():
        own = getattr(cell, name)
        if weight is None and own is not None and name.startswith("bias"):
            weight = torch.zeros_like(own)
        if own is None and (weight is None or not weight.any()):
            continue
        if own is None or weight is None or own.shape != weight.shape:
            expected = None if own is None else tuple(own.shape)
            given = None if weight is None else tuple(weight.shape)
            raise ValueError(f"{type(cell).__name__}: {name} has shape {given}; expected {expected}")
        own.copy_(weight)


def from_torch(cell: Cell, layer: torch.nn.RNNBase, number: int = 0, reverse: bool = False) -> None:
    """Copy layer ``number`` of an ``nn.RNN`` (tanh), ``nn.LSTM`` or ``nn.GRU`` into an Elman, LSTM or GRU cell.

    ValueError if the kind or a size differs.
    """
    if same(cell, TORCH, "torch.nn") != layer.mode:
        raise ValueError(f"{type(cell).__name__} cannot take the weights of a {layer.mode} layer: other equations")
    suffix = f"_l{number}{'_reverse' if reverse else ''}"
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    assign(cell, **{name: getattr(layer, name + suffix, None) for name in names})


def from_keras(cell: Cell, weights: Sequence[Any]) -> None:
    """Copy ``layer.get_weights()`` of Keras' SimpleRNN, LSTM, GRU (``reset_after=True`` into GRU, False into
    GRUResetBefore) or ConvLSTM2D (stride 1) into our cell.

    Keras lays kernels out ``(inputs, blocks * units)``, images ``(height, width, inputs, blocks * units)``, and has
    one bias, but for the GRU with ``reset_after`` two. ValueError if the kind or a size differs.
    """
    order = same(cell, KERAS, "Keras", hard=True)
    kernel, recurrent, *rest = [torch.from_numpy(np.array(w, np.float32)).to(cell.weight_ih.dtype) for w in weights]
    axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
    found: dict[str, Tensor | None] = {"weight_ih": kernel.permute(axes), "weight_hh": recurrent.permute(axes)}
    found |= {"bias_ih": None, "bias_hh": None}
    if rest:
        if (rest[0].ndim == 2) != (type(cell).__name__ == "GRU"):
            raise ValueError(
                f"{type(cell).__name__}: the bias has shape {tuple(rest[0].shape)}; is reset_after as it is?"
            )
        both = rest[0] if rest[0].ndim == 2 else torch.stack([rest[0], torch.zeros_like(rest[0])])
        found |= {"bias_ih": both[0], "bias_hh": both[1]}
    parts = {name: weight if weight is None else ordered(weight, order, cell.gates) for name, weight in found.items()}
    assign(cell, **parts)


def to_onnx(cell: Cell) -> dict[str, np.ndarray]:
    """W, R, B (and P) of ONNX' RNN, LSTM or GRU, with the axis of directions first (ONNX operators, opset 14).

    A CoupledLSTM is the LSTM with ``input_forget=1``, which computes i and sets f = 1 - i: so its i is our f negated.
    """
    weights = {"W": cell.weight_ih, "R": cell.weight_hh, "Wb": cell.bias_ih, "Rb": cell.bias_hh}
    order, given, found = same(cell, ONNX, "ONNX", peepholes=True), cell.gates, {}
    for name, weight in weights.items():
        rows = len(given) * cell.hidden
        w = torch.zeros(rows, dtype=cell.weight_ih.dtype) if weight is None else weight.detach().cpu()
        if given == ("f", "g", "o"):
            parts = dict(zip(given, w.chunk(3), strict=True))
            found[name] = torch.cat([-parts["f"], parts["o"], parts["f"], parts["g"]])
        else:
            found[name] = ordered(w, given, order)
    result = {"W": found["W"], "R": found["R"], "B": torch.cat([found["Wb"], found["Rb"]])}
    if cell.weight_ch is not None:
        peep = dict(zip(cell.seen, cell.weight_ch.detach().cpu(), strict=True))
        result["P"] = torch.cat([peep.get(name, -peep["f"]) for name in PEEPHOLES])
    return {name: weight[None].numpy() for name, weight in result.items()}
