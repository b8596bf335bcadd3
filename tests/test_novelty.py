"""What is unusual: its parts against other libraries and plain loops, and a training and its use from end to end."""

import functools
import json
import re
import sqlite3
import warnings
from contextlib import closing
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from conftest import configured, cut_and_restored, listen, lively_model, ran, read_csv, read_jsonl, refused, write_table
from scipy.special import expit
from scipy.stats import genpareto
from sklearn.covariance import EmpiricalCovariance, MinCovDet
from sklearn.metrics import roc_auc_score

from pipeline.cells.gru import GRU
from pipeline.cells.layouts import from_torch
from pipeline.cells.lstm import LSTM
from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.decoders.bands import Bands
from pipeline.decoders.decoder import Decoder, Event
from pipeline.encoders.ahead import Ahead
from pipeline.encoders.autoencoder import Autoencoder
from pipeline.encoders.whiten import Whiten
from pipeline.exporting.export import export
from pipeline.layers.usual import Energy, EnergyHead, Usual, part_of
from pipeline.measures.detection import AnnotatedRecording, check_recordings
from pipeline.measures.tail import tail_level
from pipeline.model.classifier import Classifier, load
from pipeline.model.onnx_model import OnnxModel
from pipeline.report.comparison import main as report
from pipeline.serving.messages import rows_of
from pipeline.streaming.scheduler import Scheduler
from pipeline.streaming.stream import Stream
from pipeline.tasks.normal import fit_normal
from pipeline.tasks.novelty import Novelty, Square

NOVELTY = ("task=novelty", "extractor.mels=20", "head.live=2", "head.warm=0.2", "decoder.threshold=0.3")


def test_whitened_squares_are_mahalanobis_distances():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 6)) @ (0.3 * rng.standard_normal((6, 6)) + np.eye(6)) + 3
    stage = Whiten((6,))
    stage.fit(torch.tensor(x.mean(0)), torch.tensor(np.cov(x.T, bias=True)))
    y, _ = stage(torch.tensor(x[None], dtype=torch.float32), ())
    expected = EmpiricalCovariance().fit(x).mahalanobis(x)
    assert np.allclose(y[0].square().sum(1).numpy(), expected, rtol=1e-3)
    assert torch.equal(stage.weight, stage.weight.T), "each number stands for its own band"


def test_whitening_of_what_hardly_moves_stays_finite():
    stage = Whiten((3,))
    stage.fit(torch.zeros(3), torch.diag(torch.tensor([4.0, 1.0, 0.0])))
    assert torch.isfinite(stage(torch.ones(1, 5, 3), ())[0]).all()


def test_guesses_are_made_of_the_steps_before_alone():
    torch.manual_seed(0)
    stage = Ahead((4,), functools.partial(GRU), hidden=5, layer_norm=False, dropout=0.0).eval()
    x = torch.randn(2, 9, 4)
    y, _ = stage(x, stage.initial(2))
    assert torch.equal(y[:, 0], x[:, 0])
    for step in range(1, 9):
        hidden, _ = stage.recurrent1(x[:, :step], stage.recurrent1.initial(2))
        assert torch.allclose(x[:, step] - y[:, step], stage.guess(hidden[:, -1]), atol=1e-6)


def test_the_autoencoder_is_two_lstms_of_torch():
    torch.manual_seed(0)
    stage = Autoencoder((4,), functools.partial(LSTM), hidden=6, steps=5).eval()
    x = torch.randn(2, 15, 4)
    parts = x.reshape(6, 5, 4)
    made, code = [], None
    for ours, size in ((stage.reader, 4), (stage.writer, 6)):
        theirs = torch.nn.LSTM(size, 6, batch_first=True)
        from_torch(ours, theirs)
        made.append(theirs)
    code = made[0](parts)[0][:, -1]
    again = stage.map(made[1](code[:, None].repeat(1, 5, 1))[0])
    error = (parts - again).square().mean(1).sqrt().reshape(2, 3, 4)
    assert torch.allclose(stage(x, ())[0], error, atol=1e-5) and torch.allclose(stage.code(parts), code, atol=1e-6)


def plain_usual(x, steps, warm, slow):
    """The same in plain numbers."""
    mean = variance = known = 0.0
    found = []
    for now in x.tolist():
        z = (now - mean) / max(variance, 0.01) ** 0.5 if known >= warm else 0.0
        known = min(known + 1, steps)
        rate = 1 / known / (1 + (slow - 1) * min(1.0, max(0.0, (z - 1) / 2)))
        away = now - mean
        mean += rate * away
        variance = (1 - rate) * (variance + rate * away**2)
        found.append(z - 3)
    return np.array(found), mean, variance


def test_scores_are_held_against_their_own_past():
    rng = np.random.default_rng(1)
    x = rng.standard_normal(300) - 5
    x[200:220] += 6
    stage = Usual(1, 100, 10, 20.0, None)
    y, (mean, variance, _) = stage(torch.tensor(x, dtype=torch.float32)[None, :, None], stage.initial(1))
    expected, m, v = plain_usual(x.astype(np.float32), 100, 10, 20.0)
    assert np.allclose(y[0, :, 0], expected, atol=1e-3) and np.allclose(
        (mean.item(), variance.item()), (m, v), rtol=1e-3
    )
    assert (y[0, :10] == -3).all() and (y[0, 202:220] > 0).float().mean() > 0.9, (
        "it does not become usual while it lasts"
    )
    assert (y[0, 20:200] > 0).float().mean() < 0.03
    few = stage(torch.tensor(x[:60], dtype=torch.float32)[None, :, None] * 0.1, stage.initial(1))[1]
    assert np.allclose(few[0].item(), 0.1 * x[:60].mean(), atol=0.1) and np.allclose(
        few[1].item(), 0.01 * x[:60].var(), rtol=0.5
    )


def test_a_constant_signal_is_never_unusual_and_what_follows_it_is():
    stage = Usual(1, 100, 5, 20.0, None)
    x = torch.full((1, 50, 1), -18.0)
    y, state = stage(x, stage.initial(1))
    assert torch.isfinite(y).all() and (y < 0).all()
    assert (stage(torch.full((1, 1, 1), -10.0), state)[0] > 3).all()


def test_energies_are_means_of_squares_of_all_and_of_each_part():
    stage = Energy((7,), 4, 1)
    x = torch.randn(2, 3, 7)
    y, _ = stage(x, stage.initial(2))
    parts = [slice(0, 7), slice(0, 3), slice(3, 5), slice(5, 7)]
    expected = torch.stack([x[..., part].square().mean(-1) for part in parts], -1)
    assert torch.allclose(y.exp(), expected, rtol=1e-4)
    image = part_of((2, 6, 9), 9).view(2, 6, 9)
    assert torch.equal(image[0], image[1]) and image[0, 0, 0] == 0 and image[0, 0, 8] == 2 and image[0, 5, 4] == 7
    assert torch.bincount(image.flatten()).tolist() == [12] * 9


def gaussian(seed=0, count=4000):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 5)) @ np.diag([3, 1, 1, 0.5, 2]) + 1


def test_what_is_unusual_among_normal_recordings_is_left_out_and_told():
    x = gaussian()
    x[2800:3200] += 40
    clips = [torch.tensor(part) for part in np.split(x, 10)]
    with pytest.warns(UserWarning, match=r"10\.\d% of the steps .* n7 \(100%\).*listen to them"):
        mean, covariance = fit_normal(clips, [f"n{number}" for number in range(10)])
    expected = MinCovDet(random_state=0).fit(x)
    assert np.allclose(mean, expected.location_, atol=0.1) and np.allclose(covariance, expected.covariance_, atol=0.4)


def test_clean_recordings_are_fitted_as_they_are():
    x = torch.tensor(gaussian())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, covariance = fit_normal([x], [""])
    assert np.allclose(mean, x.mean(0), atol=0.02) and np.allclose(covariance, np.cov(x.T.numpy()), atol=0.1)


@pytest.mark.parametrize(("steps", "message"), [
    ([torch.zeros(100, 4)], "silent or constant"),
    ([torch.randn(7, 4)], "make 7 steps of 4 numbers; expected 8 steps at least"),
    ([], "make 0 steps"),
])  # fmt: skip
def test_recordings_that_teach_nothing_are_refused(steps, message):
    with pytest.raises(ConfigError, match=message):
        fit_normal(steps, ["a"])


def test_only_normal_steps_cost_something():
    energies, truth = torch.randn(8, 3, requires_grad=True), torch.tensor([0, 0, 1, torch.nan, 0, 1, 0, 0])
    targets = torch.stack([truth, torch.zeros(8), torch.zeros(8)], 1)
    loss = Square().of_steps(energies, targets)
    assert loss.item() == pytest.approx(energies[truth == 0, 0].exp().sum().item())
    gradient = torch.autograd.grad(loss, energies)[0]
    assert not gradient[:, 1:].any() and (gradient[:, 0] != 0).tolist() == (truth == 0).tolist()
    assert Square()(energies, targets).item() == 0


def test_figures_are_those_of_sklearn_and_clips_are_counted_in_deviations():
    rng = np.random.default_rng(0)
    task, labels = Novelty(), ["unusual", "low", "high"]
    found = task.predictions(labels, np.array([0.6, np.inf, np.inf], np.float32))
    truth = (rng.random(300) < 0.2).astype(np.float32)
    logits = rng.standard_normal((300, 3)) + 2 * truth[:, None]
    task.add(found, expit(logits).astype(np.float32), np.stack([truth, 0 * truth, 0 * truth], 1))
    task.add_steps(found, torch.tensor(logits)[None], torch.tensor(np.stack([truth] * 3, 1))[None])
    got = task.summarize(found)
    assert got["auroc"] == pytest.approx(roc_auc_score(truth, logits[:, 0])) == pytest.approx(got["frame_auroc"])
    assert got["pauc"] == pytest.approx(roc_auc_score(truth, logits[:, 0], max_fpr=0.1), abs=1e-3)
    assert got["explained"] == pytest.approx(1 - np.exp(logits[truth == 0, 0]).mean(), rel=1e-4) == 1 - got["loss"]
    factor, shift = task.calibrate(found)
    for scale, mean in zip(zip(factor, shift, strict=True), (-3, 0), strict=True):  # of clips, and of steps
        normal = (logits * scale[0] + scale[1])[truth == 0]
        assert np.allclose(normal.mean(0), mean, atol=1e-2) and np.allclose(normal.std(0), 1, rtol=1e-2)
    json.dumps(task.measure(found) | {"names": found.names}, allow_nan=False)


def test_a_head_counts_clips_in_a_scale_that_is_fitted():
    head = EnergyHead((6,), 3, 0.02)
    x = torch.randn(2, 30, 6)
    before, _ = head(x, head.initial(2))
    for _ in range(2):  # as of a model that is trained further
        head.scale([[2.0, 1.0, 1.0], [5.0] * 3], [[-3.0, 0.0, 1.0], [7.0] * 3])
    after, _ = head(x, head.initial(2))
    assert torch.allclose(after, before * torch.tensor([4.0, 1.0, 1.0]) + torch.tensor([-9.0, 0.0, 2.0]), atol=1e-5)


def test_a_head_whose_file_knows_of_no_normal_steps_is_as_it_was():
    """Files of models that were saved before ``head.normal``."""
    before = EnergyHead((6,), 3, 0.02, window=1.0)
    assert before.state_dict().keys() == {"pool.factor", "pool.shift"} and before.pool.factor.shape == (3,)


def test_what_normal_recordings_have_is_usual_on_every_stream():
    """Words after silence: far above their own past, but no higher than words in what was learnt."""
    x = torch.full((1, 300, 1), -8.0)
    x[0, 200:210], x[0, 250:260] = 0.5, 6.0
    found = {}
    for normal in (None, 4.0):
        stage = Usual(1, 100, 10, 20.0, normal)
        stage.scale([[1.0], [0.5]], [[0.0], [0.0]])  # normal steps: mean 0, deviation 2
        found[normal] = stage(x, stage.initial(1))[0][0, :, 0]
    assert (found[None][[200, 250]] > 3).all()
    assert torch.equal(found[4.0], found[None].minimum(0.5 * x[0, :, 0] - 4)) and found[4.0][200] == -3.75
    untold = Usual(1, 100, 10, 20.0, 4.0)
    assert torch.equal(untold(x, untold.initial(1))[0][0, :, 0], found[None]), "before it is fitted"


def test_a_level_that_peaks_reach_as_often_as_was_wished():
    random = np.random.default_rng(0)
    scores = genpareto.rvs(0.1, size=200_000, random_state=random)
    level = tail_level(scores[:50_000], 1.0, 5.0)
    assert 3 <= (scores[50_000:] > level).sum() / (150_000 / 3600) <= 7.5, "of what was not looked at"
    far = tail_level(scores[:3000], 1.0, 0.1)
    assert far > scores[:3000].max(), "further out than ever heard"
    assert genpareto.sf(far, 0.1) * 3600 == pytest.approx(0.1, abs=0.3)
    with pytest.raises(ConfigError, match=r"40 s of normal recordings .* more than 50 s .*dataset\.val"):
        tail_level(scores[:40], 1.0, 5.0)


def columns(steps=400, seed=0):
    rng = np.random.default_rng(seed)
    return expit(np.cumsum(rng.standard_normal((steps, 4)), 0)).astype(np.float32)


@pytest.mark.parametrize("cuts", [[0, 400], [0, 17, 18, 18, 160, 300, 400], list(range(401))])
def test_events_tell_what_was_strangest_at_their_peak(cuts):
    labels, x = ["unusual", "low", "mid", "high"], columns()
    decoder, plain = Bands(labels, 10, 1000), Decoder(labels[:1], 10, 1000)
    found, expected = [], plain.decode(x[:, :1]) + plain.close()
    for start, end in pairwise(cuts):
        found += decoder.decode(x[start:end])
        again = Bands(labels, 10, 1000)
        again.restore(json.loads(json.dumps(decoder.snapshot())))
        assert [one.details for one in again.open_events()] == [one.details for one in decoder.open_events()]
        decoder = again
    found += decoder.close()
    assert [(one.start, one.end, one.score) for one in found] == [(one.start, one.end, one.score) for one in expected]
    for one in found:
        row = x[one.peak // 10]
        order = [place for place in np.argsort(-row[1:], kind="stable")[:2] + 1 if row[place] >= 0.5]
        assert one.details == ", ".join(labels[place] for place in order)
    assert any(one.details for one in found) and len(found) > 3
    with pytest.raises(ValueError, match="expected 4 numbers as best"):
        decoder.restore(plain.snapshot())


ENCODERS = {
    "whiten": (),
    "ahead": ("encoder=ahead", "encoder.hidden=12", "cell=gru"),
    "autoencoder": ("encoder=autoencoder", "encoder.hidden=12", "encoder.steps=4", "cell=lstm"),
}


@functools.cache
def model_of(name):
    model = lively_model(*NOVELTY, *ENCODERS[name], labels=["unusual"], seed=2)
    if name == "whiten":
        model.encoder.fit(torch.randn(20), torch.cov(torch.randn(20, 90)))
    return model


def bursts(seconds, seed=0, rate=16000):
    """Quiet noise with bursts and tones of many lengths."""
    rng = np.random.default_rng(seed)
    x = 0.01 * rng.standard_normal(int(seconds * rate)).astype(np.float32)
    for start in range(rate, len(x) - rate, rate):
        size = int(rng.uniform(0.02, 0.5) * rate)
        t = np.arange(size) / rate
        x[start : start + size] += 0.2 * np.sin(2 * np.pi * rng.uniform(200, 7000) * t).astype(np.float32)
    return x


@pytest.mark.parametrize(("seconds", "cuts"), [(8, 30), pytest.param(60, 1000, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ENCODERS)
def test_cuts_and_restores_change_nothing(name, seconds, cuts):
    _, events, _ = cut_and_restored(model_of(name).for_streaming(), bursts(seconds), cuts)
    assert len(events) >= seconds // 4 and any(event.details for event in events)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_scheduler_tells_the_same_and_a_reset_begins_anew(name):
    model, x = model_of(name).for_streaming(), bursts(5)
    alone, events, _ = listen(Stream(model), [x])
    scheduler, streams = Scheduler(model, tile=4), [Stream(model) for _ in range(3)]
    told = {stream: [] for stream in streams}
    for stream in streams:
        scheduler.join(stream)
        scheduler.feed(stream, x)
    while answers := scheduler.turn():
        for answer in answers:
            told[answer.stream] += answer.events
    for stream in streams:
        for answer in scheduler.close(stream):
            told[stream] += answer.events
    assert all(found == events for found in told.values())
    stream = Stream(model)
    stream.push(bursts(3, seed=5))
    stream.gap(0, "reset")
    stream.push(x)
    assert np.array_equal(stream.posteriors, alone[: len(stream.posteriors)]) and len(stream.posteriors) > 20


@pytest.mark.parametrize(
    "name", ["autoencoder", *(pytest.param(name, marks=pytest.mark.long) for name in ("whiten", "ahead"))]
)
def test_graphs_tell_the_same(name, tmp_path):
    """``export`` itself refuses a graph whose answers differ by more than 1e-5."""
    export(model_of(name).for_streaming(), tmp_path)
    graph, x = OnnxModel(tmp_path / "model.onnx"), bursts(6)
    found, events, _ = cut_and_restored(graph, x, 20, block=10)
    expected, wanted, _ = listen(Stream(model_of(name).for_streaming()), [x])
    assert np.allclose(found, expected, atol=1e-3)
    assert [(one.start, one.details) for one in events] == [(one.start, one.details) for one in wanted]


def hum(path, seconds, seed, beep=()):
    """A machine that hums in noise; seconds at which it beeps."""
    rng, t = np.random.default_rng(seed), np.arange(int(seconds * 16000)) / 16000
    x = 0.02 * rng.standard_normal(len(t)) + 0.05 * np.sin(2 * np.pi * 150 * t)
    for at in beep:
        there = (t >= at) & (t < at + 0.4)
        x[there] += 0.3 * np.sin(2 * np.pi * 3000 * t[there])
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, x.astype(np.float32), 16000)
    return path


BEEPS = [4.0, 6.5, 9.0, 13.0]


def training(data, out):
    """The command that learns what is normal in a folder."""
    small = ["extractor.mels=20", "head.warm=1", "trainer.workers=0", "trainer.threads=1", "dataset.cache=null"]
    return ["train.py", "task=novelty", "dataset=folder", f"dataset.root={data}", *small, f"hydra.run.dir={out}"]


@pytest.fixture(scope="module")
def machine(once):
    """Recordings of a machine, some of them with a beep; a run that has learnt what is normal; and a long recording."""

    def make(folder):
        for number in range(14):
            hum(folder / "data" / "fine" / f"{number}.wav", 10, number)
        for number in range(4):
            hum(folder / "data" / "broken" / f"{number}.wav", 10, 50 + number, [2, 3, 4, 5, 6])
        hum(folder / "day.wav", 16, 99, BEEPS)
        write_table(folder / "day.csv", [{"start": at, "end": at + 0.4, "label": "beep"} for at in BEEPS])
        more = [
            "task.normal=[fine]",
            "dataset.val=0.5",
            "dataset.test=0.3",
            "false_alarms=2",
            f"streams={folder / 'day.wav'}",
        ]
        ran(*training(folder / "data", folder / "run"), *more)

    return once("machine", make)


def test_a_run_tells_what_was_found_and_what_was_false(machine):
    found = json.loads((machine / "run" / "metrics.json").read_text())
    assert found["test"]["auroc"] == 1.0 and found["epochs"] == 1 and found["parameters"] == 0
    assert found["streams"]["missed"] == 0 and found["streams"]["false"] == 0
    assert found["events"]["promise"]["wish"] == 2
    page = (machine / "run" / "report.html").read_text()
    assert "unusual" in page


def test_events_tell_their_bands_wherever_they_go(machine, tmp_path):
    paths = [f"sink.{kind}.path={tmp_path / f'x.{kind}'}" for kind in ("jsonl", "sqlite", "csv")]
    given = f"checkpoint={machine / 'run'}", f"source.path={machine / 'day.wav'}", "sink=[console,jsonl,sqlite,csv]"
    done = ran("infer.py", *given, *paths)
    events = [row for row in read_jsonl(tmp_path / "x.jsonl") if row["type"] == "event"]
    assert [abs(one["start"] - at) < 0.2 for one, at in zip(events, BEEPS, strict=True)] == [True] * 4
    low, high = map(float, events[0]["details"].split(",")[0].removesuffix(" Hz").split("-"))
    assert low < 3000 < high, events[0]["details"]
    assert f"({events[0]['details']})" in done.stdout.decode()
    with closing(sqlite3.connect(tmp_path / "x.sqlite")) as database:
        assert database.execute("SELECT details FROM events").fetchall() == [(one["details"],) for one in events]
    assert (tmp_path / "x.csv").read_text().splitlines()[0] == "start,end,peak,label,score"
    assert report([str(tmp_path / "x.sqlite"), "--since=all"]) == 0
    assert events[0]["details"] in (tmp_path / "x.html").read_text()
    told = rows_of([Event("unusual", 0, 1, 0.9, 0, details="a"), Event("x", 0, 1, 0.5, 0)])
    assert told[0]["details"] == "a" and "details" not in told[1]


@pytest.mark.parametrize(("background", "normal"), [(None, {"hum", "rain"}), ("nothing", {"nothing"})])
def test_a_file_of_a_model_alone_says_what_is_normal(background, normal):
    settings = Novelty().recorded({"_target_": "pipeline.tasks.novelty.Novelty"}, ["hum", "rain"], background)
    told = build(settings, Novelty)
    assert {label for label in ("hum", "rain", "nothing", "beep") if told.name_event(label) is None} == normal


def test_what_is_normal_is_no_event_of_a_recording(machine, recwarn):
    model, path = load(machine / "run"), machine / "day.wav"
    check_recordings([AnnotatedRecording(path, [(0.0, 3.0, "fine"), (4.0, 4.4, "beep")])], model)
    assert not recwarn.list


def test_files_are_told_to_be_unusual(machine, tmp_path):
    ran("infer.py", f"checkpoint={machine / 'run'}", "source=files", f"source.paths={machine / 'data'}", "sink=csv",
        f"sink.csv.path={tmp_path / 'x.csv'}")  # fmt: skip
    rows = read_csv(tmp_path / "x.csv")
    assert {row["label"] for row in rows if "broken" in row["path"]} == {"unusual"}
    assert sum(row["label"] == "unusual" for row in rows if "fine" in row["path"]) <= 2
    assert all(float(row["score"]) == round(float(row["p_unusual"]), 4) for row in rows)  # not that of a band


@pytest.mark.parametrize(("settings", "message"), [
    (["task.normal=[fien]"], r"task\.normal: no such label in the data: 'fien'; did you mean 'fine'"),
    (["task.normal=[fine]", "extractor.mels=80", "extractor.window=1.0", "extractor.hop=1.0"], r"numbers; expected 160 steps at least"),
    (["task.normal=[fine]", "false_alarms=1", "dataset.crop=null"], r"20 s of normal recordings are held out .* more than 50 s"),
    (["task.normal=[fine]", "encoder=ahead", "encoder.convolutions=[{channels: 4, stride: 2}]"], r"a hop of 2; expected 1"),
])  # fmt: skip
def test_settings_that_cannot_work_are_refused(machine, tmp_path, settings, message):
    told = refused("", *training(machine / "data", tmp_path), "dataset.val=0.15", "dataset.test=0", *settings)
    assert re.search(message, told), told


def test_silent_recordings_are_refused(tmp_path):
    (tmp_path / "data" / "fine").mkdir(parents=True)
    for number in range(6):
        soundfile.write(tmp_path / "data" / "fine" / f"{number}.wav", np.zeros(16000 * 3, np.float32), 16000)
    refused("silent or constant", *training(tmp_path / "data", tmp_path / "run"))


def test_a_recording_that_is_not_normal_is_told_by_its_name(tmp_path):
    for number in range(9):
        split = "train" if number < 7 else "val"
        hum(tmp_path / "data" / split / "fine" / f"{number}.wav", 4, number, [0.5, 1.5, 2.5] if number == 5 else ())
    told = ran(*training(tmp_path / "data", tmp_path / "run")).stderr.decode()
    assert re.search(r"lie far .*\b5\.wav", told), told


@pytest.mark.parametrize("name", ["ahead", pytest.param("autoencoder", marks=pytest.mark.long)])
def test_what_learns_expects_more_and_more(machine, tmp_path, name):
    more = ["task.normal=[fine]", f"encoder={name}", "encoder.hidden=16", "trainer.epochs=4", "trainer.batch=2"]
    ran(*training(machine / "data", tmp_path), *more)
    first, *_, last = read_jsonl(tmp_path / "history.jsonl")
    assert last["train_loss"] < first["train_loss"] and last["val_explained"] > first["val_explained"]


def test_regions_of_pictures_are_named_by_their_places():
    config = configured("train", "task=novelty", "extractor=frames", "extractor.height=12", "extractor.width=15")
    model = Classifier(config, ["unusual"])
    rows = ["top left, top, top right", "left, middle, right", "bottom left, bottom, bottom right"]
    assert model.labels[1:] == ", ".join(rows).split(", ")
    model.eval()
    model.encoder.fit(torch.zeros(540), torch.eye(540))
    stream = Stream(model.for_streaming())
    rng = np.random.default_rng(0)
    pictures = rng.integers(100, 110, (80, 12, 15, 3), dtype=np.uint8)
    pictures[60:70, :4, 10:] += 90
    events = stream.push(pictures) + stream.close()
    assert len(events) == 1 and events[0].details.startswith("top right")
