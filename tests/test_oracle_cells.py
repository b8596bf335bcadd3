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
from pipeline.layers import kernels, lean

TORCH = {"elman": (Elman, torch.nn.RNN), "gru": (GRU, torch.nn.GRU), "lstm": (LSTM, torch.nn.LSTM)}
DENSE = {
    "elman": (Elman, {}),
    "jordan": (Jordan, {}),
    "jordan_sigmoid": (Jordan, {"output": "sigmoid"}),
    "jordan_linear": (Jordan, {"output": "linear"}),
    "lstm": (LSTM, {}),
    "peephole_lstm": (LSTM, {"peephole": True}),
    "coupled_lstm": (CoupledLSTM, {}),
    "coupled_peephole_lstm": (CoupledLSTM, {"peephole": True}),
    "gru": (GRU, {}),
    "gru_reset_before": (GRUResetBefore, {}),
    "mgu": (MGU, {}),
    "min_gru": (MinGRU, {}),
    "lstm_hard_sigmoid": (LSTM, {"gate": "hard_sigmoid"}),
    "gru_without_bias": (GRU, {"bias": False}),
}
CONV = {
    "conv_elman": (ConvElman, Elman, {}),
    "conv_lstm": (ConvLSTM, LSTM, {}),
    "conv_lstm_peephole": (ConvLSTM, LSTM, {"peephole": True}),
    "conv_gru": (ConvGRU, GRU, {}),
    "conv_gru_reset_before": (ConvGRUResetBefore, GRUResetBefore, {}),
}
every_dense = pytest.mark.parametrize("name", DENSE)
every_conv = pytest.mark.parametrize("name", CONV)
rows_and_steps = pytest.mark.parametrize(
    ("rows", "steps"), [(1, 1), (3, 1), (3, 7), (2, 40), (20, 40), (80, 3), (80, 20)]
)


def cell_of(name, inputs=5, hidden=9, seed=3):
    torch.manual_seed(seed)
    kind, options = DENSE[name]
    return kind((inputs,), hidden, **options)


def begin(cell, rows, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(rows, *cell.out_shape, generator=generator, dtype=torch.float64) for _ in cell.memory]
    return tuple(d.to(dtype) for d in draw) if len(draw) > 1 else draw[0].to(dtype)


def listed(state):
    return list(state) if isinstance(state, tuple) else [state]


def distance(found, expected):
    return max((torch.as_tensor(a) - torch.as_tensor(b)).abs().max().item() for a, b in zip(found, expected))


# --- torch.nn -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("learning", [True, False])
@rows_and_steps
def test_torch(name, dtype, learning, rows, steps):
    ours, theirs = TORCH[name]
    torch.manual_seed(3)
    net = theirs(5, 9, batch_first=True).to(dtype)
    cell = ours((5,), 9).to(dtype)
    from_torch(cell, net)
    x = torch.randn(rows, steps, 5, dtype=dtype)
    state = begin(cell, rows, dtype)
    hx = tuple(s[None] for s in state) if isinstance(state, tuple) else state[None]
    with torch.set_grad_enabled(learning):
        y, after = cell(x, state)
    z, last = net(x, hx)
    bound = 5e-7 if dtype == torch.float32 else 1e-12
    assert distance([y, *listed(after)], [z, *(s[0] for s in listed(last))]) <= bound
    if learning:
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


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("learning", [True, False])
@rows_and_steps
def test_onnx_runtime(name, learning, rows, steps):
    cell = cell_of(name)
    x, state = torch.randn(rows, steps, 5), begin(cell, rows)
    with torch.set_grad_enabled(learning):
        y, after = cell(x, state)
    session, feed = onnx_session(cell, name)
    z, *last = session.run(None, feed(x, listed(state)))
    expected = [z[:, 0].transpose(1, 0, 2), *(s[0] for s in last)]
    assert distance([y.detach(), *(s.detach() for s in listed(after))], expected) <= 5e-7


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


def paper(cell, kind, x, state):
    step, memory, ys = getattr(Papers(cell), STEPS[kind]), [s.double().numpy() for s in listed(state)], []
    for t in range(x.shape[1]):
        memory = step(x[:, t].double().numpy(), *memory)
        ys.append(memory[0])
    return [np.stack(ys, 1), *memory]


@every_dense
@pytest.mark.parametrize("learning", [True, False])
@rows_and_steps
def test_float32_is_the_paper(name, learning, rows, steps):
    cell = cell_of(name)
    x, state = torch.randn(rows, steps, 5), begin(cell, rows)
    assert lean.serves(x) or not lean.ON
    with torch.set_grad_enabled(learning):
        y, after = cell(x, state)
    assert y.dtype == torch.float32
    assert distance([y.detach(), *(s.detach() for s in listed(after))], paper(cell, DENSE[name][0], x, state)) <= 5e-7


@every_dense
def test_float64_is_the_paper(name):
    cell = cell_of(name).double()
    x, state = torch.randn(3, 40, 5, dtype=torch.float64), begin(cell, 3, torch.float64)
    y, after = cell(x, state)
    expected = paper(cell, DENSE[name][0], x, state)
    assert distance([y.detach(), *(s.detach() for s in listed(after))], expected) <= 1e-12


@every_dense
@pytest.mark.parametrize("rows", [2, 20])
def test_float32_gradients_are_those_of_the_float64_loop(name, rows):
    cell, twin = cell_of(name), cell_of(name).double()
    twin.load_state_dict(cell.state_dict())
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


@every_dense
def test_gradients_of_the_equations(name):
    cell = cell_of(name, 2, 3).double()
    x = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    state = [s.requires_grad_() for s in listed(begin(cell, 2, torch.float64))]
    assert torch.autograd.gradcheck(lambda x, *s: tuple(cell.loop(x, *s)), (x, *state))


def test_jordan_with_identity_output_is_elman():
    jordan, elman = cell_of("jordan_linear").double(), cell_of("elman").double()
    with torch.no_grad():
        for name in ("weight_ih", "bias_ih"):
            getattr(jordan, name).copy_(getattr(elman, name))
        jordan.weight_hh.copy_(torch.cat([elman.weight_hh, torch.eye(9)]))
        jordan.bias_hh.copy_(torch.cat([elman.bias_hh, torch.zeros(9)]))
    x, state = torch.randn(2, 30, 5, dtype=torch.float64), begin(elman, 2, torch.float64)
    assert distance(jordan(x, state), elman(x, state)) <= 1e-12


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
    image = tuple(s[..., None, None] for s in state) if isinstance(state, tuple) else state[..., None, None]
    y, after = conv(x[..., None, None], image)
    z, last = dense(x, state)
    assert distance([v.flatten(-3) for v in (y, *listed(after))], [z, *listed(last)]) <= 1e-12


def correlate(images, kernels, bias, stride=1, dilation=1):
    """Zero-padded cross-correlation by scipy, (B, C, H, W) with (O, C, k, k)."""
    k = kernels.shape[-1]
    spread = np.zeros((*kernels.shape[:2], (k - 1) * dilation + 1, (k - 1) * dilation + 1))
    spread[..., ::dilation, ::dilation] = kernels
    found = [[sum(correlate2d(c, w, "same") for c, w in zip(image, o)) for o in spread] for image in images]
    return np.array(found)[..., ::stride, ::stride] + bias[:, None, None]


class Images(Papers):
    """The same papers' equations, with convolutions for products."""

    def x(self, gate, x):
        weight, bias = self.block("weight_ih", gate), self.block("bias_ih", gate)
        return correlate(x, weight, bias, self.cell.stride, self.cell.dilation)

    def r(self, gate, h):
        return correlate(h, self.block("weight_hh", gate), self.block("bias_hh", gate))


@every_conv
@pytest.mark.parametrize("options", [{}, {"kernel": 5}, {"stride": 2}, {"dilation": 2}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_convolutional_cells_are_the_papers(name, options, dtype):
    cell = conv_cell(name, dtype=dtype, **options)
    x, state = torch.randn(2, 4, 2, 6, 5, dtype=dtype), begin(cell, 2, dtype)
    y, after = cell(x, state)
    step, memory, ys = getattr(Images(cell), STEPS[CONV[name][1]]), [s.double().numpy() for s in listed(state)], []
    for t in range(4):
        memory = step(x[:, t].double().numpy(), *memory)
        ys.append(memory[0])
    bound = 5e-7 if dtype == torch.float32 else 1e-12
    assert distance([v.detach() for v in (y, *listed(after))], [np.stack(ys, 1), *memory]) <= bound


@every_conv
def test_gradients_over_images(name):
    cell = conv_cell(name, (1, 3, 3), 2)
    x = torch.randn(1, 3, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: cell(x, cell.initial(1))[0], (x,))
