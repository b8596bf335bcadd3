"""Tables as spreadsheets, pandas and Audacity write them: what is read from them, and by the same rules by all readers."""

import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from conftest import ran, read_jsonl, tone_clip

from datasets.manifest import Manifest
from pipeline.batch.files import Files
from pipeline.core.errors import ConfigError
from pipeline.measures.detection import find_recordings
from pipeline.media.annotations import beyond_end, find_truth, read_truth
from pipeline.media.tables import is_table, read_table, to_label
from pipeline.model.classifier import load
from pipeline.sinks.hard_negatives import truth_of

ROWS = [("sub/a b.wav", "Müller", 0.5, 1.25), ("sub/a b.wav", "a,b;c", 1.25, 2.0)]


def as_csv(path, mark=",", coding="utf-8", head=("path", "label", "start", "end"), point=".", first="", end="\r\n"):
    def cell(value):
        text = str(value).replace(".", point) if isinstance(value, float) else value
        return f'"{text}"' if mark in text or '"' in text else text

    lines = [mark.join(head), *(mark.join(map(cell, row)) for row in ROWS)]
    path.write_bytes((first + end.join(lines) + end).encode(coding))
    return path


EXCEL = {
    "commas": {}, "semicolons and decimal commas": {"mark": ";", "point": ","}, "tabs": {"mark": "\t"},
    "Unicode text": {"mark": "\t", "coding": "utf-16", "point": ","},
    "UTF-16, the other way round": {"mark": ";", "coding": "utf-16-be", "first": "\ufeff"},
    "a byte order mark": {"coding": "utf-8-sig", "mark": ";"}, "sep=": {"mark": ";", "first": "sep=;\r\n"},
    "Path": {"head": ("Path", "LABEL", "Start", "End")},
    "blanks in the head": {"head": ("path", " label", "start ", "\tend")},
    "blank lines": {"end": "\n\n", "first": "\n"}, "rows of empty cells": {"end": "\r\n;;;\r\n", "mark": ";"},
    "line ends of old Macs": {"end": "\r"},
}  # fmt: skip


@pytest.mark.parametrize("kind", EXCEL)
def test_a_csv_of_a_spreadsheet_is_read_by_all(tmp_path, kind):
    table = as_csv(tmp_path / "list.csv", **EXCEL[kind])
    wanted = [("sub/a b.wav", "Müller", (0.5, 1.25)), ("sub/a b.wav", "a,b;c", (1.25, 2.0))]
    listed = Files(str(table)).entries()
    assert [(e.path.removeprefix(f"{tmp_path}/"), e.truth, e[1:3]) for e in listed] == wanted
    with pytest.raises(ConfigError, match="too few to stand in"):  # that is, it was read
        Manifest(str(tmp_path), file="list.csv")
    assert [to_label(row["label"]) for row in read_table(str(table), "x", ("label",))] == ["Müller", "a,b;c"]
    assert [row[:2] for row in read_truth(table, "x")] == [(0.5, 1.25), (1.25, 2.0)]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.csv", "Pfad;Klasse\nx.wav;a\n", "has no column 'path'; it has 'Pfad', 'Klasse'; expected path,label"),
    ("a.csv", "path,lable\nx.wav,a\n", "has no column 'label'; it has 'path', 'lable'"),
    ("a.csv", "path,label\nx.wav,a\ny.wav\n", "row 2: every row needs a 'label'"),
    ("a.csv", "path;label;start\nx.wav;a;0,5\ny.wav;b;1,5,0\n", "row 2: got start '1,5,0'"),
    ("a.csv", "p\0a\0t\0h\0", "has no column 'path'"),
    ("a.csv", "PK\x03\x04\x14", "is an archive, such as .xlsx; expected text: save it as csv"),
    ("a.csv", b"\xff\xfep\0a\0t", "cannot be read after row 0"),
    ("a.jsonl", '{"path": "x", "label": "a"}\n{"path": "y"}', "row 2 has no column 'label'; it has 'path'"),
    ("a.csv", "path,label,split\nx.wav,M\udcfcller,train\ny.wav,b,val\n", r"label 'M\\udcfcller' .*: expected characters"),
])  # fmt: skip
def test_what_cannot_be_read_says_where(tmp_path, name, content, message):
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=message) as caught:
        Manifest(str(tmp_path), file=name, val=0, test=0)
    assert str(caught.value).startswith("dataset")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(("given", "label"), [
    (0.0, "0"), (1, "1"), (None, ""), ("0.0", "0"), (" dog ", "dog"), ("cafe\u0301", "caf\u00e9"), ("1.5", "1.5"),
    (float("nan"), ""), ("1e3", "1e3"), ("v1.0", "v1.0"), (True, "True"),
])  # fmt: skip
def test_labels_are_spelt_alike_by_all_readers(tmp_path, kind, given, label):
    """As pandas writes a column of numbers with gaps, macOS its accents, and people their blanks."""
    rows, table = [{"path": "x.wav", "label": given, "start": 0, "end": 1}], tmp_path / f"t.{kind}"
    if kind == "csv":
        shown = "" if given is None or given != given else given
        table.write_text(f"path, label ,start,end\nx.wav,{shown},0,1\n")
    elif kind == "jsonl":
        table.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), table)
    assert Files(str(table)).entries()[0].truth == label
    if label:
        assert read_truth(table, "x")[0][2] == label
        with pytest.raises(ConfigError, match=f"label '{label}' has 1 recording"):
            Manifest(str(tmp_path), file=table.name)


def test_training_and_truth_agree_on_numbers_with_gaps(tmp_path, capsys):
    """Trained from a csv of whole numbers, tested with a jsonl of floats; and a group that is 0 is a group."""
    for number in range(8):
        tone_clip(tmp_path / f"{number}.wav", 300, 0.1)
    rows = [{"path": f"{n}.wav", "label": n % 2, "who": n // 2, "split": "train" if n < 4 else "val"} for n in range(8)]
    lines = ["path,label,who,split", *(",".join(map(str, row.values())) for row in rows)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    floats = [row | {"label": float(row["label"]), "who": float(row["who"])} for row in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, floats)))
    for name in ("a.csv", "a.jsonl"):
        data = Manifest(str(tmp_path), file=name, group="who")
        assert data.labels == ["0", "1"] and {clip.group for clip in data.clips} == {"0", "1", "2", "3"}
        assert {entry.truth for entry in Files(str(tmp_path / name)).entries()} == {"0", "1"}
        assert len(Files(str(tmp_path / name), only={"who": 2}).entries()) == 2
    assert not capsys.readouterr().err


def test_a_model_of_before_keeps_its_spelling(trained, tmp_path):
    """Labels of models are data: here 'low' is spelt as an older reader might have done."""
    model, settings = load(trained), json.loads((trained / "metrics.json").read_text())["settings"]
    model.labels[model.labels.index("low")] = "1.0"
    model.save(tmp_path / "model.safetensors", {"settings": settings, "history": []})
    tone_clip(tmp_path / "x.wav", 210)
    (tmp_path / "t.jsonl").write_text('{"path": "x.wav", "label": 1.0}')
    paths = [f"source.paths={tmp_path / 't.jsonl'}", f"sink.csv.path={tmp_path / 'o.csv'}"]
    ran("infer.py", f"checkpoint={tmp_path}", "source=files", "sink=csv", *paths, "source.workers=1")
    assert (tmp_path / "o.csv").read_text().splitlines()[1].count("1.0") >= 2  # the truth, and the answer


def test_labels_that_look_alike_and_rows_that_contradict_are_told(tmp_path, capsys):
    lines = ["path,label"]
    for label in ("dog", "Dog", "hot dog", "hot_dog", "cafe\u0301", "caf\u00e9", "1.0", "1", "²", "2"):
        lines += [f"{len(lines) + number}.wav,{label}" for number in range(3)]
    again = ["1.wav,dog", "./1.wav,Dog", "2.wav,dog"]
    (tmp_path / "manifest.csv").write_text("\n".join(lines + again))
    assert len(Manifest(str(tmp_path)).labels) == 8
    told = capsys.readouterr().err
    assert "'Dog' and 'dog' look alike" in told and "'hot dog' and 'hot_dog' look alike" in told
    assert "'2' and '²' look alike" in told and "'1', '1.0' are taken for one label, '1'" in told
    assert r"'cafe\u0301', 'caf\xe9' are taken for one label" in told and told.count("look alike") == 3
    assert "2 clips are listed again, such as" in told and "1 clip is listed again with another label, such as" in told
    assert "1.wav ('dog' and 'Dog')" in told


def test_a_clip_in_two_splits_is_told(tmp_path, capsys):
    rows = [f"{n}.wav,{'ab'[n % 2]},{split}" for split in ("train", "val") for n in range(3)]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,label,split", *rows]))
    Manifest(str(tmp_path))
    assert "3 clips are listed again in another split, such as" in capsys.readouterr().err


# ---------------------------------------------------------------- truth
TRACK = '0.500000\t1.250000\tdog\n\\\t200.0\t4000.0\n2.000000\t3.000000\train "hard" 0.93\n'


def test_labels_of_audacity_are_truth(tmp_path):
    """With the scores that sink=labels writes, and frequencies of a spectral selection, which are passed over."""
    wanted = [(0.5, 1.25, "dog"), (2.0, 3.0, 'rain "hard"')]
    soundfile.write(tmp_path / "a.wav", np.zeros(64000), 16000)
    (tmp_path / "a.txt").write_text(TRACK)
    assert read_truth(tmp_path / "a.txt", "x") == wanted
    (tmp_path / "b.txt").write_text(TRACK.replace(".", ","))
    assert [row[:2] for row in read_truth(tmp_path / "b.txt", "x")] == [row[:2] for row in wanted]
    (found,) = find_recordings(str(tmp_path / "a.wav"))
    assert found.events == wanted and truth_of(str(tmp_path / "a.wav"), "beside") == wanted
    (tmp_path / "a.csv").write_text("start,end,label\n")
    assert find_truth(tmp_path / "a.wav") == tmp_path / "a.csv", "the table, where both are there"
    (tmp_path / "a.csv").unlink()
    (tmp_path / "a.txt").write_text("")
    assert find_recordings(str(tmp_path / "a.wav"))[0].events == [], "an empty track: there is nothing"
    (tmp_path / "a.txt").write_text("what was said in this recording")
    assert truth_of(str(tmp_path / "a.wav"), "beside") == [], "some other text is no truth"
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00\xd8x")
    assert find_truth(tmp_path / "a.wav").suffix == ".csv", "nor is what only begins as UTF-16"
    with pytest.raises(ConfigError, match=r"a\.csv does not exist"):
        find_recordings(str(tmp_path / "a.wav"))
    (tmp_path / "a.txt").write_text("1.0\t1.0\tclick\n")
    with pytest.raises(ConfigError, match="row 1: expected 0 <= start < end"):
        read_truth(tmp_path / "a.txt", "x")


def test_what_sink_labels_writes_is_read_as_truth(trained, tones, tmp_path):
    wave = np.concatenate([soundfile.read(tones / label / "3.wav")[0] for label in ("low", "high", "low")])
    soundfile.write(tmp_path / "a.wav", wave, 16000)
    written = [f"sink.labels.path={tmp_path / 'a.txt'}", f"sink.jsonl.path={tmp_path / 'a.jsonl'}"]
    ran("infer.py", f"checkpoint={trained}", f"source.path={tmp_path / 'a.wav'}", "sink=[labels,jsonl]", *written)
    events = [row for row in read_jsonl(tmp_path / "a.jsonl") if row["type"] == "event"]
    found = find_recordings(str(tmp_path / "a.wav"))[0].events
    assert len(found) == len(events) > 0 and {label for *_, label in found} <= {"low", "high"}


@pytest.mark.parametrize(("seconds", "late"), [
    (None, ""), (4.0, ""), (3.9, ""), (2.5, "1 of 3 true events end behind .* row 3 .3 to 4.; expected seconds"),
    (0.001, "3 of 3 .*: rows 1, 2, 3 .0.5 to 1"),
])  # fmt: skip
def test_truth_behind_the_end_names_its_rows(seconds, late):
    events = [(0.5, 1.0, "a"), (2.0, 2.5, "a"), (3.0, 4.0, "b")]
    found = beyond_end(events, seconds)
    assert (found == "") == (late == "")
    assert re.match(late, found)


def test_which_files_are_tables():
    assert all(map(is_table, ("a.csv", "A.CSV", "x.tsv", "a.jsonl", "a.parquet")))
    assert not any(map(is_table, ("a.wav", "csv")))
    assert unicodedata.is_normalized("NFC", to_label("o\u0308")) and Path(to_label("a")).name == "a"
