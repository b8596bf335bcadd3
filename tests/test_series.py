"""Series: tables of rows, on a clock, with what is missing marked; through files, pipes, streams and training."""

import importlib
import io
import json
import os
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from conftest import ROOT, cut_and_restored, listen, lively_model, ran, read_csv, run, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.series import SeriesFiles
from pipeline.core.errors import ConfigError, MediaError
from pipeline.exporting.export import export
from pipeline.extractors.values import Values
from pipeline.layers.laws import check
from pipeline.media.chunks import read_chunk
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Sample, collate
from pipeline.media.series import BLOCK_ROWS, Series, open_series
from pipeline.model.onnx_model import OnnxModel
from pipeline.sources.stdin import Stdin
from pipeline.streaming.stream import Stream

SPEC = InputSpec(series=Series(10.0, ("x", "y")))
NAN = float("nan")
SERIES = ("extractor=values", "extractor.columns=[x,y]", "extractor.rate=10", "augment=none")


def read(path, spec=SPEC, *part):
    """The rows of a file as lists, and its warnings."""
    (x,), info = read_chunk(path, spec, *part)
    assert info.seconds == len(x) / spec.rate
    return x, info.warnings


def written(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "text"), [
    ("comma.csv", "x,note,y\n1,a,2\n,b,\n3.5,c,NA\n"),
    ("spread.csv", "sep=;\ny;x\n2;1\n;\nnull;3,5\n"),
    ("tabs.tsv", "x\ty\n1\t2\n\t\n3.5\tnan\n"),
    ("lines.jsonl", '{"x": 1, "y": 2}\n{"x": null, "y": null}\n{"x": 3.5, "y": "-"}\n'),
])  # fmt: skip
def test_the_same_rows_in_every_kind_of_table(tmp_path, name, text):
    found, warnings = read(written(tmp_path / name, text))
    np.testing.assert_array_equal(found, np.array([[1, 2], [NAN, NAN], [3.5, NAN]], np.float32))
    assert warnings == []


def test_parquet_with_dates_and_nulls(tmp_path):
    start = datetime(2026, 11, 30, 14, tzinfo=UTC)
    times = [datetime.fromtimestamp(start.timestamp() + 0.1 * k, UTC) for k in (0, 1, 3)]
    table = pyarrow.table({"time": times, "x": [1, None, 3], "y": [0.5, 1.5, 2.5], "other": ["a", "b", "c"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found, warnings = read(tmp_path / "a.parquet")
    np.testing.assert_array_equal(found, np.array([[1, 0.5], [NAN, 1.5], [NAN, NAN], [3, 2.5]], np.float32))
    assert warnings == []


def test_rows_stand_at_the_tick_nearest_to_their_time(tmp_path):
    times = [100.0, 100.104, 100.19, 100.196, 100.41, 100.5]  # at 10 Hz: ticks 0, 1, 2, (2), 4, 5
    text = "Time,x,y\n" + "".join(f"{time},{k},{-k}\n" for k, time in enumerate(times))
    found, warnings = read(written(tmp_path / "a.csv", text))
    assert found[:, 0].tolist()[:3] + found[4:, 0].tolist() == [0, 1, 2, 4, 5]
    assert np.isnan(found[3]).all() and len(found) == 6 and warnings == []
    part, _ = read(tmp_path / "a.csv", SPEC, 0.1, 0.3)
    np.testing.assert_array_equal(part, found[1:3])


def test_times_that_go_back_or_stand_are_left_out_and_told(tmp_path):
    text = "time,x,y\n0,0,0\n0.1,1,1\n0.1,9,9\n0.05,9,9\n0.2,2,2\n2026,0,0\n"
    with pytest.raises(MediaError, match=r"limit_duration: .*20,260 s without a row before row 6"):
        read(written(tmp_path / "a.csv", text.replace("2026", "20260")).rename(tmp_path / "b.csv"), InputSpec(series=Series(100.0, ("x", "y"))))  # fmt: skip
    found, warnings = read(written(tmp_path / "a.csv", text.replace("2026", "3")))
    assert found[:3, 0].tolist() == [0, 1, 2] and np.isnan(found[3:30]).all() and len(found) == 31
    assert warnings == ["time_stamps", "gap"]


@pytest.mark.parametrize(("text", "message"), [
    ("x,z\n1,2\n", "unreadable: .*has no column 'y'; it has 'x', 'z'; expected x,y"),
    ("x,y\n1,2\n3,high\n", "unreadable: .*row 2: column 'y': got 'high'; expected a number, or nothing where"),
    ("time,x,y\nlate,1,2\n", "unreadable: .*row 1: column 'time': got 'late'; expected seconds, or a date such as"),
    ("time,x,y\n,1,2\n", "unreadable: .*row 1: column 'time': got ''; expected seconds"),
    ("time,x,y\n4,1,2\n3,1,2\n2,1,2\n1,1,2\n", "unreadable: .*the times of 3 rows do not rise; sort the rows by time"),
    ("x,y\n", "no_samples: .*no rows"),
    ('x,y\n1,"2\n', "unreadable: .*unexpected end of data"),
])  # fmt: skip
def test_what_is_no_series_has_one_clear_message(tmp_path, text, message):
    with pytest.raises(MediaError, match=message):
        read(written(tmp_path / "a.csv", text))


@pytest.mark.parametrize(("name", "text", "message"), [
    ("a.jsonl", f'{{"x": 1, "y": {"9" * 400}}}\n', "unreadable: .*row 1: column 'y': got 9+; expected a number"),
    ("a.csv", "time,x,y\n0,1,2\n1e308,1,2\n", r"limit_duration: .*: 1e\+299 s without a row before row 2"),
    ("a.csv", "time,x,y\n-1e308,1,2\n1e308,1,2\n", r"limit_duration: .*: 1e\+299 s without a row before row 2"),
])  # fmt: skip
def test_numbers_beyond_all_bounds(tmp_path, name, text, message):
    with pytest.raises(MediaError, match=message):
        read(written(tmp_path / name, text))


def test_blocks_stay_small_where_most_ticks_have_no_row(tmp_path):
    path = written(tmp_path / "a.csv", "time,x,y\n" + "".join(f"{80 * k},1,2\n" for k in range(600)))
    info, found = open_series(path, SPEC.series)
    assert max(len(part) for part in found) < 2 * BLOCK_ROWS and info.decoded == 599 * 800 + 1


@pytest.mark.parametrize("step", [9000, 100])
def test_times_in_milliseconds_are_refused(tmp_path, step):
    path = written(tmp_path / "a.csv", "time,x,y\n" + "".join(f"{step * k},1,2\n" for k in range(1200)))
    with pytest.raises(MediaError, match=r"limit_duration: .* are the times milliseconds\? Or lower extractor.rate=10"):
        read(path)


def test_a_missing_file():
    with pytest.raises(MediaError, match="no such file"):
        read("nowhere.csv")


def slow_values(x, mean, std):
    """Held values and marks of rows ``(T, C)``, one after another."""
    found, held = [], np.zeros(x.shape[1])
    for row in x:
        there = ~np.isnan(row)
        held = np.where(there, (row - mean) / std, held)
        found.append(np.concatenate([held, there]))
    return np.array(found)


def rows(count, seed=0, columns=2):
    """Sensors that wander, and are silent now and then."""
    rng = np.random.default_rng(seed)
    x = 20 + rng.standard_normal((count, columns)).cumsum(0)
    x[rng.random(x.shape) < 0.3] = NAN
    return x.astype(np.float32)


def test_values_hold_what_is_known_and_mark_what_is_new():
    stage, x = Values(["x", "y"], 10), rows(60)
    clips = [Sample((part,), (0,)) for part in np.split(x, [10, 37])]
    for pair in (clips[:2], clips[2:]):
        stage.meet(collate(pair, stage.spec))
    np.testing.assert_allclose(stage.mean, np.nanmean(x, 0), rtol=1e-6)
    np.testing.assert_allclose(stage.std, np.nanstd(x, 0), rtol=1e-6)
    y, _ = stage(torch.from_numpy(x)[None], stage.initial(1))
    np.testing.assert_allclose(y[0], slow_values(x, stage.mean.numpy(), stage.std.numpy()), atol=1e-6)
    check(stage)


def test_a_column_that_stands_still_or_is_never_there():
    stage = Values(["still", "never"])
    stage.meet(collate([Sample((np.tile(np.float32([1013.25, NAN]), (9, 1)),), (0,))], stage.spec))
    assert stage.std.tolist() == [1, 1] and stage.mean.tolist() == [1013.25, 0]


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, 200), max_size=6), seed=st.integers(0, 9))
def test_missing_values_are_the_same_whatever_the_chunks(cuts, seed):
    stage, x = Values(["x", "y"]), torch.from_numpy(rows(200, seed))[None]
    whole, last = stage(x, stage.initial(1))
    state, found = stage.initial(1), []
    for part in torch.tensor_split(x, sorted(cuts), 1):
        y, state = stage(part, state)
        found.append(y)
    assert torch.equal(torch.cat(found, 1), whole) and torch.equal(state, last)


@pytest.fixture(scope="module")
def model():
    made = lively_model(*SERIES, "encoder=conv_recurrent", "encoder.hidden=16", "head.window=2", "head.live=2",
                        "decoder.threshold=0.36", "decoder.minimum=0", labels="abc", seed=1)  # fmt: skip
    made.standardize.mean.fill_(0)
    made.standardize.std.fill_(1)
    made.extractor.mean.fill_(20)
    made.extractor.std.fill_(3)
    return made


@pytest.mark.parametrize("count", [25, pytest.param(1000, marks=pytest.mark.long)])
def test_random_cuts_with_restores_change_no_bit(model, count):
    found = [cut_and_restored(model, rows(100 + seed % 200, seed), 1 + seed % 7, seed) for seed in range(count)]
    assert sum(len(events) for _, events, _ in found) > 20


def test_an_exported_series_answers_the_same(model, tmp_path):
    export(model, tmp_path)
    graph, x = OnnxModel(tmp_path / "model.onnx"), rows(120)
    found, expected = (listen(Stream(one, 4), [x]) for one in (graph, model.for_streaming()))
    assert np.abs(found[0] - expected[0]).max() < 1e-5 and np.isfinite(found[0]).all()


def test_a_gap_and_rows_of_another_shape(model):
    stream = Stream(model, 3)
    stream.push(rows(30))
    stream.gap(20, "zeros")  # nothing comes, which is missing
    assert stream.ticks == 50 and np.isfinite(stream.posteriors).all()
    with pytest.raises(ValueError, match=r"got rows \(4, 3\); expected \(T, 2\): x, y"):
        stream.push(np.zeros((4, 3)))
    stream.push([[1, np.inf], [2, 3]])  # integers, and what no sensor means
    assert stream.ticks == 52


def drawn(seed, label, count=40):
    """Rows of a class: waves of its own speed and level, with holes."""
    rng = np.random.default_rng(seed)
    t = np.arange(count) / 10
    wave = np.sin(2 * np.pi * (0.4 if label == "slow" else 1.5) * t + rng.uniform(0, 6))
    x = 5 + 2 * (label == "fast") + np.stack([wave, -2 * wave], 1) + 0.1 * rng.standard_normal((count, 2))
    x[rng.random(x.shape) < 0.1] = NAN
    return x


def cells(x):
    return [{name: "" if np.isnan(v) else f"{v:.4f}" for name, v in zip("xy", row)} for row in x]


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    """The same series as files in folders, and as one table."""
    root, table = tmp_path_factory.mktemp("waves"), []
    for number in range(24):
        label = ("slow", "fast")[number % 2]
        found = cells(drawn(number, label))
        write_table(root / "files" / label / f"{number}.csv", found)
        table += [{"id": number, "label": label} | row for row in found]
    write_table(root / "all.csv", table)
    return root


@pytest.fixture(scope="module")
def trained(waves, learn):
    return learn("series", "dataset=series", f"dataset.root={waves / 'files'}", "dataset.cache=null", *SERIES,
                 "encoder=recurrent", "encoder.hidden=16", "trainer.epochs=12", "trainer.batch=4", "trainer.workers=0",
                 "trainer.threads=1", "hydra.run.dir=OUT")[0]  # fmt: skip


def test_a_table_with_ids_is_the_same_as_files(waves):
    files, table = SeriesFiles(str(waves / "files"), cache=None), SeriesFiles(str(waves), "all.csv", cache=None)
    assert files.labels == table.labels == ["fast", "slow"]
    found = []
    for data in (files, table):
        samples = [one for name in ("train", "val", "test") for one in map(data.split(name, SPEC).__getitem__, range(len(data.split(name, SPEC))))]  # fmt: skip
        found.append(sorted((sample.labels, sample.x[0].tobytes()) for sample in samples))
    assert found[0] == found[1] and len(found[0]) == 24


@pytest.mark.parametrize(("text", "message"), [
    ("id,label,x,y\n1,a,1,1\n1,b,1,1\n", "id '1' has the values 'a', 'b' of 'label'; expected one, the same in all"),
    ("id,x,y\n1,1,1\n", "id '1' has the values '' of 'label'"),
    ("id,label,x,y\n,a,1,1\n", "row 1: every row needs a 'id'"),
    ("number,label,x,y\n1,a,1,1\n", "has no column 'id'"),
    ("id,label,x,y\n", "has no rows"),
])  # fmt: skip
def test_tables_that_make_no_sense(tmp_path, text, message):
    written(tmp_path / "t.csv", text)
    with pytest.raises(ConfigError, match=f"dataset.file: .*{message}"):
        SeriesFiles(str(tmp_path), "t.csv")


def test_a_training_and_every_way_to_ask_it(trained, waves, tmp_path, monkeypatch):
    assert json.loads((trained / "metrics.json").read_text())["test"]["accuracy"] == 1
    assert "series of 2 columns" in (trained / "report.html").read_text()
    path = waves / "files" / "slow" / "2.csv"
    listed = written(tmp_path / "m.csv", f"path,label\n{path},slow\n")
    answers = {}
    for name, paths, *more in (
        ("folder", waves / "files" / "slow"), ("itself", path), ("glob", f"{path.parent}/2.*"),
        ("manifest", listed, "source.root=/"),
    ):  # fmt: skip
        out = tmp_path / f"{name}.csv"
        ran("infer.py", f"checkpoint={trained}", "source=files", f"source.paths={paths}", "source.workers=1", *more,
            "sink=csv", f"sink.csv.path={out}")  # fmt: skip
        answers[name] = {os.path.basename(row["path"]): (row["label"], row["p_fast"]) for row in read_csv(out)}
    assert len(answers["folder"]) == 12 and {label for label, _ in answers["folder"].values()} == {"slow"}
    assert {found["2.csv"] for found in answers.values()} == {answers["folder"]["2.csv"]}
    told = []
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(path.read_bytes()))))
    for source in f"source.path={path}", "source=stdin":
        plain = "sink=jsonl", "sink.jsonl.posteriors=true", "compute=torch"
        rows = ran("infer.py", f"checkpoint={trained}", source, *plain).stdout.splitlines()
        told.append([{key: value for key, value in json.loads(row).items() if key != "stream"} for row in rows])
    assert told[0] == told[1] and sum("posteriors" in row for row in told[0]) == 40


def test_rows_of_a_pipe_are_given_as_they_come(monkeypatch):
    def piped(text):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(text))))
        return [piece.x[0] for piece in Stdin().pieces(SPEC)]

    found = piped(b"time,x,y\n0,1,2\n0.3,3,\n")
    assert [len(part) for part in found] == [1, 3]
    np.testing.assert_array_equal(np.concatenate(found)[[0, 3]], np.array([[1, 2], [3, NAN]], np.float32))
    for text, message in ((b"", "no row came"), (b"x,y\n", "no row came"), (b"x\n1\n", "no column 'y'.*extractor.columns"), (b"x,y\n1,b\n", "got 'b'"), (b"PK\x03\x04\xff", r"stdin: it is an archive, such as \.xlsx; expected text: save it as csv$")):  # fmt: skip
        with pytest.raises(MediaError, match=message):
            piped(text)


def test_a_clock_that_is_set_back_does_not_make_a_stream_deaf(monkeypatch, capsys):
    times = [5000 + k / 10 for k in range(5)] + [100 + k / 10 for k in range(30)]
    text = "time,x,y\n" + "".join(f"{time},{k},0\n" for k, time in enumerate(times))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(text.encode()))))
    pieces = Stdin().pieces(SPEC)
    found = [next(pieces).x[0] for _ in range(6)]
    told = capsys.readouterr().err  # while the pipe is open
    assert told == "warning: source=stdin: time_stamps\nwarning: source=stdin: clock_back\n"
    found += [piece.x[0] for piece in pieces]
    assert np.concatenate(found)[:, 0].tolist() == [*range(5), *range(14, 35)] and capsys.readouterr().err == ""


def test_a_sensor_that_was_off_for_a_night_does_not_end_a_stream(monkeypatch, capsys):
    text = "time,x,y\n0,1,0\n0.1,2,0\n43200,3,0\n43200.1,4,0\n"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(text.encode()))))
    first, second, gap, *rest = Stdin().pieces(SPEC)
    assert (
        gap.ticks == 43200 * SPEC.series.rate - 2 and gap.how == "reset" and capsys.readouterr().err.endswith(": gap\n")
    )
    assert np.concatenate([piece.x[0] for piece in (first, second, *rest)])[:, 0].tolist() == [1, 2, 3, 4]
    monkeypatch.setattr(
        "sys.stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(b"time,x,y\n0,1,0\n1e9,2,0\n")))
    )
    with pytest.raises(MediaError, match="are the times milliseconds"):
        [*Stdin().pieces(SPEC)]


@pytest.mark.parametrize(("arguments", "message"), [
    (("source=microphone",), "source=microphone gives sound alone, but the model takes a series"),
    (("source=webcam",), "source=webcam gives pictures, but the model takes a series"),
    (("source=browser",), "source=browser gives sound and pictures, but the model takes a series; set source=stdin"),
    (("source=files", "source.paths=/nowhere"), "'/nowhere' does not exist"),
])  # fmt: skip
def test_sources_of_other_things_are_refused(trained, arguments, message):
    done = run("infer.py", f"checkpoint={trained}", *arguments, "selftest=false")
    assert done.returncode == 2 and message in done.stderr.decode(), done.stderr.decode()


@pytest.mark.parametrize(("arguments", "message"), [
    (("augment=light",), "augment: changes sound, but the model takes a series; choose augment=none"),
    (("extractor.columns=null",), "extractor.columns: got None; expected names of columns, each once, such as"),
    (("extractor.columns=[x,q]",), "has no column 'q'"),
    (("gate=voice",), "gate: hears voices, but this model takes a series alone; set gate=none"),
    (("extractor=logmel",), "dataset=series gives a series, but the model takes sound; take one of it (extractor=val"),
])  # fmt: skip
def test_trainings_that_do_not_suit_are_refused(waves, tmp_path, arguments, message):
    plain = [one for one in SERIES if not any(given.split("=")[0] == one.split("=")[0] for given in arguments)]
    plain = [one for one in plain if "logmel" not in str(arguments) or "extractor" not in one]
    done = run("train.py", "dataset=series", f"dataset.root={waves / 'files'}", "dataset.cache=null", *plain, *arguments,
               "trainer.workers=0", f"hydra.run.dir={tmp_path / 'run'}")  # fmt: skip
    assert done.returncode == 2 and message in done.stderr.decode(), done.stderr.decode()


@pytest.mark.long
def test_motions_of_the_archive_are_told(tmp_path, monkeypatch):
    """BasicMotions (UEA), if aeon's wheel is there."""
    if not os.environ.get("RIVULET_AEON"):
        pytest.skip("no sets of aeon: unpack its wheel, and set RIVULET_AEON to the folder")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    series = importlib.import_module("series")
    columns = series.write_files("BasicMotions", tmp_path / "data")
    rate, settings = series.SETS["BasicMotions"]
    ran("train.py", *series.ALL, f"dataset.root={tmp_path / 'data'}", f"extractor.columns=[{','.join(f'c{k}' for k in range(columns))}]",
        f"extractor.rate={rate}", *settings, f"hydra.run.dir={tmp_path / 'run'}")  # fmt: skip
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["accuracy"] >= 0.95
