"""Video as users do it: train.py on a folder of clips, infer.py on files, streams and live pace."""

import json

import numpy as np
import pytest
from conftest import ran, run

from datasets.moving_shapes import WAYS, compose
from pipeline.media.picture import Picture
from pipeline.media.video_writer import write_video
from pipeline.model.classifier import load

QUICK = ["extractor.height=16", "extractor.width=16", "encoder.hidden=8", "trainer.workers=0", "trainer.batch=8"]


@pytest.fixture(scope="module")
def clips(once):
    """A folder of videos, a sub-folder for each of two motions."""

    def make(folder):
        for way in ("left", "right"):
            (folder / way).mkdir(parents=True)
            for number in range(10):
                rng = np.random.default_rng([number, list(WAYS).index(way)])
                images, _ = compose(rng, [f"{way}_fast"], 0.8, (0.0, 0.2), Picture(20, 32, 32))
                write_video(folder / way / f"{number}.mp4", images, 20)

    return once("motions", make)


@pytest.fixture(scope="module")
def seeing(clips, learn):
    """A run's folder: the motions, learnt by train.py as a user would call it."""
    source = ["experiment=moving_shapes", "dataset=folder", f"dataset.root={clips}", "dataset.cache=null"]
    out, printed = learn("seeing", *source, *QUICK, "trainer.epochs=8", "trainer.patience=8", "hydra.run.dir=OUT")
    assert "right answers after" in printed.decode()
    return out


def rows_of(out):
    return [json.loads(line) for line in out.decode().splitlines()]


def test_a_folder_of_videos_is_learnt(seeing):
    metrics = json.loads((seeing / "metrics.json").read_text())
    assert metrics["val"]["accuracy"] >= 0.75
    online = metrics["val"]["online"]
    assert online["step"] == 0.1 and len(online["accuracy"]) >= 7
    assert load(seeing / "model.safetensors").spec.picture == Picture(10, 16, 16)


def test_files_are_classified(seeing, clips):
    done = run("infer.py", f"checkpoint={seeing}", "source=files", f"source.paths={clips}", "sink=jsonl")
    found = rows_of(done.stdout)
    assert done.returncode == 0 and len(found) == 20 and {row["status"] for row in found} == {"ok"}
    assert np.mean([row["label"] in row["path"] for row in found]) >= 0.8
    assert all(abs(row["seconds"] - 0.8) <= 0.26 for row in found)


def posteriors(model, path, *how):
    sink = ["sink=jsonl", "sink.jsonl.posteriors=true"]
    done = ran("infer.py", f"checkpoint={model}", f"source.path={path}", *sink, *how)
    found = rows_of(done.stdout)
    steps = [row for row in found if row["type"] == "step"]
    return [{k: v for k, v in row.items() if k not in ("age", "stream")} for row in steps], [
        {k: v for k, v in row.items() if k != "stream"} for row in found if row["type"] == "event"
    ], steps  # fmt: skip


@pytest.mark.long
def test_a_real_stream_does_not_depend_on_its_chunks(seeing, real):
    path, model = real / "streams" / "gestures_S7.mp4", seeing / "model.safetensors"
    first, events, _ = posteriors(model, path, "source.chunk=0.1")
    assert len(first) > 600 and {frozenset(row) for row in first} == {frozenset(["type", "time", "posteriors"])}
    assert {tuple(row["posteriors"]) for row in first} == {("left", "right")}
    other, same, _ = posteriors(model, path, "source.chunk=0.7")
    assert other == first and same == events


def test_live_pace_gives_the_same_answers_and_their_age(seeing, clips, tmp_path):
    path, model = clips / "left" / "0.mp4", seeing / "model.safetensors"
    first, _, _ = posteriors(model, path)
    paced, _, steps = posteriors(model, path, "source.realtime=true")
    assert paced == first and all(0 <= row["age"] < 5 for row in steps)
