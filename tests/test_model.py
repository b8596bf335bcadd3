"""The model file: the same bits come back, and nothing in it is ever run."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import SAVED, configured, ran, small_model, tone_clip
from safetensors import safe_open
from safetensors.torch import save_file

from pipeline.core.errors import ConfigError, ModelError
from pipeline.extractors.frame_cnn import FrameCNN
from pipeline.model.classifier import Classifier, load
from pipeline.model.file import HEADER
from pipeline.streaming.stream import Stream
from pipeline.training.pretrained import load_pretrained


def header(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[HEADER]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def rewritten(path, change):
    settings, weights = header(path)
    change(settings, weights)
    save_file(weights, path, {HEADER: json.dumps(settings)})
    return path


@pytest.fixture
def stored(tmp_path):
    small_model("encoder=conv_recurrent", "cell=lstm").save(tmp_path / "model.safetensors", {"note": 1})
    return tmp_path / "model.safetensors"


def test_save_and_load_give_the_same_bits(stored):
    model, again = small_model("encoder=conv_recurrent", "cell=lstm"), load(stored)
    x = torch.randn(2, 20 * model.hop)
    with torch.inference_mode():
        assert torch.equal(model(x, model.initial(2))[0], again(x, again.initial(2))[0])
    assert model.identity() == again.identity() != small_model().identity()
    assert again.labels == model.labels and not again.training
    settings, weights = header(stored)
    assert settings["trained"] == {"note": 1} and "encoder.recurrent1.cell.weight_hh" in weights


def test_other_window_same_weights(stored):
    model = load(stored)
    live = model.for_streaming()
    assert live.config["head"]["window"] == model.config["head"]["live"] == 0.5
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), live.parameters()))


def test_missing_and_broken_files(tmp_path, stored):
    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "nothing.safetensors")
    data = stored.read_bytes()
    for name, content in {"cut": data[: len(data) // 2], "text": b"hello", "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match="not a whole model"):
            load(tmp_path / name)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="not a Rivulet model"):
        load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(("changed", "message"), [
    (lambda settings, _: settings.update(format=99), "format 99; this version reads format 1"),
    (lambda settings, _: settings["config"].pop("head"), "the header lacks head"),
    (lambda settings, _: settings["config"]["head"].update(run="rm"), "head.run: no such key"),
    (lambda settings, _: settings["config"]["encoder"].update(hidden=10**7), "has shape .* expected"),
    (lambda settings, _: settings["config"]["encoder"].update(hidden=10**18), "refused"),
    (lambda _, weights: weights.update({"standardize.mean": torch.zeros(9)}), "has shape .* expected"),
    (lambda _, weights: weights.pop("standardize.mean"), "the weights do not belong"),
])  # fmt: skip
def test_wrong_headers_and_weights_are_refused(stored, changed, message):
    """Names that it may not say: see ``test_hostile_models.py``."""
    with pytest.raises(ModelError, match=message):
        load(rewritten(stored, changed))


def test_training_logits_are_those_of_the_answer():
    model = small_model("smoothing=none")
    x = torch.randn(2, 10 * model.hop)
    with torch.inference_mode():
        features = model.encoder_input(model.extract(x))
        _, pooled, _ = model.logits(features)
        posteriors, _ = model(x, model.initial(2))
    assert torch.allclose(pooled.softmax(-1), posteriors, atol=1e-6)


@pytest.mark.parametrize(
    ("backbone", "size"), [("vit_b_16", 112), ("alexnet", 16), ("inception_v3", 32), ("regnet_x_400mf", 112)]
)
def test_pictures_that_a_backbone_cannot_take(backbone, size):
    message = rf"extractor\.height.*{backbone} cannot .*{size}x{size}.*extractor\.backbone"
    with pytest.raises(ConfigError, match=message):
        FrameCNN(height=size, width=size, backbone=backbone)


def test_backbones_with_a_second_output_can_be_trained():
    stage = FrameCNN(height=32, width=32, backbone="googlenet").train()
    y, _ = stage(torch.zeros(1, 2, 3, 32, 32), ())
    assert y.shape == (1, 2, *stage.out_shape) and y.requires_grad


def test_training_begins_with_the_weights_of_another_model(tmp_path):
    def made(labels, *settings):
        torch.manual_seed(len(labels))
        config = configured("train", "encoder.hidden=12", "extractor.mels=20", *settings)
        return Classifier(config, labels)

    there = made(["cat", "dog", "owl"])
    there.standardize.mean.fill_(2.0)
    there.save(tmp_path / "model.safetensors")
    here = made(["bee", "dog"], "encoder.dropout=0.4", "cell.zoneout=0.1", "head.delay=0.1", "decoder.threshold=0.9")
    drawn = {name: tensor.clone() for name, tensor in here.state_dict().items()}
    assert "labels it knows: 1, new: 1" in load_pretrained(here, str(tmp_path))
    body = {name for name in drawn if not name.startswith("head.")}
    assert body and all(torch.equal(here.state_dict()[name], there.state_dict()[name]) for name in body)
    for name in drawn.keys() - body:
        after = here.state_dict()[name]
        assert torch.equal(after[0], drawn[name][0]) and torch.equal(after[1], there.state_dict()[name][1])
        assert not torch.equal(drawn[name][1], after[1])
    for other, message in (
        ("extractor.rate=8000", "extractor.rate was 16000, is 8000"),
        ("cell=lstm", "another cell"),
        ("encoder.hidden=14", "encoder.hidden was 12, is 14"),
        ("encoder.layers=2", "encoder.layers was 1, is 2"),
        ("encoder.residual=true", "encoder.residual was False, is True"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_pretrained(made(["bee"], other), str(tmp_path))
    with pytest.raises(ModelError, match=r"trainer\.pretrained=/nowhere: no such file"):
        load_pretrained(here, "/nowhere")


def test_a_model_saved_before_its_classes_moved_answers_the_same_bits():
    """Saved by the version of 2026-11-29, with the names that classes had then."""
    model = load(SAVED / "before_rooms.safetensors")
    x = (0.1 * np.random.default_rng(7).standard_normal(16000)).astype(np.float32)
    stream = Stream(model.for_streaming())
    stream.push(x)
    assert model.config["encoder"]["_target_"] == "pipeline.encoders.encoder.Encoder"
    assert np.abs(stream.posteriors - np.load(SAVED / "before_rooms.npy")).max() < 1e-6  # of another processor


@pytest.fixture
def clips(tmp_path):
    """The clips, at relative paths, of the run and of the ledger that were saved."""
    for number in range(6):
        tone_clip(tmp_path / "tones" / "low" / f"{number}.wav", 200 + 10 * number, seed=number)
        tone_clip(tmp_path / "tones" / "high" / f"{number}.wav", 2000 + 90 * number, seed=number)
    return tmp_path


def test_a_training_begun_before_classes_moved_goes_on(clips):
    (clips / "run").mkdir()
    shutil.copy(SAVED / "before_rooms.ckpt", clips / "run" / "last.ckpt")
    data = ["dataset=folder", "dataset.root=tones", "dataset.cache=null"]
    model = ["encoder=recurrent", "encoder.hidden=8", "extractor.mels=12"]
    quick = ["trainer.epochs=3", "trainer.workers=0", "trainer.batch=4"]
    ran("train.py", *data, *model, *quick, "trainer.resume=run", cwd=clips)
    assert len((clips / "run" / "history.jsonl").read_text().splitlines()) == 3


def test_a_ledger_begun_before_classes_moved_is_read(clips):
    """It is of the same model and settings. (Its files were others: they are told by their times, too.)"""
    shutil.copy(SAVED / "before_rooms.ledger", clips / "out.csv.ledger")
    files = ["source=files", "source.paths=tones", "sink=csv", "sink.csv.path=out.csv"]
    ran("infer.py", f"checkpoint={SAVED / 'before_rooms.safetensors'}", *files, cwd=clips)
    assert len((clips / "out.csv").read_text().splitlines()) == 13


def test_a_signal_while_a_model_loads_ends_the_program(monkeypatch):
    """Only what a header brings about is a refusal."""
    monkeypatch.setattr("pipeline.model.classifier.rebuild", lambda *_: sys.exit(143))
    with pytest.raises(SystemExit, match="143"):
        load(SAVED / "before_rooms.safetensors")
