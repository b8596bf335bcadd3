"""output=hard_negatives: what the model took for something is cut out of recordings, and nothing else."""

import shutil
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from conftest import ran, read_csv, small_model, tone_clip
from hypothesis import given
from hypothesis import strategies as st

from datasets.folder import Folder
from datasets.manifest import Manifest
from pipeline.core.errors import ConfigError
from pipeline.sinks.console import Console
from pipeline.sinks.hard_negatives import Cut, HardNegatives, cut_out, false_alarms, pieces, with_highest_scores
from pipeline.sinks.items import StreamInfo, TimedEvent

RATE = 22050
SHORT = ["decoder.threshold=0.63", "decoder.release=0.62", "decoder.minimum=0", "sink.hard_negatives.context=0.1"]


def event(start, end, score=0.7, label="high"):
    return TimedEvent(start, end, start, label, score)


def noise(path, seconds, rate=RATE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal((int(seconds * rate), 2)), rate)
    return path


def cuts_of(folder):
    return {row["path"]: (float(row["from"]), float(row["to"])) for row in read_csv(folder / "hard_negatives.csv")}


def mined(folder, recordings, events, background=(), **options):
    """The sink, after it has heard such events in recordings."""
    sink = HardNegatives(str(folder), **options)
    sink.setup(["high", *background], list(background))
    for recording in recordings:
        sink.mine(str(recording), events)
    sink.finish()
    sink.close()
    return sink


@pytest.fixture(scope="module")
def given_model(tmp_path_factory):
    """A model with a label of nothing, and a recording in which it hears things."""
    folder = tmp_path_factory.mktemp("given")
    small_model("head.live=0.1").save(folder / "model.safetensors")
    t = np.arange(RATE * 3) / RATE
    wave = 0.3 * np.sin(2 * np.pi * 2000 * t) * (np.sin(2 * np.pi * 3 * t) > 0)
    for name in "abc":
        (folder / name).mkdir()
        soundfile.write(folder / name / "street.wav", np.stack([wave, wave], 1), RATE)
    return folder


# As users call it


def test_a_stream(given_model, tmp_path):
    recording, out = given_model / "a" / "street.wav", tmp_path / "sounds"
    done = ran("infer.py", f"checkpoint={given_model}", f"source.path={recording}", "output=hard_negatives", *SHORT,
               "sink=[csv,hard_negatives]", f"sink.csv.path={tmp_path}/events.csv", f"sink.hard_negatives.path={out}")  # fmt: skip
    events = [(float(row["start"]), float(row["end"])) for row in read_csv(tmp_path / "events.csv")]
    cuts = cuts_of(out)
    assert len(events) >= 3 and len(cuts) >= 3 and str(out / "background") in done.stderr.decode()
    assert {str(path.relative_to(out)) for path in (out / "background").iterdir()} == set(cuts)
    wanted = [(max(0, start - 0.1) + 1e-3, min(3, end + 0.1) - 1e-3) for start, end in events]
    assert all(any(low <= first and last <= high for low, high in cuts.values()) for first, last in wanted)
    padded = np.pad(soundfile.read(recording, dtype="float32")[0].mean(1), (0, 20))
    for path, (low, high) in cuts.items():
        samples, rate = soundfile.read(out / path, dtype="float32")
        assert rate == RATE and samples.ndim == 1 and len(samples) == pytest.approx((high - low) * RATE, abs=2)
        first = round(low * RATE)
        shifts = range(max(0, first - 12), first + 13)
        near = [np.abs(samples - padded[shift : shift + len(samples)]).max() for shift in shifts]
        assert min(near) < 2 / 32768  # to the sample; the list gives milliseconds


def test_many_files(given_model, tmp_path):
    """Of one name in three folders; one of them is listed as ``high``, which it may be taken for."""
    (given_model / "list.csv").write_text("path,label\na/street.wav,background\nb/street.wav,high\nc/street.wav,\n")
    ran("infer.py", f"checkpoint={given_model}", "source=files", *SHORT, "source.workers=1", "sink=[console,hard_negatives]",
        f"source.paths={given_model}/list.csv", f"sink.hard_negatives.path={tmp_path}")  # fmt: skip
    rows = read_csv(tmp_path / "hard_negatives.csv")
    a, b, c = (sum(row["recording"] == str(given_model / name / "street.wav") for row in rows) for name in "abc")
    assert a == c >= 3 and not b
    assert len({row["group"] for row in rows}) == 2 and len(list((tmp_path / "background").iterdir())) == len(rows)


def test_what_was_cut_is_trained_with(tones, tmp_path):
    shutil.copytree(tones, tmp_path / "sounds")
    events = [event(start, start + 0.2) for start in (1, 3, 5)]
    mined(tmp_path / "sounds", [noise(tmp_path / f"{number}.wav", 6, seed=number) for number in range(3)], events)
    trained = Folder(str(tmp_path / "sounds"), background="background")
    assert trained.labels == ["background", "high", "low"] and len(trained.clips) == 24 + 9
    own = [f"{label}/{number}.wav,{label},{number},,,,,\n" for label in ("high", "low") for number in range(12)]
    with open(tmp_path / "sounds" / "hard_negatives.csv", "a") as file:
        file.writelines(own)
    listed = Manifest(str(tmp_path / "sounds"), file="hard_negatives.csv", group="group", val=0.3)
    assert len(listed.clips) == 24 + 9  # and what is of one recording stands in one split
    assert {clip.split for clip in listed.clips if clip.label == "background"} == {"train", "val", "test"}


# What is cut


def test_what_is_true_is_not_cut():
    truth = [(2.0, 3.0, "high"), (5.0, 6.0, "low")]
    spans = [(0.5, 0.7), (1.8, 2.1), (3.2, 3.4), (4.5, 4.6), (5.5, 5.6), (8, 9)]
    events = [event(start, end) for start, end in spans]
    cuts = false_alarms(events, truth, 0.5, (0.0, 8.2))
    assert [(cut.start, cut.end) for cut in cuts] == [(0.0, 1.2), (3.0, 3.9), (4.0, 5.0), (7.5, 8.2)]


def test_cuts_whose_surroundings_would_meet_are_one():
    events = [event(1.0, 2.0, 0.9), event(2.6, 3.6, 0.8), event(4.7, 5.0)]
    assert false_alarms(events, [], 0.5, (0.0, np.inf)) == [Cut(0.5, 4.1, "high", 0.9), Cut(4.2, 5.5, "high", 0.7)]


def test_a_long_event_is_no_more_than_most_cuts(tmp_path):
    """Of one that lasts an hour, and of a surer one behind it."""
    cuts = false_alarms([event(0.0, 3600.0, 0.8), event(3700.0, 3701.0, 0.9)], [], 0.5, (0.0, np.inf))
    found = with_highest_scores([piece for cut in cuts for piece in pieces(cut, 5.0)], 200)
    assert len(found) == 200 and found == sorted(found) and found[-1] == Cut(3699.5, 3701.5, "high", 0.9)
    mined(tmp_path / "out", [noise(tmp_path / "a.wav", 4)], [event(0.0, 4.0)], longest=0.5, most=3)
    assert len(list((tmp_path / "out" / "background").iterdir())) == 3


spans = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 30)), max_size=12)


@given(spans, spans, st.integers(0, 20), st.integers(1, 40))
def test_cuts_hold_every_false_event_and_no_true_sound_and_no_sound_twice(found, true, context, most):
    events = [event(start / 10, (start + length) / 10, score=(start + 1) / 300) for start, length in found]
    truth = sorted((start / 10, (start + length) / 10, "x") for start, length in true)
    cuts = false_alarms(events, truth, context / 10, (0.0, np.inf))
    assert all(cut.end <= other.start + 1e-9 for cut, other in pairwise(cuts))
    parts = [piece for cut in cuts for piece in pieces(cut, 0.7)]
    kept = with_highest_scores(parts, most)
    assert len(kept) == min(most, len(parts)) and kept == sorted(kept) and set(kept) <= set(parts)
    assert sorted(part.score for part in kept) == sorted(part.score for part in parts)[-most:][: len(kept)]
    for cut in cuts:
        assert not any(start < cut.end - 1e-9 and cut.start + 1e-9 < end for start, end, _ in truth)
        for piece in pieces(cut, 0.7):
            assert piece.end - piece.start <= 0.7 + 1e-9
    false = [event for event in events if not any(start < event.end and event.start < end for start, end, _ in truth)]
    assert all(any(cut.start <= event.start and event.end <= cut.end for cut in cuts) for event in false)
    assert all(any(cut.start <= event.start and event.end <= cut.end for event in false) for cut in cuts)


def test_a_long_recording_is_not_held(tmp_path):
    """Half an hour, cut in a hundred places: of 58 MB of samples, little more than a cut is in memory. The last cut
    ends with the recording.
    """
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 8000, 1) as file:
        for minute in range(30):
            file.write(np.full(60 * 8000, minute / 100))
    cuts = [Cut(18.0 * n + 1, 18.0 * n + 3, "high", 0.5) for n in range(100)] + [Cut(1799.5, 1801, "high", 1)]
    tracemalloc.start()
    lengths = []
    for cut, samples, rate in cut_out(str(tmp_path / "long.wav"), [*cuts, Cut(1800.2, 1801, "high", 1)]):
        assert samples[0] == pytest.approx(int(cut.start // 60) / 100, abs=1e-4)
        lengths.append(len(samples) / rate)
    assert tracemalloc.get_traced_memory()[1] < 3e6
    tracemalloc.stop()
    assert lengths == [2] * 100 + [0.5] and cut.end == pytest.approx(1800)


def test_truth_beside_the_recording(tmp_path):
    noise(tmp_path / "a.wav", 4)
    (tmp_path / "a.csv").write_text("\ufeffstart,end,label\n1,2,high\n", encoding="utf-8")  # as spreadsheets write it
    events = [event(1.5, 1.6), event(3.0, 3.2)]
    for number, (truth, count) in enumerate((("beside", 1), (None, 2), (str(tmp_path / "a.csv"), 1))):
        sink = mined(tmp_path / str(number), [tmp_path / "a.wav"], events, ["none"], truth=truth)
        assert sink.cuts == count and len(list((sink.folder / "none").iterdir())) == count


@pytest.mark.parametrize(("text", "message"), [
    ("name\nx\n", "has no column 'start'"),
    ("start,end,label\n0,1,high\nnan,3,high\n", "row 2: expected 0 <= start < end"),
])  # fmt: skip
def test_truth_that_makes_no_sense_is_told_before_the_stream(text, message, tmp_path):
    noise(tmp_path / "a.wav", 1)
    (tmp_path / "a.csv").write_text(text)
    for truth in ("beside", str(tmp_path / "a.csv")):
        sink = HardNegatives(str(tmp_path / "out"), truth=truth)
        with pytest.raises(ConfigError, match=rf"sink\.hard_negatives\.truth: .*a\.csv,? {message}"):
            sink.start(StreamInfo(str(tmp_path / "a.wav"), ["high"], 16000, 160))
        with pytest.raises(ConfigError, match=message):
            sink.mine(str(tmp_path / "a.wav"), [event(0.5, 0.7)])
    with pytest.raises(ConfigError, match=rf"sink\.console\.truth: .*{message}"):
        Console(truth=str(tmp_path / "a.csv"))


def test_what_cannot_be(tmp_path, capsys):
    (tmp_path / "hard_negatives.csv").write_text("path,price\nx,3\n")
    with pytest.raises(ConfigError, match="is another table; choose another folder"):
        HardNegatives(str(tmp_path))
    for label in ("../x", "..", "a/b", "nul\0"):  # of a user, or of a model
        with pytest.raises(ConfigError, match="expected the name of a folder"):
            HardNegatives(str(tmp_path / "a"), label=label)
        with pytest.raises(ConfigError, match="expected the name of a folder"):
            HardNegatives(str(tmp_path / "a")).setup([label], [label])
    sink = HardNegatives(str(tmp_path / "a"), truth=str(tmp_path / "t.csv"))
    sink.setup(["high", "low"], [])
    assert "the model has no label 'background': trained with that folder it will have it" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="record first"):
        sink.start(StreamInfo("microphone", ["high", "low"], 16000, 160))
    (tmp_path / "t.csv").write_text("start,end,label\n")
    sink.mine(str(tone_clip(tmp_path / "one.wav", 300)), [])
    with pytest.raises(ConfigError, match=r"truth: is of one recording; for more of them take beside"):
        sink.mine(str(tmp_path / "two.wav"), [])


def test_a_list_forgets_what_was_removed_and_trusts_no_path(tmp_path):
    for turn in range(2):
        mined(tmp_path / "out", [noise(tmp_path / f"{turn}.wav", 4, seed=turn)], [event(1, 1.2), event(3, 3.2)])
        assert len(cuts_of(tmp_path / "out")) == (2, 3)[turn]
        next((tmp_path / "out" / "background").glob("0-*")).unlink(missing_ok=True)
    with open(tmp_path / "out" / "hard_negatives.csv", "a") as file:
        file.write("/etc/hosts,background,,,,,,\n../0.wav,background,,,,,,\n")
    assert all(path.startswith("background/") for path in HardNegatives(str(tmp_path / "out")).rows)
