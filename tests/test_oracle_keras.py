"""Cells against Keras: outputs, memory and gradients, with weights that ``from_keras`` copied in.

TensorFlow is heavy, so `make test-oracles` runs Keras in an environment of its own and hands its numbers over in a file.
"""

import os

import numpy as np
import pytest
import torch

from pipeline.cells.elman import Elman
from pipeline.cells.gru import GRU, GRUResetBefore
from pipeline.cells.layouts import from_keras
from pipeline.cells.lstm import LSTM, ConvLSTM, CoupledLSTM

HARD = {"gate": "hard_sigmoid"}
CASES = {
    "elman": (Elman, {}), "lstm": (LSTM, {}), "lstm_hard_sigmoid": (LSTM, HARD), "gru": (GRU, {}),
    "gru_reset_before": (GRUResetBefore, {}), "gru_reset_before_hard_sigmoid": (GRUResetBefore, HARD),
    "conv_lstm": (ConvLSTM, {"kernel": 3}), "conv_lstm_hard_sigmoid": (ConvLSTM, {"kernel": 3} | HARD),
    "conv_lstm_dilated": (ConvLSTM, {"kernel": 5, "dilation": 2}),
}  # fmt: skip


@pytest.fixture(scope="module")
def reference():
    path = os.environ.get("RIVULET_KERAS")
    if not path:
        pytest.skip("no numbers of Keras; run `make test-oracles`")
    with np.load(path) as file:
        return dict(file)


def first(array, image):
    """Channels first."""
    return np.moveaxis(array, -1, -3) if image else array


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("learning", [True, False])
def test_keras(name, learning, reference):
    own = {key.partition("/")[2]: value for key, value in reference.items() if key.startswith(f"{name}/")}
    image = "conv" in name
    x = torch.from_numpy(np.ascontiguousarray(first(own["x"], image))).requires_grad_(learning)
    kind, options = CASES[name]
    cell = kind(tuple(x.shape[2:]), 4 if image else 9, **options)
    from_keras(cell, [own[f"weight{n}"] for n in range(3)])
    state = [torch.from_numpy(np.ascontiguousarray(first(own[f"state{n}"], image))) for n in range(len(cell.memory))]
    with torch.set_grad_enabled(learning):
        y, last = cell(x, tuple(state) if len(state) > 1 else state[0])
    last = list(last) if isinstance(last, tuple) else [last]
    found = [y, *last]
    expected = [own["y"], *(own[f"last{n}"] for n in range(len(last)))]
    worst = max(np.abs(a.detach().numpy() - first(b, image)).max() for a, b in zip(found, expected))
    print(f"\n{name}: outputs differ by {worst:.1e}", end="")
    assert worst <= 5e-7
    if learning:
        seeds = torch.linspace(0, 1, y.numel()).view(own["y"].shape)
        (torch.from_numpy(first(seeds.numpy(), image)) * y).sum().backward()
        twin = type(cell)(cell.in_shape, cell.hidden, **options)
        from_keras(twin, [own[f"gradient{n}"] for n in (1, 2, 3)])  # gradients have the layout of the weights
        pairs = [(x.grad, torch.from_numpy(first(own["gradient0"], image).copy()))]
        pairs += [
            (getattr(cell, key).grad, getattr(twin, key).detach()) for key in ("weight_ih", "weight_hh", "bias_ih")
        ]
        worst = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
        print(f", gradients by {worst:.1e} of the greatest", end="")
        assert worst <= 2e-6


def test_keras_weights_must_fit():
    with pytest.raises(ValueError, match="Keras has no layer with the equations of CoupledLSTM"):
        from_keras(CoupledLSTM((5,), 9), [np.zeros((5, 27)), np.zeros((9, 27)), np.zeros(27)])
    with pytest.raises(ValueError, match="is reset_after as it is"):
        from_keras(GRU((5,), 9), [np.zeros((5, 27)), np.zeros((9, 27)), np.zeros(27)])
    with pytest.raises(ValueError, match="of LSTM with peephole"):
        from_keras(LSTM((5,), 9, peephole=True), [np.zeros((5, 36)), np.zeros((9, 36)), np.zeros(36)])
    cell = LSTM((5,), 9)
    from_keras(cell, [np.zeros((5, 36)), np.zeros((9, 36))])
    assert not cell.bias_ih.any() and not cell.bias_hh.any()
    with pytest.raises(ValueError, match=r"weight_ih has shape \(36, 4\); expected \(36, 5\)"):
        from_keras(LSTM((5,), 9), [np.zeros((4, 36)), np.zeros((9, 36)), np.zeros(36)])
