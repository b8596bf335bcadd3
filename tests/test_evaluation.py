"""What is measured of a model, against others' formulas; what it costs, against counts by hand."""

import json

import numpy as np
import pytest
import torch
from conftest import configured, ran, read_csv, read_jsonl, small_model
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, sem, t
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score
from torchmetrics.functional.classification import multiclass_calibration_error

from datasets.clips import Clip, Clips
from pipeline.measures import cost
from pipeline.measures.evaluation import predict
from pipeline.media.sample import Sample, collate
from pipeline.model.classifier import Classifier, load
from pipeline.tasks.calibration import CALIBRATION_BINS, claims, histogram, score_bin
from pipeline.tasks.classes import Classes, Classified
from pipeline.tasks.uncertainty import interval, wilson
from pipeline.training.trainer import Trainer

LABELS = ["a", "b", "c", "d"]


def drawn(count=300):
    """Answers that are right more often than not, and not well calibrated."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, count)
    logits = rng.standard_normal((count, 4)) + 1.5 * np.eye(4)[truth]
    scores = np.exp(2 * logits) / np.exp(2 * logits).sum(1, keepdims=True)
    blank, right = [""] * count, [[True, False]] * count
    return Classified(LABELS, truth, scores.astype(np.float32), blank, blank, np.full(count, 0.5), right, 0.04)


def test_figures_are_those_of_other_libraries():
    found = drawn()
    got = Classes().measure(found)
    assert got["accuracy"] == accuracy_score(found.truth, found.predicted) == Classes().summarize(found)["accuracy"]
    assert got["top2"] == pytest.approx(top_k_accuracy_score(found.truth, found.scores, k=2))
    exact = found.scores / found.scores.sum(1, keepdims=True, dtype=np.float64)
    assert got["loss"] == pytest.approx(log_loss(found.truth, exact), abs=1e-5)
    scores, truth = torch.from_numpy(found.scores), torch.from_numpy(found.truth)
    theirs = multiclass_calibration_error(scores, truth, 4, n_bins=CALIBRATION_BINS, norm="l1").item()
    assert got["calibration"]["error"] == pytest.approx(theirs, abs=1e-5) and theirs > 0.02
    low, high = binomtest(int(found.correct.sum()), 300).proportion_ci(method="wilson")
    assert (got["interval"]["low"], got["interval"]["high"]) == pytest.approx((low, high), abs=1e-9)
    assert got["interval"]["method"] == "Wilson" and got["seconds"] == 150.0
    edges = np.linspace(0, 1, 21)
    assert got["scores"]["right"] == np.histogram(found.confidence[found.correct], edges)[0].tolist()
    own, others = (got["scores"]["classes"]["b"][key] for key in ("own", "others"))
    assert own == np.histogram(found.scores[found.truth == 1, 1], edges)[0].tolist()
    assert sum(own) + sum(others) == 300
    assert json.loads(json.dumps(got)) == got  # plain values


def test_nothing_to_measure():
    empty = Classified(LABELS, np.zeros(0, np.int64), np.zeros((0, 4), np.float32))
    got = Classes().measure(empty)
    assert got["count"] == 0 and got["accuracy"] == got["top2"] == got["calibration"]["error"] == 0
    assert (got["interval"]["low"], got["interval"]["high"]) == (0, 1)


@given(st.lists(st.floats(0, 1), max_size=40))
def test_scores_are_binned_as_one_by_one(scores):
    right = np.arange(len(scores)) % 3 == 0
    expected = np.zeros((3, CALIBRATION_BINS))
    for score, hit in zip(scores, right):
        expected[:, score_bin(score, CALIBRATION_BINS)] += 1, hit, score
    assert claims(scores, right) == pytest.approx(expected)
    assert histogram(scores, CALIBRATION_BINS) == expected[0].astype(int).tolist()


def test_the_interval_over_groups_is_that_of_scipys_standard_error():
    """Wilson's ends are where the distance from the share is so many standard errors; those of the groups' means."""
    rng = np.random.default_rng(1)
    hits = rng.binomial(40, rng.beta(4, 2, 6))
    names = np.repeat(list("abcdef"), 40).tolist()
    ends, method = interval(np.concatenate([np.arange(40) < count for count in hits]).tolist(), names)
    share, reach = hits.sum() / 240, t.ppf(0.975, 5) * sem(hits / 40)
    assert reach > 0.05 and method.startswith("Wilson, effective sample size ")
    for end in ends:
        assert abs(share - end) == pytest.approx(reach * np.sqrt(end * (1 - end) / (share * (1 - share))))


@pytest.mark.parametrize("mean", [0.6, 0.85, 0.95])
@pytest.mark.parametrize("groups", [2, 3, 5, 10, 30])
def test_the_interval_holds_also_for_few_groups(groups, mean):
    """People differ; how often is the true mean of all people in what some of them tell?"""
    rng, held, trials, clips = np.random.default_rng(0), 0, 300, 40
    names = np.repeat([f"g{number}" for number in range(groups)], clips).tolist()
    for _ in range(trials):
        talents = rng.beta(12 * mean, 12 * (1 - mean), groups)
        low, high = interval((rng.random((groups, clips)) < talents[:, None]).ravel().tolist(), names)[0]
        held += low <= mean <= high
    assert held / trials >= 0.9


def test_groups_that_stand_together_widen_the_interval():
    right = [number // 10 % 2 == 0 for number in range(100)]  # ten speakers, all right or all wrong
    alone = interval(right)
    assert alone == (wilson(50, 100), "Wilson") == interval(right, [""] * 100) == interval([0.5] * 100)
    together, method = interval(right, [f"speaker{number // 10}" for number in range(100)])
    assert method.startswith("Wilson, effective sample size ")
    assert together[1] - together[0] > 2 * (alone[0][1] - alone[0][0])
    # all right: there is no spread between the groups, but few of them do not prove that there is none
    for few, least in ((2, 0.3), (5, 0.92), (10, 0.95)):
        (low, high), _ = interval([True] * 100, [f"speaker{number % few}" for number in range(100)])
        assert high == 1 and least < low < wilson(100, 100)[0]
    one = interval(right, ["S7"] * 100)
    assert one[0] == wilson(50, 100) and "one" in one[1]


class Listed(list):
    """A split of given samples."""

    epoch = 0


def split_of(count=23):
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        wave = (rng.standard_normal(int(rng.integers(3000, 9000))) * rng.uniform(0.01, 1)).astype(np.float32)
        found.append(Sample((wave,), (number % 3,), name=f"n{number}", group=f"g{number // 4}"))
    found[5] = None  # cannot be read
    return Listed(found)


@pytest.mark.parametrize("batch", [1, 4, 50])
def test_answers_are_those_of_single_clips_in_order_and_the_worst_are_kept(batch):
    model = small_model()
    split = split_of()
    found = Trainer(batch=batch, workers=0).predict(model, split, worst=3)
    good = [sample for sample in split if sample is not None]
    assert found.names == [sample.name for sample in good] and found.groups == [sample.group for sample in good]
    assert found.truth.tolist() == [sample.labels[0] for sample in good]
    assert found.seconds == pytest.approx([len(sample.x[0]) / 16000 for sample in good])
    with torch.inference_mode():
        for place, sample in enumerate(good):
            wave = torch.from_numpy(sample.x[0])[None]
            alone = model.clip_posteriors(wave, torch.tensor([wave.shape[1]]))[0].numpy()
            assert found.scores[place] == pytest.approx(alone, abs=1e-5)
    ranks = found.scores[np.arange(len(good)), found.truth]
    assert [one.row for one in found.worst] == np.argsort(ranks, kind="stable")[:3].tolist()
    for one in found.worst:
        assert np.array_equal(one.x[0], good[one.row].x[0])
    assert found.skipped == Classes().measure(found)["skipped"] == 1
    assert Trainer(workers=0).evaluate(model, split)["accuracy"] == found.correct.mean()
    assert not predict(model, [collate(good, model.spec)]).worst


def test_groups_and_names_reach_the_answers(tmp_path, tones):
    model = small_model(labels=("high", "low"))
    clips = [Clip(tones / "low" / f"{n}.wav", "low", "test", group=f"room{n % 2}") for n in range(3)]
    found = Trainer(batch=2, workers=0).predict(model, Clips(clips, ["high", "low"], model.spec))
    assert found.groups == ["room0", "room1", "room0"] and found.names[2] == str(tones / "low" / "2.wav")
    lines = [json.loads(line) for line in Classes().to_json_lines("test", found)]
    assert [line["group"] for line in lines] == found.groups and lines[0]["truth"] == "low"
    assert lines[1]["answer"] == found.labels[found.predicted[1]]


@pytest.mark.parametrize("ahead", [False, True])
def test_clips_that_cannot_be_read_are_told(ahead, tmp_path, tones):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    model = small_model(labels=("high", "low"))
    paths = [tones / "low" / "0.wav", tmp_path / "bad.wav", tones / "low" / "1.wav", tmp_path / "none.wav"]
    split = Clips([Clip(path, "low", "test") for path in paths], ["high", "low"], model.spec)
    with pytest.warns(UserWarning, match="skipped"):
        if ahead:
            split.drop_unreadable("test")  # as datasets do before a training
        found = Trainer(batch=2, workers=0).predict(model, split)
    assert found.skipped == 2 and len(found.truth) == 2


def test_accuracy_is_that_of_classifying_the_files(trained, tones, tmp_path):
    lines = read_jsonl(trained / "answers.jsonl")
    metrics = json.loads((trained / "metrics.json").read_text())
    for split in ("val", "test"):
        own = [line for line in lines if line["split"] == split]
        assert metrics[split]["accuracy"] == np.mean([line["truth"] == line["answer"] for line in own])
    table = tmp_path / "answers.csv"
    files = ["source=files", f"source.paths={tones}", "sink=csv", f"sink.csv.path={table}"]
    ran("infer.py", f"checkpoint={trained}", *files)
    batch = {row["path"]: row for row in read_csv(table)}
    for line in lines:
        row = next(row for path, row in batch.items() if line["name"].endswith(path))
        assert row["label"] == line["answer"] and float(row["score"]) == pytest.approx(line["score"], abs=2e-4)


# What a model costs


def counted(*overrides, labels=("a", "b", "c")):
    return cost.count_multiply_adds(Classifier(configured("train", *overrides), list(labels)).eval())


@pytest.mark.parametrize(("more", "products"), [
    ((), 3 * 16 * (20 + 16)),
    (("cell=lstm",), 4 * 16 * (20 + 16)),
    (("cell=elman",), 16 * (20 + 16)),
    (("encoder.layers=2",), 3 * 16 * (20 + 16) + 3 * 16 * (16 + 16)),
])  # fmt: skip
def test_cells_counted_by_hand(more, products):
    """100 frames a second: a transform of 512 samples, 257 x 20 filters, a cell of 16, and a head for three classes."""
    plain = ["encoder=recurrent", "encoder.hidden=16", "extractor.mels=20", "head=mean"]
    assert counted(*plain, *more) == pytest.approx(100 * (1.25 * 512 * 9 + 257 * 20 + products + 16 * 3))


def test_convolutions_and_images_counted_by_hand():
    """Two causal convolutions of stride 2 over 96 channels, then 25 steps a second of a GRU."""
    got = counted("encoder.hidden=16", "extractor.mels=20")
    front = 100 * (1.25 * 512 * 9 + 257 * 20)
    assert got == pytest.approx(front + 50 * 5 * 20 * 96 + 25 * (5 * 96 * 96 + 3 * 16 * (96 + 16) + 16 * 3))
    images = ["extractor=frames", "extractor.height=8", "extractor.width=8", "encoder=image_recurrent", "encoder.hidden=8",
              "cell=conv_gru", "encoder.stem=[{channels: 4, stride: 2}]", "augment=pictures", "encoder.pool=1",
              "encoder.layers=1"]  # fmt: skip
    model = Classifier(configured("train", *images), ["a", "b"]).eval()
    channels, rate = model.extractor.out_shape[0], model.rate
    kernel = model.encoder.stages[-2].cell.kernel
    stem, cell = 16 * 9 * channels * 4, 16 * kernel**2 * (3 * 8 * 4 + 3 * 8 * 8)
    assert cost.count_multiply_adds(model) == pytest.approx(rate * (stem + cell + 8 * 2))


def test_the_count_is_per_second_and_leaves_the_model_alone():
    model = small_model("cell=lstm")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = cost.count_multiply_adds(model)
    assert cost.count_multiply_adds(model) == first == cost.count_multiply_adds(model.for_streaming())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(stage._forward_hooks for stage in model.modules())


def test_what_is_not_counted_is_said():
    flow = Classifier(configured("train", "experiment=gestures_flow", "dataset.root=/nowhere"), ["a", "b"])
    assert [cost.measure_cost(one)["uncounted"] for one in (flow, small_model())] == [["OpticalFlow"], []]


@pytest.mark.parametrize(("overrides", "chunk"), [
    (("encoder=recurrent",), 0.02),
    ((), 0.04),
    (("extractor=audiovisual", "extractor@extractor.picture=frames"), 0.2),
])  # fmt: skip
def test_a_live_step_is_timed_on_one_thread(overrides, chunk):
    model = Classifier(configured("train", *overrides), ["a", "b"])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        got = cost.measure_step(model.for_streaming().eval())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert got["chunk"] == chunk and 0 < got["p50_ms"] <= got["p99_ms"]


def test_costs_of_a_trained_model(trained):
    metrics, model = json.loads((trained / "metrics.json").read_text()), load(trained)
    assert metrics["bytes"] == (trained / "model.safetensors").stat().st_size
    assert metrics["parameters"] == model.parameter_count()
    assert metrics["multiply_adds"] == cost.count_multiply_adds(model)
