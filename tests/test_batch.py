"""Many files: the same answers in any company, in any process, on any machine; and none lost, doubled or torn, ever."""

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rogue
import soundfile
import torch
from conftest import ROOT, no_file_above, read_csv, run, small_model
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batch import decoders as decoders_module
from pipeline.batch.batch import Batch, Work, classify
from pipeline.batch.decoders import Again, Decoders, Ended, parse_message
from pipeline.batch.files import Limits
from pipeline.batch.ledger import Ledger, formatted, key_of, parsed
from pipeline.batch.listing import Entry
from pipeline.core.errors import ConfigError, MediaError, UserError
from pipeline.media.chunks import read_chunk
from pipeline.media.input_spec import InputSpec
from pipeline.model.classifier import load
from pipeline.sinks.items import FileResult
from pipeline.streaming.stream import Stream

RATE = 16000


@pytest.fixture(scope="module")
def noises(tmp_path_factory):
    """Forty recordings of 0.03 to 2 s, of other rates, too, and one that is longer."""
    folder, rng = tmp_path_factory.mktemp("noises"), np.random.default_rng(0)
    lengths = [*rng.uniform(0.03, 2, 36), 0.5, 1.0, 0.01, 15.0]
    for number, seconds in enumerate(lengths):
        rate = [RATE, 8000, 44100][number % 3]
        swell = 0.1 * (1 + np.sin(np.arange(round(seconds * rate)) / rate * 9))
        soundfile.write(folder / f"{number:02}.wav", swell * rng.standard_normal(len(swell)), rate)
    (folder / "40.wav").write_text("no sound")
    return sorted(folder.iterdir())


def entries(paths):
    return [Entry(str(path)) for path in paths]


def answers(model, paths, **settings):
    """The rows by path."""
    found = list(classify(Work(model, **settings), enumerate(entries(paths))))
    assert sorted(number for number, _ in found) == list(range(len(paths)))
    assert all(result.path == str(paths[number]) for number, result in found)
    return {result.path: result for _, result in found}


# ---------------------------------------------------------------- answers
def test_the_answer_is_the_offline_answer(noises):
    model = small_model()
    rows = answers(model, noises)
    for path in noises[:-1]:
        parts, known = read_chunk(path, model.spec)
        whole = model.clip_posteriors(model.spec.stack([parts])[0], torch.tensor([len(parts[0])]))[0]
        row = rows[str(path)]
        assert list(row.posteriors.values()) == pytest.approx(whole.tolist(), abs=2e-6)
        assert row.label == model.labels[int(whole.argmax())] and row.seconds == round(known.seconds, 3)
    error = rows[str(noises[-1])]
    assert (error.status, error.code, error.label) == ("error", "unreadable", "") and error.reason


@pytest.mark.parametrize("settings", [
    ("encoder=conv_recurrent", "head.delay=0.2"), pytest.param(("cell=lstm", "encoder.layers=2"), marks=pytest.mark.long),
])  # fmt: skip
def test_company_and_processes_change_no_bit(noises, settings):
    model = small_model(*settings)
    alone = answers(model, noises, batch=1, workers=1)
    assert answers(model, noises, batch=32, workers=3) == alone
    assert answers(model, noises[::-1], batch=7, workers=2) == alone
    some = noises[3:17:2]
    assert answers(model, some, batch=5) == {str(path): alone[str(path)] for path in some}


def test_events_are_those_of_a_stream(noises):
    model = small_model("head.live=0.2", "head.delay=0.1").for_streaming()
    settings = {"threshold": 0.36, "release": 0.3, "minimum": 0.02}
    rows = answers(model, noises[:-1], decoder=settings)
    found = 0
    for path in noises[:-1]:
        parts, _ = read_chunk(path, model.spec)
        stream = Stream(model, 10, model.decoder(**settings))
        events = stream.push(parts[0]) + stream.close()
        told = [(row.label, row.start, row.end) for row in rows[str(path)].events]
        assert told == [(e.label, round(e.start / RATE, 3), round(e.end / RATE, 3)) for e in events]
        found += len(told)
    assert found > 50


def test_a_part_of_a_file_is_answered_as_if_it_were_one(noises, tmp_path):
    model, path = small_model(), str(noises[39])
    wave, rate = soundfile.read(path, dtype="float32")
    soundfile.write(tmp_path / "part.wav", wave[round(10 * rate) : round(12.5 * rate)], rate, subtype="FLOAT")
    part, whole = Entry(path, 10.0, 12.5), Entry(str(tmp_path / "part.wav"))
    rows = dict(classify(Work(model, decoder={"threshold": 0.34}), [(0, part), (1, whole)]))
    assert (rows[0].start, rows[0].end, rows[0].seconds) == (10.0, 12.5, rows[1].seconds)
    assert rows[0].posteriors == pytest.approx(rows[1].posteriors, abs=1e-4)
    assert all(10 <= event.start < event.end <= 12.6 for event in rows[0].events)


def test_what_is_held_has_an_end(noises):
    """A minute in small pieces, of which only so much waits."""
    batch = Batch(Work(small_model(), batch=4))
    batch.max_waiting = batch.block_ticks * 8
    wave = np.zeros(RATE * 60, np.float32)
    held = 0
    for number in range(0, len(wave), 4000):
        batch.take(0, Entry("x"), (wave[number : number + 4000],))
        held = max(held, batch.waiting)
        if batch.full:
            assert not list(batch.compute())
    batch.take(0, Entry("x"), Ended(60.0, []))
    rows = []
    while batch.open:
        rows += batch.compute()
    assert held <= batch.block_ticks * 9 and len(rows) == 1 and not batch.waiting


def decoders_of(paths, workers):
    return Decoders(enumerate(entries(paths)), InputSpec(RATE), workers, Limits())


def test_a_process_that_dies_before_it_begins_has_a_successor_and_three_are_enough(noises, monkeypatch):
    """As where a machine is short of memory for a moment, or always."""
    found, started = noises[:3], []
    start, serve = Decoders.start, decoders_module.serve

    def dying(self):
        monkeypatch.setattr(decoders_module, "serve", serve if len(started) >= most else logging.debug)  # which returns
        started.append(start(self))
        return started[-1]

    monkeypatch.setattr(Decoders, "start", dying)
    most = 2
    with closing(decoders_of(found, 1)) as decoders:
        ended = [said[0][0] for said in iter(decoders.next, None) if isinstance(said[1], Ended)]
    assert sorted(ended) == [0, 1, 2] and len(started) == 3
    started.clear()
    most = 100
    with closing(decoders_of(found, 1)) as decoders, pytest.raises(UserError, match="cannot start"):
        decoders.next()


def test_a_model_that_is_not_causal_is_refused():
    model = small_model()
    model.causal = False
    with pytest.raises(ConfigError, match="looks into the future"):
        Batch(Work(model))


# ---------------------------------------------------------------- processes
@pytest.fixture
def rogue_decoders(monkeypatch):
    monkeypatch.setattr("pipeline.batch.decoders.serve", rogue.serve)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")


def test_whatever_a_decoder_does_is_one_row(noises, tmp_path, rogue_decoders):
    names = ["segfault", "hang", "spin", "hog", "write", "raise", "once"]
    good, model = noises[: len(names)], small_model()
    paths = [path for name, one in zip(names, good) for path in (one, shutil.copy(one, tmp_path / f"{name}.wav"))]
    expected = answers(model, good)
    rows = answers(model, paths, workers=2, limits=Limits(patience=1.0, memory=1 << 29))
    codes = {Path(path).stem: row.code for path, row in rows.items() if row.status == "error"}
    expected_codes = ["crashed", "timeout", "timeout", "limit_memory", "unreadable", "unreadable"]
    assert codes == dict(zip(names, expected_codes))
    assert "SIGSEGV" in rows[str(tmp_path / "segfault.wav")].reason
    assert not (tmp_path / "write.written").exists() or not (tmp_path / "write.written").stat().st_size
    for path in paths[::2]:
        assert rows[str(path)] == expected[str(path)], "neighbours are not harmed"
    assert rows[str(tmp_path / "once.wav")].posteriors == expected[str(noises[6])].posteriors, "tried once more"


def test_no_process_is_left_behind(noises):
    with closing(decoders_of(noises, 3)) as decoders:
        pids = [worker.process.pid for worker in decoders.workers]
        assert decoders.next() is not None and all(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_long_names_do_not_block_the_pipes(noises, tmp_path):
    """Neither side waits for the other to read, however much both have to say."""
    deep = tmp_path
    for _ in range(14):
        deep /= "\udcff" * 250
        deep.mkdir()
    paths = [shutil.copy(noises[37], deep / f"{number}.wav") for number in range(24)]
    rows = answers(small_model(), [*paths, Path("x" * 100_000)], batch=1)
    assert rows.pop("x" * 100_000).code == "not_found"
    assert {row.status for row in rows.values()} == {"ok"} and len(rows) == 24


@given(st.binary(max_size=60))
def test_what_a_process_says_is_never_believed(data):
    for letter in (b"", b"x", b"f", b"e"):
        try:
            found = parse_message(letter + data, InputSpec(RATE))
        except (ValueError, KeyError, TypeError):
            continue
        assert isinstance(found, (Ended, MediaError, tuple)) and not isinstance(found, Again)
        if isinstance(found, tuple):
            assert found[0].dtype == np.float32 and found[0].ndim == 1


def test_limits_of_one_file(noises, tmp_path):
    soundfile.write(tmp_path / "wide.flac", np.zeros((8 * RATE, 8), np.int16), RATE)
    model = small_model()
    for limits in (Limits(longest=7.0), Limits(largest=8 * RATE * 8 * 4 - 1)):
        (row,) = answers(model, [tmp_path / "wide.flac"], limits=limits).values()
        assert (row.status, row.code) == ("error", "limit_duration") and "8 channels" in row.reason
    (row,) = answers(model, [tmp_path / "wide.flac"], limits=Limits(largest=8 * RATE * 8 * 4, longest=8.0)).values()
    assert row.status != "error"


# ---------------------------------------------------------------- the ledger
HEAD = {"model": "m", "settings": {}, "decoder": None, "shard": "1/1"}


def filled(path, count):
    with Ledger(path) as ledger:
        ledger.begin(HEAD, anew=True)
        for number in range(count):
            ledger.add(number, FileResult(f"{number}\udcff\n", status="ok"))
    return path.read_bytes()


def test_a_ledger_keeps_what_it_was_told(tmp_path):
    filled(tmp_path / "l", 20)
    with Ledger(tmp_path / "l") as ledger:
        ledger.begin(HEAD, anew=False)
        assert ledger.head["model"] == "m" and ledger.complete is None
        assert [ledger.result(place).path for place in ledger.known.values()] == [f"{n}\udcff\n" for n in range(20)]
        ledger.add(3, FileResult("again"))
        assert ledger.result(ledger.add(20, FileResult("new"))) == FileResult("new")
        ledger.finish({"rows": 21}, range(22))
    with Ledger(tmp_path / "l", reading=True) as ledger:
        assert ledger.complete == {"rows": 21} and ledger.result(ledger.known[3]) == FileResult("again")


@given(st.data())
def test_no_damage_to_a_ledger_is_believed(tmp_path_factory, data):
    """A cut anywhere, or any byte changed: the other rows are there, and none is another."""
    path = tmp_path_factory.mktemp("ledger") / "l"
    whole = filled(path, 6)
    place, cut = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.booleans())
    damaged = bytearray(whole[:place] if cut else whole)
    if not cut:
        damaged[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    ends = [at for at, byte in enumerate(whole, 1) if byte == 10]  # of the head, and of six rows
    harmed = {number for number, end in enumerate(ends) if place < end and (cut or place >= [0, *ends][number])}
    harmed |= {number + 1 for number in harmed if whole[place : place + 1] == b"\n"}  # which runs into this line
    try:
        with Ledger(path) as ledger:
            known = {key: ledger.result(place) for key, place in ledger.known.items()}
            ledger.begin(HEAD, anew=ledger.head is None)
            ledger.add(99, FileResult("more"))
    except ConfigError:
        assert 0 in harmed
        return
    assert known == {n: FileResult(f"{n}\udcff\n", status="ok") for n in range(6) if n + 1 not in harmed}
    with Ledger(path, reading=True) as ledger:
        again = {key: ledger.result(place) for key, place in ledger.known.items()}
    assert again[99] == FileResult("more") and {key: again[key] for key in known} == known


def test_another_s_ledger_and_no_ledger_are_left_alone(tmp_path):
    (tmp_path / "notes").write_text("dear diary\n")
    with pytest.raises(ConfigError, match="is no ledger"):
        Ledger(tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "dear diary\n"
    (tmp_path / "new").write_text(formatted(HEAD | {"rivulet": "ledger", "format": 2}))
    with pytest.raises(ConfigError, match=r"is a ledger of another version \(format 2; this one writes 1\)"):
        Ledger(tmp_path / "new")
    filled(tmp_path / "l", 1)
    with Ledger(tmp_path / "l"), pytest.raises(ConfigError, match="another run"):
        Ledger(tmp_path / "l")


def test_a_file_that_has_changed_has_another_key(tmp_path):
    path = tmp_path / "a.wav"
    missing = key_of(Entry(str(path)))
    path.write_bytes(b"1")
    first = key_of(Entry(str(path)))
    assert len({missing, first, key_of(Entry(str(path), 1.0)), key_of(Entry(str(path), 0.0, 2.0))}) == 4
    assert first == key_of(Entry(str(path), truth="x")), "what a manifest says is not what the file is"
    os.utime(path, ns=(0, 5))
    assert key_of(Entry(str(path))) != first


# ---------------------------------------------------------------- whole runs
MANY = 200


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Many files of 60 ms, some of them broken, and a model."""
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(1)
    (folder / "in").mkdir()
    for number in range(MANY):
        path = folder / "in" / f"{number:04} =\u00e9\n,.wav"
        if number % 97 == 5:
            path.write_bytes(b"RIFF")
        else:
            soundfile.write(path, rng.standard_normal(960) * 0.1, RATE)
    small_model().save(folder / "model.safetensors")
    return folder


def command(folder, out, *more):
    return [f"checkpoint={folder / 'model.safetensors'}", "source=files", f"source.paths={folder / 'in'}",
            "sink=[csv,jsonl]", f"sink.csv.path={out}.csv", f"sink.jsonl.path={out}.jsonl", *more]  # fmt: skip


def classified(folder, out, *more, code=3):
    """Such a run: what it says on standard error."""
    return told("infer.py", *command(folder, out, *more), code=code)


def told(*arguments, code):
    done = run(*arguments)
    text = done.stderr.decode()
    assert done.returncode == code and "Traceback" not in text, text
    return text


def merged(folder, pattern, *more, code):
    """The same of ledgers that are put together in ``all.csv`` and ``all.jsonl``."""
    sinks = ["sink=[csv,jsonl]", f"sink.csv.path={folder}/all.csv", f"sink.jsonl.path={folder}/all.jsonl"]
    return told("infer.py", "source=ledgers", f"source.paths='{folder}/{pattern}'", *sinks, *more, code=code)


def tables(out):
    return Path(f"{out}.csv").read_bytes(), Path(f"{out}.jsonl").read_bytes()


def names(path):
    return [Path(row["path"]).name for row in read_csv(path)]


@pytest.fixture(scope="module")
def undisturbed(many):
    classified(many, many / "whole")
    assert not list(many.glob("*.part"))
    return tables(many / "whole")


def unfinished(many, out):
    """The ledger of a run that was killed in the middle: its path."""
    lines = Path(f"{many}/whole.csv.ledger").read_bytes().splitlines(True)
    ledger = Path(f"{out}.csv.ledger")
    ledger.write_bytes(b"".join(lines[: MANY // 2]))
    return ledger


def size(path):
    return path.stat().st_size if path.exists() else 0


def started(folder, out, wait):
    """A run that has written some rows, so many seconds later."""
    ledger = Path(f"{out}.csv.ledger")
    there = size(ledger)
    process = subprocess.Popen([sys.executable, ROOT / "infer.py", *command(folder, out)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, cwd=ROOT)  # fmt: skip
    while process.poll() is None and size(ledger) <= there + 300:
        time.sleep(0.002)
    time.sleep(wait)
    return process


ENDS = [(signal.SIGKILL, -9, 1)]
LONG = [(signal.SIGKILL, -9, 100), (signal.SIGTERM, 143, 50), (signal.SIGINT, 130, 50)]
ENDS += [pytest.param(*end, marks=pytest.mark.long) for end in LONG]


@pytest.mark.parametrize(("number", "code", "trials"), ENDS)
def test_ended_at_any_moment(many, undisturbed, tmp_path, number, code, trials):
    """None lost, none doubled, none torn: what is there in the end is what an undisturbed run writes."""
    rng, out, ended = random.Random(trials), tmp_path / "out", 0
    ledger = Path(f"{out}.csv.ledger")
    while ended < trials:
        process = started(many, out, rng.uniform(0, 0.2))
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode in (code, 3) and b"Traceback" not in err, err.decode()
        ended += process.returncode == code
        if code > 0:  # files get what is known by then
            partial = read_csv(f"{out}.csv")
            assert 0 < len(partial) <= MANY and None not in {key for row in partial for key in [*row, *row.values()]}
        if process.returncode == 3 or ended == trials:
            classified(many, out)
            assert tables(out) == undisturbed
            rows = [parsed(line)["row"]["path"] for line in ledger.read_bytes().splitlines(True) if b'"row"' in line]
            assert len(rows) == len(set(rows)) == MANY, "each once"
            ledger.unlink()


def test_a_full_disk_loses_no_row(many, undisturbed, tmp_path):
    out = tmp_path / "out"
    with no_file_above(30_000):
        assert "cannot write" in classified(many, out, code=74)
    with Ledger(f"{out}.csv.ledger", reading=True) as ledger:
        assert len(ledger.known) > 50 and not ledger.damaged
    assert not list(tmp_path.glob("*.part"))
    classified(many, out)
    assert tables(out) == undisturbed


def test_rows_of_another_model_are_never_mixed(many, undisturbed, tmp_path):
    out = tmp_path / "out"
    ledger = unfinished(many, out)
    rows = ledger.read_bytes()
    small_model(seed=1).save(tmp_path / "model.safetensors")
    (tmp_path / "in").symlink_to(many / "in")
    for folder, more, word in ((tmp_path, [], "other settings: model was '"), (many, ["output=events"], "decoder was None, is"),
                               (many, ["source.shard=1/2"], "shard was '1/1', is '1/2'"),
                               (many, ["window=2"], "window was None, is 2.0")):  # fmt: skip
        refused = classified(folder, out, *more, code=2)
        assert word in refused and "source.resume=never" in refused and ledger.read_bytes() == rows
    assert "known before" not in classified(tmp_path, out, "source.resume=never")
    assert "known before" not in classified(many, out), "a complete one is another job's past"
    ledger.write_bytes(rows)
    assert f"{MANY // 2 - 1} of them were known before" in classified(many, out) and tables(out) == undisturbed


def few(many, tmp_path, count):
    """A folder with that many of the files, and the model."""
    (tmp_path / "in").mkdir()
    shutil.copy(many / "model.safetensors", tmp_path)
    for number, path in enumerate(sorted((many / "in").iterdir())[:count]):
        shutil.copy(path, tmp_path / "in" / f"{number}\r.wav")
    return tmp_path / "in"


def test_errors_can_be_tried_again_and_new_files_are_added(many, tmp_path):
    folder, out = few(many, tmp_path, 2), tmp_path / "out"
    (folder / "c.wav").symlink_to(tmp_path / "nowhere.wav")
    classified(tmp_path, out)
    shutil.copy(folder / "0\r.wav", folder / "d.wav")
    assert "3 of them were known before" in classified(tmp_path, out, "source.fail_on=never", code=0)
    assert "3 of them were known before" in classified(tmp_path, out, "source.resume=errors")
    assert names(f"{out}.csv") == ["0\r.wav", "1\r.wav", "c.wav", "d.wav"]
    assert [row["code"] for row in read_csv(f"{out}.csv")] == ["", "", "not_found", ""]


def test_rows_of_files_without_events_have_the_columns_of_the_others(many, tmp_path):
    """Also from a ledger of a version that kept no events of errors."""
    folder, out = few(many, tmp_path, 1), tmp_path / "out"
    (folder / "!.wav").symlink_to(tmp_path / "nowhere.wav")
    settings = ["output=events", "decoder.threshold=0.3"]
    classified(tmp_path, out, *settings)
    before, ledger = tables(out), Path(f"{out}.csv.ledger")
    first, *others = read_csv(f"{out}.csv")
    assert (first["code"], first["start"], first["label"], first["reason"]) == ("not_found", "", "", "no such file")
    assert others and all(float(row["start"]) < float(row["end"]) and row["label"] for row in others)
    lines = [parsed(line) for line in ledger.read_bytes().splitlines(True)]
    for line in lines[1:-1]:
        if not line["row"]["events"]:
            del line["row"]["events"]
    ledger.write_text("".join(map(formatted, lines)))
    assert "2 of them were known before" in classified(tmp_path, out, *settings) and tables(out) == before


def test_what_is_gone_leaves_the_ledger_and_what_is_lost_is_missed(many, tmp_path):
    folder = few(many, tmp_path, 4)
    out, ledger = tmp_path / "out", tmp_path / "out.csv.ledger"
    classified(tmp_path, out, code=0)
    os.utime(folder / "0\r.wav", ns=(0, 5))
    (folder / "3\r.wav").unlink()
    assert "2 of them were known before" in classified(tmp_path, out, code=0)
    merged(tmp_path, ledger.name, code=0)
    assert names(tmp_path / "all.csv") == [f"{n}\r.wav" for n in range(3)]
    ledger.write_bytes(ledger.read_bytes().replace(b'"ok"', b'"OK"', 1))
    assert "is damaged" in merged(tmp_path, ledger.name, code=1)
    assert "2 of them were known before" in classified(tmp_path, out, code=0)
    merged(tmp_path, ledger.name, code=0)


def test_shards_are_the_whole(many, undisturbed, tmp_path):
    for number in (1, 2, 3):
        shard = [f"source.shard={number}/3", f"source.batch={number}", "source.fail_on=never"]
        classified(many, tmp_path / f"s{number}", *shard, code=0)
    merged(tmp_path, "s*.ledger", code=3)
    assert tables(tmp_path / "all") == undisturbed
    second = tmp_path / "s2.csv.ledger"
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2])
    assert "s2.csv.ledger is of a run that has not ended" in merged(tmp_path, "s*.ledger", code=1)
    second.unlink()
    assert "no ledger of shard 2/3" in merged(tmp_path, "s*.ledger", code=1)
    merged(tmp_path, "s*.ledger", "source.partial=true", "source.fail_on=never", code=0)
    assert 0 < len(names(tmp_path / "all.csv")) < MANY


def test_answers_of_files_equal_the_test_figure(tones, tmp_path):
    """The accuracy of a manifest's rows is what train.py says of them."""
    splits = ["train", "train", "val", "test"]
    rows = [f"{label}/{n}.wav,{label},{splits[n % 4]}" for label in ("high", "low") for n in range(12)]
    shutil.copytree(tones, tmp_path / "data")
    (tmp_path / "data" / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    out, table = tmp_path / "run", tmp_path / "answers.csv"
    told("train.py", "dataset=manifest", f"dataset.root={tmp_path / 'data'}", "dataset.file=list.csv", "dataset.cache=null",
               "encoder.hidden=8", "extractor.mels=20", "trainer.epochs=1", "trainer.workers=0", f"hydra.run.dir={out}", code=0)  # fmt: skip
    told("infer.py", f"checkpoint={out}", "source=files", f"source.paths={tmp_path / 'data' / 'list.csv'}",
               "source.only={split: test}", "sink=csv", f"sink.csv.path={table}", code=0)  # fmt: skip
    answers = read_csv(table)
    right = sum(row["truth"] == row["label"] for row in answers)
    figures = json.loads((out / "metrics.json").read_text())["test"]
    assert len(answers) == figures["count"] == 6 and right / len(answers) == figures["accuracy"]
    assert load(out).labels == [name.removeprefix("p_") for name in answers[0] if name.startswith("p_")]
