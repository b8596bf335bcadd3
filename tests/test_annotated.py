"""Recordings with the times of what is in them: what is read from tables, and which windows are made of them."""

import json
import re

import numpy as np
import pytest
import soundfile
from conftest import QUICK, noise, ran, write_table
from hypothesis import given
from hypothesis import strategies as st

from datasets.annotated import AnnotatedRecordings
from datasets.truths import read_all, read_beside
from datasets.windows import AnnotatedRecording
from pipeline.core.errors import ConfigError
from pipeline.media.annotations import first_overlap
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Picture
from pipeline.media.sample import collate
from pipeline.tasks.classes import Classes

RATE = 1000
SPEC = InputSpec(sound=RATE)


def row(path, start="", end="", label="", **more):
    return {"path": path, "start": start, "end": end, "label": label, **more}


def recordings(folder, **seconds):
    """So many seconds of noise for each name."""
    for seed, (name, length) in enumerate(seconds.items()):
        soundfile.write(folder / f"{name}.wav", noise(round(length * RATE), seed), RATE, "FLOAT")
    return folder


def dataset(folder, rows, **options):
    write_table(folder / "truth.csv", rows)
    return AnnotatedRecordings(str(folder), "truth.csv", **{"cache": None, "crop": 1.0} | options)


SPLITS = [row("v.wav", 0, 1, "a", split="val"), row("v.wav", 1, 2, "b", split="val")]


@pytest.fixture
def long(tmp_path):
    """Ten seconds with events that overlap, four with one short event, one without times, one with nothing."""
    recordings(tmp_path, t=10.04, u=4, w=3, n=2.5, v=2)
    rows = [row("t.wav", 0.5, 2.5, "a"), row("t.wav", 2, 9, "b"), row("u.wav", 3.2, 3.3, "a"), row("n.wav")]
    rows += [{"path": "w.wav", "label": "a, b"}]
    return dataset(tmp_path, [one | {"split": "train"} for one in rows] + SPLITS, events=1.0)


def test_windows_of_a_split_follow_one_another_and_hold_every_second_once(long):
    long.truths = [truth.__class__(**{**vars(truth), "split": "test"}) for truth in long.truths]
    split = long.split("test", SPEC)
    found = {}
    for index in range(len(split)):
        sample = split[index]
        found.setdefault(sample.name.partition("@")[0], []).append(sample)
        assert (sample.labels, sample.key, sample.group) == (split.classes[index], sample.name, split.groups[index])
    assert len({sample.key for some in found.values() for sample in some}) == len(split) == 10 + 4 + 1 + 3 + 2
    for path, some in found.items():
        whole = soundfile.read(path, dtype="float32")[0]
        assert np.array_equal(np.concatenate([sample.x[0] for sample in some]), whole)
        assert {sample.group for sample in some} == {path}, "what is cut from one recording stands or falls together"
    t, _, nothing, weak, _ = found.values()
    assert [len(sample.x[0]) for sample in t] == [1000] * 9 + [1040], "a short rest is no window"
    assert [sample.labels for sample in t] == [(0,), (0,), (0, 1), *[(1,)] * 6, ()]
    assert t[0].spans == [(500, 1000, 0)] and t[2].spans == [(0, 500, 0), (0, 1000, 1)] and t[9].spans == []
    assert [(sample.labels, sample.spans, len(sample.x[0])) for sample in weak] == [((0, 1), None, 3000)]
    assert [(sample.labels, sample.spans) for sample in nothing] == [((), [])] * 3


def test_training_draws_windows_around_events(long):
    split = long.split("train", SPEC)
    with pytest.raises(AttributeError):
        _ = split.classes  # not known before they are drawn
    seen = set()
    for split.epoch in range(30):
        for index in range(len(split)):
            sample = split[index]
            assert len(sample.x[0]) == 1000 and sample.key == ""
            assert sample.labels or sample.spans is not None
            if sample.spans is not None:
                assert sample.labels, "each holds half of an event, or is half filled by one"
            seen.add(sample.name)
            path, _, times = sample.name.partition("@")
            first, last = (round(float(edge) * RATE) for edge in times.split("-"))
            whole = soundfile.read(path, dtype="float32")[0]
            if abs(len(whole) - last) > 10:  # names have hundredths of a second
                place = np.flatnonzero(np.isclose(whole, sample.x[0][0], atol=0))
                assert any(abs(p - first) <= 5 and np.array_equal(whole[p : p + 1000], sample.x[0]) for p in place)
    assert len(seen) > 300
    split.epoch = 3
    assert np.array_equal(split[2].x[0], split[2].x[0])
    long.events = 0.0
    plain = long.split("train", SPEC)
    silent = [plain[index] for plain.epoch in range(40) for index in range(10, 14)]  # of four seconds, one event
    assert sum(not sample.labels for sample in silent) > 100


@given(st.integers(0, 3000), st.integers(1, 3000), st.integers(0, 2000), st.integers(100, 1000))
def test_a_window_has_the_labels_of_which_it_holds_half(begin, length, start, count):
    labels, spans = AnnotatedRecording(None, None, (7,), np.array([[begin, begin + length, 7]])).within(start, count)
    inside = set(range(begin, begin + length)) & set(range(start, start + count))
    assert spans == ([(min(inside) - start, max(inside) + 1 - start, 7)] if inside else [])
    assert labels == ((7,) if len(inside) >= min(length, count) / 2 and inside else ())


def test_tables_of_desed_and_tables_beside_recordings_say_the_same(tmp_path, capsys):
    recordings(tmp_path, x=3, y=2, z=1)
    (tmp_path / "truth.tsv").write_text(
        "filename\tonset\toffset\tevent_label\nx.wav\t0.5\t1.25\tCat\nx.wav\t1\t2\tDog\ny.wav\t\t\t\n"
    )
    (tmp_path / "weak.tsv").write_text("filename\tevent_labels\nz.wav\tDog,Cat\n")
    table = read_all(tmp_path / "truth.tsv", tmp_path, "group", None)
    (tmp_path / "x.csv").write_text("start,end,label\n0.5,1.25,Cat\n1,2,Dog\n")
    (tmp_path / "y.txt").write_text("")
    beside = read_beside(tmp_path, None)
    assert [(one.path, one.events, one.labels) for one in table] == [
        (one.path, one.events, one.labels) for one in beside
    ]
    assert table[0].events == ((0.5, 1.25, "Cat", 1), (1.0, 2.0, "Dog", 2)) and table[1].events == ()
    assert "1 of 3 recordings" in capsys.readouterr().err
    (weak,) = read_all(tmp_path / "weak.tsv", tmp_path, "group", None)
    assert weak.events is None and weak.labels == ("Dog", "Cat")
    (tmp_path / "t.jsonl").write_text('{"path": "x.wav", "start": 0.5, "end": 1.25, "label": "Cat"}\n')
    assert read_all(tmp_path / "t.jsonl", tmp_path, "group", None)[0].events == ((0.5, 1.25, "Cat", 1),)
    (tmp_path / "y.txt").write_text("0.5\t1\thum\n")
    assert read_beside(tmp_path, "hum")[1].events == (), "the label that means nothing"


WRONG = [
    ([row("x.wav", 2, 1, "a")], "row 1: got start '2' and end '1'; expected 0 <= start < end in seconds, or neither"),
    ([row("x.wav", -1, 1, "a")], "row 1: got start '-1'"),
    ([row("x.wav", 1, "", "a")], "row 1: got start '1' and end ''"),
    ([row("x.wav", "one", 2, "a")], "row 1: got start 'one'"),
    ([row("x.wav", 0, 1, "a, b")], "row 1: got the labels 'a, b' with times; expected a row for each label"),
    ([row("x.wav", 0, 1, "a"), row("x.wav", label="b")], "a label without times in row 2, but not in row 1"),
    ([row("x.wav", 0, 1, "a"), row("x.wav")], "x.wav has no label, so that nothing is in it in row 2, but not in row 1"),
    ([row("x.wav", 0, 1, "\u200b")], "row 1: label '\\u200b': expected characters of UTF-8"),
    ([row("", 0, 1, "a")], "row 1: every row needs a 'path'"),
    ([row("../x.wav", 0, 1, "a")], "leads out of"),
    ([row("q.wav", 0, 1, "a")], "1 of 1 recordings of .*truth.csv are not in .*, such as q.wav .row 1.; its paths"),
    ([row("x.wav", 0, 1, "a", split="train"), row("x.wav", 1, 2, "a", split="val")], "x.wav has split 'train' in row 1, and"),
    ([], "has no rows"),
    ([{"path": "x.wav", "class": "a"}], "has no column 'label'; it has 'path', 'class'; expected path,label"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "said"), WRONG, ids=range(len(WRONG)))
def test_what_makes_no_sense_is_refused_with_its_row_and_key(tmp_path, rows, said):
    recordings(tmp_path, x=3)
    write_table(tmp_path / "truth.csv", rows or [row("x.wav")])
    if not rows:
        (tmp_path / "truth.csv").write_text("path,start,end,label\n")
    pattern = said if ".*" in said else re.escape(said)
    with pytest.raises(ConfigError, match=rf"^dataset\.file: (?s:.*){pattern}"):
        read_all(tmp_path / "truth.csv", tmp_path, "group", None)


def test_events_behind_the_end_are_cut_or_refused(tmp_path, capsys):
    recordings(tmp_path, t=5, v=2)
    late = [row("t.wav", 0, 1, "a", split="train"), row("t.wav", 4, 7, "b", split="train"), *SPLITS]
    assert dataset(tmp_path, late).split("train", SPEC).parts[0].spans.tolist() == [[0, 1000, 0], [4000, 5000, 1]]
    assert "dataset.file" in (told := capsys.readouterr().err) and "end of t.wav (5.00 s) are cut there: row 2" in told
    late[1] |= {"start": 4000, "end": 4500}
    with pytest.raises(
        ConfigError, match=r"dataset\.file: .* row 2: 4000 to 4500 is behind the end of t\.wav \(5\.00 s\).*millisec"
    ):
        dataset(tmp_path, late).split("train", SPEC)


def test_what_is_doubtful_is_told(tmp_path, capsys):
    recordings(tmp_path, t=5, v=2)
    rows = [row("t.wav", 0, 2, "a"), row("t.wav", 1, 3, "a"), row("t.wav", 3, 4, "a"), row("t.wav", 0, 1, "b")]
    rows += [row("q.wav")]
    found = dataset(tmp_path, [one | {"split": "train", "splits": 1} for one in rows] + SPLITS).truths
    assert [event[:3] for event in found[0].events] == [(0, 1, "b"), (0, 3, "a"), (3, 4, "a")]
    told = capsys.readouterr().err
    assert "1 events overlap another of the same label, and are one with it, such as 'a' in rows 1 and 2" in told
    assert "has a column 'splits', which is not used; expected one of: group" in told
    assert "1 of 3 recordings" in told and "such as q.wav (row 5); they are left out" in told
    (tmp_path / "v.wav").write_bytes(b"RIFF")
    with pytest.raises(ConfigError, match="none of the 1 val recordings can be read"):
        dataset(tmp_path, [one | {"split": "train"} for one in rows] + SPLITS).split("val", SPEC)
    with pytest.raises(ConfigError, match=r"dataset=annotated gives sound alone"):
        dataset(tmp_path, [one | {"split": "train"} for one in rows] + SPLITS).split(
            "val", InputSpec(None, Picture(8, 8, 10))
        )
    with pytest.raises(ConfigError, match="no clip in split 'val' with a label"):
        dataset(tmp_path, [one | {"split": "train"} for one in rows] + [row("v.wav", split="val")])
    with pytest.raises(ConfigError, match=r"dataset\.group: .* has no column 'plaice'; did you mean 'place'"):
        dataset(tmp_path, [one | {"place": 1} for one in rows], group="plaice")
    with pytest.raises(ConfigError, match=r"dataset\.group: 'place' is a column"):
        AnnotatedRecordings(str(tmp_path), group="place")
    with pytest.raises(
        ConfigError, match=r"dataset\.root: 2 of 2 recordings .* or name one table of all, dataset\.file"
    ):
        AnnotatedRecordings(str(tmp_path))


def many(folder, **more):
    """Forty recordings in ten places, each with both labels, one after another or at the same time."""
    recordings(folder, **{f"r{number}": 1.5 for number in range(40)})
    rows = []
    for number in range(40):
        more = {"place": f"p{number % 10}"}
        for start, end, label in ((0.1, 0.6, "a"), (0.6 - 0.2 * (number == 7), 1.2, "b")):
            rows.append(row(f"r{number}.wav", start, end, label, **more))
    return rows


def test_recordings_and_groups_are_never_parted(tmp_path):
    rows = many(tmp_path)
    for options in ({}, {"group": "place"}, {"fold": "2/4"}, {"fold": "3/10", "group": "place"}):
        data = dataset(tmp_path, rows, **options)
        assert len(data.truths) == 40 and {one.split for one in data.truths} == {"train", "val", "test"}
        if "group" in options:
            assert len({(one.group, one.split) for one in data.truths}) == 10
    named = [one | {"split": f"fold{int(one['path'][1:-4]) % 3}"} for one in rows]
    data = dataset(tmp_path, named, splits={"train": ["fold0"], "val": ["fold1"]})
    assert {one.split for one in data.truths} == {"train", "val"} and len(data.truths) == 27


def test_classes_take_events_one_after_another_and_refuse_those_that_overlap(tmp_path):
    rows = many(tmp_path)
    data = dataset(tmp_path, rows, val=0.3, test=0.0, crop=1.5)
    split = next(one.split for one in data.truths if one.path.stem == "r7")
    told = r"task: 'a' \(0\.1 to 0\.6 s\) and 'b' \(0\.4 s\) overlap in .*r7\.wav, rows 15 and 16"
    with pytest.raises(ConfigError, match=told):
        Classes().in_columns(data.split(split, SPEC), data.labels, None)
    rows[15] |= {"start": 0.6}
    data = dataset(tmp_path, rows, val=0.3, test=0.0, crop=1.5)
    made = Classes().in_columns(data.split("train", SPEC), data.labels, None)
    assert made[0].labels == (0, 1)
    assert Classes().clip_truth(collate([made[0]], SPEC), 2).tolist() == [1], "the one that is there longest"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6), st.sampled_from("ab"))))
def test_an_overlap_is_found_if_there_is_one(given_):
    events = [(start, start + length, label) for start, length, label in given_]
    pairs = [(x, y) for x in events for y in events if x[2] != y[2] and x[0] < y[1] and y[0] < x[1]]
    found = first_overlap(events)
    assert (found in pairs) if pairs else found is None


@pytest.mark.parametrize("task", [["task=tags", "head=max"], ["dataset.background=nothing"]], ids=["tags", "classes"])
def test_a_model_is_trained_on_annotated_recordings(tmp_path, task):
    rows = many(tmp_path)
    rows[15] |= {"start": 0.6}
    write_table(tmp_path / "truth.csv", rows)
    data = ["dataset=annotated", f"dataset.root={tmp_path}", "dataset.file=truth.csv", "dataset.cache=null"]
    model = [*QUICK, "dataset.crop=0.75", "encoder=recurrent", "extractor.rate=8000", "trainer.epochs=1"]
    ran("train.py", *data, *task, *model, f"hydra.run.dir={tmp_path / 'run'}")
    test = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    splits = [one.split for one in AnnotatedRecordings(str(tmp_path), "truth.csv").truths]
    assert test["count"] == 2 * splits.count("test")
