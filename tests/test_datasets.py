"""Where training data come from: splits, checks, cache, and sounds made on the fly."""

import itertools
import json
import shutil
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import read_csv, tone_clip, tone_clips, write_table
from safetensors.numpy import save, save_file

from datasets.clips import Clip, Clips, Corpus
from datasets.energy import draw_start, find_sounds
from datasets.esc50 import ESC50
from datasets.folder import Folder
from datasets.hmdb51 import HMDB51
from datasets.kinetics import Kinetics
from datasets.manifest import Manifest
from datasets.speech_commands import SpeechCommands
from datasets.splits import divide
from datasets.synthetic_sounds import BACKGROUND, MAKERS, SyntheticSounds, write_demo
from datasets.ucf101 import UCF101
from pipeline.core.errors import ConfigError
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Picture
from pipeline.media.sample import IGNORE, Sample, StepGrid, collate

SOUND = InputSpec(16000)


def counts(data):
    return Counter(clip.split for clip in data.clips)


def places(data, key):
    """The splits in which clips stand, by what must not be parted."""
    found = {}
    for clip in data.clips:
        found.setdefault(key(clip), set()).add(clip.split)
    return found


def test_folder_split_by_fraction_or_sub_folder(tones, tmp_path):
    data = Folder(str(tones), val=0.25, test=0.25)
    assert data.labels == ["high", "low"] and counts(data) == {"train": 12, "val": 6, "test": 6}
    splits = [[clip.split for clip in Folder(str(tones), seed=seed).clips] for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]
    for split, count in (("train", 6), ("test", 2)):
        tone_clips(tmp_path / split, count=count)
    assert counts(Folder(str(tmp_path), val=0.2)) == {"train": 10, "val": 2, "test": 4}


@pytest.fixture
def table(tmp_path):
    """A manifest with parts of one recording, and a writer for its rows."""
    soundfile.write(tmp_path / "a.wav", np.linspace(-0.5, 0.5, 16000, dtype=np.float32), 8000, subtype="FLOAT")

    def write(rows, name="manifest.csv"):
        if name.endswith("jsonl"):
            (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
        else:
            write_table(tmp_path / name, rows)
        return str(tmp_path)

    return write


def parts(**more):
    return [{"path": "a.wav", "label": "xy"[n % 2], "start": n / 10, "end": n / 10 + 0.1} | more for n in range(20)]


@pytest.mark.parametrize("name", ["manifest.csv", "list.jsonl"])
def test_manifest_with_times(table, name):
    data = Manifest(table(parts(), name), file=name, group="end", cache=None)  # each part may stand in any split
    train = data.split("train", InputSpec(8000))
    sample, clip = train[0], train.clips[0]
    assert len(sample.x[0]) == 800 and sample.x[0][0] == pytest.approx(clip.start / 2 - 0.5, abs=1e-3)


@pytest.mark.parametrize(("more", "settings"), [
    ({}, {}), ({"split": "train"}, {}), ({}, {"fold": "2/5"}), ({}, {"fold": "2/10"}), ({}, {"group": "path"}),
])  # fmt: skip
def test_parts_of_a_recording_stay_together(table, more, settings):
    """Overlapping windows of ten recordings: drawn, held out of train, in folds, and as a group."""
    rows = [row | {"path": f"{n % 10}.wav", "start": n / 20, "end": n / 20 + 1} for n, row in enumerate(parts() * 3)]
    data = Manifest(table([row | more for row in rows]), **settings)
    found = places(data, lambda clip: clip.path)
    assert all(len(splits) == 1 for splits in found.values()) and len(found) == 10
    assert counts(data).keys() >= {"train", "val"}


def test_a_rare_label_of_recordings_with_others_stands_in_each_split():
    for seed in range(20):
        clips = [Clip(f"{n}", label) for n in range(12) for label in (("often", "rare") if n < 3 else ("often",))]
        for clip in (given := divide(clips, {"train": 0.7, "val": 0.15, "test": 0.15}, seed)):
            assert len({other.split for other in given if other.name == clip.name}) == 1
        for label in ("often", "rare"):
            assert {clip.split for clip in given if clip.label == label} == {"train", "val", "test"}


def test_folds_of_a_folder_are_parts_of_all_its_clips(tmp_path):
    tone_clips(tmp_path, ("dog", "rain"), 8)
    for cut in range(3):
        tone_clip(tmp_path / "rain" / f"long_{cut}.0.wav", 440)
        tone_clip(tmp_path / "background" / f"street_{cut}.5.wav", 440)
    found = []
    for fold in range(1, 5):
        with pytest.warns(UserWarning, match="'background' has 1 recording"):
            data = Folder(str(tmp_path), fold=f"{fold}/4", background="background")
        assert {clip.label for clip in data.clips if clip.split == "val"} >= {"dog", "rain"}
        found += [clip.name for clip in data.clips if clip.split == "test"]
        assert len({clip.split for clip in data.clips if "long" in clip.name}) == 1
        assert {clip.split for clip in data.clips if clip.label == "background"} <= {"train", "val"}
    assert len(found) == len(set(found)) == 19


def test_folds_that_cannot_be_are_refused(tmp_path):
    def refused(message, fold="1/5"):
        with pytest.raises(ConfigError, match=message):
            Folder(str(tmp_path), fold=fold)

    (tmp_path / "dog").mkdir()
    refused("no audio files")
    tone_clips(tmp_path, ("dog", "rain"), 4)
    refused(r"no label has more than 4 clips; take fewer")
    refused(r"9/9 needs 9 recordings .* there are 8", "9/9")
    tone_clip(tmp_path / "cat" / "one.wav", 440)
    refused("label 'cat' has 1 of recordings")
    tone_clip(tmp_path / "train" / "dog" / "one.wav", 440)
    refused("splits of its own")


def test_videos_that_are_only_heard_are_told(tmp_path):
    tone_clips(tmp_path)
    soundfile.write(tmp_path / "a" / "film.wav", np.zeros(8000), 8000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Folder(str(tmp_path), cache=None).split("train", SOUND)
    (tmp_path / "a" / "film.wav").rename(tmp_path / "a" / "film.mp4")
    with pytest.warns(UserWarning, match="1 of 13 files have names of videos"):
        Folder(str(tmp_path), cache=None).split("train", SOUND)


def test_files_of_another_kind_say_what_to_take_for_them(tmp_path):
    tone_clips(tmp_path)
    with pytest.warns(UserWarning) as told, pytest.raises(ConfigError, match=r"they are sounds, .* extractor=logmel"):
        Folder(str(tmp_path), cache=None).split("train", InputSpec(picture=Picture(10, 16, 16)))
    assert len(told) == 3 and all(str(one.message).count(".wav") == 1 for one in told)  # not one for each clip


def test_cuts_of_a_recording_in_a_folder_stay_together(tmp_path):
    for label, name, second in itertools.product("ab", ("x", "y_1", "z-0a1b2c"), range(4)):
        tone_clip(tmp_path / label / f"{name}_{second:05}.50.wav", 300, 0.1)
    tone_clip(tmp_path / "a" / "single_01.wav", 300, 0.1)
    tone_clip(tmp_path / "a" / "single_02.wav", 300, 0.1)
    data = Folder(str(tmp_path), val=0.3, test=0.3)
    found = places(data, lambda clip: clip.group or clip.name)
    assert all(len(splits) == 1 for splits in found.values()) and len(found) == 5
    assert {clip.group for clip in data.clips} == {"", "x", "y_1", "z-0a1b2c"}
    for split, second, label in (("train", 1, "a"), ("train", 2, "b"), ("val", 3, "a"), ("val", 3, "b")):
        tone_clip(tmp_path / "given" / split / label / f"x_{second}.0.wav", 300, 0.1)
    told = r"group 'x' stands in train and val; its clips \(in a folder, the cuts of that"
    with pytest.raises(ConfigError, match=told):
        Folder(str(tmp_path / "given"))


def test_one_long_recording_of_nothing_stands_in_train(tones, tmp_path):
    root = shutil.copytree(tones, tmp_path / "sounds")
    for second in range(9):
        tone_clip(root / "nothing" / f"street_{second:05}.00.wav", 50, 0.2)
    with pytest.raises(
        ConfigError, match=r"label 'nothing' has 1 recording.* too few to stand in train, val, test; add"
    ):
        Folder(str(root))
    with pytest.warns(UserWarning, match=r"label 'nothing' has 1 recording.*: all its clips are in train"):
        data = Folder(str(root), background="nothing")
    assert {clip.split for clip in data.clips if clip.label == "nothing"} == {"train"}
    assert counts(data) == {"train": 16 + 9, "val": 4, "test": 4}


def test_manifest_translates_splits(table):
    rows = [row | {"split": f"fold{n // 4}"} for n, row in enumerate(parts())]
    data = Manifest(table(rows), splits={"train": ["fold0", "fold1"], "val": ["fold2"], "test": ["fold3"]})
    assert counts(data) == {"train": 8, "val": 4, "test": 4}


@pytest.mark.parametrize(("count", "by"), [(3, "who"), (5, "who"), (4, None)])
def test_folds_are_parts_of_all_rows_that_keep_who_together(table, count, by):
    """Each row is tested once; nobody is heard before it is tested; as many folds as speakers leave one out at a time."""
    rows = [row | {"path": f"{n // 2}.wav", "who": f"p{n // 4}", "split": "test"} for n, row in enumerate(parts())]
    root, tested = table(rows), []
    for number in range(1, count + 1):
        data = Manifest(root, fold=f"{number}/{count}", fold_by=by, val=0.2)
        found = {"train": set(), "val": set(), "test": set()}
        for clip in data.clips:
            found[clip.split].add(rows[round(clip.start * 10)]["who"])
            tested += [clip.start] if clip.split == "test" else []
        assert found["val"] and (by is None or not found["test"] & (found["train"] | found["val"]))
        assert count < 5 or len(found["test"]) == 1
    assert sorted(tested) == [row["start"] for row in rows]


@pytest.mark.parametrize(("rows", "settings", "message"), [
    (parts(path="../a.wav"), {}, "leads out of"),
    (parts(path="/etc/passwd"), {}, "leads out of"),
    (parts(label=""), {}, "every row needs a 'label'"),
    (parts(start="soon"), {}, "row 1: got start 'soon'"),
    (parts(end=0.01), {}, "row 2: got .* the end after the start"),
    (parts(), {"group": "speker"}, "has no column 'speker'"),
    (parts(), {"file": "."}, "cannot be read as a table: .*Is a directory"),
    ([*parts(split="train"), *parts(split="val"), *parts()], {}, "20 clips have no split"),
    (parts(), {"fold": "1/2", "splits": {"train": ["a"]}}, "dataset.splits: has no meaning with dataset.fold"),
    (parts(), {"file": "other.csv"}, "does not exist"),
    (parts(), {"fold": "3/2"}, "expected one such as 1/5"),
    (parts(who="p1"), {"fold": "1/2", "fold_by": "who"}, "label 'x' has 1 of recordings"),
    (parts(), {"fold": "1/2", "fold_by": "wo"}, "dataset.fold_by: .* no column"),
    (parts(split="train"), {"val": 0}, "no clip in split 'val'"),
    ([*parts(split="train"), parts(split="val", label="new")[0]], {}, "label 'new' is in val but no clip of train"),
    (parts(split="fold1"), {}, "split 'fold1' is none of"),
    (parts(split="f1"), {"splits": {"train": ["f1"], "val": ["f2", "f1"]}}, "dataset.splits: 'f1' is in train and val"),
    (parts(label="a\x1b[2Jb"), {"group": "end"}, "label 'a.x1b.2Jb' .*: expected characters that can be shown"),
    (parts(), {"val": 0.5, "test": 0.5}, "dataset.val, dataset.test: 0.5 and 0.5 leave nothing for train"),
    ([*parts(split="train", g="s1"), *parts(split="val", g="s1")], {"group": "g"}, "group 's1' stands in train and val"),
    ([*parts(), parts(label="once")[0]], {}, "label 'once' has 1 recording"),
])  # fmt: skip
def test_tables_that_make_no_sense(table, rows, settings, message):
    with pytest.raises(ConfigError, match=message):
        Manifest(table(rows), **settings)


@pytest.mark.parametrize("kind", [Folder, Manifest, SpeechCommands, ESC50, UCF101, HMDB51, Kinetics])
@pytest.mark.parametrize("root", [None, "/nowhere/at/all"])
def test_a_missing_root_says_what_to_put_there(kind, root):
    with pytest.raises(ConfigError, match=r"dataset\.root: .*expected a.*dataset\.root="):
        kind(root)


def test_bad_files_are_skipped_by_name_and_the_cache_is_used(tmp_path):
    tone_clips(tmp_path / "data")
    (tmp_path / "data" / "a" / "bad.wav").write_text("not a sound")
    clips = [Clip(path, path.parent.name, "train") for path in sorted((tmp_path / "data").glob("*/*"))]
    data = Corpus([*clips, *(Clip(c.path, c.label, "val") for c in clips)], cache=str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match=r"skipped .*bad\.wav: unreadable"):
        part = data.split("train", SOUND)
    assert len(part) == 12 and len(list((tmp_path / "cache").rglob("*.safetensors"))) == 12
    first = part[0].x[0]
    cached = part.cache_file(part.clips[0])
    save_file({"track0": first * 2}, cached)  # what is read now can only come from the cache
    assert np.array_equal(part[0].x[0], first * 2)
    whole = cached.read_bytes()
    head = json.dumps({"track0": {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4 * 10**15]}}).encode()
    huge, other = len(head).to_bytes(8, "little") + head, save({"track1": first})
    for broken in (b"torn", b"", whole[:-1], huge, b"\xff" * 64, other):
        cached.write_bytes(broken)
        assert np.array_equal(part[0].x[0], first)


def test_long_training_clips_are_cut_anew_in_each_epoch(tmp_path):
    for split in ("train", "val"):
        tone_clips(tmp_path / split, count=1, seconds=2.0)
    data = Folder(str(tmp_path), crop=0.5, cache=None)
    train, val = data.split("train", SOUND), data.split("val", SOUND)
    first = train[0].x[0]
    train.epoch = 1
    assert len(first) == len(train[0].x[0]) == 8000 and not np.array_equal(first, train[0].x[0])
    assert len(val[0].x[0]) == 32000
    whole = Folder(str(tmp_path), crop=2.0, cache=None).split("train", SOUND)
    assert not train[0].key and whole[0].key and val[0].key, "what is never the same again cannot be kept"


def test_speech_commands_layout(tmp_path):
    words = ("yes", "no", "cat", "dog")
    for word in words:
        for number in range(12):
            tone_clip(tmp_path / word / f"{number:02}aa_nohash_0.wav", 400, 1.0, seed=number)
    tone_clip(tmp_path / "_background_noise_" / "hum.wav", 100, 3.0)
    for name, numbers in (("validation", range(2)), ("testing", range(2, 4))):
        lines = [f"{word}/{number:02}aa_nohash_0.wav" for word in words for number in numbers]
        (tmp_path / f"{name}_list.txt").write_text("\n".join(lines))
    data = SpeechCommands(str(tmp_path), words=["yes", "no"], unknown=0.5)
    assert data.labels == ["_silence_", "_unknown_", "no", "yes"]
    assert counts(data) == {"train": 32, "val": 8, "test": 8}
    assert len(data.split("val", SOUND)[-1].x[0]) == 16000
    assert SpeechCommands(str(tmp_path), words=[]).labels == ["cat", "dog", "no", "yes"]
    (tmp_path / "testing_list.txt").unlink()
    with pytest.raises(ConfigError, match="testing_list"):
        SpeechCommands(str(tmp_path))


def test_esc50_layout(tmp_path):
    rows = [{"filename": tone_clip(tmp_path / "audio" / f"{fold}-{label}.wav", 300, 0.2).name, "fold": fold, "target": 0,
             "category": label, "esc10": str(label != "pig"), "src_file": f"{fold}{label}", "take": "A"}
            for fold in range(1, 6) for label in ("dog", "rain", "pig")]  # fmt: skip
    write_table(tmp_path / "meta" / "esc50.csv", rows)
    assert counts(ESC50(str(tmp_path))) == {"train": 9, "val": 3, "test": 3}
    assert ESC50(str(tmp_path), esc10=True).labels == ["dog", "rain"]
    with pytest.raises(ConfigError, match="val_fold"):
        ESC50(str(tmp_path), test_fold=4)


def test_synthetic_sounds():
    data = SyntheticSounds(clips=24, held_out=12, seed=3)
    train = data.split("train", SOUND)
    assert len(data.labels) == 12 and BACKGROUND in data.labels
    for index in range(24):
        sample, wave = train[index], train[index].x[0]
        assert wave.dtype == np.float32 and np.isfinite(wave).all() and 0.005 < np.abs(wave).max() <= 1
        assert sample.labels == (index % 12,) and len(sample.spans) == (data.labels[sample.labels[0]] != BACKGROUND)
        assert all((label,) == sample.labels and 0 <= start < end <= len(wave) for start, end, label in sample.spans)
    again = train[5].x[0]
    assert np.array_equal(again, train[5].x[0])
    train.epoch = 1
    assert not np.array_equal(again, train[5].x[0])
    val, test = data.split("val", SOUND), data.split("test", SOUND)
    assert not np.array_equal(val[3].x[0], test[3].x[0])


def test_every_maker_is_alive_and_differs_each_time():
    t = np.arange(16000) / 16000
    for name, maker in MAKERS.items():
        one, two = maker(np.random.default_rng(1), t), maker(np.random.default_rng(2), t)
        assert np.isfinite(one).all() and np.sqrt(np.mean(one**2)) > 1e-3, name
        assert not np.allclose(one, two), name


def test_demo_files(tmp_path):
    write_demo(tmp_path, clips=12)
    scene, rate = soundfile.read(tmp_path / "scene.wav")
    rows = read_csv(tmp_path / "scene.csv")
    assert len(scene) == 30 * rate and len(rows) >= 8 and len(list((tmp_path / "clips").glob("*.wav"))) == 12
    ends = [0.0, *(float(row["end"]) for row in rows)]
    assert all(float(row["start"]) >= end for row, end in zip(rows, ends))


def test_steps_whose_class_is_not_known():
    """Those before the delay is over and behind the end of a clip, and all of one whose times are not known."""
    data = SyntheticSounds(clips=12, held_out=12).split("train", SOUND)
    target = collate([data[1], None, data[0]], SOUND).targets(StepGrid(60, 640, 3), background=0)
    known = target != IGNORE
    assert known[:, 3:53].all() and known.sum() == 100 and (int(target[0].max()),) == data[1].labels
    assert (target[1, 3:53] == 0).all()
    assert (collate([Sample(data[0].x, (3,), None)], SOUND).targets(StepGrid(60, 640, 3), 0) == IGNORE).all()
    assert collate([None], SOUND) is None


def test_the_sound_in_a_clip_is_found_by_its_energy():
    rng = np.random.default_rng(0)
    wave = 0.003 * rng.standard_normal(16000)
    wave[5000:7000] += 0.3 * np.sin(np.arange(2000))
    wave[8000:9000] += 0.2 * np.sin(np.arange(1000))  # after a pause of 60 ms: the same sound
    wave[15000:15300] += 0.1 * np.sin(np.arange(300))  # a click much later is not
    ((start, end),) = find_sounds(wave.astype(np.float32), 16000, every=False)
    assert abs(start - 5000) <= 320 and abs(end - 9000) <= 320
    assert find_sounds(np.zeros(100, np.float32), 16000, every=False) == [(0, 100)]


def test_background_label_gives_times(tones):
    data = Folder(str(tones), cache=None, background="low")
    train = data.split("train", SOUND)
    spans = {train.clips[index].label: train[index].spans for index in range(len(train))}
    assert spans["low"] == [] and len(spans["high"]) == 1
    with pytest.raises(ConfigError, match=r"dataset\.background: no clip has the label 'loww'; did you mean 'low'"):
        Folder(str(tones), background="loww")


def test_training_cuts_are_where_a_clip_sounds(tmp_path):
    """Half a second of tone in four of silence: each cut of a second has some of it, and not always the same."""
    wave = np.zeros(64000, np.float32)
    wave[40000:48000] = np.sin(np.arange(8000) * 0.3) * 0.5
    soundfile.write(tmp_path / "bell.wav", wave, 16000)
    clip = Clip(tmp_path / "bell.wav", "bell")

    def cuts(clips):
        for epoch in range(40):
            clips.epoch = epoch
            yield clips[0].x[0]

    found = list(cuts(Clips([clip], ["bell"], SOUND, crop=1.0)))
    assert {len(cut) for cut in found} == {16000} and len({cut.tobytes() for cut in found}) > 30
    assert min(np.square(cut).sum() for cut in found) > 0
    elsewhere = list(cuts(Clips([clip], ["bell"], SOUND, crop=1.0, background="bell")))
    assert any(not cut.any() for cut in elsewhere)  # what means nothing is learnt from anywhere


@pytest.mark.parametrize(("length", "grain"), [(16000, 1), (511, 1), (999, 1), (1600, 1600), (8000, 1600)])
def test_cuts_stay_within_a_clip(length, grain):
    rng = np.random.default_rng(0)
    for size in (length + grain, length + 5 * grain, 10 * 16000):
        for wave in (np.zeros(size, np.float32), rng.standard_normal(size).astype(np.float32)):
            starts = {draw_start(rng, wave, length, grain) for _ in range(50)}
            assert all(0 <= start <= size - length and start % grain == 0 for start in starts)
            assert len(starts) > (20 if size > 100000 and grain == 1 else 1)


def bytes_read():
    """By this process so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes as Linux does")
@pytest.mark.parametrize("cached", [True, False])
def test_a_start_reads_no_more_than_headers(tmp_path, cached):
    """Of clips that are cached, and of all without a cache; what is wrong with a header shows all the same."""
    for number in range(8):
        tone_clip(tmp_path / "data" / "ab"[number % 2] / f"{number}.wav", 300, 10.0)
    (tmp_path / "data" / "a" / "bad.wav").write_text("not a sound")
    data = Folder(str(tmp_path / "data"), cache=str(tmp_path / "cache") if cached else None, test=0)
    if cached:
        with pytest.warns(UserWarning, match=r"bad\.wav: unreadable"):
            whole = [len(data.split(name, SOUND)) for name in ("train", "val")]
    before = bytes_read()
    with pytest.warns(UserWarning, match=r"bad\.wav: unreadable"):
        found = [len(data.split(name, SOUND)) for name in ("train", "val")]
    assert bytes_read() - before < 8 * 10 * 16000 * 2 / 4 and sum(found) == 8
    assert not cached or whole == found
