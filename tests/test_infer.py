"""infer.py, as a user calls it."""

import csv
import io
import json
import os
import pickle
import shutil
import sys

import numpy as np
import pytest
import soundfile
from conftest import read_csv, read_jsonl, refused, run, tone_clip

from pipeline.media.audio import read
from pipeline.model.classifier import load
from pipeline.streaming.stream import Stream


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Silence, a high tone, silence, a low tone."""
    rng = np.random.default_rng(0)
    wave = 0.003 * rng.standard_normal(16000 * 5)
    t = np.arange(16000) / 16000
    wave[16000:32000] += 0.3 * np.sin(2 * np.pi * 2400 * t)
    wave[48000:64000] += 0.3 * np.sin(2 * np.pi * 240 * t)
    path = tmp_path_factory.mktemp("scene") / "a scene.wav"
    soundfile.write(path, wave.astype(np.float32), 16000)
    return path


def infer(trained, *arguments, **options):
    return run("infer.py", f"checkpoint={trained / 'model.safetensors'}", *arguments, **options)


def rows(text):
    return list(csv.DictReader(io.StringIO(text.decode())))


def test_events_of_a_file_in_every_sink(trained, scene, tmp_path):
    shown = infer(trained, f"source.path={scene}")
    assert shown.returncode == 0 and b"high" in shown.stdout and b"events" in shown.stdout, shown.stderr.decode()
    lines = infer(trained, f"source.path={scene}", "sink=jsonl").stdout.decode().splitlines()
    events = [json.loads(line) for line in lines]
    assert {"type", "start", "end", "label", "score"} <= events[0].keys()
    for label, moment in (("high", 1.7), ("low", 3.7)):
        assert any(event["label"] == label and event["start"] < moment < event["end"] for event in events)
    done = infer(trained, f"source.path={scene}", "sink=csv", f"sink.csv.path={tmp_path / 'out' / 'e.csv'}")
    assert done.returncode == 0, done.stderr.decode()
    table = read_csv(tmp_path / "out" / "e.csv")
    assert [row["label"] for row in table] == [event["label"] for event in events]


def test_posteriors_do_not_depend_on_the_chunks(trained, scene):
    model = load(trained / "model.safetensors").for_streaming()
    found = []
    for chunk in (0.013, 0.5, 60):
        done = infer(trained, f"source.path={scene}", f"source.chunk={chunk}", "sink=csv", "sink.csv.posteriors=true")
        found.append(done.stdout)
    assert found[0] == found[1] == found[2]
    wave, _ = read(scene, model.rate)
    table = rows(found[0])
    assert len(table) == -(-len(wave) // model.hop) and float(table[0]["time"]) == pytest.approx(model.hop / model.rate)
    stream = Stream(model, round(0.1 * model.rate / model.hop))
    stream.push(wave)
    told = np.array([[float(row[f"p_{label}"]) for label in model.labels] for row in table[: len(stream.posteriors)]])
    assert np.abs(told - stream.posteriors).max() < 1e-6


@pytest.fixture
def piped(trained, monkeypatch):
    """infer.py with samples on standard input."""

    def call(data, *arguments):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))
        return infer(trained, "source=stdin", *arguments)

    return call


def test_standard_input(piped, scene):
    wave, _ = read(scene, 16000)
    pcm = (wave * 32767).astype("<i2")
    done = piped(pcm.tobytes() + b"\x01", "sink=jsonl")
    assert done.returncode == 0 and any(json.loads(line)["label"] == "high" for line in done.stdout.splitlines())
    stereo = np.repeat(wave, 2).astype("<f4")
    other = piped(stereo.tobytes(), "source.channels=2", "source.dtype=float32", "sink=jsonl")
    heard = [map(json.loads, out.stdout.splitlines()) for out in (done, other)]
    times = [[(row["label"], row["start"]) for row in rows] for rows in heard]
    assert times[0] == times[1]


@pytest.fixture(scope="module")
def mixed(tones, tmp_path_factory):
    """Good, doubtful and broken files."""
    folder = tmp_path_factory.mktemp("mixed")
    shutil.copy(tones / "low" / "0.wav", folder / "good low.wav")
    shutil.copy(tones / "high" / "0.wav", folder / "=good high.wav")
    tone_clip(folder / "other rate.flac", 2300, rate=44100)
    tone_clip(folder / "short.wav", 300, 0.003)
    (folder / "text.wav").write_text("no sound at all")
    (folder / "empty.wav").write_bytes(b"")
    soundfile.write(folder / "no samples.wav", np.zeros(0, np.float32), 16000)
    soundfile.write(folder / "nan.wav", np.array([0.1, np.nan] * 8000, np.float32), 16000, subtype="FLOAT")
    soundfile.write(folder / "wide.wav", np.random.default_rng(0).standard_normal((96000, 8)) * 0.1, 192000)
    return folder


EXPECTED = {
    "good low.wav": ("ok", ""), "=good high.wav": ("ok", ""), "other rate.flac": ("ok", ""), "wide.wav": ("ok", ""),
    "short.wav": ("warning", "too_short"), "nan.wav": ("warning", "nonfinite"),
    "text.wav": ("error", "unreadable"), "empty.wav": ("error", "empty_file"), "no samples.wav": ("error", "no_samples"),
}  # fmt: skip


def test_many_files(trained, mixed, tmp_path):
    done = infer(trained, "source=files", f"source.paths={mixed}", "sink=csv", f"sink.csv.path={tmp_path / 'out.csv'}")
    assert done.returncode == 3, done.stderr.decode()
    table = read_csv(tmp_path / "out.csv")
    assert list(table[0]) == ["path", "status", "code", "label", "score", "seconds", "reason", "p_high", "p_low"]
    found = {os.path.basename(row["path"]): row for row in table}
    for name, (status, code) in EXPECTED.items():
        row = found[name]
        assert (row["status"], row["code"].split(" ")[0]) == (status, code), row
        assert (row["label"] != "") == (status != "error")
    assert found["good low.wav"]["label"] == "low" and found["=good high.wav"]["label"] == "high"
    assert float(found["other rate.flac"]["seconds"]) == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["source.path=nowhere.wav"], 1, "not_found"),
    (["source.pth=x"], 2, "source.pth: no such key; did you mean 'source.path'"), ([], 2, "source.path: is not set"),
    (["source.path=x", "decoder.threshold=2"], 2, "decoder.threshold: got 2"),
    (["source.path=x", "sink=csv", "sink.csv.path=/proc/no/out.csv"], 74, "cannot write"),
    (["source.path=x", "sink=csv", "sink.csv.path=/proc/out.csv"], 74, "cannot write /proc/out.csv: "),
    (["source.path=x", "block=soon"], 2, "block: got 'soon'"),
    (["source=files", "source.paths=/nowhere/*.wav", "sink=csv"], 2, "holds no audio"),
    (["source=webcm"], 2, "error: source: there is no 'webcm'; did you mean 'webcam'?"),
    (["sink=csv", "sink.path=x"], 2, "sink.path: no such key; did you mean 'sink.csv.path'?"),
    (["sink=[console,jsonl]", "sink.path=x"], 2, "sink.path: no such key; did you mean 'sink.jsonl.path'?"),
    (["sink=jsonl", "sink.jsonl.pth=x"], 2, "sink.jsonl.pth: no such key; did you mean 'sink.jsonl.path'?"),
    (["sink.truth=x"], 2, "sink.truth: no such key; did you mean 'sink.console.truth'?"),
    (["sink=[console,jsnl]"], 2, "sink: there is no 'jsnl'; did you mean 'jsonl'?"),
    (["sink.mine._target_=mine.Sink"], 2, "sink.mine._target_: is not in the yaml of sink.mine; to add a key of a"),
    (["source.path=x", "+sink.mine=mine.Sink"], 2, "sink.mine: got 'mine.Sink'; input should be a valid dictionary"),
    (["source.path=x", "window=wide"], 2, "window: got 'wide'; input should be 'auto', or a valid number"),
    (["sorce=file"], 2, "sorce: no such key; did you mean 'source'?"),
])  # fmt: skip
def test_wrong_use(trained, arguments, code, message, tmp_path):
    done = infer(trained, *arguments, cwd=tmp_path)
    text = done.stderr.decode()
    assert done.returncode == code and message in text and "Traceback" not in text, text
    assert len(text.splitlines()) == 1 and not done.stdout and not list(tmp_path.iterdir())


def test_a_run_s_folder_is_a_model_and_several_sinks_get_the_same(trained, scene, tmp_path):
    names = {"jsonl": "rows.jsonl", "csv": "rows.csv", "labels": "labels.txt", "vtt": "rows.vtt"}
    settings = [f"sink.{name}.path={tmp_path / file}" for name, file in names.items()]
    settings += [f"checkpoint={trained}", f"source.path={scene}", f"sink=[console,{','.join(names)}]"]
    done = run("infer.py", *settings)
    assert done.returncode == 0 and not done.stderr, done.stderr.decode()
    table, events = read_csv(tmp_path / "rows.csv"), read_jsonl(tmp_path / "rows.jsonl")
    assert [float(row["start"]) for row in table] == [row["start"] for row in events] and len(table) >= 2
    assert all(row["start"] <= row["peak"] <= row["end"] for row in events)
    said = done.stdout.decode().splitlines()
    assert said[0] == f"listening to {scene}" and said[-1] == f"{len(table)} events" and len(said) == len(table) + 2
    assert len((tmp_path / "labels.txt").read_text().splitlines()) == len(table)
    assert (tmp_path / "rows.vtt").read_text().count("-->") == len(table)


def test_broken_and_hostile_checkpoints(trained, scene, tmp_path):
    whole = (trained / "model.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    name = b"pipeline.cells.gru.GRU"
    hostile = whole.replace(name, b"os.system".ljust(len(name)))
    (tmp_path / "hostile.safetensors").write_bytes(hostile)
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps({"a": 1}))
    for file, message in (("half", "not a whole model"), ("hostile", "is not allowed"), ("absent", "no such file"),
                          ("pickle", "not a whole model")):  # fmt: skip
        refused(message, "infer.py", f"checkpoint={tmp_path / file}.safetensors", f"source.path={scene}")


def test_microphones_can_be_listed(trained):
    done = run("infer.py", "source=microphone", "source.list=true")
    assert done.returncode in (0, 2)
    if done.returncode:  # no PortAudio on this machine: the message says what to install
        assert b"PortAudio" in done.stderr and b"Traceback" not in done.stderr


def test_help_teaches(tmp_path):
    text = run("infer.py", "--help", cwd=tmp_path).stdout.decode()
    for word in ("source: both, browser, file, files, ledgers", "sink: clips, command", "Exit codes", "checkpoint=M"):
        assert word in text


def test_files_and_nothing_through_a_pipe_are_told(piped, tones):
    done = piped((tones / "low" / "0.wav").read_bytes())
    assert done.returncode == 2 and b"got a file with a header; expected raw samples" in done.stderr
    done = piped(b"")
    assert done.returncode == 1 and b"no_samples: source=stdin" in done.stderr


def test_a_recording_and_a_model_are_never_written_over(trained, tones, tmp_path):
    shutil.copy(tones / "low" / "0.wav", tmp_path / "a.wav")
    before = (tmp_path / "a.wav").read_bytes(), (trained / "model.safetensors").read_bytes()
    for how in (
        [f"source.path={tmp_path / 'a.wav'}", "sink=jsonl", f"sink.jsonl.path={tmp_path / 'a.wav'}"],
        ["source=files", f"source.paths={tmp_path}", "sink=csv", f"sink.csv.path={tmp_path / 'a.wav'}"],
        [f"source.path={tmp_path / 'a.wav'}", "sink=labels", f"sink.labels.path={trained / 'model.safetensors'}"],
    ):
        refused("is a file that is read", "infer.py", f"checkpoint={trained}", *how)
    assert before == ((tmp_path / "a.wav").read_bytes(), (trained / "model.safetensors").read_bytes())


def test_a_folder_without_a_model_and_no_sink_are_told(tmp_path, trained):
    refused("a folder without model.safetensors", "infer.py", f"checkpoint={tmp_path}", "source.path=x.wav")
    given = f"checkpoint={trained}", "source.path=x.wav", "sink=[]"
    refused("sink: is not set; choose at least one: clips, command, console", "infer.py", *given)
