"""EfficientNet-Lite0 against the published layout of its layers, and spectra as pictures before it."""

from importlib.metadata import PackageNotFoundError, distribution
from math import ceil
from pathlib import Path

import cv2
import librosa
import numpy as np
import pytest
import sklearn
import torch
from conftest import listen, noise, ran
from torch.nn import functional
from torchvision.models import EfficientNet_B0_Weights

from pipeline.core.errors import ConfigError
from pipeline.extractors import efficientnet
from pipeline.extractors.frame_cnn import FrameCNN
from pipeline.extractors.spectrum_picture import SpectrumPicture
from pipeline.layers.laws import check
from pipeline.model.classifier import load
from pipeline.streaming.stream import Stream

# of each block: kernel, stride, channels within, channels behind (Tan & Le 2019, table 1, of B0)
BLOCKS = [(3, 1, 32, 16), (3, 2, 96, 24), (3, 1, 144, 24), (5, 2, 144, 40), (5, 1, 240, 40), (3, 2, 240, 80)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of the stem and six blocks, as the package's file has them."""
    generator, found, before = torch.Generator().manual_seed(0), {}, 32

    def add(name, norm, *shape):
        found[f"{name}.weight"] = torch.randn(shape, generator=generator) / np.sqrt(np.prod(shape[1:]))
        for key in ("weight", "bias", "running_mean", "running_var"):
            found[f"{norm}.{key}"] = torch.rand(shape[0], generator=generator) + 0.5
        found[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    for number, (kernel, _, within, behind) in enumerate(BLOCKS):
        at = f"_blocks.{number}"
        if within != before:
            add(f"{at}._expand_conv", f"{at}._bn0", within, before, 1, 1)
        add(f"{at}._depthwise_conv", f"{at}._bn1", within, 1, kernel, kernel)
        add(f"{at}._project_conv", f"{at}._bn2", behind, within, 1, 1)
        before = behind
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(found, path)
    return path


def oracle(found, x):
    """The same network by its names, layer by layer, with TensorFlow's padding."""

    def layer(x, name, norm, stride=1, last=False):
        weight = found[f"{name}.weight"]
        sizes = [max((ceil(n / stride) - 1) * stride + weight.shape[-1] - n, 0) for n in x.shape[2:]]
        x = functional.pad(x, (sizes[1] // 2, sizes[1] - sizes[1] // 2, sizes[0] // 2, sizes[0] - sizes[0] // 2))
        y = functional.conv2d(x, weight, stride=stride, groups=weight.shape[0] if weight.shape[1] == 1 else 1)
        mean, variance, gain, bias = (
            found[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        y = functional.batch_norm(y, mean, variance, gain, bias, eps=1e-3)
        return y if last else y.clamp(0, 6)

    x = layer(x, "_conv_stem", "_bn0", 2)
    for number, (_, stride, _, _) in enumerate(BLOCKS):
        at, y = f"_blocks.{number}", x
        if f"{at}._expand_conv.weight" in found:
            y = layer(y, f"{at}._expand_conv", f"{at}._bn0")
        y = layer(y, f"{at}._depthwise_conv", f"{at}._bn1", stride)
        y = layer(y, f"{at}._project_conv", f"{at}._bn2", last=True)
        x = x + y if x.shape == y.shape else y
    return x.mean((2, 3))


@pytest.mark.filterwarnings("ignore:extractor.weights")
def test_a_spectrum_is_the_picture_that_librosa_makes_and_the_network_that_was_published(weights):
    extractor, wave = SpectrumPicture(mels=40, span=0.5, block=5, weights=str(weights)), noise(16000)
    extractor.fetch()
    y, _ = extractor(torch.from_numpy(wave)[None], extractor.initial(1))
    assert y.shape == (1, 4, 80)
    power = librosa.feature.melspectrogram(
        y=np.pad(wave, (480 + 192, 192)), sr=16000, n_fft=1024, win_length=640, hop_length=160, center=False, n_mels=40, fmin=20
    )  # fmt: skip
    found = torch.load(weights)
    for step, end in enumerate((24, 48, 72, 96)):
        frames = np.pad(power[:, max(0, end - 50) : end], ((0, 0), (max(0, 50 - end), 0)))
        decibels = librosa.power_to_db(frames + 1e-6, ref=np.max, top_db=80)
        image = torch.from_numpy((decibels / 80 + 1) * 255).float()
        expected = oracle(found, ((image - 127) / 128).expand(1, 3, -1, -1))
        assert y[0, step].numpy() == pytest.approx(expected[0].numpy(), abs=1e-3 * float(expected.abs().max()))


@pytest.mark.filterwarnings("ignore:extractor.weights")
def test_odd_sizes_and_weights_that_do_not_fit(weights, tmp_path):
    net = efficientnet.lite0(5)
    efficientnet.fetch(net, str(weights))
    x = torch.randn(2, 3, 75, 62)
    assert torch.allclose(net(x).flatten(1), oracle(torch.load(weights), x), atol=1e-3)
    with pytest.raises(ConfigError, match=r"extractor\.weights: .*random\.pth holds 18 convolutions; expected 49"):
        efficientnet.fetch(efficientnet.lite0(), str(weights))
    found = torch.load(weights)
    found["_blocks.0._depthwise_conv.weight"] = torch.zeros(32, 1, 5, 5)
    torch.save(found, other := tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"\(32, 1, 5, 5\); expected \(32, 1, 3, 3\)"):
        efficientnet.fetch(net, str(other))


def test_the_laws():
    torch.manual_seed(0)
    check(SpectrumPicture(mels=32, span=0.4, every=0.1, block=4), examples=2)
    check(FrameCNN(height=32, width=36, backbone="efficientnet_lite0"), examples=1)


def test_the_package_knows_what_is_in_a_photograph():
    try:
        distribution(efficientnet.WEIGHTS.package)
    except PackageNotFoundError:
        pytest.skip("needs make setup EXTRAS=pretrained")
    extractor = FrameCNN(height=224, width=224, backbone="efficientnet_lite0", frozen=True).eval()
    extractor.fetch()
    found = torch.load(efficientnet.WEIGHTS.find(None, "extractor.weights"))
    names = EfficientNet_B0_Weights.DEFAULT.meta["categories"]
    for name, label in (("china", "palace"), ("flower", "daisy")):
        image = cv2.imread(str(Path(sklearn.__file__).parent / "datasets" / "images" / f"{name}.jpg"))[:, 107:534, ::-1]
        image = cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)
        y, _ = extractor(torch.from_numpy(image.copy()).permute(2, 0, 1)[None, None], ())
        assert names[int((found["_fc.weight"] @ y[0, 0] + found["_fc.bias"]).argmax())] == label


@pytest.mark.filterwarnings("ignore:extractor.weights")
def test_a_model_holds_its_network(tones, weights, tmp_path):
    ran("train.py", "dataset=folder", f"dataset.root={tones}", "extractor=spectrum_picture", "extractor.mels=24",
        "extractor.span=0.3", "extractor.every=0.1", "extractor.block=3", f"extractor.weights={weights}",
        "encoder=recurrent", "encoder.hidden=8", "augment=none", "trainer.workers=0", "trainer.threads=1",
        "trainer.batch=8", "trainer.epochs=1", f"hydra.run.dir={tmp_path / 'run'}")  # fmt: skip
    model, wave = load(tmp_path / "run"), noise(16000)
    net = efficientnet.lite0(3)
    efficientnet.fetch(net, str(weights))
    assert all(torch.equal(a, b) for a, b in zip(model.extractor.net.parameters(), net.parameters()))
    whole = listen(Stream(model, 3), [wave])[0]
    assert np.array_equal(whole, listen(Stream(model, 3), np.array_split(wave, 11))[0])
