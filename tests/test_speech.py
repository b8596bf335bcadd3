"""extractor=speech beside the network as ONNX Runtime computes it: one of random weights made here, and the package's."""

from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import DATA, configured, run
from onnx import helper, numpy_helper

from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.extractors.extractor import Extractor
from pipeline.extractors.speech import SILENCE, WEIGHTS
from pipeline.media.recording import Recording
from pipeline.model.classifier import Classifier, load
from pipeline.training.run import parameter_groups

pytestmark = pytest.mark.filterwarnings("ignore:.*is not the embedding_model.onnx of")


def installed():
    try:
        return distribution(WEIGHTS.package)
    except PackageNotFoundError:
        return None


needs_package = pytest.mark.skipif(installed() is None, reason="needs make setup EXTRAS=pretrained")


def made(**settings):
    extractor = build(configured("train", "extractor=speech")["extractor"] | settings, Extractor, at="extractor").eval()
    extractor.fetch()
    return extractor


def windows(extractor, wave):
    """What ONNX Runtime makes of the extractor's mel spectrum, every eight frames, from the first whole window on."""
    mels = extractor.spectrum(wave, extractor.spectrum.initial(1))[0][0, ..., 0].numpy()
    session = onnxruntime.InferenceSession(str(extractor.path or WEIGHTS.find(None, "")))
    cuts = np.stack([mels[end - 76 : end] for end in range(80, len(mels) + 1, 8)])
    return session.run(None, {session.get_inputs()[0].name: cuts[..., None]})[0].reshape(len(cuts), 96)


@torch.no_grad()
def test_embedding_is_that_of_onnx_runtime(network):
    wave = 0.1 * torch.randn(1, 40 * 1280, generator=torch.Generator().manual_seed(0))
    extractor = made(path=str(network))
    y, _ = extractor(wave, extractor.initial(1))
    expected = windows(extractor, wave)
    assert np.abs(y[0, 9:].numpy() - expected).max() <= 1e-4 * max(1, np.abs(expected).max())


@needs_package
@torch.no_grad()
def test_embedding_is_that_of_the_package():
    file = DATA / "streams" / "keywords_snr20.flac"
    noise = 0.1 * torch.randn(1, 80 * 1280, generator=torch.Generator().manual_seed(0))
    wave = torch.from_numpy(Recording(file, 16000, None).window(0, 20 * 16000))[None] if file.exists() else noise
    extractor = made()
    y, _ = extractor(wave, extractor.initial(1))
    assert np.abs(y[0, 9:].numpy() - windows(extractor, wave)).max() <= 1e-4


@needs_package
@torch.no_grad()
def test_mels_are_those_of_the_package():
    """Its window of 512 samples has 56 zeros on each side, and it expects 16-bit samples."""
    wave = 0.1 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    extractor = made()
    y, _ = extractor.spectrum(wave, extractor.spectrum.initial(1))
    session = onnxruntime.InferenceSession(str(WEIGHTS.find(None, "").with_name("melspectrogram.onnx")))
    padded = torch.nn.functional.pad(wave, (240 + 56, 56)) * 2**15
    theirs = session.run(None, {"input": padded.numpy()})[0].reshape(-1, 32) / 10 + 2
    assert np.abs(y[0, ..., 0].numpy() - theirs.clip(SILENCE)).max() <= 1e-4


@torch.no_grad()
@pytest.mark.parametrize("layer", [15, 19, 20])
def test_before_the_recording_there_was_silence(layer, network):
    extractor = made(layer=layer, path=str(network))
    y, state = extractor(torch.zeros(2, 12800), extractor.initial(2))
    later, _ = extractor(torch.zeros(2, 12800), state)
    assert y.shape == (2, 12800 // extractor.hop, {15: 384, 19: 192, 20: 96}[layer])
    assert torch.allclose(y, later, atol=1e-4) and torch.allclose(y, y[:1, :1], atol=1e-4)


@torch.no_grad()
def test_sound_of_8_khz_is_heard_as_it_would_be_at_16(network):
    """What is above 3.8 kHz is not used, so the other half of the samples makes no difference."""
    import soxr

    rng = np.random.default_rng(0)
    low = soxr.resample(0.1 * rng.standard_normal(4000 * 8), 6000, 8000, "VHQ").astype(np.float32)[: 5 * 6400]
    high = soxr.resample(low, 8000, 16000, "VHQ")
    answers = []
    for wave, rate in ((low, 8000), (high, 16000)):
        extractor = made(rate=rate, path=str(network))
        answers.append(extractor(torch.from_numpy(wave)[None], extractor.initial(1))[0][0, 8:-2])
    a, b = answers
    assert (a - b).square().mean() < 0.01 * a.var()


def test_a_tuned_top_learns_slower_and_gives_the_same_answers(network):
    config = configured("train", "extractor=speech", "extractor.tune=4", "encoder=recurrent", "encoder.hidden=8")
    config["extractor"]["path"] = str(network)
    model = Classifier(config, ["a", "b"]).eval()
    model.fetch()
    learning = [name for name, parameter in model.extractor.named_parameters() if parameter.requires_grad]
    assert learning == [f"layers.{n}.convolution.{w}" for n in (16, 17, 18) for w in ("weight", "bias")] + [
        "layers.19.convolution.weight"
    ]
    own = {p for p in model.extractor.parameters() if p.requires_grad}
    groups = parameter_groups(model, {"weight_decay": 0.1})
    assert [group["share"] for group in groups] == [1, 1, 0.15, 0.15]
    assert {parameter for group in groups[2:] for parameter in group["params"]} == own
    wave = 0.1 * torch.randn(2, 10 * 1280, generator=torch.Generator().manual_seed(0))
    joined = model.extractor.join(model.extract(wave), None)
    assert torch.allclose(joined, model.extractor(wave, model.extractor.initial(2))[0], atol=1e-5)
    joined.sum().backward()
    assert all(parameter.grad is not None for parameter in own)


def test_a_wrong_file_or_setting_is_one_message(network, tmp_path):
    with pytest.raises(ConfigError, match=r"extractor\.tune: 15 of 15 convolutions"):
        made(layer=15, tune=15, path=str(network))
    (tmp_path / "odd.onnx").write_bytes(b"no onnx")
    with pytest.raises(ConfigError, match=r"extractor\.path: .*odd\.onnx cannot be read as ONNX"):
        made(path=str(tmp_path / "odd.onnx"))
    other = onnx.load(network)
    other.graph.initializer[3].CopyFrom(numpy_helper.from_array(np.zeros((24, 24, 1, 5), np.float32), "w1"))
    other.graph.node[4].attribute[0].CopyFrom(helper.make_attribute("kernel_shape", [1, 5]))
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(ConfigError, match=r"other\.onnx is another network: convolution 2 differs"):
        made(path=str(tmp_path / "other.onnx"))
    with pytest.raises(ConfigError, match=r"extractor\.rate"):
        made(rate=44100, path=str(network))


def test_a_model_file_needs_no_package(network, tmp_path):
    config = configured("train", "extractor=speech", "encoder=recurrent", "encoder.hidden=8")
    config["extractor"]["path"] = str(network)
    model = Classifier(config, ["a", "b"]).eval()
    model.fetch()
    model.save(tmp_path / "model.safetensors")
    network.rename(tmp_path / "gone.onnx")
    try:
        again = load(tmp_path / "model.safetensors")
    finally:
        (tmp_path / "gone.onnx").rename(network)
    wave = 0.1 * torch.randn(1, 10 * 1280, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(wave, model.initial(1))[0], again(wave, again.initial(1))[0])


def test_an_experiment_without_its_package_says_the_one_command(tones, tmp_path, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("pipeline.core.package.distribution", missing)
    data = ["dataset=folder", f"dataset.root={tones}", "decoder.background=[_silence_]"]
    done = run("train.py", "experiment=keywords_speech", *data, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 2 and b"`make setup EXTRAS=pretrained` brings it" in done.stderr
    assert b"reading" not in done.stderr, "it is told before the data are read"
