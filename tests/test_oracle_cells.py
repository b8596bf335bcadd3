"""Cells against torch.nn, and the readable loop against the fused kernel, gradients included."""

import pytest
import torch

from pipeline.cell import Cell
from pipeline.cells.elman import Elman
from pipeline.cells.gru import GRU
from pipeline.cells.lstm import LSTM

PAIRS = [(Elman, torch.nn.RNN), (GRU, torch.nn.GRU), (LSTM, torch.nn.LSTM)]


def twins(ours, theirs, inputs=5, hidden=9):
    torch.manual_seed(3)
    cell = ours(inputs, hidden)
    net = theirs(inputs, hidden, batch_first=True)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    net.load_state_dict({f"{name}_l0": getattr(cell, name).detach().clone() for name in names})
    return cell, net, names


def begin(cell, seed=0):
    """A random start, ours and torch's."""
    torch.manual_seed(seed)
    h, c = torch.randn(3, cell.hidden), torch.randn(3, cell.hidden)
    return ((h, c), (h[None], c[None])) if isinstance(cell, LSTM) else (h, h[None])


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 50])
def test_cell_is_torchs(ours, theirs, steps):
    cell, net, names = twins(ours, theirs)
    x = torch.randn(3, steps, 5)
    state, hx = begin(cell)
    y, after = cell(x, state)
    z, last = net(x, hx)
    assert torch.allclose(y, z, atol=1e-6, rtol=1e-5)
    for a, b in zip(after if isinstance(after, tuple) else (after,), last if isinstance(last, tuple) else (last,)):
        assert torch.allclose(a, b[0], atol=1e-6, rtol=1e-5)
    y.square().sum().backward()
    z.square().sum().backward()
    for name in names:
        expected = getattr(net, f"{name}_l0").grad
        assert torch.allclose(getattr(cell, name).grad, expected, atol=1e-5 * max(1, expected.abs().max().item()))


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_loop_is_the_fused_kernel(ours, theirs):
    cell, _, _ = twins(ours, theirs)
    cell = cell.double()
    x = torch.randn(3, 20, 5, dtype=torch.float64)
    y, _ = cell(x, cell.initial(3))
    z, _ = Cell.forward(cell, x, cell.initial(3))
    assert torch.allclose(y, z, atol=1e-12)


@pytest.mark.parametrize("ours", [ours for ours, _ in PAIRS])
def test_gradients_of_the_equations(ours):
    torch.manual_seed(0)
    cell = ours(2, 3).double()
    x = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: Cell.forward(cell, x, cell.initial(2))[0], (x,))
