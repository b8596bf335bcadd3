"""Recordings on which a model is to stay silent: how they are shared out, drawn, and mined."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from conftest import (
    QUICK,
    SAVED,
    configured,
    lively_model,
    noise,
    options,
    ran,
    read_jsonl,
    refused,
    small_model,
    tone_clip,
    tone_clips,
    write_table,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2, poisson

from datasets.annotated import AnnotatedRecordings
from datasets.negatives import MANY, SHARES, Negatives, Stretch, WithNegatives, share_out
from datasets.scenes import SceneSettings
from datasets.shards import main as write_shards
from pipeline.core.build import build
from pipeline.core.errors import ConfigError, ModelError
from pipeline.measures.operating_point import LEVELS, ODDS, Curves, measure_curves, upper_limit
from pipeline.measures.stream_output import StreamOutput
from pipeline.measures.thresholds import tune_decoder
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Sample
from pipeline.media.walk import list_files
from pipeline.model.classifier import load
from pipeline.model.file import Promise
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
    assert both.split.epoch == 1 and not np.array_equal(first.x[0][:1000], both[3].x[0][:1000])


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
    refused(message, "train.py", "dataset=folder", f"dataset.root={tmp_path / 'clips'}", *settings)


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
        curves = Curves(np.zeros_like(false), np.zeros(2, int), false, 2.0, "ab")
        place = int(np.searchsorted(ODDS, 4.0))
        ratios.append(curves.expected()[:, place] / (np.array([100, 20]) * np.exp(-(ODDS[place] + 3))))
    assert np.all((np.median(ratios, 0) > 0.5) & (np.median(ratios, 0) < 2))
    assert upper_limit(0, 0.5) == pytest.approx(3 / 0.5, rel=0.01)  # the rule of three


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 1000))
def test_no_other_thresholds_that_keep_to_the_wish_find_more(seed, wish):
    """Against all pairs of thresholds; up to the gap of Lagrange's multiplier, which is less than one label's step."""
    rng = np.random.default_rng(seed)
    hits, false = (-np.sort(-rng.integers(0, most, (2, len(LEVELS))), axis=1) for most in (50, 300))
    curves = Curves(hits, np.full(2, 50), false, 1.0, "ab")
    places, expected = curves.best(wish), curves.expected()
    sums = expected[0][:, None] + expected[1][None]
    assert (places is None) == (sums.min() > wish) or places is None
    if places is not None:
        assert expected[[0, 1], places].sum() <= wish
        cheaper = sums <= expected[[0, 1], places].sum()
        assert hits[[0, 1], places].sum() == (hits[0][:, None] + hits[1][None])[cheaper].max()
    few = Curves(hits, np.array([50, 3]), false, 1.0, "ab").best(wish)
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
    found = [sum(event.label == label for event in events) for label in model.labels[1:]]
    assert found == curves.false[:, place].tolist() and len(events) and curves.truths.tolist() == [2, 1]


@given(st.integers(0, 2**32 - 1))
def test_misses_and_alarms_have_the_intervals_of_scipy_and_no_point_of_a_curve_is_beaten(seed):
    rng = np.random.default_rng(seed)
    hits, false = rng.integers(0, 41, (2, len(LEVELS))), rng.integers(0, 300, (2, len(LEVELS)))
    hits[1] = 0  # no event of the second label
    curves = Curves(hits, np.array([40, 0]), false, 0.5, ["yes", "no"])
    place = rng.integers(0, len(LEVELS), 2)
    told = curves.describe(place)
    missed = 40 - int(hits[0, place[0]])
    for row in (told, told["classes"]["yes"]):
        assert row["missed"] == pytest.approx(missed / 40) and row["found"] == 40 - missed
        assert row["interval"] == pytest.approx(tuple(binomtest(missed, 40).proportion_ci(method="wilson")), abs=1e-9)
    assert told["classes"]["no"]["missed"] is told["classes"]["no"]["interval"] is None
    assert poisson.cdf(told["false"], told["below"] * curves.hours) == pytest.approx(0.05, abs=1e-3)
    for name, rows in (("all", [0, 1]), ("yes", [0])):
        points = [(2 * a, 1 - h / 40) for a, h in zip(false[rows].sum(0), hits[rows].sum(0))]
        best = [one for one in points if not any(x <= one[0] and y <= one[1] and (x, y) != one for x, y in points)]
        assert curves.det()[name] == [pytest.approx(one, abs=1e-5) for one in sorted(set(best))]
    assert curves.det()["no"] == []


def test_a_model_that_is_never_silent_is_told():
    told = describe_silence({"hours": 0.5, "misses": [], "chosen": None})
    assert told == "silence, 30.0 min of negatives: no thresholds keep to 10 false alarms an hour"


def test_a_wish_goes_from_training_to_the_report_the_model_and_its_streams(tmp_path):
    tone_clips(tmp_path / "clips", count=8)
    recording(tmp_path)
    settings = ["dataset=folder", f"dataset.root={tmp_path / 'clips'}", "dataset.cache=null", "trainer.mine=1", *QUICK,
                f"dataset.negatives={tmp_path / 'street.wav'}", "trainer.epochs=3", "decoder.minimum=0",
                "false_alarms=500"]  # fmt: skip
    told = ran("train.py", *settings, f"hydra.run.dir={tmp_path / 'a'}").stdout.decode()
    rows = read_jsonl(tmp_path / "a" / "history.jsonl")
    assert all(row["val_false_alarms"] >= 0 for row in rows)
    events = json.loads((tmp_path / "a" / "metrics.json").read_text())["events"]
    silence, page = events["silence"], (tmp_path / "a" / "report.html").read_text()
    assert silence["hours"] == pytest.approx(4 / 3600, abs=1e-4) and silence["det"].keys() == {"all", "a", "b"}
    for row in silence["misses"]:
        assert sum(one["found"] for one in row["classes"].values()) == row["found"]
    for text in ("Misses over false alarms, all", "limit (95 %)", "an hour, on negatives held out"):
        assert text in page
    promise = load(tmp_path / "a").promise
    assert promise.model_dump() == events["promise"] and promise.wish == 500 and promise.sound == "negatives"
    assert promise.hours == silence["hours"] and promise.alarms == silence["chosen"]["false"]
    assert promise.below == pytest.approx(chi2.ppf(0.95, 2 * promise.alarms + 2) / 2 / promise.hours)
    assert f"False alarms: {promise}." in page and f"false alarms: {promise}" in " ".join(told.split())

    def heard(*more):
        out = tmp_path / "heard.html"
        where = [f"checkpoint={tmp_path / 'a'}", f"source.path={tmp_path / 'street.wav'}"]
        done = ran("infer.py", *where, "sink=report", f"sink.report.path={out}", *more)
        return [str(promise) in text for text in (done.stderr.decode(), out.read_text())]

    assert all(heard()) and not any(heard("decoder.threshold=0.7")) and not any(heard("window=1"))


def test_models_without_a_promise_load_and_a_lie_is_refused(tmp_path):
    assert load(SAVED / "before_rooms.safetensors").promise is None
    model = small_model()
    model.promise = Promise(wish=1, sound="negatives", hours=0.5, alarms=0, below=6, recall=None, events=0)
    model.save(tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").for_streaming().promise == model.promise
    assert str(model.promise) == "wished 1 an hour; 0 in 30.0 min of negatives, so below 6.00 an hour (95 %)"
    assert model.with_gate({}).promise is None
    model.promise = model.promise.model_copy(update={"hours": -1})
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="promise"):
        load(tmp_path / "model.safetensors")


def corpora(folder):
    """A small copy of the layout of each dataset of files, by name, with its settings."""
    tones = tone_clips(folder / "tones", count=6)
    write_table(folder / "tones" / "manifest.csv", [
        {"path": f"{label}/{number}.wav", "label": label} for label in "ab" for number in range(6)
    ])  # fmt: skip
    truth = [{"path": f"{label}/{number}.wav", "start": 0.1, "end": 0.5, "label": label}
             for label in "ab" for number in range(6)]  # fmt: skip
    write_table(folder / "tones" / "truth.csv", truth)
    meta = [{"filename": tone_clip(folder / "esc50" / "audio" / f"{fold}{label}.wav", 300).name, "fold": fold,
             "target": 0, "category": label, "esc10": "True", "src_file": f"{fold}{label}", "take": "A"}
            for fold in range(1, 6) for label in "ab"]  # fmt: skip
    write_table(folder / "esc50" / "meta" / "esc50.csv", meta)
    words = folder / "words"
    for label in "ab":
        for number in range(6):
            tone_clip(words / label / f"{number}x_nohash_0.wav", 400, seed=number)
    for name, number in (("validation", 0), ("testing", 1)):
        (words / f"{name}_list.txt").write_text("".join(f"{label}/{number}x_nohash_0.wav\n" for label in "ab"))
    assert write_shards([str(tones), str(folder / "shards"), "--val", "0.3"]) == 0
    return {
        "folder": [f"dataset.root={tones}"],
        "manifest": [f"dataset.root={tones}"],
        "annotated": [f"dataset.root={tones}", "dataset.file=truth.csv", "dataset.crop=0.5"],
        "esc50": [f"dataset.root={folder / 'esc50'}"],
        "speech_commands": [f"dataset.root={words}", "dataset.words=[]"],
        "shards": [f"dataset.root={folder / 'shards'}"],
    }


WITHOUT_NEGATIVES = {"moving_digits", "moving_shapes", "noisy", "series", "synthetic_sounds", "transcribed"}


def test_every_dataset_of_files_takes_negatives(tmp_path):
    """Those of videos, too, for their sound: see their keys."""
    street, found = recording(tmp_path), corpora(tmp_path)
    for name, settings in found.items():
        given = [f"dataset={name}", *settings, "dataset.cache=null", f"dataset.negatives={street}"]
        data = build(configured("train", *given)["dataset"], at="dataset")
        assert data.background == "background" and data.labels == ["a", "b", "background"], name
        train, val = (data.split(split, InputSpec(RATE)) for split in ("train", "val"))
        assert train.negatives.samples == 14 * RATE and val.held_out.samples == 4 * RATE, name
        silent = [one for one in (train[index] for index in range(len(train))) if one.name == "negatives"]
        assert len(silent) == len(train) / 2 and {(one.labels, *one.spans) for one in silent} == {((2,),)}, name
        assert len(data.split("test", InputSpec(RATE))) and not hasattr(data.split("test", InputSpec(RATE)), "held_out")
    for name in set(options("dataset")) - found.keys():
        keys = configured("train", f"dataset={name}")["dataset"]
        without = keys["_target_"].split(".")[1] in WITHOUT_NEGATIVES
        assert without or {"negatives", "negatives_label", "scene"} <= keys.keys(), name


def test_annotated_recordings_lie_over_negatives_and_keep_what_is_known_of_them(tmp_path):
    street = recording(tmp_path)
    for name in ("t", "w", "v"):
        soundfile.write(tmp_path / f"{name}.wav", noise(4 * RATE, 1) / 8, RATE, "FLOAT")
    rows = [
        {"path": "t.wav", "start": start, "end": end, "label": label}
        for start, end, label in ((1, 2.5, "a"), (2, 3, "b"))
    ]
    rows = [one | {"split": "train"} for one in [*rows, {"path": "w.wav", "label": "a, b"}]]
    write_table(tmp_path / "truth.csv", [*rows, {"path": "v.wav", "start": 0, "end": 1, "label": "a", "split": "val"}])
    data = AnnotatedRecordings(str(tmp_path), "truth.csv", cache=None, crop=2.0, negatives=str(street),
                               scene=SceneSettings(under=1.0, plain=0.0, snr=(0, 0)))  # fmt: skip
    split = data.split("train", InputSpec(RATE))
    plain = data.split("val", InputSpec(RATE)).split
    assert "overlap in" in split.overlap and len(plain) == 2
    seen = [split[index] for split.epoch in range(5) for index in range(len(split))]
    weak = [one for one in seen if one.name.startswith(str(tmp_path / "w.wav"))]
    assert weak and all(one.spans is None and one.labels == (0, 1) for one in weak), "their times stay unknown"
    strong = [one for one in seen if one.name.startswith(str(tmp_path / "t.wav"))]
    assert any(one.spans for one in strong) and all(one.spans is not None for one in strong)
    alone = soundfile.read(tmp_path / "t.wav", dtype="float32")[0].std()
    assert np.mean([one.x[0].std() for one in strong]) > 1.2 * alone, "as loud again lies under them"
    with pytest.raises(ConfigError, match=r"dataset\.negatives_label: no clip is 'c'"):
        AnnotatedRecordings(str(tmp_path), "truth.csv", negatives=str(street), negatives_label="c")
    with pytest.raises(ConfigError, match=r"dataset\.scene: needs dataset\.background"):
        AnnotatedRecordings(str(tmp_path), "truth.csv", scene=SceneSettings())


def test_events_of_negatives_behind_the_end_are_told(tmp_path, capsys):
    recording(tmp_path).with_suffix(".csv").write_text("start,end,label\n3000,4000,high\n")
    share_out([tmp_path / "street.wav"], RATE, None)
    told = capsys.readouterr().err
    assert "dataset.negatives: " in told and "(20.00 s): row 1 (3000 to 4000); expected seconds, not millisec" in told


def test_a_wish_without_negatives_is_told_and_one_that_no_threshold_keeps(tmp_path):
    model = small_model("decoder.minimum=0")
    clip = Sample((noise(8 * RATE, 1),), (1,), [(RATE, 2 * RATE, 1)])
    with pytest.warns(UserWarning, match=r"on 0\.1 min of validation clips alone: .* below 1,348\.08 an hour"):
        promise = tune_decoder(model, {"val": [clip]}, 1e6)["promise"]
    assert promise == model.promise.model_dump() and promise["sound"] == "validation clips"
    assert promise["hours"] == pytest.approx(8 / 3600, abs=1e-6) and promise["events"] == 1
    silent = type("Silent", (list,), {"held_out": share_out([recording(tmp_path)], RATE, None)["thresholds"]})
    with pytest.warns(UserWarning, match=r"no thresholds keep to 0 an hour; took the highest, with \d"):
        promise = tune_decoder(model, {"val": silent([clip])}, 0.0)["promise"]
    assert promise["sound"] == "negatives" and promise["hours"] == pytest.approx(4 / 3600)
