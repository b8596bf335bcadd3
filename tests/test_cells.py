"""What cells do with options, wrong input and odd settings; that their equations are right: test_oracle_cells.py."""

import copy
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, configured, options, refused
from test_oracle_cells import listed, together
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.prune import identity

from pipeline.cells.cell import Cell
from pipeline.cells.elman import Elman
from pipeline.cells.gru import GRU, ConvGRU, GRUResetBefore
from pipeline.cells.jordan import Jordan
from pipeline.cells.lstm import LSTM, ConvLSTM, CoupledLSTM
from pipeline.cells.mgu import MGU
from pipeline.cells.min_gru import MinGRU
from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.layers.laws import check

IMAGE = (2, 5, 4)


def made(option, hidden=6, **changes):
    torch.manual_seed(0)
    shape = IMAGE if option.startswith("conv_") else (3,)
    return build(configured("train", f"cell={option}")["cell"] | changes, Cell, at="cell", shape=shape, hidden=hidden)


every_cell = pytest.mark.parametrize("option", options("cell"))


# --- equations of one's own -----------------------------------------------------------------------------------------


def cell_of(equations, **names):
    return type("Mine", (Cell,), {"inputs": ("z", "n"), "gates": ("z", "n"), **names, "equations": equations})


def relu(self, m, x, h):
    r = m.recur(h, "z", "n")
    z = m.gate(x.z + r.z)
    return (z * h + (1 - z) * torch.relu(x.n + r.n),)


def test_equations_in_torch_keep_the_laws_if_they_are_not_compiled():
    kind = cell_of(relu, compiled=False)
    check(kind)
    cell = kind((3,), 4)
    x = torch.randn(2, 5, 3)
    cell(x, cell.initial(2))[0].sum().backward()
    assert all(parameter.grad is not None for parameter in cell.parameters())


def test_a_minus_is_compiled():
    kind = cell_of(lambda self, m, x, h: (m.tanh(-(x.n + m.recur(h, "z", "n").n)),))
    x, cell = torch.randn(2, 5, 3), kind((3,), 4)
    (compiled, _), loop = cell(x, cell.initial(2)), cell.loop(x, cell.initial(2))[0]
    assert torch.allclose(compiled, loop, atol=1e-6)


@pytest.mark.parametrize(("equations", "message"), [
    (relu, r"Mine\.equations, line \d+: relu\(\).*; with `compiled = False` any function of torch"),
    (lambda self, m, x, h: (m.sigmoid(x.z),), r"line \d+: m has no attribute 'sigmoid'; equations have"),
    (lambda self, m, x, h: (m.recur(h, "z", "n").n / x.z,), r"unsupported operand type\(s\) for /"),
    (lambda self, m, x, h: m.recur(h, "z", "n").n, "'Value' object is not iterable"),
    (lambda self, m, x, h: (h, m.recur(h, "z", "n").n), r"returns 2 values; expected 1 \(h\)"),
    (lambda self, m, x, h: (m.recur(h, "n", "z").n,), r"m\.recur\(\.\.\., 'n', 'z'\); each of gates"),
    (lambda self, m, x, h: (m.recur(h, "z").z,), "each of gates"),
    (lambda self, m, x, h: (m.recur(h, "z", "n").n + m.recur(x.z * h, "n").n,), "each of gates"),
])  # fmt: skip
def test_equations_that_cannot_be_compiled_are_named(equations, message):
    cell = cell_of(equations)((3,), 4)
    with pytest.raises(ConfigError, match=message):
        cell(torch.randn(2, 5, 3), cell.initial(2))


# --- wrong input ----------------------------------------------------------------------------------------------------


@every_cell
def test_wrong_input_is_named(option):
    cell = made(option)
    x, state = torch.randn(2, 4, *cell.in_shape), cell.initial(2)
    name, shape = type(cell).__name__, cell.in_shape
    wider, other = (shape[0] + 1, *shape[1:]), copy.deepcopy(cell)
    cut = together([s[..., :-1] for s in listed(state)])
    for given, memory, message in (
        (torch.randn(2, 4, *wider), state, rf"{name}: got steps of shape .*; expected .*{shape[0]}"),
        (torch.randn(2, 0, *wider), state, rf"{name}: got steps of shape .*; expected"),
        (x, cell.initial(3), r"has shape \(3, .*expected \(2, .* for x \(2, 4"),
        (x, cut, rf"{name}: state .* has shape .*; expected"),
        (x, (listed(state) * 3)[:3], rf"{name}: the state has 3 tensors; expected "),
        (x.double(), state, r"x is torch\.float64 on cpu; expected torch\.float32 on cpu"),
        (x.to("meta"), state, r"x is torch\.float32 on meta; expected torch\.float32 on cpu"),
        (x, other.double().initial(2), r"is torch\.float64 on cpu; expected torch\.float32 on cpu"),
        (x, other.to("meta").initial(2), r"on meta; expected torch\.float32 on cpu"),
    ):
        with pytest.raises(ValueError, match=message):
            cell(given, memory)


@pytest.mark.parametrize("option", ["lstm", "gru", "jordan", "conv_lstm"])
@pytest.mark.parametrize("learning", [True, False])
@pytest.mark.parametrize("rows", [2, 80])
def test_nan_is_refused(option, learning, rows):
    cell = made(option)
    for bad in (torch.nan, torch.inf):
        x = torch.randn(rows, 30, *cell.in_shape)
        x[1, 3, 0] = bad
        with torch.set_grad_enabled(learning), pytest.raises(ValueError, match=r"x \(\d+, 30, .* holds NaN or infin"):
            cell(x, cell.initial(rows))


def test_nan_in_the_memory_is_refused():
    cell = made("lstm")
    h, c = cell.initial(2)
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match=r"LSTM: c \(2, 6\) holds NaN or infinity"), torch.no_grad():
            cell(torch.randn(2, 3, 3), (h, c + bad))


@every_cell
def test_no_steps_change_nothing(option):
    cell = made(option)
    y, after = cell(torch.randn(2, 0, *cell.in_shape), state := cell.initial(2))
    assert y.shape == (2, 0, *cell.out_shape) and after is state


@pytest.mark.parametrize(("make", "message"), [
    (lambda: GRU((3,), 0), r"GRU: hidden is 0; expected at least 1 \(encoder\.hidden\)"),
    (lambda: GRU((3,), 4, zoneout=1.0), r"zoneout is 1\.0; expected a share in \[0, 1\)"),
    (lambda: GRU((3,), 4, zoneout=-0.1), r"zoneout is -0\.1"),
    (lambda: GRU((3,), 4, recurrent_dropout=1.5), r"recurrent_dropout is 1\.5"),
    (lambda: Elman((3,), 4, forget_bias=1.0), "it has no gate that keeps its memory"),
    (lambda: LSTM((3,), 4, forget_bias=1.0, bias=False), "bias is false"),
    (lambda: GRU((3,), 4, gate="relu"), r"gate is 'relu'; expected sigmoid or hard_sigmoid"),
    (lambda: Jordan((3,), 4, output="relu"), "output is 'relu'; expected tanh, sigmoid or linear"),
    (lambda: GRU(IMAGE, 4), "expected feature vectors"), (lambda: ConvGRU((3,), 4), "expected images"),
    (lambda: ConvGRU(IMAGE, 4, kernel=2), "kernel is 2; expected an odd number"),
])  # fmt: skip
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("override", "message"), [
    ("cell.zoneout=1.0", "cell.zoneout: got 1.0"), ("+cell.hidden=3", "encoder.hidden"),
    ("cell=conv_lstm", "ConvLSTM is a cell for images"),
])  # fmt: skip
def test_the_command_line_says_so(override, message, tmp_path):
    refused(message, "train.py", override, f"hydra.run.dir={tmp_path}")


# --- options --------------------------------------------------------------------------------------------------------


def test_layer_norm_is_ba_et_al():
    cell = made("lstm", layer_norm=True).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(torch.randn_like(parameter))
    x, (h, c) = torch.randn(2, 1, 3).double(), (torch.randn(2, 6).double(), torch.randn(2, 6).double())
    norm = torch.nn.functional.layer_norm
    sums = norm(x[:, 0] @ cell.weight_ih.T, (24,), cell.norms["ih"], cell.bias_ih)
    sums = sums + norm(h @ cell.weight_hh.T, (24,), cell.norms["hh"], cell.bias_hh)
    i, f, g, o = sums.chunk(4, 1)
    after = f.sigmoid() * c + i.sigmoid() * g.tanh()
    expected = o.sigmoid() * norm(after, (6,), cell.norms["c"], cell.norms["shift"]).tanh()
    y, (_, kept) = cell(x, (h, c))
    assert torch.allclose(y[:, 0], expected, atol=1e-12) and torch.allclose(kept, after, atol=1e-12)
    one = made("lstm", hidden=1, layer_norm=True)
    assert one(torch.randn(1, 3, 3), one.initial(1))[0].isfinite().all()


@pytest.mark.parametrize("option", ["lstm", "gru", "conv_gru"])
def test_zoneout_keeps_a_share(option):
    cell, without = made(option, zoneout=0.3).train(), made(option)
    x = torch.randn(50, 1, *cell.in_shape)
    old = [torch.randn(50, *cell.out_shape) for _ in cell.memory]
    new = listed(without(x, together(old))[1])
    share = [(a == b).float().mean() for a, b in zip(listed(cell(x, together(old))[1]), old)]
    assert all(0.15 < s < 0.45 for s in share)
    for found, before, after in zip(listed(cell.eval()(x, together(old))[1]), old, new):
        assert torch.allclose(found, 0.3 * before + 0.7 * after, atol=1e-6)


@pytest.mark.parametrize("option", ["lstm", "conv_gru"])
def test_recurrent_dropout_hides_the_same_units_at_all_steps(option):
    cell = made(option, recurrent_dropout=0.5).train()
    seen = []
    cell.product = lambda v, names: (seen.append(v != 0), type(cell).product(cell, v, names))[1]
    cell(torch.randn(4, 6, *cell.in_shape), cell.initial(4))
    steps = torch.stack(seen[2:])  # from the second step on the memory is nowhere zero by itself
    assert (steps == steps[0]).all() and 0.2 < steps.float().mean() < 0.8
    cell.eval()
    x = torch.randn(2, 5, *cell.in_shape)
    assert torch.equal(cell(x, cell.initial(2))[0], cell(x, cell.initial(2))[0])


@pytest.mark.parametrize(("kind", "gate", "sign"), [
    (LSTM, "f", 1), (CoupledLSTM, "f", 1), (GRU, "z", 1), (GRUResetBefore, "z", 1), (MGU, "f", -1), (MinGRU, "z", -1),
])  # fmt: skip
def test_forget_bias_keeps_the_memory(kind, gate, sign):
    torch.manual_seed(0)
    cell = kind((3,), 6, forget_bias=20.0)
    own = cell.rows(cell.bias_ih, cell.inputs, (gate,))
    assert (own == 20.0 * sign).all() and (cell.bias_ih == 20.0 * sign).sum() == 6
    state = [torch.randn(2, 6) for _ in cell.memory]
    _, after = cell(torch.randn(2, 1, 3) * 0.1, together(state))
    if kind is not LSTM:  # its input gate still adds
        assert torch.allclose(listed(after)[-1], state[-1], atol=1e-3)


@every_cell
def test_orthogonal_blocks(option):
    cell = made(option, orthogonal=True)
    for block in torch.split(cell.weight_hh, cell.hidden) if cell.gates else ():
        flat = block.flatten(1)
        assert torch.allclose(flat @ flat.T, torch.eye(cell.hidden), atol=1e-5)


@every_cell
def test_learned_initial_state_learns(option):
    cell = made(option, learn_initial=True)
    y, _ = cell(torch.randn(2, 3, *cell.in_shape), cell.initial(2))
    y.sum().backward()
    assert cell.start.grad.abs().sum() > 0 and cell.start.shape == (len(cell.memory), *cell.out_shape)


def test_begins_as_torch_does():
    for ours, theirs in ((Elman, torch.nn.RNN), (LSTM, torch.nn.LSTM), (GRU, torch.nn.GRU)):
        torch.manual_seed(5)
        cell = ours((7,), 11)
        torch.manual_seed(5)
        net = theirs(7, 11)
        assert all(torch.equal(a, b) for a, b in zip(cell.parameters(), net.parameters()))


# --- the engine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weight_hh", "weight_ih"])
@pytest.mark.parametrize("option", ["gru", "lstm"])
def test_computed_weights(name, option):
    """weight_norm and pruning replace a parameter by something that is computed anew for every use."""
    x = torch.randn(3, 20, 3)
    for change in (weight_norm, identity):
        cell = made(option)
        change(cell, name)
        for key, parameter in cell.named_parameters():  # the computed weight alone learns
            parameter.requires_grad_("original" in key or "_orig" in key)
        for factor in (1.0, 3.0, 0.5):
            with torch.no_grad():
                for key, parameter in cell.named_parameters():
                    if "original0" in key or "_orig" in key:
                        parameter.mul_(factor)
                y, _ = cell(x, cell.initial(3))
                expected = cell.loop(x, *listed(cell.initial(3)))[0]
            assert torch.allclose(y, expected, atol=1e-6)
        assert cell(x, cell.initial(3))[0].requires_grad


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_transforms_of_torch_go_the_readable_way():
    cell = made("gru")
    x, h = torch.randn(2, 5, 3), cell.initial(2)
    gradient = torch.func.grad(lambda x: cell(x, h)[0].sum())(x)
    given = x.clone().requires_grad_()
    cell(given, h)[0].sum().backward()
    assert torch.allclose(gradient, given.grad, atol=1e-6)
    with torch.autograd.forward_ad.dual_level():
        y, _ = cell(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)), h)
        tangent = torch.autograd.forward_ad.unpack_dual(y).tangent
    assert torch.allclose(tangent.sum(), gradient.sum(), atol=1e-5)


def test_the_caller_may_write_to_y():
    cell = made("gru")
    grads = []
    for way in (cell, cell.loop):
        y = way(torch.ones(2, 6, 3), cell.initial(2))[0]
        y[:, 3:] = 0
        grads.append(torch.autograd.grad(y.sum(), cell.weight_hh)[0])
    assert torch.allclose(*grads, atol=1e-6)


def test_weights_without_gradient_and_second_derivatives():
    cell = made("peephole_lstm")
    for parameter in cell.parameters():
        parameter.requires_grad_(False)
    x = torch.randn(20, 5, 3, requires_grad=True)
    y, _ = cell(x, cell.initial(20))
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.abs().sum() > 0
    y, _ = made("peephole_lstm")(x, cell.initial(20))
    with pytest.raises(RuntimeError):
        torch.autograd.grad(torch.autograd.grad(y.sum(), x, create_graph=True)[0].sum(), x)


CODE = """if True:
    import torch; from pipeline.cells.gru import GRU; torch.manual_seed(0); c = GRU((3,), 4)
    with torch.no_grad(): print(round(c(torch.ones(1, 2, 3), c.initial(1))[0].sum().item(), 5))
"""


def printed(tmp_path, **changes):
    """What a process of its own prints that runs a cell, with its kernels in ``tmp_path``."""
    env = {"RIVULET_CACHE": str(tmp_path), "PATH": "", "HOME": str(tmp_path)} | changes
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_kernels_are_not_run_from_a_file_that_someone_changed(tmp_path):
    expected = printed(tmp_path)
    (file,) = (tmp_path / "kernels").glob("*.py")
    honest = file.read_text()
    file.write_text("print('EVIL')\n" + honest)
    assert printed(tmp_path) == expected and file.read_text() == honest
    (tmp_path / "kernels" / "__pycache__").chmod(0o777)  # anyone could have put machine code there
    for kept in (tmp_path / "kernels" / "__pycache__").iterdir():
        kept.write_bytes(b"EVIL")
    assert printed(tmp_path) == expected


@pytest.mark.long
def test_without_a_place_for_kernels_and_without_the_engine(tmp_path):
    (tmp_path / "file").write_text("")
    ways = {"RIVULET_CACHE": str(tmp_path / "file")}, {"RIVULET_CACHE": "~nobody-here"}, {"RIVULET_ENGINE": "off"}
    assert len({printed(tmp_path, **way) for way in ways}) == 1


def test_copies_and_other_precisions():
    cell = made("lstm")
    x = torch.randn(2, 20, 3)
    y, _ = cell(x, cell.initial(2))
    other = copy.deepcopy(cell).double()
    z, _ = other(x.double(), other.initial(2))
    assert z.dtype == torch.float64 and torch.allclose(y.double(), z, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        w, _ = cell(x, cell.initial(2))
    assert torch.allclose(w.float(), y, atol=0.05)


def test_peepholes_of_images_have_a_weight_per_pixel():
    cell = ConvLSTM(IMAGE, 6, peephole=True, stride=2)
    assert cell.weight_ch.shape == (3, 6, 3, 2) and cell.out_shape == (6, 3, 2)
