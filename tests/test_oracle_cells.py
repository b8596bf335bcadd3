"""Every cell against implementations that we did not write, or against float64 loops of the papers' equations."""

import numpy as np
import pytest
import torch
from references import OPERATORS, onnx_session
from scipy.signal import correlate2d

from pipeline.cells.elman import ConvElman, Elman
from pipeline.cells.gru import GRU, ConvGRU, ConvGRUResetBefore, GRUResetBefore
from pipeline.cells.jordan import Jordan
from pipeline.cells.layouts import from_torch, to_onnx
from pipeline.cells.lstm import LSTM, ConvLSTM, CoupledLSTM
from pipeline.cells.mgu import MGU
from pipeline.cells.min_gru import MinGRU
from pipeline.compiled import kernels

TORCH = {"elman": (Elman, torch.nn.RNN), "gru": (GRU, torch.nn.GRU), "lstm": (LSTM, torch.nn.LSTM)}
DENSE = {
    "elman": (Elman, {}), "jordan": (Jordan, {}), "jordan_sigmoid": (Jordan, {"output": "sigmoid"}),
    "jordan_linear": (Jordan, {"output": "linear"}), "lstm": (LSTM, {}), "peephole_lstm": (LSTM, {"peephole": True}),
    "coupled_lstm": (CoupledLSTM, {}), "coupled_peephole_lstm": (CoupledLSTM, {"peephole": True}), "gru": (GRU, {}),
    "gru_reset_before": (GRUResetBefore, {}), "mgu": (MGU, {}), "min_gru": (MinGRU, {}),
    "lstm_hard_sigmoid": (LSTM, {"gate": "hard_sigmoid"}), "gru_without_bias": (GRU, {"bias": False}),
}  # fmt: skip
CONV = {
    "conv_elman": (ConvElman, Elman, {}), "conv_lstm": (ConvLSTM, LSTM, {}),
    "conv_lstm_peephole": (ConvLSTM, LSTM, {"peephole": True}), "conv_gru": (ConvGRU, GRU, {}),
    "conv_gru_reset_before": (ConvGRUResetBefore, GRUResetBefore, {}),
}  # fmt: skip
every_conv = pytest.mark.parametrize("name", CONV)
rows_and_steps = pytest.mark.parametrize(("rows", "steps"), [(1, 1), (3, 7), (20, 40), (80, 3)])
VARIANTS = {"jordan_sigmoid", "jordan_linear", "coupled_peephole_lstm"}  # of others; to compile them takes a while


def ways(names):
    """Each cell in float64, and compiled with and without a gradient; what is only a variant, among the long tests."""
    marks = [pytest.mark.long]
    return pytest.mark.parametrize(("name", "way"), [
        pytest.param(name, way, marks=marks if name in VARIANTS and way != "float64" else [])
        for name in names for way in ("float64", "learning", "streaming")
    ])  # fmt: skip


def cell_of(name, inputs=5, hidden=9, seed=3):
    torch.manual_seed(seed)
    kind, options = DENSE[name]
    return kind((inputs,), hidden, **options)


def begin(cell, rows, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(rows, *cell.out_shape, generator=generator, dtype=torch.float64) for _ in cell.memory]
    return together([d.to(dtype) for d in draw])


def listed(state):
    return list(state) if isinstance(state, tuple) else [state]


def together(parts):
    """A state of its tensors."""
    return tuple(parts) if len(parts) > 1 else parts[0]


def answer(cell, x, state, way="streaming"):
    with torch.set_grad_enabled(way != "streaming"):
        y, after = cell(x, state)
    return [v.detach() for v in (y, *listed(after))]


def distance(found, expected):
    return max((torch.as_tensor(a) - torch.as_tensor(b)).abs().max().item() for a, b in zip(found, expected))


# --- torch.nn -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TORCH)
@rows_and_steps
def test_torch(name, rows, steps):
    ours, theirs = TORCH[name]
    torch.manual_seed(3)
    net, cell = theirs(5, 9, batch_first=True), ours((5,), 9)
    from_torch(cell, net)
    x, state = torch.randn(rows, steps, 5), begin(cell, rows)
    y, after = cell(x, state)
    z, last = net(x, tuple(s[None] for s in state) if isinstance(state, tuple) else state[None])
    assert distance([y, *listed(after)], [z, *(s[0] for s in listed(last))]) <= 5e-7
    seeds = torch.randn_like(y)
    (y * seeds).sum().backward()
    (z * seeds).sum().backward()
    for key, parameter in cell.named_parameters():
        expected = getattr(net, f"{key}_l0").grad
        assert (parameter.grad - expected).abs().max() <= 2e-6 * max(1, expected.abs().max())


def test_torch_weights_must_fit():
    for cell in (GRUResetBefore((5,), 9), GRU((5,), 9, layer_norm=True), GRU((5,), 9, gate="hard_sigmoid")):
        with pytest.raises(ValueError, match=r"torch\.nn has no layer with the equations of GRU"):
            from_torch(cell, torch.nn.GRU(5, 9))
    cell = GRU((5,), 9)
    from_torch(cell, torch.nn.GRU(5, 9, bias=False))
    assert not cell.bias_ih.any() and not cell.bias_hh.any()
    with pytest.raises(ValueError, match="other equations"):
        from_torch(GRU((5,), 9), torch.nn.LSTM(5, 9))
    with pytest.raises(ValueError, match=r"weight_ih has shape \(27, 4\); expected \(27, 5\)"):
        from_torch(GRU((5,), 9), torch.nn.GRU(4, 9))


# --- ONNX Runtime ---------------------------------------------------------------------------------------------------


def onnx(name, cell, x, state):
    """What a session makes of them; nothing for a cell that ONNX does not have."""
    if name not in OPERATORS or x.dtype != torch.float32:
        return []
    session, feed = onnx_session(cell, name)
    z, *last = session.run(None, feed(x, listed(state)))
    return [z[:, 0].transpose(1, 0, 2), *(s[0] for s in last)]


def test_onnx_has_no_other_cell():
    for cell in (*map(cell_of, ("jordan", "mgu", "min_gru", "lstm_hard_sigmoid")), ConvLSTM((2, 3, 3), 4)):
        with pytest.raises(ValueError, match="ONNX has no layer"):
            to_onnx(cell)


# --- float64 loops of the equations, in numpy ------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(x):
    return np.clip(x / 6 + 0.5, 0, 1)


class Papers:
    """One time step of each cell, as the papers print it; ``w(kind, gate)`` is a block of a weight."""

    def __init__(self, cell):
        self.cell = cell
        self.s = sigmoid if cell.gate == "sigmoid" else hard_sigmoid

    def block(self, name, gate):
        tensor = getattr(self.cell, name)
        gates = {"weight_ih": self.cell.inputs, "bias_ih": self.cell.inputs}.get(name, self.cell.gates)
        if tensor is None:
            return 0.0
        number, hidden = gates.index(gate), self.cell.hidden
        return tensor.detach().double().numpy()[number * hidden : (number + 1) * hidden]

    def x(self, gate, x):
        return x @ self.block("weight_ih", gate).T + self.block("bias_ih", gate)

    def r(self, gate, h):
        return h @ self.block("weight_hh", gate).T + self.block("bias_hh", gate)

    def p(self, gate, c):
        if not self.cell.seen:
            return 0.0
        return self.cell.weight_ch[self.cell.seen.index(gate)].detach().double().numpy() * c

    def elman(self, x, h):
        return (np.tanh(self.x("h", x) + self.r("h", h)),)

    def jordan(self, x, y):
        output = {"tanh": np.tanh, "sigmoid": sigmoid, "linear": lambda v: v}[self.cell.output]
        return (output(self.r("y", np.tanh(self.x("h", x) + self.r("h", y)))),)

    def lstm(self, x, h, c):
        i = self.s(self.x("i", x) + self.r("i", h) + self.p("i", c))
        f = self.s(self.x("f", x) + self.r("f", h) + self.p("f", c))
        return self.out(x, h, f * c + i * np.tanh(self.x("g", x) + self.r("g", h)))

    def coupled_lstm(self, x, h, c):
        f = self.s(self.x("f", x) + self.r("f", h) + self.p("f", c))
        return self.out(x, h, f * c + (1 - f) * np.tanh(self.x("g", x) + self.r("g", h)))

    def out(self, x, h, c):
        return self.s(self.x("o", x) + self.r("o", h) + self.p("o", c)) * np.tanh(c), c

    def gru(self, x, h):
        r, z = (self.s(self.x(g, x) + self.r(g, h)) for g in "rz")
        return ((1 - z) * np.tanh(self.x("n", x) + r * self.r("n", h)) + z * h,)

    def gru_reset_before(self, x, h):
        r, z = (self.s(self.x(g, x) + self.r(g, h)) for g in "rz")
        return ((1 - z) * np.tanh(self.x("n", x) + self.r("n", r * h)) + z * h,)

    def mgu(self, x, h):
        f = self.s(self.x("f", x) + self.r("f", h))
        return ((1 - f) * h + f * np.tanh(self.x("n", x) + self.r("n", f * h)),)

    def min_gru(self, x, h):
        z = self.s(self.x("z", x))
        return ((1 - z) * h + z * self.x("n", x),)


STEPS = {Elman: "elman", Jordan: "jordan", LSTM: "lstm", CoupledLSTM: "coupled_lstm", GRU: "gru"}
STEPS |= {GRUResetBefore: "gru_reset_before", MGU: "mgu", MinGRU: "min_gru"}


def paper(step, x, memory):
    """``[y, *memory]`` of one step after the other."""
    memory, ys = [m.double().numpy() for m in memory], []
    for each in x.double().unbind(1):
        memory = step(each.numpy(), *memory)
        ys.append(memory[0])
    return [np.stack(ys, 1), *memory]


@ways(DENSE)
@rows_and_steps
def test_dense_cells_are_the_papers_and_those_of_onnx(name, way, rows, steps):
    dtype = torch.float64 if way == "float64" else torch.float32
    cell = cell_of(name).to(dtype)
    x, state = torch.randn(rows, steps, 5, dtype=dtype), begin(cell, rows, dtype)
    assert kernels.serves(x) or not kernels.ON or way == "float64"
    found, step = answer(cell, x, state, way), getattr(Papers(cell), STEPS[DENSE[name][0]])
    for expected in (paper(step, x, listed(state)), onnx(name, cell, x, state)):
        assert not expected or distance(found, expected) <= (1e-12 if way == "float64" else 5e-7)


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.long] if name in VARIANTS else []) for name in DENSE
])  # fmt: skip
@pytest.mark.parametrize("rows", [2, 20])
def test_float32_gradients_are_those_of_the_float64_loop(name, rows):
    cell, twin = cell_of(name), cell_of(name).double()
    x, state = torch.randn(rows, 30, 5), begin(cell, rows)
    grads = []
    for net, dtype in ((cell, torch.float32), (twin, torch.float64)):
        given = [v.to(dtype).requires_grad_() for v in (x, *listed(state))]
        y, *after = net.loop(*given) if dtype == torch.float64 else kernels.unroll(net, given[0], given[1:])
        weights = torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y)
        loss = (y * weights).sum() + sum(s.square().sum() for s in after)
        grads.append(torch.autograd.grad(loss, [*given, *net.parameters()]))
    for found, expected in zip(*grads):
        assert (found.double() - expected).abs().max() <= 2e-6 * expected.abs().max()


# --- convolutional cells ---------------------------------------------------------------------------------------------


def conv_cell(name, shape=(2, 6, 5), hidden=3, dtype=torch.float64, **options):
    torch.manual_seed(5)
    kind, _, own = CONV[name]
    return kind(shape, hidden, **own, **options).to(dtype)


@every_conv
def test_on_one_pixel_it_is_the_dense_cell(name):
    conv = conv_cell(name, (5, 1, 1), 9, kernel=1)
    dense = CONV[name][1]((5,), 9, **CONV[name][2]).double()
    shapes = {key: own.shape for key, own in dense.state_dict().items()}
    dense.load_state_dict({key: weight.reshape(shapes[key]) for key, weight in conv.state_dict().items()})
    x, state = torch.randn(2, 20, 5, dtype=torch.float64), begin(dense, 2, torch.float64)
    image = together([s[..., None, None] for s in listed(state)])
    y, after = conv(x[..., None, None], image)
    z, last = dense(x, state)
    assert distance([v.flatten(-3) for v in (y, *listed(after))], [z, *listed(last)]) <= 1e-12


def correlate(images, kernels, bias, stride=1, dilation=1):
    """Zero-padded cross-correlation by scipy, (B, C, H, W) with (O, C, k, k)."""
    k = kernels.shape[-1]
    spread = np.zeros((*kernels.shape[:2], (k - 1) * dilation + 1, (k - 1) * dilation + 1))
    spread[..., ::dilation, ::dilation] = kernels
    found = [[sum(correlate2d(c, w, "same") for c, w in zip(image, o)) for o in spread] for image in images]
    return np.array(found)[..., ::stride, ::stride] + np.reshape(bias, (-1, 1, 1))


class Images(Papers):
    """The same papers' equations, with convolutions for products."""

    def x(self, gate, x):
        weight, bias = self.block("weight_ih", gate), self.block("bias_ih", gate)
        return correlate(x, weight, bias, self.cell.stride, self.cell.dilation)

    def r(self, gate, h):
        return correlate(h, self.block("weight_hh", gate), self.block("bias_hh", gate))


@ways(CONV)
@pytest.mark.parametrize("options", [{}, {"kernel": 5}, {"stride": 2}, {"dilation": 2}], ids=str)
def test_convolutional_cells_are_the_papers(name, way, options):
    dtype = torch.float64 if way == "float64" else torch.float32
    cell = conv_cell(name, dtype=dtype, **options)
    x, state = torch.randn(2, 4, 2, 6, 5, dtype=dtype), begin(cell, 2, dtype)
    expected = paper(getattr(Images(cell), STEPS[CONV[name][1]]), x, listed(state))
    assert distance(answer(cell, x, state, way), expected) <= (1e-12 if way == "float64" else 5e-7)
