"""What is unusual: its parts against other libraries and plain loops, and a training and its use from end to end."""

import functools
import json
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import lively_model
from scipy.special import expit
from scipy.stats import genpareto
from sklearn.covariance import EmpiricalCovariance, MinCovDet
from sklearn.metrics import roc_auc_score

from pipeline.cells.gru import GRU
from pipeline.cells.layouts import from_torch
from pipeline.cells.lstm import LSTM
from pipeline.core.errors import ConfigError
from pipeline.decoders.bands import Bands
from pipeline.decoders.decoder import Decoder
from pipeline.encoders.ahead import Ahead
from pipeline.encoders.autoencoder import Autoencoder
from pipeline.encoders.whiten import Whiten
from pipeline.exporting.export import export
from pipeline.layers.usual import Energy, EnergyHead, Usual, part_of
from pipeline.measures.tail import tail_level
from pipeline.model.onnx_model import OnnxModel
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
        rate = 1 / known / (1 + (slow - 1) * min(1.0, max(0.0, z - 2)))
        away = now - mean
        mean += rate * away
        variance = (1 - rate) * (variance + rate * away**2)
        found.append(z - 3)
    return np.array(found), mean, variance


def test_scores_are_held_against_their_own_past():
    rng = np.random.default_rng(1)
    x = rng.standard_normal(300) - 5
    x[200:220] += 6
    stage = Usual(1, 100, 10, 20.0)
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
    stage = Usual(1, 100, 5, 20.0)
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
    assert np.allclose((logits * factor + shift)[truth == 0].mean(0), -3, atol=1e-2)
    assert np.allclose((logits * factor + shift)[truth == 0].std(0), 1, rtol=1e-2)
    json.dumps(task.measure(found) | {"names": found.names}, allow_nan=False)


def test_a_head_counts_clips_in_a_scale_that_is_fitted():
    head = EnergyHead((6,), 3, 0.02)
    x = torch.randn(2, 30, 6)
    before, _ = head(x, head.initial(2))
    head.scale([2.0, 1.0, 1.0], [-3.0, 0.0, 1.0])
    after, _ = head(x, head.initial(2))
    assert torch.allclose(after, before * torch.tensor([2.0, 1.0, 1.0]) + torch.tensor([-3.0, 0.0, 1.0]), atol=1e-5)


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


def cut_and_restored(model, x, cuts, seed=0):
    """All posteriors and events of a stream that is cut anywhere, and goes on from its snapshot after each cut."""
    rng = np.random.default_rng(seed)
    places = [0, *sorted(rng.integers(0, len(x), cuts).tolist()), len(x)]
    stream, posteriors, events = Stream(model), [], []
    for start, end in pairwise(places):
        stream = Stream.restore(model, stream.snapshot())
        events += stream.push(x[start:end])
        posteriors.append(stream.posteriors)
    events += stream.close()
    return np.concatenate([*posteriors, stream.posteriors]), events


def held_to_the_law(model, seconds, cuts):
    x, live = bursts(seconds), model.for_streaming()
    expected, wanted = cut_and_restored(live, x, 0)
    found, events = cut_and_restored(live, x, cuts)
    assert np.array_equal(found, expected) and events == wanted
    return wanted


@pytest.mark.parametrize("name", ENCODERS)
def test_cuts_and_restores_change_nothing(name):
    events = held_to_the_law(model_of(name), 8, 30)
    assert len(events) >= 2 and any(event.details for event in events)


@pytest.mark.long
@pytest.mark.parametrize("name", ENCODERS)
def test_a_thousand_cuts_and_restores_change_nothing(name):
    assert len(held_to_the_law(model_of(name), 60, 1000)) >= 20


@pytest.mark.parametrize("name", ENCODERS)
def test_a_scheduler_tells_the_same_and_a_reset_begins_anew(name):
    model, x = model_of(name).for_streaming(), bursts(5)
    alone, events = cut_and_restored(model, x, 0)
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


@pytest.mark.parametrize("name", ENCODERS)
def test_graphs_tell_the_same(name, tmp_path):
    """``export`` itself refuses a graph whose answers differ by more than 1e-5."""
    export(model_of(name), tmp_path)
    graph, x = OnnxModel(tmp_path / "model.onnx"), bursts(6)
    found, events = cut_and_restored(graph, x, 20)
    expected, wanted = cut_and_restored(model_of(name).for_streaming(), x, 0)
    assert np.allclose(found, expected, atol=1e-3)
    assert [(one.start, one.details) for one in events] == [(one.start, one.details) for one in wanted]
