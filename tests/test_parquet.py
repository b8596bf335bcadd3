"""Answers as a Parquet table, read back by those who wrote the format."""

import os
import resource
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import configured
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batch.files import Files
from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.core.text import clean
from pipeline.sinks import parquet
from pipeline.sinks.csv import CSV
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.items import FileResult, StreamInfo, TimedEvent
from pipeline.sinks.parquet import Parquet
from pipeline.sinks.sink import Sink

LABELS = ["background", "high", "low"]


def answer(path="a.wav", score=0.75, labels=LABELS, **more):
    rest = dict.fromkeys(labels[:-1], (1 - score) / max(1, len(labels) - 1))
    given = {
        "status": "ok",
        "label": labels[-1],
        "score": score,
        "seconds": 1.5,
        "posteriors": rest | {labels[-1]: score},
    }
    return FileResult(path, **given | more)


def failed(path="broken.wav", code="unreadable", labels=LABELS, **more):
    return FileResult(path, code=code, reason="no sound", posteriors=dict.fromkeys(labels), **more)


def write(path, results):
    """As a job does it."""
    with Fanout({"parquet": Parquet(str(path))}) as target:
        for result in results:
            target.write_result(result, to_files=True)
        target.finish()
    return path


def event(start, label="high"):
    return TimedEvent(start, start + 1.0, start + 0.5, label, 0.9)


# ---------------------------------------------------------------- what is in it
def test_files_come_back_as_they_were(tmp_path):
    rows = [
        answer(),
        failed(),
        answer("ü 中😀\n.wav", 0.4),
        answer("a.wav", 0.8, status="warning", code="clipped dc_offset"),
    ]
    table = pq.read_table(write(tmp_path / "out" / "answers.parquet", rows))
    assert table.column_names == [
        "path",
        "status",
        "code",
        "label",
        "score",
        "seconds",
        "reason",
        "p_background",
        "p_high",
        "p_low",
    ]
    kinds = dict(zip(table.column_names, table.schema.types))
    assert all(kinds[name] == pa.string() for name in ("path", "status", "code", "label", "reason"))
    assert kinds["score"] == kinds["seconds"] == pa.float64() and kinds["p_high"] == pa.float32()
    for result, found in zip(rows, table.to_pylist(), strict=True):
        for key in ("path", "status", "code", "label", "score", "seconds", "reason"):
            assert found[key] == getattr(result, key)
        for label, value in result.posteriors.items():
            assert found[f"p_{label}"] == (None if value is None else float(np.float32(value)))
    assert os.listdir(tmp_path / "out") == ["answers.parquet"]


def test_parts_and_truths_have_columns(tmp_path):
    rows = [answer(truth="low", start=0.5, end=2.0), failed(start=0.5, labelled=True)]
    table = pq.read_table(write(tmp_path / "t.parquet", rows))
    assert table.column_names[:9] == ["path", "start", "end", "status", "code", "label", "score", "seconds", "truth"]
    assert table["start"].to_pylist() == [0.5, 0.5] and table["end"].to_pylist() == [2.0, None]
    assert table["truth"].to_pylist() == ["low", ""] and table.schema.field("end").type == pa.float64()


def test_pandas_reads_it(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(write(tmp_path / "t.parquet", [answer(), failed()]))
    assert frame.score.isna().tolist() == [False, True] and frame.p_low.dtype == np.float32


def test_the_columns_are_those_of_csv(tmp_path):
    labels = ["time", "path", "score", "two\nlines", "=1", "\ud800", "\udcff", "nul\0", "\u202eabc", "p_path", ""]
    for name, rows in (("files", [answer(labels=labels)]), ("events", [events_of("a.wav", event(1.0))])):
        with CSV(str(tmp_path / f"{name}.csv")) as sink:
            for row in rows:
                sink.write(row)
            sink.finish()
        with open(tmp_path / f"{name}.csv", encoding="utf-8", errors="backslashreplace") as text:
            head = text.readline().rstrip("\n")
        columns = pq.read_table(write(tmp_path / f"{name}.parquet", rows)).column_names
        assert [column.replace("\\xff", "\\udcff") for column in columns] == [
            c.replace("\\xff", "\\udcff") for c in head.split(",")
        ]


def test_what_is_no_utf8_is_spelt(tmp_path):
    names = [os.fsdecode(b"\xff\xfe x.wav"), "ü\udce9.wav", "\ud800.wav", "back\\slash.wav"]
    found = pq.read_table(write(tmp_path / "t.parquet", [answer(name, reason="\udcff") for name in names]))
    assert found["path"].to_pylist() == ["\\xff\\xfe x.wav", "ü\\xe9.wav", "\\ud800.wav", "back\\slash.wav"]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.binary(max_size=9), st.text(max_size=9), st.floats(0, 1)), min_size=1, max_size=5))
def test_any_name_label_and_score(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("any") / "t.parquet"
    write(
        path, [answer(os.fsdecode(name), score, truth=label, labelled=True, label=label) for name, label, score in rows]
    )
    for found, (name, label, score) in zip(pq.read_table(path).to_pylist(), rows, strict=True):
        assert found["path"] == name.decode("utf-8", "backslashreplace")
        assert found["label"] == clean(label) and found["truth"] == label
        assert found["score"] == score and found["p_low"] == np.float32(score)


# ---------------------------------------------------------------- events
def events_of(path, *events, **more):
    return answer(path, events=events, labelled="truth" in more, **more)


def test_each_event_has_a_row_and_each_file_has_one(tmp_path):
    rows = [
        events_of("a.wav", event(1.0), event(3.0, "low"), truth="low"),
        events_of("quiet.wav", truth=""),
        failed(events=(), truth="x"),
    ]
    table = pq.read_table(write(tmp_path / "t.parquet", rows))
    assert table.column_names == [
        "path",
        "status",
        "code",
        "start",
        "end",
        "peak",
        "label",
        "score",
        "seconds",
        "truth",
        "reason",
    ]
    found = table.to_pylist()
    assert [(row["path"], row["start"], row["end"], row["peak"], row["label"], row["score"]) for row in found] == [
        ("a.wav", 1.0, 2.0, 1.5, "high", 0.9), ("a.wav", 3.0, 4.0, 3.5, "low", 0.9),
        ("quiet.wav", None, None, None, "", None), ("broken.wav", None, None, None, "", None)]  # fmt: skip
    assert [(row["status"], row["code"], row["seconds"], row["reason"]) for row in found[2:]] == [
        ("ok", "", 1.5, ""), ("error", "unreadable", None, "no sound")]  # fmt: skip
    assert table.schema.field("start").type == table.schema.field("peak").type == pa.float64()


def test_events_of_parts_say_which_part(tmp_path):
    rows = list(events_of("a.wav", event(1.0), start=0.5).table_rows())
    assert rows[0]["part_start"] == 0.5 and rows[0]["part_end"] == "" and rows[0]["start"] == 1.0
    assert list(rows[0])[:8] == ["path", "part_start", "part_end", "status", "code", "start", "end", "peak"]
    table = pq.read_table(write(tmp_path / "t.parquet", [events_of("a.wav", event(1.0), start=0.5, end=2.5)]))
    assert table["part_end"].to_pylist() == [2.5]


def test_a_stream_leaves_its_events(tmp_path):
    for number, events in enumerate(
        ([], [TimedEvent(1.0, 2.5, 1.1, "high", 0.9), TimedEvent(3.0, 4.0, 3.1, "lo\nw", 0.8)])
    ):
        path = tmp_path / f"{number}.parquet"
        with Fanout({"parquet": Parquet(str(path))}) as target:
            target.start(StreamInfo("a stream", LABELS, 100, 1))
            for one in events:
                target.write(one)
            assert not path.exists()
        table = pq.read_table(path)
        assert table.column_names == ["start", "end", "peak", "label", "score"]
        assert (
            table.to_pylist()
            == [
                {"start": 1.0, "end": 2.5, "peak": 1.1, "label": "high", "score": 0.9},
                {"start": 3.0, "end": 4.0, "peak": 3.1, "label": "lo\\nw", "score": 0.8},
            ][: len(events)]
        )
        assert {field.type for field in table.schema if field.name != "label"} == {pa.float64()}


# ---------------------------------------------------------------- whole or not at all
def test_memory_is_bounded_by_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP_CELLS", 10_000)
    tracemalloc.start()
    try:
        path = write(tmp_path / "t.parquet", (answer(f"{number}.wav", number / 20_000) for number in range(20_000)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    groups = pq.ParquetFile(path).metadata
    assert groups.num_row_groups == 20 and groups.num_rows == 20_000 and groups.row_group(0).num_rows == 1000
    assert peak < 3 << 20
    assert pq.read_table(path)["path"].to_pylist() == [f"{number}.wav" for number in range(20_000)]


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_run_that_fails_leaves_nothing(tmp_path, monkeypatch, count, error):
    monkeypatch.setattr(parquet, "GROUP_CELLS", 30)
    old = tmp_path / "old.parquet"
    old.write_bytes(b"an hour's work")
    for path in (old, tmp_path / "new.parquet"):
        with pytest.raises(error), Fanout({"parquet": Parquet(str(path))}) as target:
            for _ in range(count):
                target.write_result(answer(), to_files=True)
            raise error
        with Fanout({"parquet": Parquet(str(path))}) as target:
            target.write_result(answer(), to_files=True)  # not finished
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
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, capsys, room):
    monkeypatch.setattr(parquet, "GROUP_CELLS", 10_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path, chance = tmp_path / "t.parquet", np.random.default_rng(0)
    try:
        sink = Parquet(str(path))
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        with pytest.raises(OSError, match="File too large") as caught, Fanout({"parquet": sink}) as target:
            for score in chance.random(5000):
                target.write_result(answer(f"{score}.wav", score), to_files=True)
            target.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(path) and os.listdir(tmp_path) == []
    sink.write(answer())
    sink.finish()
    sink.close()
    assert os.listdir(tmp_path) == [], "what is broken stays so"


def test_beside_other_sinks(tmp_path):
    names = [f"{number}.wav" for number in range(50)]
    sinks = {"csv": CSV(str(tmp_path / "t.csv")), "parquet": Parquet(str(tmp_path / "t.parquet"))}
    with Fanout(sinks) as target:
        target.check_overwrites([tmp_path / name for name in names])
        for name in names:
            target.write_result(answer(name), to_files=True)
        target.finish()
    lines = (tmp_path / "t.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == pq.read_table(tmp_path / "t.parquet")["path"].to_pylist() == names
    again = Fanout({"parquet": Parquet(str(tmp_path / "t.parquet"))})
    with pytest.raises(ConfigError, match="is a file that is read"):
        again.check_overwrites([tmp_path / "t.parquet"])


def test_answers_are_a_manifest(tmp_path):
    (tmp_path / "x").touch()
    path = write(tmp_path / "t.parquet", [answer(str(tmp_path / "x")), failed(str(tmp_path / "y"))])
    found = Files(str(path), root="/", only={"status": "error"}).entries()
    assert [entry.path for entry in found] == [str(tmp_path / "y")]


# ---------------------------------------------------------------- what cannot be
def test_wrong_use(tmp_path, monkeypatch):
    setting = configured("infer", "sink=parquet")["sink"]["parquet"]
    with pytest.raises(ConfigError, match=r"sink.parquet.path: is not set; give the table"):
        build(setting, Sink, at="sink.parquet")
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
