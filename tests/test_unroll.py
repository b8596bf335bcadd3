"""Blocks, lengths, restarts and generation, against the plain run of each row alone."""

import pytest
import torch
from conftest import configured
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cells.gru import GRU, ConvGRU
from pipeline.cells.jordan import Jordan
from pipeline.core.build import build
from pipeline.encoders.encoder import Encoder
from pipeline.encoders.unroll import at_end, checkpointed, generate, ragged, repeat, restarting, truncated
from pipeline.layers import laws
from pipeline.layers.stage import Chain, detach, pick

every_cell = pytest.mark.parametrize("cell", ["lstm", "gru"])  # two memories, and one


def encoder(cell="lstm", **changes):
    torch.manual_seed(0)
    config = configured("train", f"cell={cell}", "encoder=recurrent", "encoder.hidden=6", "encoder.layers=2")
    return build(config["encoder"] | {"cell": config["cell"]} | changes, Chain, at="encoder", shape=(3,)).eval()


def warm(stage, rows):
    return stage(torch.randn(rows, 4 * stage.hop, 3), stage.initial(rows))[1]


def same(a, b, bound=1e-6):
    laws.same(a, b, "the answer", bound)


@every_cell
@torch.no_grad()
@settings(max_examples=10)
@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5), extra=st.integers(0, 3))
def test_ragged_is_each_row_alone(cell, lengths, extra):
    stage = encoder(cell)
    x, state = torch.randn(len(lengths), max(lengths) + extra, 3), warm(stage, len(lengths))
    y, last = ragged(stage, x, torch.tensor(lengths), state)
    assert y.shape == (len(lengths), max(lengths) + extra, 6)
    for row, length in enumerate(lengths):
        alone, after = stage(x[row : row + 1, :length], pick(state, row))
        same(y[row : row + 1, :length], alone)
        assert not y[row, length:].any()
        same(pick(last, row), after)
        if length:
            same(at_end(y, torch.tensor(lengths))[row], alone[0, -1])


@torch.no_grad()
def test_ragged_through_convolutions_counts_input_steps():
    stage = encoder(convolutions=[{"channels": 4, "stride": 2}])
    x = torch.randn(3, 12, 3)
    y, last = ragged(stage, x, torch.tensor([4, 12, 0]), stage.initial(3))
    alone, after = stage(x[:1, :4], stage.initial(1))
    same(y[:1, :2], alone)
    same(pick(last, 0), after)
    with pytest.raises(ValueError, match="multiples of the hop 2"):
        ragged(stage, x, torch.tensor([3, 12, 0]), stage.initial(3))
    with pytest.raises(ValueError, match="do not fit"):
        ragged(stage, x, torch.tensor([4, 14, 0]), stage.initial(3))


@every_cell
@torch.no_grad()
@settings(max_examples=10)
@given(data=st.data(), rows=st.integers(1, 4), steps=st.integers(1, 8))
def test_restarting_is_each_piece_alone(cell, data, rows, steps):
    stage = encoder(cell)
    flags = [[data.draw(st.booleans()) for _ in range(steps)] for _ in range(rows)]
    x, state = torch.randn(rows, steps, 3), warm(stage, rows)
    y, last = restarting(stage, x, torch.tensor(flags), state)
    for row in range(rows):
        own = pick(state, row)
        for t in range(steps):
            own = stage.initial(1) if flags[row][t] else own
            alone, own = stage(x[row : row + 1, t : t + 1], own)
            same(y[row : row + 1, t : t + 1], alone)
        same(pick(last, row), own)


def gradients(stage, loss):
    stage.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in stage.parameters()]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_checkpointed_has_the_same_gradient(size):
    stage = encoder(dropout=0.0).double()
    x = torch.randn(2, 20, 3, dtype=torch.float64)
    state = detach(stage(x, stage.initial(2))[1])
    y, last = stage(x, state)
    z, after = checkpointed(stage, x, state, size)
    same(y, z)
    same(last, after)
    weights = torch.linspace(-1, 1, y.numel()).view_as(y)
    same(gradients(stage, (y * weights).sum()), gradients(stage, (z * weights).sum()), 1e-10)


def kept(run):
    """Greatest number of bytes that the tape of autograd holds at one time."""
    held, peak = {}, 0  # by storage: how often, and how large

    class Held:
        def __init__(self, tensor):
            nonlocal peak
            storage = tensor.untyped_storage()
            self.tensor, self.key = tensor, storage.data_ptr()
            count, size = held.get(self.key, (0, storage.nbytes()))
            held[self.key] = count + 1, size
            peak = max(peak, sum(size for _, size in held.values()))

        def __del__(self):
            count, size = held.pop(self.key)
            if count > 1:
                held[self.key] = count - 1, size

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        run()
    return peak


def test_memory_of_truncation_and_checkpoints_is_bounded():
    stage = encoder(hidden=16)

    def plain(x):
        stage(x, stage.initial(2))[0].sum().backward()

    def in_blocks(x):
        for y, _ in truncated(stage, x, stage.initial(2), 20):
            y.sum().backward()

    def twice(x):
        checkpointed(stage, x, stage.initial(2), 20)[0].sum().backward()

    short, long = torch.randn(2, 60, 3), torch.randn(2, 480, 3)
    assert kept(lambda: plain(long)) > 5 * kept(lambda: plain(short))
    assert kept(lambda: in_blocks(long)) <= 1.5 * kept(lambda: in_blocks(short))
    assert kept(lambda: twice(long)) < 0.5 * kept(lambda: plain(long))


def test_truncated_cuts_the_gradient_and_nothing_else():
    stage = encoder(dropout=0.0)
    x, state = torch.randn(2, 20, 3), warm(stage, 2)
    blocks = list(truncated(stage, x, state, 6))
    whole, last = stage(x, state)
    same(torch.cat([y for y, _ in blocks], 1), whole)
    same(blocks[-1][1], last)
    x = torch.randn(2, 12, 3, requires_grad=True)
    blocks = list(truncated(stage, x, state, 6))
    blocks[1][0].sum().backward()
    assert not x.grad[:, :6].any() and x.grad[:, 6:].any()


def test_encoder_checkpoints_in_training():
    stage, saving = encoder(dropout=0.0).train(), encoder(dropout=0.0, checkpoint=5).train()
    x = torch.randn(2, 20, 3)
    y, z = (s(x, s.initial(2))[0] for s in (stage, saving))
    same(y, z)
    same(gradients(stage, y.sum()), gradients(saving, z.sum()), 1e-5)
    more, less = (kept(lambda s=s: s(x, s.initial(2))[0].sum().backward()) for s in (stage, saving))
    assert less < more
    with pytest.raises(ValueError, match="multiple of the hop 2"):
        encoder(convolutions=[{"channels": 4, "stride": 2}], checkpoint=3)


def test_wrong_restarts_and_no_rows():
    stage = encoder()
    with pytest.raises(ValueError, match=r"restart \(2, 6\) does not fit x \(2, 10, 3\)"):
        restarting(stage, torch.randn(2, 10, 3), torch.zeros(2, 6, dtype=torch.bool), stage.initial(2))
    y, _ = ragged(stage, torch.randn(0, 4, 3), torch.zeros(0, dtype=torch.int64), stage.initial(0))
    assert y.shape == (0, 4, 6)
    with pytest.raises(ValueError, match="steps is 0"):
        generate(stage, torch.randn(2, 3), stage.initial(2), 0)


def test_one_to_many():
    torch.manual_seed(0)
    cell = Jordan((3,), 3).double()
    first = torch.randn(2, 3, dtype=torch.float64)
    told = repeat(first, 5)
    assert told.shape == (2, 5, 3) and torch.equal(told[:, 4], first)
    y, state = generate(cell, first, cell.initial(2), 5, feed=lambda y: 2 * y)
    x = torch.cat([first[:, None], 2 * y[:, :4]], 1)
    z, after = cell(x, cell.initial(2))
    same(y, z, 1e-12)
    same(state, after, 1e-12)


def test_layers_of_several_sizes_and_residuals():
    stage = encoder(hidden=[3, 3, 5], layers=3, residual=True, layer_norm=False, dropout=0.0)
    assert stage.out_shape == (5,) and len(stage.stages) == 3
    x = torch.randn(2, 7, 3)
    first, second, third = stage.stages
    assert first.residual and second.residual and not third.residual
    a = x + first.cell(x, first.initial(2))[0]
    b = a + second.cell(a, second.initial(2))[0]
    same(stage(x, stage.initial(2))[0], third.cell(b, third.initial(2))[0])
    with pytest.raises(ValueError, match=r"lists 3 layers, but encoder\.layers is 2"):
        Encoder((3,), GRU, hidden=[3, 3, 5], layers=2)


def test_images_end_as_vectors():
    stage = Encoder((2, 6, 5), ConvGRU, hidden=4, layers=2)
    y, _ = stage(torch.randn(3, 5, 2, 6, 5), stage.initial(3))
    assert stage.out_shape == (4,) and y.shape == (3, 5, 4)
    assert Encoder((2, 6, 5), GRU, spatial="flatten").recurrent1.cell.in_shape == (60,)
