"""Answers as a Parquet table, read back by those who wrote the format."""

import os
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import no_file_above
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batch.files import Files
from pipeline.core.errors import ConfigError
from pipeline.core.text import clean
from pipeline.sinks import parquet
from pipeline.sinks.csv import CSV
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.items import FileResult, StreamInfo, TimedEvent
from pipeline.sinks.parquet import Parquet

LABELS = ["background", "high", "low"]


def answer(path="a.wav", score=0.75, labels=LABELS, **more):
    scores = dict.fromkeys(labels, (1 - score) / 2) | {labels[-1]: score}
    given = {"status": "ok", "label": labels[-1], "score": score, "seconds": 1.5, "posteriors": scores}
    return FileResult(path, **given | more)


def failed(path="broken.wav", **more):
    return FileResult(path, code="unreadable", reason="no sound", posteriors=dict.fromkeys(LABELS), **more)


def write(path, results, finish=True):
    """As a job does it."""
    with Fanout({"parquet": Parquet(str(path))}) as target:
        for result in results:
            target.write_result(result, to_files=True)
        if finish:
            target.finish()
    return path


def event(start, label="high"):
    return TimedEvent(start, start + 1.0, start + 0.5, label, 0.9)


# ---------------------------------------------------------------- what is in it
def test_files_come_back_as_they_were(tmp_path):
    doubtful = answer(score=0.8, status="warning", code="clipped dc_offset")
    rows = [answer(), failed(), answer("ü 中😀\n.wav", 0.4), doubtful]
    table = pq.read_table(write(tmp_path / "out" / "answers.parquet", rows))
    numbers = {"score": pa.float64(), "seconds": pa.float64()} | {f"p_{label}": pa.float32() for label in LABELS}
    columns = ["path", "status", "code", "label", "score", "seconds", "reason", *(f"p_{label}" for label in LABELS)]
    assert dict(zip(table.column_names, table.schema.types)) == {c: numbers.get(c, pa.string()) for c in columns}
    for result, found in zip(rows, table.to_pylist(), strict=True):
        scores = {f"p_{label}": value and float(np.float32(value)) for label, value in result.posteriors.items()}
        assert found == {column: getattr(result, column, None) for column in columns} | scores
    assert table.column_names == columns and os.listdir(tmp_path / "out") == ["answers.parquet"]


def test_parts_and_truths_have_columns(tmp_path):
    rows = [answer(truth="low", start=0.5, end=2.0), failed(start=0.5, labelled=True)]
    table = pq.read_table(write(tmp_path / "t.parquet", rows))
    assert table.column_names[:9] == ["path", "start", "end", "status", "code", "label", "score", "seconds", "truth"]
    assert table["start"].to_pylist() == [0.5, 0.5] and table["end"].to_pylist() == [2.0, None]
    assert table["truth"].to_pylist() == ["low", ""] and table.schema.field("end").type == pa.float64()


def test_the_columns_are_those_of_csv(tmp_path):
    labels = ["time", "path", "score", "two\nlines", "=1", "\ud800", "\udcff", "nul\0", "\u202eabc", "p_path", ""]
    for rows in ([answer(labels=labels)], [answer(events=(event(1.0),))]):
        with CSV(str(tmp_path / "t.csv")) as sink:
            sink.write(*rows)
            sink.finish()
        head = (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()[0]
        assert pq.read_table(write(tmp_path / "t.parquet", rows)).column_names == head.split(",")


@settings(max_examples=40)
@given(st.lists(st.tuples(st.binary(max_size=9), st.text(max_size=9), st.floats(0, 1)), min_size=1, max_size=5))
def test_any_name_label_and_score(tmp_path_factory, rows):
    path, rows = tmp_path_factory.mktemp("any") / "t.parquet", [*rows, (b"\xff\xfe x", "\u202e", 0.5)]
    write(path, [answer(os.fsdecode(n), score, truth=x, labelled=True, label=x) for n, x, score in rows])
    for found, (name, label, score) in zip(pq.read_table(path).to_pylist(), rows, strict=True):
        assert found["path"] == name.decode("utf-8", "backslashreplace")
        assert found["label"] == clean(label) and found["truth"] == label
        assert found["score"] == score and found["p_low"] == np.float32(score)


# ---------------------------------------------------------------- events
def test_each_event_has_a_row_and_each_file_has_one(tmp_path):
    part = {"labelled": True, "start": 0.5, "end": 9.5}
    loud = answer(events=(event(1.0), event(3.0, "low")), truth="low", **part)
    rows = [loud, answer("quiet.wav", events=(), **part), failed(events=(), truth="x", **part)]
    table = pq.read_table(write(tmp_path / "t.parquet", rows))
    columns = "path part_start part_end status code start end peak label score seconds truth reason"
    assert " ".join(table.column_names) == columns
    found = [tuple(row.values()) for row in table.to_pylist()]
    assert found == [
        ("a.wav", 0.5, 9.5, "ok", "", 1.0, 2.0, 1.5, "high", 0.9, 1.5, "low", ""),
        ("a.wav", 0.5, 9.5, "ok", "", 3.0, 4.0, 3.5, "low", 0.9, 1.5, "low", ""),
        ("quiet.wav", 0.5, 9.5, "ok", "", None, None, None, "", None, 1.5, "", ""),
        ("broken.wav", 0.5, 9.5, "error", "unreadable", None, None, None, "", None, None, "x", "no sound"),
    ]


@pytest.mark.parametrize("events", [[], [event(1.0), event(3.0, "lo\nw")]])
def test_a_stream_leaves_its_events(tmp_path, events):
    path = tmp_path / "t.parquet"
    with Fanout({"parquet": Parquet(str(path))}) as target:
        target.start(StreamInfo("a stream", LABELS, 100, 1))
        for one in events:
            target.write(one)
        assert not path.exists()
    table = pq.read_table(path)
    assert table.to_pylist() == [one.row() | {"label": clean(one.label)} for one in events]
    kinds = dict(zip(table.column_names, table.schema.types))
    assert kinds == dict.fromkeys(["start", "end", "peak", "label", "score"], pa.float64()) | {"label": pa.string()}


# ---------------------------------------------------------------- whole or not at all
def test_memory_is_bounded_by_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP_CELLS", 5_000)
    tracemalloc.start()
    try:
        path = write(tmp_path / "t.parquet", (answer(f"{number}.wav", number / 10_000) for number in range(10_000)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    groups = pq.ParquetFile(path).metadata
    assert groups.num_row_groups == 20 and groups.num_rows == 10_000 and groups.row_group(0).num_rows == 500
    assert peak < 1.5 * 2**20
    assert pq.read_table(path)["path"].to_pylist() == [f"{number}.wav" for number in range(10_000)]


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_run_that_fails_leaves_nothing(tmp_path, monkeypatch, count, error):
    def results():
        yield from [answer()] * count
        raise error

    monkeypatch.setattr(parquet, "GROUP_CELLS", 30)
    old = tmp_path / "old.parquet"
    old.write_bytes(b"an hour's work")
    for path in (old, tmp_path / "new.parquet"):
        with pytest.raises(error):
            write(path, results())
        write(path, [answer()], finish=False)
    assert old.read_bytes() == b"an hour's work" and os.listdir(tmp_path) == ["old.parquet"]


def test_it_takes_the_place_of_another_in_the_end(tmp_path):
    path = write(tmp_path / "t.parquet", [answer("old.wav")])
    with Fanout({"parquet": Parquet(str(path))}) as target:
        target.write_result(answer("new.wav"), to_files=True)
        assert pq.read_table(path)["path"].to_pylist() == ["old.wav"]
        target.finish()
        assert pq.read_table(path)["path"].to_pylist() == ["new.wav"]
    (tmp_path / "link.parquet").symlink_to("t.parquet")
    write(tmp_path / "link.parquet", [answer("through.wav")])
    assert (tmp_path / "link.parquet").is_symlink() and pq.read_table(path)["path"].to_pylist() == ["through.wav"]
    assert sorted(os.listdir(tmp_path)) == ["link.parquet", "t.parquet"]


@pytest.mark.parametrize("room", [0, 100, 20_000])
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, room):
    monkeypatch.setattr(parquet, "GROUP_CELLS", 10_000)
    path, chance = tmp_path / "t.parquet", np.random.default_rng(0)
    sink = Parquet(str(path))
    full = pytest.raises(OSError, match="File too large")
    with full as caught, no_file_above(room), Fanout({"parquet": sink}) as target:
        for score in chance.random(5000):
            target.write_result(answer(f"{score}.wav", score), to_files=True)
        target.finish()
    assert caught.value.filename == str(path) and os.listdir(tmp_path) == []
    sink.write(answer())
    sink.finish()
    sink.close()
    assert os.listdir(tmp_path) == [], "what is broken stays so"


def test_answers_are_a_manifest(tmp_path):
    (tmp_path / "x").touch()
    path = write(tmp_path / "t.parquet", [answer(str(tmp_path / "x")), failed(str(tmp_path / "y"))])
    found = Files(str(path), root="/", only={"status": "error"}).entries()
    assert [entry.path for entry in found] == [str(tmp_path / "y")]


def test_wrong_use(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/null", str(tmp_path), str(tmp_path / "pipe")):
        with pytest.raises(ConfigError, match="no regular file"):
            Parquet(path)
    for path in ("/proc/no/t.parquet", "/proc/t.parquet"):
        with pytest.raises(OSError):
            Parquet(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="pip install pyarrow"):
        Parquet(str(tmp_path / "t.parquet"))
    assert os.listdir(tmp_path) == ["pipe"]
