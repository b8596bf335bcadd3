"""Numbers with units: truths, loss, figures, limits, and streams that answer the same whatever their chunks."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from conftest import (
    configured,
    cut_and_restored,
    listen,
    noise,
    ran,
    read_csv,
    read_jsonl,
    refused,
    small_model,
    write_table,
)
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from datasets.manifest import Manifest
from datasets.noisy import Noisy
from datasets.series import SeriesFiles
from pipeline.core.errors import ConfigError, SnapshotError
from pipeline.decoders.limits import Limits
from pipeline.exporting.export import export
from pipeline.layers.smoothing import EMA
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Sample, StepGrid, collate
from pipeline.media.series import Series
from pipeline.model.classifier import load
from pipeline.model.features import Features
from pipeline.model.onnx_model import OnnxModel
from pipeline.streaming.stream import Stream
from pipeline.tasks.values import Values

VALUES = ("task=values", "task.units={snr: dB, tilt: ''}", "smoothing=ema")
LABELS = ("snr (dB)", "tilt")


def numbers_model(*overrides):
    """A small model of sound whose numbers are far from 0 to 1."""
    model = small_model(*VALUES, *overrides, labels=LABELS, times=3.0)
    model.smoothing.scale.copy_(torch.tensor([9.0, 100.0]))
    model.smoothing.shift.copy_(torch.tensor([12.0, -500.0]))
    return model


@pytest.fixture(scope="module")
def model():
    return numbers_model("decoder.above={snr: 12}", "decoder.below={tilt: -500}", "decoder.margin=0.5", "head.window=0.3", "head.live=0.3")  # fmt: skip


def batch_of(*values, length=80):
    spec = InputSpec(8000)
    rows = [None if one is None else np.array(one, np.float32) for one in values]
    return collate([Sample((np.zeros(length, np.float32),), (), values=one) for one in rows], spec)


def task_of(units, *batches):
    task = Values(units)
    task.link_stage = EMA((len(units),), 0.01, link="linear")
    for batch in batches:
        task.meet(batch)
    return task


def test_scale_and_shift_are_those_of_the_known_truths():
    nan = float("nan")
    batches = batch_of([[1, 10]], [[3, nan]], None), batch_of([[5, 30], [7, 50]])
    task = task_of({"a": "m", "b": "s"}, *batches)
    truth = [1, 3, 6], [10, 40]
    np.testing.assert_allclose(task.link_stage.shift, [np.mean(one) for one in truth], rtol=1e-6)
    np.testing.assert_allclose(task.link_stage.scale, [np.std(one) for one in truth], rtol=1e-6)
    still = task_of({"a": "m"}, batch_of([[4]], [[4]]))
    assert still.link_stage.scale.tolist() == [1] and still.link_stage.shift.tolist() == [4]
    with pytest.raises(ConfigError, match="no value is known of some quantity"):
        task_of({"a": "m", "b": "s"}, batch_of([[1, nan]], None)).met()
    late = task_of({"a": "m", "b": "s"}, batch_of([[1, nan]], None))
    assert late.link_stage.shift.tolist() == [1, 0] and late.link_stage.scale.tolist() == [1, 1]
    late.meet(batch_of([[1, 5]]))
    late.met()
    assert late.link_stage.shift.tolist() == [1, 5]


def test_a_quantity_that_no_batch_knows_is_refused_by_the_training(model):
    blank = (collate([Sample((noise(4000),), (), values=np.float32([[1, np.nan]]))], model.spec) for _ in range(2))
    with pytest.raises(ConfigError, match="no value is known of some quantity"):
        Features(numbers_model(), None).fit(blank)


def test_steps_have_the_value_at_their_last_tick():
    task = task_of({"a": "m"})
    ramp = np.arange(75, dtype=np.float32)[:, None]
    batch = batch_of(ramp, [[5]], None, length=75)
    truth = task.step_truth(batch, StepGrid(12, 10, 2), None, 1)[..., 0]
    expected = [np.nan] * 2 + [9, 19, 29, 39, 49, 59, 69, 74] + [np.nan] * 2
    np.testing.assert_array_equal(truth[0], np.array(expected, np.float32))
    assert truth[1:].isnan().all() and task.known(truth[..., None]) == 8  # a number of the whole is none of its steps
    halves = task.step_truth(batch_of([[1], [2]], length=80), StepGrid(8, 10, 0), None, 1)[0, :, 0]
    assert halves.tolist() == [1] * 4 + [2] * 4


def test_the_loss_is_huber_on_scaled_truths():
    task = task_of({"a": "m", "b": "s"}, batch_of([[0, 100]], [[20, 300]]))
    logits, truth = torch.tensor([[0.5, -3.0], [1.0, 1.0]]), torch.tensor([[10.0, 200.0], [10.0, float("nan")]])
    loss = task.loss(0.05, 0.0, None)
    assert float(loss(logits, truth)) == pytest.approx((0.5 * 0.5**2 + 2.5 + 0.5) / 2)
    assert float(loss.of_steps(logits, torch.full((2, 2), float("nan")))) == 0


def test_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    task = task_of({"a": "m", "b": "s"}, batch_of([[0, 100]], [[20, 300]]))
    found = task.predictions(["a (m)", "b (s)"], np.zeros(2))
    truth = rng.normal([5, 200], [3, 50], (40, 2)).astype(np.float32)
    told = (truth + rng.normal(0, [1, 20], (40, 2))).astype(np.float32)
    truth[::7, 1] = np.nan
    task.add(found, told, truth)
    found.names, found.groups, found.seconds = [""] * 40, [""] * 40, np.ones(40)
    figures = task.measure(found)
    for k, label in enumerate(found.labels):
        there = ~np.isnan(truth[:, k])
        pair, row = (truth[there, k], told[there, k]), figures["classes"][label]
        assert row["mae"] == pytest.approx(mean_absolute_error(*pair), rel=1e-5)
        assert row["rmse"] == pytest.approx(root_mean_squared_error(*pair), rel=1e-5)
        assert row["r2"] == pytest.approx(r2_score(*pair), rel=1e-4)
        assert row["support"] == there.sum() == len(figures["points"][label])
    assert figures["mae"] == pytest.approx(np.mean([row["mae"] for row in figures["classes"].values()]))
    worst = int(np.nanargmax(np.nanmax(np.abs(told - truth) / found.spread, 1)))
    assert int(found.of_truth.argmin()) == worst
    assert found.told(0)[0] == f"a (m) {truth[0, 0]:.4g}, b (s) –"


@pytest.mark.parametrize(("units", "labels", "message"), [
    ({}, ["snr"], r"task.units: has no unit for 'snr'; set task.units={snr: UNIT}"),
    ({"snr": "dB", "tild": ""}, ["snr"], "task.units: the dataset has no values 'tild'"),
])  # fmt: skip
def test_units_that_are_missing_or_of_nothing(units, labels, message):
    with pytest.raises(ConfigError, match=message):
        Values(units).columns(labels, None)
    assert Values({"snr": "dB", "n": ""}).columns(["n", "snr"], None) == ["n", "snr (dB)"]


def naive_limits(numbers, above, margin, minimum):
    """Stretches from where a number reaches a limit until it is back by a margin, if they are long enough."""
    found, start = [], None
    for step, number in enumerate([*numbers, -np.inf]):
        if start is None and number >= above:
            start = step
        elif start is not None and number < above - margin:
            if step - start >= minimum:
                found.append((start, step, max(numbers[start:step])))
            start = None
    return found


@pytest.mark.parametrize("margin", [0.0, 2.0])
def test_limits_are_events_with_their_unit(margin):
    rng = np.random.default_rng(3)
    x = (30 + 8 * np.cumsum(rng.standard_normal((400, 2)), 0) / 5).astype(np.float32)
    decoder = Limits(["snr (dB)", "level"], 10, 1000, {"snr": 32}, {"level": 28.5}, margin, minimum=0.03)
    events = [event for part in np.split(x, [7, 8, 300]) for event in decoder.decode(part)] + decoder.close()
    wanted = [("snr above 32 dB", *one) for one in naive_limits(x[:, 0].tolist(), 32, margin, 3)]
    below = naive_limits((-x[:, 1]).tolist(), -28.5, margin, 3)
    wanted += [("level below 28.5", start, end, -score) for start, end, score in below]
    assert {(e.label, e.start // 10, e.end // 10, e.score) for e in events} == {*wanted} and len(wanted) > 4


def test_limits_of_quantities_that_are_not_there():
    with pytest.raises(ValueError, match=r"decoder\.above\.snt: no such quantity; did you mean 'snr'"):
        Limits(["snr (dB)"], 10, 1000, {"snt": 3})
    assert Limits(["snr (dB)"], 10, 1000).decode(np.ones((5, 1), np.float32)) == []


def test_numbers_are_trained_on_unchanged_clips_and_have_limits():
    """Gain and noise would make the truths false."""
    plain = configured("train", "task=values")
    assert plain["augment"] == {} and plain["decoder"]["_target_"].endswith(".Limits")
    chosen = configured("train", "task=values", "augment=light", "decoder=hysteresis")
    assert chosen["augment"]["gain"] == 6 and chosen["decoder"]["_target_"].endswith(".Decoder")


def test_a_threshold_means_nothing_to_numbers():
    with pytest.raises(ConfigError, match="set decoder=limits"):
        small_model("task=values", "task.units={snr: dB}", "decoder=hysteresis", labels=("snr (dB)",))


@pytest.mark.parametrize("count", [12, pytest.param(1000, marks=pytest.mark.long)])
def test_random_cuts_with_restores_change_no_bit(model, count):
    found = [cut_and_restored(model, noise(12000, seed), 1 + seed % 7, seed) for seed in range(count)]
    assert sum(len(events) for _, events, _ in found) > 5 and np.ptp(found[0][0], 0).min() > 0


def test_an_exported_model_tells_the_same_numbers(model, tmp_path):
    export(model, tmp_path)
    graph = OnnxModel(tmp_path / "model.onnx")
    found, expected = (listen(Stream(one, 10), [noise(20000)]) for one in (graph, model.for_streaming()))
    assert np.abs(found[0] - expected[0]).max() < 1e-2 and np.abs(expected[0]).max() > 300
    assert graph.link == "linear" and min(graph.card.events.high) > 1e30


def test_a_step_that_cannot_be_computed_leaves_the_last_number(model):
    stream = Stream(model, 5)
    stream.push(noise(16000))
    last = stream.posteriors[-1].copy()
    stream.state = tuple(np.full_like(part, np.nan) if part.dtype.kind == "f" else part for part in stream.state)
    stream.push(noise(stream.size))
    assert np.array_equal(stream.posteriors, np.tile(last, (5, 1))) and last.min() < -100
    assert stream.warnings[0]["code"] == "not_computed"


def test_scores_of_posteriors_must_be_posteriors(model):
    """A snapshot may hold an open event of 15 dB, but no posterior of 15."""
    opened = {"step": 9, "open": {"a": [3, 15.0, 4, None]}, "free": {}}
    with pytest.raises(ValueError, match="a score is not from 0 to 1"):
        small_model(labels="ab").decoder().restore(opened)
    limits = model.decoder()
    limits.restore({"step": 9, "open": {"snr above 12 dB": [3, 15.0, 4, None]}, "free": {}})
    assert limits.open_events()[0].score == 15.0
    with pytest.raises(SnapshotError):
        Stream.restore(model, Stream(small_model(labels=LABELS), 3).snapshot())


@pytest.fixture(scope="module")
def loud(once):
    """Noise of known level, in a table; and a model that has learnt to tell it."""

    def make(root):
        rng, rows = np.random.default_rng(0), []
        root.mkdir()
        for number in range(48):
            level, split = float(rng.uniform(-50, -10)), ("train", "train", "val", "test")[number % 4]
            wave = 10 ** (level / 20) * rng.standard_normal(8000).clip(-3, 3)
            rows.append({"path": f"{number}.wav", "level": f"{level:.2f}", "split": split})
            soundfile.write(root / f"{number}.wav", wave, 8000)
        write_table(root / "manifest.csv", rows)
        ran("train.py", "dataset=manifest", f"dataset.root={root}", "dataset.values=[level]", "dataset.cache=null", "task=values",
            "task.units={level: dB}", "decoder.above={level: -25}", "extractor.rate=8000",
            "extractor.mels=16", "encoder.hidden=16", "encoder=recurrent", "trainer.epochs=25", "trainer.batch=4",
            "trainer.workers=0", "trainer.threads=1", "optimizer.lr=0.01", f"hydra.run.dir={root / 'run'}")  # fmt: skip

    return once("loud", make)


def test_a_training_tells_levels_in_every_place(loud, tmp_path):
    metrics = json.loads((loud / "run" / "metrics.json").read_text())["test"]
    assert metrics["mae"] < 0.5 * metrics["classes"]["level (dB)"]["guess"] and metrics["r2"] > 0.6
    page = (loud / "run" / "report.html").read_text()
    assert "Told over true level (dB)" in page and "Error over time" in page and "Guessing is the MAE" in page
    truth = {row["path"]: float(row["level"]) for row in read_csv(loud / "manifest.csv")}
    ran("infer.py", f"checkpoint={loud / 'run'}", "source=files", f"source.paths={loud / 'manifest.csv'}", "source.workers=1",
        "sink=[csv,report]", f"sink.csv.path={tmp_path / 'out.csv'}", f"sink.report.path={tmp_path / 'out.html'}")  # fmt: skip
    found = {row["path"]: float(row["p_level (dB)"]) for row in read_csv(tmp_path / "out.csv")}
    assert len(found) == 48 and read_csv(tmp_path / "out.csv")[0]["label"] == "level (dB)"
    apart = [abs(found[str(loud / name)] - level) for name, level in truth.items()]
    assert np.mean(apart) < 5
    loudest = max(truth, key=truth.get)
    done = ran("infer.py", f"checkpoint={loud / 'run'}", f"source.path={loud / loudest}", "sink=[console,jsonl]", f"sink.jsonl.path={tmp_path / 'log.jsonl'}", "decoder.minimum=0.1")  # fmt: skip
    assert "level above -25 dB" in done.stdout.decode()
    event = next(row for row in read_jsonl(tmp_path / "log.jsonl") if row.get("label"))
    assert event["label"] == "level above -25 dB" and -25 <= event["score"] < 0
    quiet = ran("infer.py", f"checkpoint={loud / 'run'}", f"source.path={loud / min(truth, key=truth.get)}", "decoder.above={level: -20}")  # fmt: skip
    assert "above" not in quiet.stdout.decode()


@pytest.mark.parametrize(("setting", "message"), [
    ("calibrate=true", "calibrate: is of labels, which task=values does not have; leave it out"),
    ("events=f1", "events: is of labels"),
    ("false_alarms=1", "false_alarms: is of labels"),
    ("decoder=hysteresis", "set decoder=limits"),
    ("task.units=null", "task.units: has no unit for 'level'"),
    ("trainer.balance=sampling", "trainer.balance: is of labels"),
    ("trainer.focal=2", "trainer.focal: is of labels"),
    ("dataset.values=[lavel]", "has no column 'lavel'"),
    ("dataset.negatives=.", "dataset.scene, dataset.negatives: are of labels"),
])  # fmt: skip
def test_settings_of_labels_are_refused(loud, tmp_path, setting, message):
    given = {"dataset": "manifest", "dataset.root": loud, "dataset.values": "[level]", "dataset.cache": "null", "task": "values",
             "task.units": "{level: dB}", "decoder": "limits", "augment": "none", "trainer.workers": 0}  # fmt: skip
    given |= dict([setting.split("=", 1)])
    refused(message, "train.py", *(f"{key}={value}" for key, value in given.items()), f"hydra.run.dir={tmp_path}")


def test_a_cell_that_is_no_number_and_one_that_is_empty(tmp_path):
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(800), 8000)
    rows = [{"path": f"{n}.wav", "a": "" if n == 1 else n, "split": "train" if n < 2 else "val"} for n in range(4)]
    write_table(tmp_path / "manifest.csv", rows)
    data = Manifest(str(tmp_path), values=["a"], cache=None)
    split = data.split("train", InputSpec(8000))
    assert data.labels == ["a"] and split[0].values.tolist() == [[0]] and np.isnan(split[1].values).all()
    write_table(tmp_path / "manifest.csv", [row | {"a": "loud"} for row in rows])
    with pytest.raises(ConfigError, match=r"manifest\.csv row 1: column 'a': got 'loud'; expected a number"):
        Manifest(str(tmp_path), values=["a"], cache=None)


def test_the_rows_of_a_series_have_numbers_of_their_own(tmp_path):
    for number in range(6):
        write_table(tmp_path / "all" / f"{number}.csv", [{"x": n, "y": number + n, "z": 0} for n in range(30)])
    data = SeriesFiles(str(tmp_path), cache=None, crop=1.0, targets=["y"])
    split = data.split("train", InputSpec(series=Series(10.0, ("x",))))
    for split.epoch in range(3):
        for sample in map(split.__getitem__, range(len(split))):
            apart = sample.values - sample.x[0]  # cut alike
            assert len(apart) == 10 and np.ptp(apart) == 0
    assert data.labels == ["y"] and len(split) > 2


def test_a_table_of_numbers_to_be_told_needs_no_label(tmp_path):
    write_table(tmp_path / "all.csv", [{"id": n // 20, "x": n, "y": -n} for n in range(200)])
    data = SeriesFiles(str(tmp_path), "all.csv", cache=None, targets=["y"])
    split = data.split("train", InputSpec(series=Series(10.0, ("x",))))
    assert data.labels == ["y"] and len(split) == 6 and np.array_equal(split[0].values, -split[0].x[0])


def test_noise_has_the_ratio_that_is_told(tmp_path):
    rate = 8000
    for name, wave in (
        ("tone", np.sin(np.arange(rate // 2) * 0.9)),
        ("hiss", np.random.default_rng(0).standard_normal(rate)),
    ):
        rows = []
        for number, split in enumerate(("train", "val", "test") * 2):
            (tmp_path / name).mkdir(exist_ok=True)
            soundfile.write(tmp_path / name / f"{number}.wav", 0.1 * (number + 1) * wave.clip(-3, 3) / 3, rate)
            rows.append({"path": f"{number}.wav", "label": name, "split": split})
        write_table(tmp_path / name / "manifest.csv", rows)

    def corpus(name):
        data = SimpleNamespace(clips=None, cache=None)
        listed = read_csv(tmp_path / name / "manifest.csv")
        from datasets.clips import Clip

        data.clips = [Clip(tmp_path / name / row["path"], name, row["split"]) for row in listed]
        return data

    data = Noisy(
        lambda: corpus("tone"), lambda: corpus("hiss"), "hiss", gap=(0.0, 0.0), clips=6, held_out=4, seconds=1.0
    )
    for name in ("train", "test"):
        split = data.split(name, InputSpec(rate))
        for sample in map(split.__getitem__, range(len(split))):
            spectrum = np.abs(np.fft.rfft(sample.x[0] * np.hanning(rate))) ** 2
            tone = round(0.9 * rate / (2 * np.pi))
            part = spectrum[tone - 12 : tone + 13].sum()
            told = 10 * np.log10(part / (spectrum.sum() - part))
            assert abs(told - sample.values[0, 0]) < 2.0 or min(told, sample.values[0, 0]) > 10
        assert np.array_equal(split[1].x[0], split[1].x[0])
        split.epoch = 1
    assert np.abs(data.split("train", InputSpec(rate))[0].x[0]).max() <= 1
    with pytest.raises(ConfigError, match="expected noise 'rain' in train, val and test"):
        Noisy(lambda: corpus("tone"), lambda: corpus("hiss"), "rain")


def test_training_goes_on_from_a_model_of_labels_with_a_new_scale(loud, tmp_path):
    """The scale is that of the new truths, whatever the weights were trained for."""
    source = [f"dataset.root={loud}", "dataset.cache=null", "augment=none", "extractor.rate=8000", "extractor.mels=16", "encoder.hidden=16",
              "encoder=recurrent", "trainer.epochs=1", "trainer.workers=0", "trainer.threads=1"]  # fmt: skip
    rows = read_csv(loud / "manifest.csv")
    write_table(loud / "classes.csv", [row | {"label": "high" if float(row["level"]) > -30 else "low"} for row in rows])
    ran("train.py", "dataset=manifest", "dataset.file=classes.csv", *source, f"hydra.run.dir={tmp_path / 'first'}")
    ran("train.py", "dataset=manifest", "dataset.values=[level]", "task=values", "task.units={level: dB}",
        *source, f"trainer.pretrained={tmp_path / 'first'}", f"hydra.run.dir={tmp_path / 'second'}")  # fmt: skip
    first, second = load(tmp_path / "first"), load(tmp_path / "second")
    truths = [float(row["level"]) for row in rows if row["split"] == "train"]
    assert float(second.smoothing.shift) == pytest.approx(np.mean(truths), rel=1e-4)
    assert float(second.smoothing.scale) == pytest.approx(np.std(truths), rel=1e-4)
    assert torch.equal(first.standardize.mean, second.standardize.mean)


def test_a_model_keeps_its_scale_in_its_file(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert torch.equal(again.smoothing.scale, model.smoothing.scale) and again.labels == list(LABELS)
    assert np.array_equal(listen(Stream(again, 3), [noise(9000)])[0], listen(Stream(model, 3), [noise(9000)])[0])
