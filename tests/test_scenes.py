"""Clips in noise: what is drawn, where the times are, and how decoders are chosen on such a stream."""

import json
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from conftest import QUICK, configured, ran, small_model, tone_clip, write_table
from pydantic import ValidationError
from scipy.signal import correlate

from datasets.manifest import Manifest
from datasets.scenes import Noise, Scenes, SceneSettings, SceneStream
from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.decoders.decoder import Decoder
from pipeline.measures.metrics import match_events
from pipeline.measures.stream_output import StreamOutput
from pipeline.measures.thresholds import GRID, match_with, run_split, tune_f1
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Sample
from pipeline.tasks.classes import Classes

RATE = 8000
INTAKE = InputSpec(sound=RATE)


class Bursts:
    """Twelve clips of 0.5 s with a burst of tone in the middle, and four of hiss, which is class 0."""

    epoch = 0
    classes = [1 + n % 2 for n in range(12)] + [0] * 4

    def __len__(self):
        return 16

    def __getitem__(self, index):
        t = np.arange(RATE // 2) / RATE
        if index >= 12:
            return Sample((np.random.default_rng(index).normal(0, 0.01, len(t)).astype(np.float32),), (0,), [])
        wave = 0.2 * np.sin(2 * np.pi * (300 + 60 * index) * t) * (t >= 0.1) * (t < 0.4)
        label = self.classes[index]
        return Sample((wave.astype(np.float32),), (label,), [(800, 3200, label)], key=f"{index}")


class Whole(Bursts):
    """The same bursts without the silence around them, over the whole clip."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return replace(sample, x=(np.resize(sample.x[0][800:3200], 4000),), spans=[(0, 4000, sample.labels[0])])


def rms(x):
    return np.sqrt(np.mean(np.square(x, dtype=np.float64)))


@pytest.mark.parametrize("snr", [(3.0, 3.0), (20.0, 20.0)])
def test_a_scene_holds_its_clip_where_it_says_and_noise_as_loud_as_asked(snr):
    clips = Bursts()
    scenes = Scenes(clips, SceneSettings(seconds=2.0, snr=snr, plain=0.0), 0, RATE)
    assert len(scenes) == len(clips)
    starts = set()
    for index in range(12):
        wave, clip = scenes[index].x[0], clips[index].x[0]
        ((begin, end, label),) = scenes[index].spans
        assert (len(wave), label, end - begin, wave.dtype) == (2 * RATE, clips.classes[index], 2400, np.float32)
        assert scenes[index].labels == (label,) and scenes[index].key == ""
        found = int(correlate(wave, clip, "valid").argmax())
        assert abs(found - (begin - 800)) <= RATE // 300  # a period of the lowest tone
        wave[begin - 800 : begin - 800 + len(clip)] -= clip
        # The textures have an RMS of 1 over 8 seconds; two of them may be louder or softer.
        assert 20 * np.log10(rms(clip[800:3200]) / rms(wave)) == pytest.approx(snr[0], abs=9)
        starts.add(begin)
    assert len(starts) > 6


def test_scenes_differ_in_each_epoch_and_repeat_within_it():
    scenes = Scenes(Bursts(), SceneSettings(plain=0.0), 0, RATE)
    first = scenes[3]
    assert np.array_equal(first.x[0], scenes[3].x[0]) and first.spans == scenes[3].spans
    scenes.epoch = 1
    assert scenes.split.epoch == 1 and scenes[3].spans != first.spans and not np.array_equal(first.x[0], scenes[3].x[0])


def test_some_clips_stay_as_they_are():
    clips = Bursts()
    assert Scenes(clips, SceneSettings(plain=1.0), 0, RATE)[2].key == "2"
    assert Scenes(clips, SceneSettings(plain=0.0, seconds=0.5), 0, RATE)[2].key == "2"
    scenes, kept = Scenes(clips, SceneSettings(plain=0.4), 0, RATE), 0
    for epoch in range(40):
        scenes.epoch = epoch
        kept += sum(scenes[index].key != "" for index in range(12))
    assert 0.3 < kept / 480 < 0.5


def test_clips_sound_together_at_times_and_levels_of_their_own():
    clips, counts, apart = Bursts(), set(), []
    scenes = Scenes(clips, SceneSettings(plain=0.0, snr=(60.0, 60.0), together=(1, 3)), 0, RATE)
    for index in range(12):
        for scenes.epoch in range(8):
            sample = scenes[index]
            counts.add(len(sample.spans))
            assert set(sample.labels) == {label for _, _, label in sample.spans} and len(sample.x[0]) == 2 * RATE
            assert sample.labels[0] == clips.classes[index], "the first is the clip of that number"
            expected = np.zeros(2 * RATE)
            bursts = [clips[other].x[0][800:3200] for other in range(12)]
            for begin, end, label in sample.spans:  # least squares, burst by burst, finds which ones they are
                fits = [np.dot(sample.x[0][begin:end], burst) / np.dot(burst, burst) for burst in bursts]
                best = max(range(12), key=lambda n: abs(fits[n]))
                if all(end <= a or b <= begin for a, b, _ in sample.spans if (a, b) != (begin, end)):
                    expected[begin:end] += fits[best] * bursts[best]
                    assert clips.classes[best] == label
                    apart.append(20 * np.log10(fits[best]))
                    assert rms(sample.x[0][begin:end] - expected[begin:end]) < 0.02 * rms(sample.x[0][begin:end])
    assert counts == {1, 2, 3} and -6.1 < min(apart) < -3 and 3 < max(apart) < 6.1
    assert scenes[13].labels == (0,) and scenes[13].spans == [], "nothing stays nothing"


def test_of_classes_there_is_one_at_a_time():
    for together, refused in (((1, 3), True), ((1, 1), False), (None, False)):
        scenes = Scenes(Bursts(), SceneSettings(together=together), 0, RATE)
        with (
            pytest.raises(ConfigError, match=r"task: dataset\.scene\.together .*set task=tags")
            if refused
            else nullcontext()
        ):
            Classes().in_columns(scenes, ["nothing", "a", "b"], "nothing")


def test_every_stretch_of_a_clip_that_sounds_with_others_is_known(tmp_path):
    t = np.arange(RATE) / RATE
    wave = 0.3 * np.sin(2 * np.pi * 440 * t) * ((t < 0.2) | ((t > 0.5) & (t < 0.6)) | (t > 0.8))
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", wave, RATE)
    rows = [{"path": f"{n}.wav", "label": "ab"[n % 2], "split": ("train", "val")[n // 2]} for n in range(4)]
    write_table(tmp_path / "manifest.csv", rows)
    for together, count in (((1, 2), 3), (None, 1)):
        scene = SceneSettings(together=together, plain=1.0)
        found = Manifest(str(tmp_path), cache=None, background="nothing", scene=scene).split("train", INTAKE)[0].spans
        assert len(found) == count
    assert found == [(0, 1600, 0)]


def test_the_ends_of_clips_are_cut_off_with_their_times():
    scenes = Scenes(Bursts(), SceneSettings(snr=(60.0, 60.0), plain=0.0, trim=0.15), 0, RATE)
    clips, lengths = Bursts(), set()
    for index in range(12):
        wave, clip = scenes[index].x[0], clips[index].x[0]
        ((begin, end, _),) = scenes[index].spans
        lengths.add(end - begin)
        assert rms(wave[begin:end]) == pytest.approx(rms(clip[800:3200]), rel=0.05)
        assert rms(np.delete(wave, slice(begin, end))) < 0.02 * rms(clip[800:3200])
    assert lengths == {2400}  # a fifth of the clip at most, which is its silence
    scenes.split = Whole()
    lengths = {end - begin for index in range(12) for begin, end, _ in scenes[index].spans}
    assert len(lengths) > 6 and 2400 <= min(lengths) < max(lengths) <= 4000


def test_a_recording_holds_all_clips_with_pauses(monkeypatch):
    clips = Bursts()
    recording = SceneStream(clips, SceneSettings(gap=(0.5, 1.0), snr=(40.0, 40.0)), 0, RATE, piece=5.0)
    count = 0
    for number in range(len(recording)):
        wave, spans = recording[number].x[0], recording[number].spans
        for (_, end, _), (begin, _, _) in pairwise(spans):
            assert 0.5 * RATE <= begin - end - 1600 <= RATE  # 0.1 s of silence at both ends of a clip
        assert 0.6 * RATE <= spans[0][0] <= 1.1 * RATE and len(wave) >= spans[-1][1] + RATE
        inside = np.zeros(len(wave), bool)
        for begin, end, label in spans:
            inside[begin:end] = True
            assert label in (1, 2)
        assert 20 * np.log10(rms(wave[inside]) / rms(wave[~inside])) == pytest.approx(40, abs=6)
        count += len(spans)
    assert count == 12 and len(recording) > 1
    with monkeypatch.context() as patch:
        patch.setattr("datasets.scenes.MAX_STREAM_SECONDS", 6.0)
        short = SceneStream(clips, SceneSettings(gap=(0.5, 1.0)), 0, RATE, piece=2.0)
    assert 6 <= sum(len(piece.x[0]) for piece in short.pieces) / RATE < 12, "nobody listens for longer"
    one, other = (SceneStream(clips, SceneSettings(), 0, RATE)[0].x[0] for _ in range(2))
    assert np.array_equal(one, other)


def test_textures_differ_in_colour_and_have_one_level():
    noise = Noise(Bursts(), 0, RATE)
    assert len(noise.textures) == 48 + 4  # the clips of the background are played to and fro
    slopes = []
    for wave in noise.textures[:48]:
        power = np.abs(np.fft.rfft(wave)) ** 2
        hertz = np.fft.rfftfreq(len(wave), 1 / RATE)
        low, high = power[(hertz > 200) & (hertz < 400)].mean(), power[(hertz > 2000) & (hertz < 3900)].mean()
        slopes.append(10 * np.log10(low / high))
        assert rms(wave) == pytest.approx(1, abs=1e-3)
    assert np.std(slopes) > 5
    assert len(noise.draw(np.random.default_rng(0), 20 * RATE)) == 20 * RATE


def test_scene_settings_are_checked():
    with pytest.raises(ValidationError, match="snr"):
        SceneSettings(snr=(10.0, 0.0))
    with pytest.raises(ValidationError, match="together"):
        SceneSettings(together=(3, 1))
    with pytest.raises(ValidationError, match="gap"):
        SceneSettings(gap=(-1.0, 0.0))
    with pytest.raises(ConfigError, match="lower one first"):
        build(configured("train", "dataset=manifest", "dataset.scene={gap: [3, 1]}")["dataset"], at="dataset")


def labelled(folder):
    rows = []
    for number in range(24):
        label, split = ("low", "high")[number % 2], ("train", "train", "val")[number // 2 % 3]
        tone_clip(folder / f"{number}.wav", 200 + 1800 * (number % 2) + 10 * number, 0.4, RATE, seed=number)
        rows.append({"path": f"{number}.wav", "label": label, "split": split})
    return str(write_table(folder / "manifest.csv", rows).parent)


def test_scenes_bring_the_label_of_what_is_between_clips(tmp_path):
    root = labelled(tmp_path)
    with pytest.raises(ConfigError, match=r"dataset\.scene: needs dataset\.background"):
        Manifest(root, cache=None, scene=SceneSettings())
    with pytest.raises(ConfigError, match="no clip has the label '_nothing_'"):
        Manifest(root, cache=None, background="_nothing_")
    data = Manifest(root, cache=None, background="_nothing_", scene=SceneSettings())
    assert data.labels == ["_nothing_", "high", "low"]
    train, val = data.split("train", INTAKE), data.split("val", INTAKE)
    assert len(train[0].x[0]) in (2 * RATE, int(0.4 * RATE)) and len(val[0].x[0]) == int(0.4 * RATE)
    assert isinstance(val.stream(), SceneStream)
    assert Manifest(root, cache=None).split("val", INTAKE).stream().clips == val.clips


def test_a_model_hears_the_recording(tmp_path):
    data = Manifest(labelled(tmp_path), cache=None, background="_nothing_", scene=SceneSettings(gap=(1.0, 1.0)))
    val = data.split("val", INTAKE)
    model = small_model("extractor.rate=8000", labels=data.labels)
    found = run_split(model.for_streaming(), val)
    seconds = sum(len(val.stream()[n].x[0]) for n in range(len(val.stream()))) / RATE
    assert found.ticks / RATE == pytest.approx(seconds, abs=1)
    assert [len(spans) for spans in found.spans] == [0, 4, 4]


def heard(seed, steps=3000, hop=160):
    """Scores of three labels: high where their spans are, at the wrong level, ragged, with bursts elsewhere."""
    rng = np.random.default_rng(seed)
    y, spans = rng.beta(1, 9, (steps, 3)), [[], [], []]
    for number, start in enumerate(range(100, steps - 100, 90)):
        label, length = 1 + number % 2, int(rng.integers(20, 50))
        spans[label].append((start * hop, (start + length) * hop))
        y[start : start + length, label] = rng.beta(8, 10, length)
        y[start + 60 : start + 62, label] = rng.beta(8, 8)
    rows = [np.array(found, np.int64).reshape(-1, 2) for found in spans]
    return StreamOutput(y.astype(np.float32), rows, steps * hop)


@pytest.mark.parametrize("seed", range(3))
def test_the_chosen_decoder_is_right_more_often_and_its_f1_is_that_of_its_events(seed):
    model, found = small_model(), heard(seed)  # a step of 160 samples; the first label is background
    assert model.hop == 160
    before = match_with(model, found, {"threshold": 0.6, "release": 2 / 3, "minimum": 0.05, "merge": 0.0})
    settings, after = tune_f1(model, found)
    assert after.scores[2] > before.scores[2] + 0.3
    decoder = Decoder(model.labels, 160, 16000, **settings, background=["background"])
    events = decoder.decode(found.posteriors) + decoder.close()
    answer = [(event.start / 16000, event.end / 16000, event.label) for event in events]
    spans = zip(model.labels, found.spans, strict=True)
    truth = [(a / 16000, b / 16000, label) for label, rows in spans for a, b in rows]
    assert match_events(truth, answer)[1] == after and after.truths == len(truth)


def test_a_stream_without_events_is_no_reason_to_fail():
    found = StreamOutput(np.zeros((50, 3), np.float32), [np.zeros((0, 2), np.int64)] * 3, 8000)
    settings, match = tune_f1(small_model(), found)
    assert match.scores == (0.0, 0.0, 0.0) and set(settings) == set(GRID)


def test_training_in_scenes_with_the_decoder_of_most_f1(tmp_path):
    source = ["dataset=manifest", f"dataset.root={labelled(tmp_path / 'data')}", "dataset.cache=null"]
    scene = ["dataset.background=_nothing_", "dataset.scene={seconds: 1.0}", "extractor.rate=8000", "head=max"]
    more = ["decoder.background=[_nothing_]", "encoder=recurrent", "trainer.epochs=2", "events=f1"]
    ran("train.py", *source, *scene, *QUICK, *more, f"hydra.run.dir={tmp_path / 'run'}")
    events = json.loads((tmp_path / "run" / "metrics.json").read_text())["events"]
    assert events["val"]["true"] == 8 and set(events["val"]["classes"]) == {"high", "low"}
