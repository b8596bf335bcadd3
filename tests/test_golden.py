"""The golden clip: a model that answers otherwise than when it was saved is found out, with the stage that does."""

import numpy as np
import pytest
import torch
from conftest import BOTH, PICTURES, lively_model, small_model
from test_model import rewritten

from pipeline.core.errors import ModelError
from pipeline.core.version import VERSION
from pipeline.model.classifier import load
from pipeline.model.golden_clip import sound
from pipeline.streaming.selftest import check

SEEING = ("encoder.hidden=8", "head.window=0.3")
MODELS = {
    "sound": lambda: small_model(),
    "delay": lambda: small_model("head.delay=0.2", "encoder=conv_recurrent", "cell=lstm"),
    "pictures": lambda: lively_model(*PICTURES, "encoder.stem=[{channels: 4}]", *SEEING, times=2.0),
    "both": lambda: lively_model(*BOTH, *SEEING, times=2.0),
}


def model_of(name):
    return MODELS[name]()


@pytest.fixture
def stored(tmp_path):
    def store(name="sound"):
        model_of(name).save(tmp_path / "model.safetensors")
        return tmp_path / "model.safetensors"

    return store


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("block", [1, 10])
def test_a_model_that_is_well_passes(stored, name, block):
    model = load(stored(name)).for_streaming()
    assert np.ptp(model.golden.posteriors, axis=0).max() > 0.01  # it moves, so that equality means something
    check(model, block, microphone=True)


@pytest.mark.parametrize("part", ["standardize.mean", "encoder", "head"])
def test_other_weights_are_found_out_with_their_stage(stored, part):
    def change(card, weights):
        for name, tensor in weights.items():
            if name.startswith(part) and tensor.is_floating_point():
                tensor *= 1.3

    stage = part.split(".")[0]
    with pytest.raises(ModelError, match=rf"answers differ by [0-9.e-]+ .* first stage to differ is '{stage}'"):
        check(load(rewritten(stored(), change)).for_streaming())


def test_the_message_names_versions_that_differ(stored):
    def change(card, weights):
        assert card["versions"]["rivulet"] == VERSION
        card["versions"] |= {"rivulet": "0.1", "torch": "1.0", "\x1b[2J": "9"}  # only names that we know are told
        weights["golden.posteriors"][3] += 0.01

    message = rf"no stage differs much; rivulet was '0\.1' and is '{VERSION}', torch was '1\.0' and is '{torch.__version__.split('+')[0]}'.*selftest=false"
    with pytest.raises(ModelError, match=message):
        check(load(rewritten(stored(), change)).for_streaming())


def test_a_stream_that_answers_otherwise_is_found_out(stored):
    model = load(stored()).for_streaming()

    def fault(_, given, answer):  # breaks the law of chunks
        return answer[0] + 0.01 * (given[0].shape[1] == 10 * model.hop), answer[1]

    model.register_forward_hook(fault)
    with pytest.raises(ModelError, match=r"the stream differs from the offline path by 0\.01"):
        check(model)


def test_models_without_golden_answers_and_other_windows_are_compared_with_themselves(stored):
    def without(card, weights):
        del card["versions"], weights["golden.posteriors"], weights["golden.sizes"]

    old = load(rewritten(stored(), without))
    assert old.golden is None
    check(old.for_streaming())
    check(load(stored()).with_window(0.2))
    check(load(stored()).with_window(None))


def test_lower_precision_is_compared_with_itself(stored):
    check(load(stored("pictures")).with_precision("bf16").for_streaming())


def test_golden_answers_that_are_none_are_refused(stored):
    changes = (
        lambda _, weights: weights.update({"golden.posteriors": torch.zeros(1000, 1000)}),
        lambda _, weights: weights["golden.sizes"][0].fill_(np.nan),
        lambda _, weights: weights.pop("golden.sizes"),
    )
    for change in changes:
        with pytest.raises(ModelError, match="golden answers are not those of such a model"):
            load(rewritten(stored(), change))


def test_saving_leaves_a_training_as_it_was(tmp_path):
    model = small_model().train()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = torch.random.get_rng_state()
    model.save(tmp_path / "model.safetensors")
    assert model.training and torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_the_clip_is_the_same_for_ever():
    wave = sound(16000)
    assert len(wave) == 8000 and wave[[0, 1, 100, 7999]] == pytest.approx(
        [-0.014498, -0.034481, -0.328586, -0.306065], abs=1e-6
    )
