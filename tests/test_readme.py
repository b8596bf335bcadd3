"""The README: its commands run in their order, on small data, and so does its Python. Devices are recordings."""

import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
from conftest import ROOT, run, tone_clip, tone_clips

from datasets.moving_shapes import compose
from pipeline.media.audio import read
from pipeline.media.picture import Picture
from pipeline.media.video_writer import write_video
from pipeline.model.open import open_model
from pipeline.sources.file import File
from pipeline.streaming.stream import Stream

TEXT = (ROOT / "README.md").read_text()
COMMANDS = [shlex.split(line) for line in re.findall(r"^    python ((?:train|infer)\.py .*)$", TEXT, re.M)]
SMALL = ["dataset.cache=null", "trainer.epochs=1", "trainer.workers=0", "encoder.hidden=8"]
DEVICES = {"source=microphone": "microphone.Microphone", "source=webcam": "webcam.Webcam"}


@pytest.fixture(scope="module")
def home(trained, tmp_path_factory):
    """A folder in which a reader could be: sounds, videos, a demonstration."""
    home = tmp_path_factory.mktemp("home")
    tone_clips(home / "sounds", ("dog", "rain", "background"))
    tone_clip(home / "long_recording.flac", 440, 3)
    for name in ("long", *(f"videos/{way}/{number}" for way in ("left", "right") for number in range(6))):
        images, _ = compose(np.random.default_rng(0), ["left_fast"], 0.8, (0.0, 0.2), Picture(20, 32, 32))
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(home / f"{name}.mp4", images, 20)
    shutil.copytree(trained, home / "runs" / "demo")
    tone_clip(home / "runs" / "demo" / "sounds" / "scene.wav", 2000, 3)
    return home


def test_every_command_runs(home, monkeypatch):
    for device in DEVICES.values():

        def pieces(self, spec, seen):
            return File(str(home / ("long.mp4" if spec.picture else "long_recording.flac"))).pieces(spec, seen)

        monkeypatch.setattr(f"pipeline.sources.{device}.pieces", pieces)
    for script, *given in COMMANDS:
        done = run(script, *given, *(SMALL if script == "train.py" else ()), cwd=home)
        assert done.returncode == 0, (given, done.stderr.decode())
        for place in (one.partition("=")[2] for one in given if re.match(r"hydra\.run\.dir|sink\.\w+\.path", one)):
            assert (home / place).exists(), given
        assert script == "train.py" or b" events\n" in done.stdout or "sink=video" in given, given
    assert len(COMMANDS) >= 6


def test_the_python_runs(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(code, {})
    assert re.search(r"^(high|low) [\d.]+ [\d.]+ [\d.]+$|Event\(", capsys.readouterr().out, re.M)


def test_the_python_of_its_own_page_runs(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    one, many = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    model, _ = open_model("runs/demo")
    sound, _ = read("runs/demo/sounds/scene.wav", model.rate)
    exec(one, {"chunks": np.array_split(sound, 7)})
    alone = re.findall(r"Event\(.*\)|^[\d.]+ [\d.]+ .*$", capsys.readouterr().out, re.M)
    exec(many, {"model": model, "stream": Stream(model), "chunk": sound})
    *answers, load = capsys.readouterr().out.splitlines()
    assert alone and answers and re.fullmatch(r"[\d.]+ [\d.]+", load)


@pytest.mark.parametrize("target", sorted({*re.findall(r"make ([a-z-]+)", TEXT)}))
def test_what_is_made_can_be_made(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_it_is_short_its_pictures_are_there_and_it_ends_as_make_run_does():
    assert len(TEXT.splitlines()) <= 200
    assert all((ROOT / name).stat().st_size < 1e6 for name in re.findall(r'(?:src="|!\[.*\]\()([^")]+)', TEXT))
    done = subprocess.run(["make", "-n", "run"], cwd=ROOT, capture_output=True, text=True)
    for line in re.findall(r"^    (?:How good|Next, ).*?(?=  )", TEXT, re.M):
        assert line.strip() in done.stdout
