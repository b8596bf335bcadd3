"""Small calls on arrays: the answers of ``forward``, and of programs that are not ours."""

import warnings

import numpy as np
import pytest
import torch
from conftest import configured, small_model
from scipy.signal import lfilter
from scipy.special import softmax
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.parametrizations import weight_norm

from pipeline.encoders.convolution import CausalConv
from pipeline.extractors.logmel import LogMel
from pipeline.extractors.spectral import MelSpectrum
from pipeline.layers import lean
from pipeline.layers.heads import Mean
from pipeline.layers.laws import same
from pipeline.layers.smoothing import EMA
from pipeline.layers.stage import Chain, Stage, tree
from pipeline.model.classifier import Classifier

pytestmark = pytest.mark.skipif(not lean.ON, reason="RIVULET_ENGINE=off")
rng = np.random.default_rng(0)


def numbers(*shape):
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


def close(a, b, bound=1e-5):
    same(a, b, "the answer", bound)


@torch.no_grad()
def both(stage, x, state):
    """The same call by ``lean``, and by ``forward`` alone."""
    quick = stage.leanly(x, state)
    assert quick is not None
    return quick, forward(stage, x, state)


@torch.no_grad()
def forward(stage, x, state):
    """No ``lean``, of the stage nor of its parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.layers.stage.serves", lambda *_: False)
        return stage(x, state)


@pytest.mark.parametrize(
    ("head", "cell", "encoder"),
    [("mean", "gru", "recurrent"), ("max", "lstm", "conv_recurrent"), ("last", "min_gru", "recurrent")],
)
def test_a_stream_is_the_offline_run(head, cell, encoder):
    model = small_model(f"head={head}", f"cell={cell}", f"encoder={encoder}", "encoder.layers=2").for_streaming()
    x = numbers(2, 24 * model.hop) * 0.1
    parts, state = [], model.initial(2)
    with torch.no_grad():
        for block in x.split(3 * model.hop, 1):
            y, state = model(block, state)
            parts.append(y)
    whole, after = forward(model, x, model.initial(2))
    close((torch.cat(parts, 1), state), (whole, after))


@pytest.mark.parametrize("settings", [{"residual": True}, {"layer_norm": False}, {"hidden": [9, 5]}])
def test_layers_with_other_settings(settings):
    config = configured("train", "encoder=recurrent", "head=mean", "extractor.mels=20", "encoder.layers=2")
    config["encoder"] |= {"hidden": 20} | settings
    encoder = Classifier(config, ["a", "b"]).eval().encoder
    close(*both(encoder, numbers(3, 4, 20), tree(torch.randn_like, encoder.initial(3))))


@pytest.mark.parametrize(("rate", "window", "hop"), [(16000, 0.025, 0.01), (44100, 0.02, 0.02), (8000, 0.004, 0.003)])
def test_mel_power_is_that_of_numpys_transform(rate, window, hop):
    stage = MelSpectrum(rate=rate, window=window, hop=hop, mels=12)
    x, past = numbers(2, 3 * stage.hop) * 0.1, numbers(2, stage.window - stage.hop) * 0.1
    (y, after), _ = both(stage, x, past)
    joined = torch.cat([past, x], 1).double().numpy()
    frames = np.lib.stride_tricks.sliding_window_view(joined, stage.window, axis=1)[:, :: stage.hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(stage.window) / stage.window)
    power = np.abs(np.fft.rfft(frames * hann, stage.fft)) ** 2 @ stage.filters.double().numpy()
    assert np.abs(y.numpy() / power - 1).max() < 1e-5
    assert np.array_equal(after.numpy(), joined[:, x.shape[1] :].astype(np.float32))


@torch.no_grad()
def test_many_frames_and_odd_windows_go_the_usual_way_without_tables():
    tiny, long = LogMel(rate=1000, window=0.008, hop=0.004, mels=3), LogMel(rate=44100, window=0.2, hop=0.1)
    for stage, frames in ((LogMel(), 40), (tiny, 4), (long, 1)):
        assert stage.leanly(numbers(1, frames * stage.hop), stage.initial(1)) is None
    assert tiny.tables is None and long.tables is None


@pytest.mark.parametrize("seconds", [0.0, 0.05, 3.0])
def test_smoothing_is_scipys_filter(seconds):
    stage = EMA((5,), 0.02, seconds)
    x = numbers(2, 9, 5) * 30  # exp(-90) is beyond what the kernel computes, and nothing
    (y, state), _ = both(stage, x, stage.initial(2))
    a = stage.decay
    total = lfilter([1 - a], [1, -a], softmax(x.double().numpy(), -1), axis=1)
    weight = 1 - a ** np.arange(1, 10)
    assert np.abs(y.numpy() - total / weight[:, None]).max() < 1e-6
    assert np.abs(state[0].numpy() - total[:, -1]).max() < 1e-6 and np.abs(state[1].numpy() - weight[-1]).max() < 1e-6


@pytest.mark.parametrize("window", [1, 2, 3, 4, 6, 25])
def test_the_running_mean_is_numpys(window):
    stage = Mean(3, window)
    x, state, parts = numbers(2, 30, 3), stage.initial(2), []
    for block in x.split(4, 1):
        y, state = both(stage, block, state)[0]
        parts.append(y)
    expected = [x.double()[:, max(0, t + 1 - window) : t + 1].mean(1) for t in range(30)]
    close(torch.cat(parts, 1).double(), torch.stack(expected, 1), 1e-6)
    assert state[1].tolist() == [[30], [30]] and torch.equal(state[0], x[:, 31 - window :])


def test_weights_that_change_are_seen():
    model = small_model().for_streaming()
    x, state = numbers(1, 2 * model.hop), model.initial(1)
    with torch.no_grad():
        before, _ = model(x, state)
        model.head.linear.map.weight.mul_(2)
        model.standardize.std.mul_(0.7)
        model.encoder.recurrent1.after[0].weight = torch.nn.Parameter(torch.full((16,), 0.3))
        quick, _ = model(x, state)
        close(quick, forward(model, x, state)[0])
        weight_norm(model.head.linear.map)
        model.head.linear.map.parametrizations.weight.original0.mul_(3)
        other, _ = model(x, state)
        close(other, forward(model, x, state)[0])
        assert model.head.linear.leanly(numbers(1, 2, 16), ()) is None
    assert not torch.allclose(before, quick, atol=1e-4) and not torch.allclose(quick, other, atol=1e-4)


class Doubled(LogMel):
    """Another forward, and nothing said about small calls."""

    def forward(self, x, state):
        y, state = super().forward(x, state)
        return 2 * y, state


class Halves(Stage):
    """A stage of a user's."""

    in_shape = out_shape = (64,)

    def forward(self, x, state):
        return x / 2, state


@torch.no_grad()
def test_a_stage_without_lean_is_called_as_it_is():
    chain = Chain(features=Doubled(), halves=Halves())
    assert LogMel.able and not Doubled.able and not Halves.able and chain.able
    x, state = numbers(1, 2 * chain.hop) * 0.1, chain.initial(1)
    close(chain(x, state)[0], LogMel()(x, state[0])[0])
    assert chain(x[:, :0], state)[0].shape == (1, 0, 64)


@torch.no_grad()
def test_who_watches_a_stage_is_told():
    model, seen = small_model().for_streaming(), []
    x, state = numbers(1, 2 * model.hop) * 0.1, model.initial(1)
    expected, _ = model(x, state)
    watched = [model.get_submodule(n) for n in ("smoothing", "encoder.recurrent1.cell", "head.linear.map", "")]
    for each in watched:
        hook = each.register_forward_hook(lambda module, *_: seen.append(module))
        close(model(x, state)[0], expected)
        hook.remove()
    assert seen == watched
    for register in (register_module_forward_hook, register_module_forward_pre_hook):
        seen.clear()
        hook = register(lambda module, *_: seen.append(module))
        close(model(x, state)[0], expected)
        hook.remove()
        assert all(each in seen for each in watched)


@pytest.mark.parametrize("way", ["trace", pytest.param("export", marks=pytest.mark.long)])
def test_what_was_exported_leaves_eager_answers_alone(way):
    """Constants of a graph must not be kept for the calls after it."""
    stage, x = EMA((3,), 0.02, 0.07).eval(), numbers(2, 37 if way == "trace" else 39, 3)  # lengths of no other test
    state = stage.initial(2)
    if way == "trace":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace(lambda x, *state: stage.forward(x, state)[0], (x, *state), check_trace=False)
    else:
        torch.export.export(Whole(stage), (x, *state))
    y, _ = stage(x, state)
    assert type(y) is torch.Tensor and not isinstance(y, FakeTensor)
    with torch.no_grad():
        close(y, both(stage, x, state)[0][0])
    assert not stage.state_dict()


class Whole(torch.nn.Module):
    """A stage for export, which takes its state as single tensors."""

    def __init__(self, stage):
        super().__init__()
        self.stage = stage

    def forward(self, x, *state):
        return self.stage.forward(x, state)


def test_gradients_and_dropout_go_the_usual_way():
    model = small_model("encoder.dropout=0.5").for_streaming()
    x, state = numbers(1, 2 * model.hop) * 0.1, model.initial(1)
    assert model(x, state)[0].requires_grad
    model.train()
    with torch.no_grad():
        assert not torch.equal(model(x, state)[0], model(x, state)[0])


@torch.no_grad()
def test_a_wrong_state_is_refused_and_not_read():
    model = small_model().for_streaming()
    x = numbers(2, 2 * model.hop) * 0.1
    for stage, given in zip(model.stages[2:], (numbers(2, 3, 20), numbers(2, 3, 16), numbers(2, 3, 3)), strict=True):
        state = tree(lambda tensor: torch.zeros(5, *tensor.shape[1:], dtype=tensor.dtype), stage.initial(2))
        with pytest.raises((ValueError, RuntimeError)):
            stage(given, state)
    with pytest.raises((ValueError, RuntimeError)):
        model(x, tree(torch.Tensor.double, model.initial(2)))
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        model(torch.full_like(x, torch.nan), model.initial(2))


@pytest.mark.parametrize(
    "settings",
    [{"stride": 2}, {"stride": 3, "kernel": 3}, {"dilation": 2}, {"kernel": 1}, {"channels": 6, "kernel": 4}],
)
def test_causal_convolutions(settings):
    stage = CausalConv(6, **({"channels": 9} | settings)).eval()
    (y, state), (z, after) = both(stage, numbers(2, 6, 6), torch.randn_like(stage.initial(2)))
    close(y, z)
    assert torch.equal(state, after)
    assert stage.leanly(numbers(1, 600, 6), stage.initial(1)) is None
