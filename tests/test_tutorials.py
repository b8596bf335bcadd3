"""The tutorials of docs/: their commands run in the order of the page, on sounds and videos that are made here.

Microphones are recordings, and trainings are short. docs/own_parts.md has tests of its own (test_own_parts.py), as the
notebook has (test_notebook.py).
"""

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
import soundfile
from conftest import QUICK, ROOT, noise, ran, read_csv, tone_clip
from serving import Served

SHORT = [*QUICK, "trainer.epochs=1", "trainer.mine=0", "encoder=recurrent", "trainer.patience=1"]
HERE = os.environ | {"PYTHONPATH": str(ROOT)}
LOW = "decoder.threshold=0.34", "decoder.release=0.3"  # of models that have learnt little
TONES = {"dog": 400, "rooster": 1500, "crying_baby": 3000}


@pytest.fixture(scope="module")
def place(once):
    """A reader's folder: a folder of clips for each sound, and long recordings with and without such sounds."""

    def make(folder):
        for label, hertz in TONES.items():
            for number in range(8):
                tone_clip(folder / "sounds" / label / f"{number}.wav", hertz + 20 * number, 0.6, seed=number)
        for number, name in enumerate(("street", "yard")):
            soundfile.write(folder / f"{name}.flac", noise(16000 * 30, number), 16000)
            (folder / f"{name}.csv").write_text("start,end,label\n")
        for number, name in enumerate(("day.flac", "night.flac", "long_recording.flac", "kitchen.wav", "hall.wav")):
            sound, t = noise(16000 * 6, number), np.arange(16000) / 16000
            for second, hertz in zip((1, 3), TONES.values()):
                sound[16000 * second : 16000 * (second + 1)] += 0.3 * np.sin(2 * np.pi * hertz * t)
            soundfile.write(folder / name, sound, 16000)
        (folder / "day.csv").write_text("start,end,label\n1,2,dog\n3,4,rooster\n")

    return once("tutorials", make)


def commands(page):
    """The lines of the page that call our programs, as words; not benchmarks, which keep their results in this clone."""
    text = (ROOT / "docs" / page).read_text()
    for line in re.findall(r"^    (?:PYTHONPATH=\. )?python (?!benchmarks/)(.*)$", text, re.M):
        yield shlex.split(re.split(r"\s{3,}", line)[0])


def follow(words, folder):
    """Run a command of a page in the reader's folder."""
    program, *given = words
    if program in ("train.py", "infer.py"):
        swaps = {"source=microphone": "source.path=day.flac", "source=webcam": "source.path=wave.mp4"}
        given = [swaps.get(word, word) for word in given if "source.device=" not in word and "notify-send" not in word]
        given += [f"sink.command.run=[{sys.executable},-c,pass]"] if any("command" in word for word in given) else []
        return ran(program, *given, *(SHORT if program == "train.py" else LOW), cwd=folder)
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, env=HERE, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return done


@pytest.mark.long
def test_own_sounds(place, tmp_path):
    folder = shutil.copytree(place, tmp_path / "mine")
    lines = [
        words for words in commands("your_own.md") if "runs/mine" in str(words) or "dataset.root=sounds" in str(words)
    ]
    lines = [words for words in lines if "source.list=true" not in words]
    assert len(lines) == 5
    for words in lines:
        follow(words, folder)
    assert (folder / "runs/mine/report.html").is_file() and list((folder / "heard/background").iterdir())


@pytest.mark.long
def test_own_video(tmp_path):
    """The first of its trainings, and what is done with its model."""
    subprocess.run([sys.executable, "-m", "datasets.moving_shapes", str(tmp_path)], cwd=ROOT, check=True)
    for number, path in enumerate(sorted((tmp_path / "clips").glob("*.mp4"))):
        kind = tmp_path / "videos" / ("one", "two")[number % 2]
        kind.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, kind / path.name)
    for name in ("long.mp4", "wave.mp4"):
        shutil.copy(tmp_path / "scene.mp4", tmp_path / name)
    train, *lines = [words for words in commands("video.md") if "runs/mine" in str(words)]
    small = ["extractor.height=28", "extractor.width=28", "encoder.hidden=8"]
    ran("train.py", *train[1:], "trainer.epochs=1", "trainer.workers=0", "trainer.threads=1", *small, cwd=tmp_path)
    for words in lines:
        if "sink=window" not in words:
            follow(words, tmp_path)
    assert len(lines) >= 2 and (tmp_path / "answers.mp4").stat().st_size


@pytest.mark.long
def test_an_alarm(place, tmp_path):
    folder = shutil.copytree(place, tmp_path / "mine")
    lines = list(commands("alarm.md"))
    assert len(lines) == 6
    for words in lines:
        follow(words, folder)
    assert read_csv(folder / "day.csv") and "<audio" in (folder / "night.html").read_text()


@pytest.mark.long
def test_many_microphones(place, tmp_path):
    folder = shutil.copytree(place, tmp_path / "mine")
    data = ["dataset=folder", "dataset.root=sounds", "hydra.run.dir=runs/mine"]
    ran("train.py", *data, *SHORT, *LOW, "export=true", cwd=folder)
    page = (ROOT / "docs" / "microphones.md").read_text()
    ((name, text),) = re.findall(r"```python\n# (\S+)\n(.*?)```", page, re.DOTALL)
    (folder / name).write_text(text)
    lines = [words for words in commands("microphones.md") if "source.list=true" not in words]
    (serve,) = [words for words in lines if "source=browser" in words]
    clients = [words for words in lines if "pipeline.serving.client" in words]
    for words in lines:
        if words not in (serve, *clients):
            done = follow(words, folder)
    assert {line.split()[0] for line in done.stdout.decode().splitlines()} == {"kitchen.wav", "hall.wav"}
    server = Served(folder / "runs/mine", *serve[3:-1], f"sink.sqlite.path={folder / 'rooms.sqlite'}")
    try:
        for words in clients:
            follow([server.url if "TOKEN" in word else word for word in words], folder)
    finally:
        server.kill()
    for house, streams in (("house", ["day.flac", "day.flac"]), ("rooms", ["hall", "kitchen"])):
        with closing(sqlite3.connect(folder / f"{house}.sqlite")) as database:
            names = sorted(name.split()[0] for (name,) in database.execute("SELECT name FROM streams"))
            assert [name for name in names if name != "browser"] == streams  # which is the server itself
            assert database.execute("SELECT count(*) FROM events").fetchone() > (0,)
