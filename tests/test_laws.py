"""The five laws, on every component that conf/ names."""

import functools

import pytest
import torch
from conftest import configured, options

from pipeline.cells.gru import GRU, ConvGRU
from pipeline.cells.lstm import LSTM
from pipeline.core.build import build
from pipeline.extractors.logmel import LogMel
from pipeline.layers.fuse import Fuse
from pipeline.layers.laws import check
from pipeline.layers.smoothing import EMA
from pipeline.layers.stage import Chain, Stage
from pipeline.layers.usual import EnergyHead
from pipeline.model.classifier import Classifier

STEP = {"shape": (7,), "step": 0.02}
GIVEN = {"extractor": {}, "head": STEP | {"classes": 4}, "smoothing": STEP}


SMALL = {  # pictures small enough for many examples
    "frames": {"height": 12, "width": 16}, "frame_difference": {"height": 12, "width": 16, "keep": True},
    "optical_flow": {"height": 28, "width": 32, "columns": 8}, "frame_cnn": {"height": 16, "width": 16},
    "moving_region": {"height": 20, "width": 24, "cells": 4},
    "values": {"columns": ["x", "y", "z"], "rate": 10}, "motion_statistics": {"height": 20, "width": 24}, "audiovisual": {"size": 5, "picture": {"height": 28, "width": 28}},
}  # fmt: skip


def shrunk(config, option):
    changes = SMALL.get(option, {}).items()
    return config | {key: config[key] | value if isinstance(value, dict) else value for key, value in changes}


def component(group, option):
    config = configured("train", f"{group}={option}")[group]
    return build(shrunk(config, option), Stage, at=group, **GIVEN.get(group, {}))


SETTINGS = [
    {"bias": False}, {"layer_norm": True}, {"zoneout": 0.2}, {"recurrent_dropout": 0.3}, {"forget_bias": 1.0},
    {"orthogonal": True}, {"learn_initial": True}, {"gate": "hard_sigmoid"},
]  # fmt: skip
STRANGE = {  # settings of single cells
    "jordan": [{"output": "linear"}, {"output": "sigmoid"}],
    "coupled_lstm": [{"peephole": True}],
    "conv_lstm": [{"peephole": True}, {"stride": 2}, {"dilation": 2}, {"kernel": 5}],
}


def encoder(option, cell, layers=2, residual=False, **settings):
    config = configured("train", f"encoder={option}", f"cell={cell}")
    changes = {"hidden": 12, "layers": layers, "residual": residual, "cell": config["cell"] | settings}
    shape = (2, 5, 4) if cell.startswith("conv_") else (7,)
    return lively(build(config["encoder"] | changes, Chain, at="encoder", shape=shape))


def lively(chain):
    """Learned parameters that begin as constants get values of their own."""
    with torch.no_grad():
        for name, parameter in chain.named_parameters():
            if name.endswith("start"):
                parameter.normal_()
    return chain


def layered():
    """Every cell with every setting, in one to three layers in turn."""
    for cell in options("cell"):
        for number, own in enumerate([*SETTINGS, *STRANGE.get(cell, []), {"residual": True}]):
            if not ("forget_bias" in own and cell in ("elman", "jordan", "conv_elman")):
                yield cell, own, 1 + number % 3


def head(option, window):
    return build(configured("train", f"head={option}")["head"] | {"window": window}, Stage, at="head", **GIVEN["head"])


def whole(cell):
    return Classifier(configured("train", f"cell={cell}", "encoder=conv_recurrent", "head=max"), ["a", "b", "c"])


def seeing(extractor, encoder, cell):
    """A classifier of pictures, or of sound and pictures."""
    config = configured("train", f"extractor={extractor}", f"encoder={encoder}", f"cell={cell}", "head=max")
    config["extractor"] = shrunk(config["extractor"], extractor)
    config["encoder"]["hidden"] = 8
    return Classifier(config, ["a", "b", "c"])


def tagging():
    """A classifier of several labels at once."""
    config = configured("train", "task=tags", "encoder=conv_recurrent", "encoder.hidden=12", "extractor.mels=20")
    return Classifier(config, ["a", "b", "c"])


def measuring(option):
    """An encoder that measures what it did not expect."""
    config = configured("train", f"encoder={option}", "cell=lstm")
    return build(config["encoder"] | {"cell": config["cell"]}, Stage, at="encoder", shape=(7,))


def unusual(option):
    """A classifier of what is unusual, as for streams."""
    config = configured("train", "task=novelty", f"encoder={option}", "extractor.mels=20", "head.warm=0.05")
    return Classifier(config, ["unusual"]).for_streaming()


SEEING = ("frames", "conv_lstm"), ("frame_difference", "conv_gru"), ("optical_flow", "gru")
CASES = {
    **{f"{g}={o}": (component, g, o) for g in GIVEN for o in options(g) if o not in ("onnx", "pose")},
    **{f"head={o},window={w}": (head, o, w) for o in options("head") for w in (0.02, 0.1)},
    "conv_recurrent,lstm": (encoder, "conv_recurrent", "lstm"),
    "spectral_recurrent,gru": (encoder, "spectral_recurrent", "gru", 1),
    **{c: (encoder, "recurrent", c) for c in options("cell")},
    **{f"classifier,cell={c}": (whole, c) for c in ("lstm", "gru")},
    **{f"classifier,{e},cell={c}": (seeing, e, "image_recurrent", c) for e, c in SEEING},
    "classifier,frame_cnn": (seeing, "frame_cnn", "recurrent", "lstm"),
    "classifier,audiovisual": (seeing, "audiovisual", "recurrent", "gru"),
    "fuse": (Fuse, 3, 2),
    "smoothing of sigmoids": (EMA, (4,), 0.02, 0.05, "sigmoid"),
    "classifier of tags": (tagging,),
    **{f"encoder={name}": (measuring, name) for name in ("whiten", "ahead", "autoencoder")},
    **{f"classifier of novelty,{name}": (unusual, name) for name in ("whiten", "ahead", "autoencoder")},
    "energies of images": (EnergyHead, (2, 6, 5), 10, 0.02, 0.1, 1.0),
}


@functools.cache
def built(name):
    torch.manual_seed(1)
    make, *arguments = CASES[name]
    return make(*arguments).eval()


SLOW = "extractor=joined", "extractor=motion_statistics", "extractor=spectrum_picture"


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.long] if name.startswith(SLOW) else []) for name in CASES
])  # fmt: skip
def test_every_component_keeps_the_laws(name):
    check(built(name), examples=1 if "audiovisual" in name else 3)


@pytest.mark.parametrize(("cell", "own", "layers"), [
    pytest.param(*case, marks=[] if case[0] == "lstm" or case[:2] == ("conv_lstm", {"stride": 2}) else [pytest.mark.long])
    for case in layered()
], ids=str)  # fmt: skip
def test_every_setting_of_every_cell_keeps_the_laws(cell, own, layers):
    torch.manual_seed(1)
    check(encoder("recurrent", cell, layers, **own), examples=3)


class Broken(Stage):
    """A stage that breaks one law, on purpose."""

    in_shape = out_shape = (3,)

    def __init__(self, how):
        super().__init__()
        self.how = how

    def initial(self, batch):
        return 0 if self.how == "state" else self.zeros(batch, 3)

    def forward(self, x, state):
        if self.how == "value":
            state += 1
        ways = {"chunk": x - x[:, :1], "batch": x - x.mean(0), "rate": x[:, ::2], "causal": x.flip(1)}
        return ways.get(self.how, x), state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("chunk", r"breaks the law 'chunk': y, when \d+ steps are cut at .*, differs by"),
        ("batch", r"breaks the law 'batch': y of row \d among \d, differs by"),
        ("value", "breaks the law 'value': the state that was given, after the step, differs by"),
        ("rate", r"breaks the law 'rate': y has the shape .*; expected"),
        ("causal", "breaks the law 'c(hunk|ausal)': y"),
        ("state", "breaks the law 'rate': the state holds int; expected a nested tuple of tensors"),
    ],
)
def test_a_stage_that_breaks_a_law_is_told_which(how, message):
    with pytest.raises(AssertionError, match="^Broken " + message):
        check(Broken(how))


def test_kinds_are_made_with_small_sizes_and_settings_of_ones_own():
    check(GRU)
    check(LSTM, hidden=4, peephole=True)
    check(ConvGRU, shape=(2, 5, 4), kernel=1)
    check(LogMel, mels=12)
    check(EMA, seconds=0.1)
    with pytest.raises(TypeError, match="nothing"):
        check(GRU, nothing=1)
    with pytest.raises(ValueError, match="expected images"):
        check(ConvGRU)


def test_what_looks_at_the_whole_clip_keeps_the_other_laws():
    stage = Broken("causal")
    stage.causal = False
    check(stage)


class Slow(Stage):
    """Every other step, answered ``delay`` steps late."""

    def __init__(self, hop, delay):
        super().__init__()
        self.in_shape = self.out_shape = (1,)
        self.hop, self.delay = hop, delay

    def forward(self, x, state):
        return x[:, :: self.hop], state


def test_chain_multiplies_hops_and_adds_delays():
    chain = Chain(a=Slow(2, 3), b=Slow(3, 1), c=Slow(1, 2))
    assert (chain.hop, chain.delay) == (6, 4)  # 3 * 2 + 1 * 6 + 2 * 6 = 24 input steps
    assert chain(torch.zeros(1, 12, 1), chain.initial(1))[0].shape == (1, 2, 1)


def test_chain_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="not a multiple of the hop"):
        Chain(a=Slow(1, 1), b=Slow(2, 0))
    other = Slow(1, 0)
    other.in_shape = (5,)
    with pytest.raises(ValueError, match=r"b expects \(5,\)"):
        Chain(a=Slow(1, 0), b=other)
    with pytest.raises(ValueError, match="at least one"):
        Chain()
