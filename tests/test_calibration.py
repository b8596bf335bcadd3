"""Scores that mean what they say, fitted to validation clips."""

import json

import numpy as np
import pytest
import torch
from conftest import QUICK, lively_model, noise, ran, tone_clips
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression

from pipeline.model.classifier import load
from pipeline.tasks.calibration import MAX_SCALE, fit_sigmoid, fit_temperature


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_temperature_is_found_again(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 5))
    truth = (softmax(logits, 1).cumsum(1) > rng.random((20_000, 1))).argmax(1)
    told = softmax(logits * temperature, 1).astype(np.float32)
    assert fit_temperature(told, truth) == pytest.approx(1 / temperature, rel=0.03)


def test_the_sigmoid_of_a_label_is_that_of_a_logistic_regression():
    """Each clip is given twice to scikit-learn, weighted by Platt's targets."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, 500)
    truth = expit(0.5 * logits - 1) > rng.random(500)
    scale, shift = fit_sigmoid(expit(logits).astype(np.float32), truth)
    high, low = (truth.sum() + 1) / (truth.sum() + 2), 1 / ((~truth).sum() + 2)
    target = np.where(truth, high, low)
    oracle = LogisticRegression(C=np.inf, tol=1e-8).fit(
        np.tile(logits, 2)[:, None], np.repeat([1, 0], 500), np.concatenate([target, 1 - target])
    )
    assert (scale, shift) == (
        pytest.approx(oracle.coef_[0, 0], rel=1e-3),
        pytest.approx(oracle.intercept_[0], abs=1e-3),
    )


def test_where_all_is_right_or_nothing_is_known_scales_stay_bounded():
    sure = np.eye(3, dtype=np.float32)[[0, 1, 2]] * 0.9 + 0.03
    assert 1 < fit_temperature(sure, np.arange(3)) <= MAX_SCALE + 1e-6
    assert fit_sigmoid(np.array([0.2, 0.7], np.float32), np.array([True, True])) == (1.0, 0.0)
    assert fit_sigmoid(np.array([0.2, 1.0], np.float32), np.array([False, True]))[0] <= MAX_SCALE + 1e-6


@pytest.mark.parametrize("pool", ["max", "mean", "last"])
def test_logits_are_scaled_behind_the_pool_by_the_weights_before_it(pool):
    model, x = lively_model(f"head={pool}", "smoothing.seconds=0"), torch.from_numpy(noise(16000))[None]
    before = model(x, model.initial(1))[0].double().log()
    scale, shift = np.array([2.0, 2.0, 2.0]), np.array([0.5, 0.0, -1.0])
    model.head.linear.scale(scale, shift)
    expected = (before * 2 + torch.from_numpy(shift)).softmax(-1)
    assert torch.allclose(model(x, model.initial(1))[0].double(), expected, atol=1e-5)


@pytest.mark.parametrize("task", ["classes", pytest.param("tags", marks=pytest.mark.long)])
def test_a_training_with_calibration(tmp_path, task):
    """The saved model has other scores than without, in the same order, and the figures are of these."""
    tone_clips(tmp_path / "clips", count=12)
    settings = ["dataset=folder", f"dataset.root={tmp_path / 'clips'}", "dataset.cache=null", *QUICK, f"task={task}"]
    for name in ("false", "true"):
        ran("train.py", *settings, "trainer.epochs=2", f"calibrate={name}", f"hydra.run.dir={tmp_path / name}")
    plain, fitted = (load(tmp_path / name) for name in ("false", "true"))
    factor = fitted.head.linear.map.weight / plain.head.linear.map.weight
    assert (factor > 0).all() and not torch.allclose(factor, torch.ones(()), atol=1e-3)
    rows = [
        [json.loads(line) for line in (tmp_path / name / "answers.jsonl").read_text().splitlines()]
        for name in ("false", "true")
    ]
    loss = [-np.log([row["truth_score"] for row in one if row["split"] == "val"]).mean() for one in rows]
    assert loss[1] < loss[0] + 1e-3
