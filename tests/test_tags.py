"""Models of any number of labels at once: their truth, loss and figures against other libraries, the laws, and a
training and its use from end to end.
"""

import csv
import functools
import io
import json

import numpy as np
import pytest
import soundfile
import torch
from conftest import (
    assert_resumed_exactly,
    cut_and_restored,
    lively_model,
    noise,
    ran,
    read_csv,
    read_jsonl,
    small_model,
)
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics.functional.classification import multilabel_average_precision
from torchvision.ops import sigmoid_focal_loss
from twosounds import TONES

from pipeline.core.errors import ConfigError
from pipeline.layers.smoothing import EMA
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import IGNORE, Sample, StepGrid, collate
from pipeline.model.classifier import Classifier, load
from pipeline.tasks.classes import Classes
from pipeline.tasks.losses import BinaryCrossEntropy
from pipeline.tasks.precision_recall import binned_average_precision
from pipeline.tasks.tags import Tags
from pipeline.training.loader import draw_order, loss_weights

SPEC = InputSpec(sound=16000)
LABELS = ["a", "b", "c"]
TAGS = "task=tags"


def batch_of(*clips):
    """A batch of clips, each its labels and spans; 6 steps of 640 samples long."""
    wave = np.zeros(3840, np.float32)
    return collate([Sample((wave,), labels, spans) for labels, spans in clips], SPEC)


def test_the_truth_of_steps_is_every_label_that_is_there():
    batch = batch_of(((0, 1), [(0, 1920, 0), (1280, 3200, 1), (3300, 3310, 2)]), ((), []), ((2,), None), ((), None))
    truth = Tags().step_truth(batch, StepGrid(8, 640, 2), None, 3)
    assert truth[:, :2].isnan().all() and Tags().known(truth) == 18
    assert truth[0, 2:].T.tolist() == [[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]]
    assert not truth[1, 2:].any() and truth[2].isnan().all(), "its times are not known"
    assert not truth[3, 2:].any(), "what has no label is nowhere"
    assert Tags().clip_truth(batch, 3).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_a_label_that_means_nothing_has_no_column():
    class Listed(list):
        epoch, names, classes = 0, ["x", "y", "", ""], [(0, 2), (1,), (), 2]

        def stream(self):
            return self[:1]

    labels, x = ["a", "nothing", "z"], (np.zeros(8),)
    split = Listed([Sample(x, (0, 2), [(0, 4, 2), (2, 6, 0)]), Sample(x, (1,), [(0, 8, 1)]), None, Sample(x, (), None)])
    made = Tags().in_columns(split, labels, "nothing")
    assert Tags().columns(labels, "nothing") == ["a", "z"]
    assert (made[0].labels, made[0].spans) == ((0, 1), [(0, 4, 1), (2, 6, 0)])
    assert (made[1].labels, made[1].spans, made[2], made[3].labels) == ((), [], None, ())
    assert made.classes == [(0, 1), (), (), (1,)] and made.names == split.names
    assert made.stream()[0].labels == (0, 1) and not hasattr(made, "groups")
    made.epoch = 5
    assert split.epoch == 5 and len(made) == 4
    assert Classes().in_columns(split, labels, "nothing")[3].labels == (1,), "of classes, nothing is one"


def test_classes_want_one_label_of_each_clip():
    for labels in ((), (0, 1)):
        with pytest.raises(ConfigError, match="set task=tags"):
            Classes().clip_truth(batch_of((labels, None)), 3)
    with pytest.raises(ConfigError, match="only one label"):
        Classes().columns(["x"], None)
    assert (Classes().step_truth(batch_of(((0,), None)), StepGrid(6, 640, 0), 1, 3) == IGNORE).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_torchs(smoothing):
    torch.manual_seed(0)
    logits, truth = torch.randn(40, 5), (torch.rand(40, 5) < 0.3).float()
    weights = torch.rand(5) + 0.5
    smooth = truth * (1 - smoothing) + smoothing / 2
    for mine in (None, weights):
        expected = binary_cross_entropy_with_logits(logits, smooth, pos_weight=mine, reduction="none").mean(1)
        assert BinaryCrossEntropy(smoothing, 0.0, mine)(logits, truth).item() == pytest.approx(expected.sum().item())
        part = truth.clone()
        part[::2] = torch.nan
        logits.requires_grad_()
        loss = BinaryCrossEntropy(smoothing, 0.0, mine)(logits, part)
        assert loss.item() == pytest.approx(expected[1::2].sum().item())
        gradient = torch.autograd.grad(loss, logits)[0]
        assert gradient.isfinite().all() and not gradient[::2].any(), "what is not known costs nothing"
        logits = logits.detach()
    focal = sigmoid_focal_loss(logits, truth, alpha=-1, gamma=2, reduction="none").mean(1).sum()
    assert BinaryCrossEntropy(focal=2.0)(logits, truth).item() == pytest.approx(focal.item(), rel=1e-5)
    mixed = 0.3 * truth + 0.7 * truth.flip(0)  # mixup: the mean of two truths costs the mean of two losses
    loss = BinaryCrossEntropy(smoothing)
    parts = 0.3 * loss(logits, truth) + 0.7 * loss(logits, truth.flip(0))
    assert loss(logits, mixed).item() == pytest.approx(parts.item(), rel=1e-5)


def drawn(count=200):
    """Answers that are better than chance; the last label is nowhere."""
    rng = np.random.default_rng(0)
    truth = rng.random((count, 4)) < [0.5, 0.2, 0.7, 0.0]
    scores = 1 / (1 + np.exp(-rng.standard_normal((count, 4)) - 1.5 * truth + 0.5))
    task = Tags()
    found = task.predictions([*LABELS, "d"], np.array([0.5, 0.6, 0.4, 0.5], np.float32))
    for half in (slice(0, 90), slice(90, count)):
        task.add(found, scores[half].astype(np.float32), truth[half].astype(np.float32))
    found.names, found.groups, found.seconds = [""] * count, [""] * count, np.ones(count)
    return found


def test_figures_are_those_of_other_libraries():
    found = drawn()
    got = Tags().measure(found)
    there, told = found.truth[:, :3], found.predicted[:, :3]
    assert got["map"] == pytest.approx(average_precision_score(there, found.scores[:, :3], average="macro"), abs=1e-6)
    theirs = multilabel_average_precision(torch.tensor(found.scores[:, :3]), torch.tensor(there).long(), 3)
    assert got["map"] == pytest.approx(theirs.item(), abs=1e-6) and got["classes"]["d"]["ap"] is None
    assert got["macro_f1"] == pytest.approx(f1_score(there, told, average="macro"))
    assert got["accuracy"] == accuracy_score(found.truth, found.predicted) and got["frame_map"] is None
    losses = [log_loss(found.truth[:, k], found.scores[:, k].astype(float), labels=[0, 1]) for k in range(4)]
    assert got["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert got["cooccurrence"][0][2] == (found.truth[:, 0] & found.predicted[:, 2]).sum()
    curve = np.array(got["curves"]["b"])
    assert (np.diff(curve[:, 0]) >= 0).all() and (np.diff(curve[:, 2]) < 0).all() and curve[-1, 0] == 1
    for recall, precision, threshold in curve[::9]:
        chosen = found.scores[:, 1] >= threshold - 1e-5
        assert precision == pytest.approx(found.truth[chosen, 1].mean(), abs=2e-5)
        assert recall == pytest.approx(found.truth[chosen, 1].sum() / found.truth[:, 1].sum(), abs=2e-5)
    assert json.loads(json.dumps(got, allow_nan=False)) == got  # plain values
    assert json.loads(next(Tags().to_json_lines("test", found)))["truth"] == found.told(0)[0]
    empty = Tags().predictions(LABELS, np.full(3, 0.5, np.float32))
    assert Tags().measure(empty)["map"] == 0 and Tags().measure(empty)["count"] == 0


@given(st.integers(0, 1000))
def test_average_precision_of_bins_is_scikit_learns_of_rounded_scores(seed):
    rng = np.random.default_rng(seed)
    scores, there = rng.integers(0, 50, 60), rng.random(60) < 0.3
    counts = np.stack([np.bincount(scores[there == side], minlength=50) for side in (False, True)])[:, None]
    (found,) = binned_average_precision(counts)
    assert found == (pytest.approx(average_precision_score(there, scores)) if there.any() else None)


def test_steps_are_measured_where_they_are_known():
    task, rng = Tags(), np.random.default_rng(0)
    found = task.predictions(LABELS, np.full(3, 0.5, np.float32))
    logits, truth = torch.randn(4, 50, 3), torch.tensor(rng.random((4, 50, 3)) < 0.3).float()
    truth[0], truth[1, :10] = torch.nan, torch.nan
    for row in range(4):
        task.add_steps(found, logits[row : row + 1], truth[row : row + 1])
    known = ~truth.isnan().any(-1)
    expected = average_precision_score(truth[known].numpy(), logits[known].numpy(), average="macro")
    assert task.summarize(found)["frame_map"] == pytest.approx(expected, abs=2e-3)  # bins of a thousandth


def test_clips_of_several_labels_weigh_as_their_labels_do():
    class Known:
        classes, epoch = [(0,), (0,), (0, 1), (), (0,), (0,)], 0

        def __len__(self):
            return 6

    assert loss_weights(Known(), "weights", 2).tolist() == pytest.approx([6 / (2 * 5), 6 / 2])
    indices = [index for seed in range(200) for index in draw_order(Known(), seed, "sampling", 2)]
    counts = np.bincount(indices, minlength=6)
    rare, common = counts[[2, 3]].mean(), counts[[0, 1, 4, 5]].mean()
    assert rare / common == pytest.approx(5, rel=0.3)


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_smoothing_is_that_of_sigmoids_and_the_kernel_agrees(seconds):
    torch.manual_seed(0)
    stage, x = EMA((5,), 0.02, seconds, "sigmoid"), torch.randn(2, 9, 5) * 40
    x[0, 0, 0] = -200.0
    with torch.no_grad():
        quick, state = stage(x, stage.initial(2))
        plain, after = stage.forward(x, stage.initial(2))
    average, weight, expected = 0.0, 0.0, []
    for t in range(9):
        average = stage.decay * average + (1 - stage.decay) * x[:, t].double().sigmoid()
        weight = stage.decay * weight + 1 - stage.decay
        expected.append(average / weight)
    for y, last in ((quick, state), (plain, after)):
        assert (y - torch.stack(expected, 1)).abs().max() < 1e-6 and (last[0] - average).abs().max() < 1e-6


@functools.cache
def model_of():
    return lively_model(
        TAGS, "encoder=conv_recurrent", "extractor.mels=20", "encoder.hidden=16", "head.window=0.3", "head.delay=0.04",
        "decoder.threshold=0.5", "decoder.release=0.48", "decoder.minimum=0", labels="abc", seed=3,
    )  # fmt: skip


def test_a_model_keeps_its_task(tmp_path):
    model = model_of()
    model.save(tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert isinstance(again.task, Tags) and again.smoothing.link == "sigmoid" and again.identity() == model.identity()
    y = again.clip_posteriors(torch.from_numpy(noise(8000))[None], torch.tensor([8000]))
    assert (y.sum(1) - 1).abs().max() > 0.05, "posteriors of tags do not add up to 1"
    plain = small_model()
    settings_ = {part: value for part, value in plain.config.items() if part != "task"}
    torch.manual_seed(0)
    old = Classifier(settings_, plain.labels)
    old.load_state_dict(plain.state_dict())
    assert isinstance(old.task, Classes) and old.identity() == plain.identity()


@pytest.mark.parametrize(("seconds", "cuts"), [(6, 100), pytest.param(60, 1000, marks=pytest.mark.long)])
def test_cuts_and_snapshots_change_nothing(seconds, cuts):
    assert cut_and_restored(model_of(), noise(seconds * 16000), cuts)[1]


QUICK = [
    TAGS, "plugins=[twosounds]", "dataset=twosounds", "augment=none", "encoder=recurrent", "encoder.hidden=16", "head=max",
    "extractor.mels=20", "trainer.workers=0", "trainer.threads=1", "trainer.batch=8", "optimizer.lr=0.01",
]  # fmt: skip


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of configuration that names the dataset of ``twosounds.py``."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "dataset").mkdir()
    (folder / "dataset" / "twosounds.yaml").write_text("_target_: twosounds.TwoSounds\nweak: false\nclips: 48\n")
    return ["--config-dir", str(folder)]


@pytest.fixture(scope="module")
def learnt(own, learn):
    """A run's folder: the two sounds, learnt by train.py as a user would call it, and what it printed."""
    return learn("tags", *own, *QUICK, "trainer.epochs=7", "events=f1", "hydra.run.dir=OUT")


def test_a_training_tells_how_good_it_is(learnt):
    out, told = learnt
    metrics, history = json.loads((out / "metrics.json").read_text()), read_jsonl(out / "history.jsonl")
    test = metrics["test"]
    assert test["map"] > 0.95 and min(test["frame_map"], test["macro_f1"]) > 0.8 and list(test["classes"]) == [*TONES]
    assert {"train_f1", "val_map", "val_frame_map", "val_loss"} <= history[0].keys()
    best = max(history, key=lambda row: (row["val_map"], -row["val_loss"]))
    assert metrics["best_epoch"] == best["epoch"]
    assert {"", "high, low"} <= {line["truth"] for line in read_jsonl(out / "answers.jsonl")}
    page = (out / "report.html").read_text()
    for text in ("mAP, test", "Precision and recall", "True and told labels", "AP of steps"):
        assert text in page
    assert "Confusions" not in page and b"mAP" in told and b"exactly right" in told and b"background" not in told


def two_tones(path):
    """Three seconds: high from 0.5 to 2, low from 1 to 2.5."""
    t = np.arange(48000) / 16000
    wave = 0.01 * np.random.default_rng(0).standard_normal(48000)
    for label, start, end in (("high", 0.5, 2.0), ("low", 1.0, 2.5)):
        wave += 0.1 * np.sin(2 * np.pi * TONES[label] * t) * ((t >= start) & (t < end))
    soundfile.write(path, wave, 16000)
    return path


def test_a_stream_tells_events_that_overlap(learnt, tmp_path):
    wave = two_tones(tmp_path / "a.wav")
    sinks = "sink=[csv,jsonl,labels,parquet,report]"
    written = {name: tmp_path / f"o.{name}" for name in ("csv", "jsonl", "labels", "parquet", "report")}
    paths = [f"sink.{name}.path={path}" for name, path in written.items()]
    ran("infer.py", f"checkpoint={learnt[0]}", f"source.path={wave}", sinks, *paths, "decoder.minimum=0.2")
    rows = read_csv(written["csv"])
    found = {row["label"]: (float(row["start"]), float(row["end"])) for row in rows}
    assert found.keys() == {"high", "low"} and found["low"][0] < found["high"][1]
    assert found["high"] == pytest.approx((0.5, 2.0), abs=0.25) and found["low"] == pytest.approx((1.0, 2.5), abs=0.25)
    assert all(path.stat().st_size for path in written.values())


def test_files_are_told_all_labels_that_reach_their_thresholds(learnt, tmp_path):
    two_tones(tmp_path / "both.wav")
    soundfile.write(tmp_path / "quiet.wav", 0.01 * np.random.default_rng(1).standard_normal(16000), 16000)
    (tmp_path / "m.csv").write_text('path,label\nboth.wav,"high, low"\nquiet.wav,\n')
    files = ["source=files", f"source.paths={tmp_path}/m.csv"]

    def told(*more):
        done = ran("infer.py", f"checkpoint={learnt[0]}", *files, "source.ledger=null", *more)
        return done, {row["path"].rpartition("/")[2]: row for row in csv.DictReader(io.StringIO(done.stdout.decode()))}

    done, rows = told("sink=csv", "decoder.threshold=0.6")
    assert b"labels that the model does not have" not in done.stderr and b"high, low" in done.stderr
    both, quiet = rows["both.wav"], rows["quiet.wav"]
    assert both["label"] == both["truth"] == "high, low" and (quiet["label"], quiet["status"]) == ("", "ok")
    assert float(both["score"]) == pytest.approx(max(float(both[f"p_{label}"]) for label in TONES), abs=1e-4)
    assert told("sink=csv", "decoder.threshold={high: 1.0, low: 0.6}")[1]["both.wav"]["label"] == "low"
    ran(
        "infer.py",
        f"checkpoint={learnt[0]}",
        *files,
        "sink=[console,report]",
        f"sink.report.path={tmp_path / 'r.html'}",
    )
    page = (tmp_path / "r.html").read_text()
    assert "high, low" in page and "Confusions" not in page


@pytest.mark.long
def test_a_training_goes_on_to_the_bit_and_begins_with_other_weights(learnt, own, tmp_path):
    exact = ["train.py", *own, *QUICK, "trainer.schedule=constant", "trainer.warmup=0", "trainer.focal=1.0"]
    exact += ["trainer.balance=weights", "dataset.clips=16"]
    assert_resumed_exactly(tmp_path, lambda out: [*exact, f"hydra.run.dir={out}"])
    done = ran("train.py", *own, *QUICK, "trainer.epochs=1", "dataset.clips=8", "dataset.weak=true", "augment=light", "augment.mixup=0.4",
               f"trainer.pretrained={learnt[0]}", f"hydra.run.dir={tmp_path / 'more'}")  # fmt: skip
    assert b"labels it knows: 3, new: 0" in done.stderr
    assert json.loads((tmp_path / "more" / "metrics.json").read_text())["test"]["frame_map"] is None
    blocks = ["trainer.tbptt=0.2", "trainer.epochs=1", "dataset.clips=8", f"hydra.run.dir={tmp_path / 'blocks'}"]
    assert b"mAP" in ran("train.py", *own, *QUICK, *blocks).stdout


@pytest.mark.long
def test_runs_and_trials_of_tags_are_compared_by_their_precision(own, tmp_path):
    pytest.importorskip("optuna")
    done = ran("train.py", *own, *QUICK, "sweep=optuna", "sweep.trials=2", "trainer.epochs=1", "dataset.clips=16",
               "~sweep.space.encoder", "~sweep.space.head", f"hydra.run.dir={tmp_path / 's'}")  # fmt: skip
    rows = [read_jsonl(tmp_path / "s" / str(n) / "history.jsonl")[0]["val_map"] for n in (0, 1)]
    assert all(text in done.stdout.decode() for text in ("best: ", f"{max(rows):.1%}", "by validation mAP"))
    page = (tmp_path / "s" / "sweep.html").read_text()
    assert "best validation mAP" in page and "accuracy" not in page.lower()
