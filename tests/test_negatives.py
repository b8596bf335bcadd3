"""Recordings on which a model is to stay silent: how they are shared out, drawn, and mined."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from conftest import QUICK, lively_model, noise, read_jsonl, run, tone_clips
from hypothesis import given
from hypothesis import strategies as st

from datasets.negatives import MANY, SHARES, Negatives, Stretch, WithNegatives, share_out
from pipeline.core.errors import ConfigError
from pipeline.measures.operating_point import LEVELS, ODDS, Curves, measure_curves, upper_limit
from pipeline.measures.stream_output import StreamOutput
from pipeline.media.sample import Sample
from pipeline.media.walk import list_files
from pipeline.report.summary import describe_silence
from pipeline.training.mining import mine

RATE = 16000


def recording(folder, name="street", seconds=20, seed=0):
    path = folder / f"{name}.wav"
    soundfile.write(path, noise(seconds * RATE, seed) / 8, RATE, "FLOAT")
    return path


def test_a_recording_is_shared_out_by_time_without_the_events_beside_it(tmp_path):
    path = recording(tmp_path)
    path.with_suffix(".csv").write_text("start,end,label\n3,4,high\n3.2,3.4,low\n14.5,30,low\n")
    found = share_out([path], RATE, None)
    seconds = {name: [(one.start / RATE, one.end / RATE) for one in part.stretches] for name, part in found.items()}
    assert seconds == {"train": [(0, 2.5), (4.5, 14)], "val": [], "thresholds": []}
    path.with_suffix(".csv").unlink()
    found = share_out([path], RATE, None)
    assert [part.samples / RATE for part in found.values()] == pytest.approx([14, 2, 4])
    whole = np.concatenate([block for part in found.values() for (block,) in part.chunks(0)[2]])
    assert np.array_equal(whole, soundfile.read(path, dtype="float32")[0])


def test_many_recordings_are_shared_out_whole_and_what_cannot_be_read_is_told(tmp_path, capsys):
    for number in range(MANY):
        recording(tmp_path, f"r{number}", 1, number)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    found = share_out(list_files(str(tmp_path), "dataset.negatives"), RATE, None)
    names = {split: {Path(one.recording.path).name for one in part.stretches} for split, part in found.items()}
    assert sum(map(len, names.values())) == len(set.union(*names.values())) == MANY
    assert [len(names[split]) for split in SHARES] == [14, 2, 4] and "broken.wav" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"dataset.negatives: there is no '/nowhere'"):
        list_files(["/nowhere"], "dataset.negatives")


@given(st.integers(0, 2**32 - 1), st.integers(10, 3000))
def test_windows_are_parts_of_stretches_and_half_of_them_lie_around_hard_places(seed, count):
    wave = np.arange(10_000, dtype=np.float32)
    one = SimpleNamespace(window=lambda start, size: wave[start : start + size].copy())
    there, rng = Negatives([Stretch(one, 100, 2000), Stretch(one, 5000, 9000)]), np.random.default_rng(seed)
    for hard in ([], [(1, 8000)]):
        there.hard = hard
        drawn = [there.draw(rng, count) for _ in range(60)]
        for x in drawn:
            assert (x[0] >= 100 and x.max() < 2000) or (x[0] >= 5000 and x.max() < 9000)
            assert np.array_equal(x, np.resize(np.arange(x[0], x.max() + 1), count))
        assert not hard or sum(8000 in x for x in drawn) >= 15


def test_clips_are_followed_by_windows_that_differ_in_each_epoch(tmp_path):
    class Clips(list):
        epoch, classes, names, groups, skipped = 0, [1, 2], ["a", "b"], ["", ""], 0

    negatives = share_out([recording(tmp_path)], RATE, None)["train"]
    clips = [Sample((np.zeros(size, np.float32),), (1,)) for size in (8000, 12000)]
    both = WithNegatives(Clips(clips), negatives, negatives, 0, 1.5, 0)
    assert len(both) == 5 and both[0] is clips[0] and both.classes == [1, 2, 0, 0, 0] and both.skipped == 0
    first = both[3]
    assert np.array_equal(first.x[0], both[3].x[0]) and first.labels == (0,) and first.spans == []
    assert len(first.x[0]) in (8000, 12000) and not np.array_equal(first.x[0], both[4].x[0])
    both.epoch = 1
    assert both.clips.epoch == 1 and not np.array_equal(first.x[0][:1000], both[3].x[0][:1000])


@pytest.mark.parametrize(("settings", "message"), [
    (["dataset.negatives=/nowhere"], "dataset.negatives: there is no '/nowhere'"),
    (["dataset.negatives=[]"], "dataset.negatives: no recordings in []"),
    (["dataset.negatives={street}", "dataset.negatives_label=a_cat"], "dataset.negatives_label: no clip is 'a_cat'"),
    (["dataset.negatives={street}", "extractor=optical_flow", "encoder=image_recurrent", "augment=pictures"],
     "dataset.negatives gives sound alone, but the model takes pictures"),
])  # fmt: skip
def test_what_cannot_be_is_told(tmp_path, settings, message):
    tone_clips(tmp_path / "clips")
    settings = [one.format(street=recording(tmp_path)) for one in settings]
    done = run("train.py", "dataset=folder", f"dataset.root={tmp_path / 'clips'}", *settings)
    assert done.returncode == 2 and message in done.stderr.decode() and "Traceback" not in done.stderr.decode()


def test_alarms_are_mined_where_the_live_model_raises_them(tmp_path):
    model = lively_model()
    model.config["decoder"] |= {"threshold": 0.5, "minimum": 0.0}
    negatives = share_out([recording(tmp_path)], RATE, None)["train"]
    found = mine(model, negatives)
    from pipeline.streaming.stream import Stream

    stream = Stream(model.for_streaming())
    events = stream.push(negatives.stretches[0].recording.window(0, negatives.samples)) + stream.close()
    assert found.alarms == len(events) > 0 and found.an_hour == pytest.approx(len(events) / (14 / 3600))
    best = sorted(events, key=lambda event: -event.score)
    assert found.places[0] == (0, best[0].peak) and {(0, event.peak) for event in events} <= set(found.places)


def test_expected_alarms_follow_the_tail_beyond_the_last_one():
    """Peaks of an exponential distribution over the log odds, whose rates are known: 200 and 40 in two hours."""
    rng, ratios = np.random.default_rng(0), []
    for _ in range(50):
        peaks = [rng.exponential(1.0, count) - 3 for count in (200, 40)]
        false = np.array([(one[None] >= ODDS[:, None]).sum(1) for one in peaks])
        curves = Curves(np.zeros_like(false), np.zeros(2, int), false, 2.0)
        place = int(np.searchsorted(ODDS, 4.0))
        ratios.append(curves.expected()[:, place] / (np.array([100, 20]) * np.exp(-(ODDS[place] + 3))))
    assert np.all((np.median(ratios, 0) > 0.5) & (np.median(ratios, 0) < 2))
    assert upper_limit(0, 0.5) == pytest.approx(3 / 0.5, rel=0.01)  # the rule of three


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 1000))
def test_no_other_thresholds_that_keep_to_the_wish_find_more(seed, wish):
    """Against all pairs of thresholds; up to the gap of Lagrange's multiplier, which is less than one label's step."""
    rng = np.random.default_rng(seed)
    hits, false = (-np.sort(-rng.integers(0, most, (2, len(LEVELS))), axis=1) for most in (50, 300))
    curves = Curves(hits, np.full(2, 50), false, 1.0)
    places, expected = curves.best(wish), curves.expected()
    sums = expected[0][:, None] + expected[1][None]
    assert (places is None) == (sums.min() > wish) or places is None
    if places is not None:
        assert expected[[0, 1], places].sum() <= wish
        cheaper = sums <= expected[[0, 1], places].sum()
        assert hits[[0, 1], places].sum() == (hits[0][:, None] + hits[1][None])[cheaper].max()
    few = Curves(hits, np.array([50, 3]), false, 1.0).best(wish)
    assert few is None or (few[0] == few[1] and expected[:, few[0]].sum() <= wish)


def test_curves_are_those_of_whole_decoders():
    model = lively_model()
    walk = np.random.default_rng(0).random((3000, 3)).astype(np.float32)
    spans = [np.zeros((0, 2), int), np.array([(8000, 20000), (40000, 50000)]), np.array([(90000, 95000)])]
    heard, silent = (StreamOutput(part, spans, 1500 * model.hop) for part in (walk[:1500], walk[1500:]))
    curves = measure_curves(model, [heard], [silent])
    place = int(np.searchsorted(LEVELS, 0.9))
    decoder = model.decoder(threshold=float(LEVELS[place]))
    events = decoder.decode(silent.posteriors) + decoder.close()
    assert [sum(event.label == label for event in events) for label in model.labels[1:]] == curves.false[
        :, place
    ].tolist()
    assert len(events) and curves.truths.tolist() == [2, 1]


def test_a_model_that_is_never_silent_is_told():
    told = describe_silence({"hours": 0.5, "misses": [], "chosen": None})
    assert told == "silence, 30.0 min of negatives: no thresholds keep to 10 false alarms an hour"


def test_training_with_negatives_and_its_resumption(tmp_path):
    tone_clips(tmp_path / "clips", count=8)
    recording(tmp_path)
    settings = ["dataset=folder", f"dataset.root={tmp_path / 'clips'}", "dataset.cache=null", "trainer.mine=1", *QUICK,
                f"dataset.negatives={tmp_path / 'street.wav'}", "trainer.epochs=3", "decoder.minimum=0"]  # fmt: skip
    assert run("train.py", *settings, f"hydra.run.dir={tmp_path / 'a'}").returncode == 0
    rows = read_jsonl(tmp_path / "a" / "history.jsonl")
    assert all(row["val_false_alarms"] >= 0 for row in rows)
    silence = json.loads((tmp_path / "a" / "metrics.json").read_text())["events"]["silence"]
    assert silence["hours"] == pytest.approx(4 / 3600, abs=1e-4)
