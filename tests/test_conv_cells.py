"""Cells over images as they answer: in float32 and bfloat16, against the readable loop, scipy and ONNX Runtime."""

import copy
import pickle
from itertools import cycle

import numpy as np
import pytest
import torch
from conftest import configured
from references import image_session
from test_oracle_cells import (
    CONV,
    STEPS,
    Images,
    answer,
    begin,
    conv_cell,
    distance,
    every_conv,
    listed,
    paper,
    together,
)
from torchvision.transforms.v2 import functional

from pipeline.cells.conv_cell import ConvCell
from pipeline.cells.jordan import Jordan
from pipeline.cells.lstm import CoupledLSTM
from pipeline.cells.mgu import MGU
from pipeline.cells.min_gru import MinGRU
from pipeline.extractors.frame_cnn import FrameCNN
from pipeline.model.classifier import Classifier
from pipeline.streaming.scheduler import Scheduler
from pipeline.streaming.stream import Stream

OPTIONS = [{}, {"bias": False}, {"kernel": 5}, {"kernel": 1}, {"stride": 2}, {"dilation": 2}, {"learn_initial": True}]
OPTIONS += [{"hidden": 1}, {"shape": (1, 7, 6)}, {"shape": (4, 1, 1)}]
CASES = [(name, options) for name in CONV for options in OPTIONS] + [("conv_lstm", {"gate": "hard_sigmoid"})]


def lively(name, dtype=torch.float32, **options):
    """A cell with weights that move it about, and a row of images."""
    cell = conv_cell(name, options.pop("shape", (2, 6, 5)), options.pop("hidden", 3), dtype, **options).eval()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(1.5)
    return cell


# --- float32 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
@pytest.mark.parametrize(("rows", "steps"), [(1, 7), (3, 4)])
def test_float32_is_the_float64_loop(name, options, rows, steps):
    cell = lively(name, **options)
    twin = copy.deepcopy(cell).double()
    x, state = torch.randn(rows, steps, *cell.in_shape), begin(cell, rows)
    with torch.no_grad():
        assert distance(answer(cell, x, state), twin.loop(x.double(), *(s.double() for s in listed(state)))) <= 1e-6


@pytest.mark.parametrize("name", ["conv_elman", "conv_lstm", "conv_gru", "conv_gru_reset_before"])
@pytest.mark.parametrize("size", [(9, 11), (40, 40)])
def test_cells_are_onnx_runtime(name, size):
    """Images small enough for torch's own convolution, and larger ones."""
    cell = lively(name, shape=(3, *size), hidden=8)
    x, state = torch.randn(2, 3, *cell.in_shape), begin(cell, 2)
    y, *last = answer(cell, x, state)
    session, memory = image_session(cell), [s.numpy() for s in listed(state)]
    for t in range(3):
        memory = session(x[:, t].numpy(), *memory)
        assert distance([y[:, t]], memory[:1]) <= 2e-6  # both round
    assert distance(last, memory) <= 2e-6


@pytest.mark.parametrize("dense", [Jordan, CoupledLSTM, MGU, MinGRU])
def test_any_cell_can_be_one_over_images(dense):
    """Two products in a row, or none at all: what a base class more makes of the other cells."""
    torch.manual_seed(0)
    cell = type("Over", (ConvCell, dense), {})((2, 6, 5), 4).eval()
    twin = copy.deepcopy(cell).double()
    x, state = torch.randn(2, 3, *cell.in_shape), begin(cell, 2)
    with torch.no_grad():
        expected = twin.loop(x.double(), *(s.double() for s in listed(state)))
    assert distance(answer(cell, x, state), expected) <= 1e-6


@every_conv
@pytest.mark.parametrize("kind", [torch.contiguous_format, torch.channels_last])
def test_the_caller_may_write_to_what_comes_out(name, kind):
    cell = lively(name)
    x, state = torch.randn(2, 3, *cell.in_shape), begin(cell, 2)
    state = together([s.contiguous(memory_format=kind) for s in listed(state)])
    given = [s.clone() for s in (x, *listed(state))]
    y, *after = answer(cell, x, state)
    kept = [s.clone() for s in after]
    y.zero_()
    assert all(torch.equal(a, b) for a, b in zip([*given, *kept], [x, *listed(state), *after]))


@pytest.mark.parametrize("name", ["conv_lstm", "conv_gru_reset_before"])
@pytest.mark.parametrize("options", [{"layer_norm": True}, {"zoneout": 0.2}, {"recurrent_dropout": 0.3}])
def test_options_that_need_the_readable_loop_get_it(name, options):
    cell = lively(name, **options)
    x, state = torch.randn(2, 3, *cell.in_shape), begin(cell, 2)
    with torch.no_grad():
        expected = cell.loop(x, *listed(state))
    assert distance(answer(cell, x, state), expected) <= 1e-6


def test_gradients_and_other_precisions_get_the_readable_loop():
    cell = lively("conv_lstm")
    x, state = torch.randn(2, 3, *cell.in_shape), begin(cell, 2)
    y, _ = cell(x, state)
    assert y.requires_grad
    cell.requires_grad_(False)
    assert not cell(x, state)[0].requires_grad and cell(x.requires_grad_(), state)[0].requires_grad
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        z, after = cell(x, state)
    assert torch.allclose(z.float(), y, atol=0.05) and all(s.dtype == torch.float32 for s in after)
    assert cell.double()(x.detach().double(), begin(cell, 2, torch.float64))[0].dtype == torch.float64


# --- bfloat16 -------------------------------------------------------------------------------------------------------


class Rounded(Images):
    """The papers' products of what bfloat16 leaves of images; weights are rounded before."""

    def x(self, gate, x):
        return super().x(gate, torch.from_numpy(x).bfloat16().double().numpy())

    def r(self, gate, h):
        return super().r(gate, torch.from_numpy(h).bfloat16().double().numpy())


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"bias": False}], ids=str)
@pytest.mark.parametrize("way", ["streaming", "learning"])
@pytest.mark.parametrize("name", ["conv_lstm", "conv_gru"])
def test_bf16_is_a_convolution_of_rounded_numbers(name, options, way):
    """The LSTM's products are only added, the GRU's are not."""
    cell = conv_cell(name, (3, 12, 12), 8, torch.float32, **options).eval()
    x, state = torch.randn(2, 1, 3, 12, 12), begin(cell, 2)
    twin = copy.deepcopy(cell)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(parameter.bfloat16())
    cell.lower()
    found = answer(cell, x, state, way)
    assert all(s.dtype == torch.float32 for s in found)
    expected = paper(getattr(Rounded(twin), STEPS[CONV[name][1]]), x, listed(state))
    assert distance(found, expected) <= 4e-3  # products are rounded once more, to eight bits


@every_conv
def test_bf16_keeps_the_law(name):
    """Cut anywhere; the given memory untouched; memory and answer always float32."""
    cell = lively(name, shape=(3, 12, 10), hidden=5)
    x = torch.randn(2, 12, *cell.in_shape)
    exact = answer(cell, x, cell.initial(2))
    cell.lower()
    whole, state, ys = answer(cell, x, cell.initial(2)), cell.initial(2), []
    for block in x.split(5, 1):
        before = [s.clone() for s in listed(state)]
        y, *after = answer(cell, block, state)
        assert all(torch.equal(a, b) for a, b in zip(before, listed(state)))
        state = together(after)
        ys.append(y)
    assert distance([torch.cat(ys, 1)], [whole[0]]) < 4e-3 and all(s.dtype == torch.float32 for s in (y, *after))
    assert 1e-5 < distance(whole, exact) < 0.1  # another answer, but not by much


# --- whole models ---------------------------------------------------------------------------------------------------

MODELS = {
    "conv_lstm": ["extractor=frames", "encoder=image_recurrent", "cell=conv_lstm", "head=last", "encoder.spatial=max"],
    "conv_gru": ["extractor=frame_difference", "encoder=image_recurrent", "cell=conv_gru", "head=max"],
    "frame_cnn": ["extractor=frame_cnn", "encoder=recurrent", "cell=gru", "head=last"],
}
SIZE = ["extractor.height=24", "extractor.width=24", "encoder.hidden=12"]
every_model = pytest.mark.parametrize("name", MODELS)


def model_of(name):
    torch.manual_seed(0)
    return Classifier(configured("train", *MODELS[name], *SIZE), ["red", "green", "blue"]).eval()


def scenes(count, seed=0, steps=8):
    """Films of noise with a bar of colour that moves, ``(count, steps, 24, 24, 3)``."""
    rng = np.random.default_rng(seed)
    films, begin = rng.integers(0, 120, (count, steps, 24, 24, 3), np.uint8), rng.integers(0, 24, count)[:, None]
    for row in range(8):
        place = (begin + 2 * np.arange(steps) + row) % 24
        films[np.arange(count)[:, None], np.arange(steps), :, place, 0] += 40
    return films


def streamed(model, films, block=8, sizes=(8,)):
    """Posteriors of all films in a row, in chunks of the given sizes in turn."""
    stream, found, whole, turn = Stream(model, block), [], films.reshape(-1, *films.shape[2:]), cycle(sizes)
    while len(whole):
        size = next(turn)
        stream.push(whole[:size])
        found.append(stream.posteriors)
        whole = whole[size:]
    stream.close()
    return np.concatenate([*found, stream.posteriors])


@every_model
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_streams_agree_to_the_bit(name, precision):
    model = model_of(name).for_streaming().with_precision(precision)
    films = scenes(6)
    whole = streamed(model, films, 4, (48,))
    for sizes in ((1,), (7,), (1, 5, 2, 11)):
        assert np.array_equal(streamed(model, films, 4, sizes), whole)
    assert whole.dtype == np.float32 and whole.std(0).max() > 0 and np.abs(whole.sum(1) - 1).max() < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_states_can_be_kept_and_stacked(precision):
    """A state that went to disk and back is laid out anew; and streams may be computed side by side."""
    model = model_of("conv_lstm").for_streaming().with_precision(precision)
    films = scenes(6)
    whole, first, again = streamed(model, films, 4), Stream(model, 4), Stream(model, 4)
    first.push(films[:3].reshape(-1, 24, 24, 3))
    again.state = pickle.loads(pickle.dumps(first.state))
    again.push(films[3:].reshape(-1, 24, 24, 3))
    assert np.array_equal(again.posteriors, whole[24:])
    many, scheduler = [Stream(model, 8) for _ in films], Scheduler(model, 8, tile=8)
    for stream, film in zip(many, films):
        scheduler.join(stream)
        scheduler.feed(stream, film)
    scheduler.turn()
    for stream, film in zip(many, films):
        assert np.abs(stream.posteriors - streamed(model, film[None])).max() <= 1e-4


@every_model
def test_bf16_posteriors_are_near(name):
    model, films = model_of(name).for_streaming(), scenes(12)
    exact, short = streamed(model, films), streamed(model.with_precision("bf16"), films)
    assert 0 < np.abs(exact - short).max() <= 0.02 and short.dtype == np.float32


def test_frame_cnn_sees_what_weights_of_torchvision_expect():
    torch.manual_seed(0)
    stage = FrameCNN(10, 40, 32, backbone="resnet18").eval()
    x = torch.randint(0, 256, (2, 3, 40, 32, 3), dtype=torch.uint8).permute(0, 1, 4, 2, 3)
    numbers = functional.normalize(x.flatten(0, 1) / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        y, expected = stage(x, ())[0], stage.net(numbers).view(2, 3, 512)
        assert (y - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert torch.equal(y, stage(x.contiguous().float(), ())[0])


def test_precision_is_kept_and_has_no_way_back():
    model = model_of("conv_lstm")
    short = model.with_precision("bf16")
    assert short.precision == short.for_streaming().precision == "bf16" and model.precision == "fp32"
    assert model.with_precision("fp32") is model and short.with_precision("bf16") is short
    assert short.identity() != model.identity() == model_of("conv_lstm").identity()
    assert model.with_window(0.3).identity(window=False) == model.identity(window=False) != model.identity()
    kinds = {name: parameter.dtype for name, parameter in short.named_parameters()}
    low = [name for name, kind in kinds.items() if kind == torch.bfloat16]
    assert sorted(low) == [
        "encoder.recurrent1.cell.weight_hh", "encoder.recurrent1.cell.weight_ih",
        "encoder.stem1.conv.weight", "encoder.stem2.conv.weight",
    ]  # fmt: skip
    assert all(s.dtype == torch.float32 for s in listed(short.initial(1)[2][2]))
    with pytest.raises(ValueError, match="load the model again for fp32"):
        short.with_precision("fp32")


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
def test_without_instructions_for_bf16_the_answers_are_the_same():
    """Torch's own convolution takes over where oneDNN cannot."""
    model = model_of("conv_lstm").for_streaming().with_precision("bf16")
    films = scenes(2)
    fast = streamed(model, films)
    with torch.backends.mkldnn.flags(enabled=False):
        slow = streamed(model, films)
    assert np.abs(fast - slow).max() <= 0.005
