"""The five laws, on every component that conf/ names."""

import functools
import math
from itertools import accumulate

import pytest
import torch
from conftest import configured, options
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.build import build
from pipeline.layers.fuse import Fuse
from pipeline.layers.stage import Chain, Stage, detach, pick, stack, tree
from pipeline.media.input_spec import InputSpec
from pipeline.model.classifier import Classifier

STEP = {"shape": (7,), "step": 0.02}
GIVEN = {"head": STEP | {"classes": 4}, "smoothing": STEP}


SMALL = {  # pictures small enough for many examples
    "frames": {"height": 12, "width": 16}, "frame_difference": {"height": 12, "width": 16, "keep": True},
    "optical_flow": {"height": 28, "width": 32, "columns": 8}, "frame_cnn": {"height": 16, "width": 16},
    "moving_region": {"height": 20, "width": 24, "cells": 4},
    "motion_statistics": {"height": 20, "width": 24}, "audiovisual": {"size": 5, "picture": {"height": 28, "width": 28}},
}  # fmt: skip


def shrunk(config, option):
    changes = SMALL.get(option, {}).items()
    return config | {key: config[key] | value if isinstance(value, dict) else value for key, value in changes}


def component(group, option):
    config = configured("train", f"{group}={option}")[group]
    return build(shrunk(config, option), Stage, at=group, **GIVEN.get(group, {}))


IMAGES = [c for c in options("cell") if c.startswith("conv_")]
VECTORS = [c for c in options("cell") if c not in IMAGES]
SETTINGS = [
    {"bias": False}, {"layer_norm": True}, {"zoneout": 0.2}, {"recurrent_dropout": 0.3}, {"forget_bias": 1.0},
    {"orthogonal": True}, {"learn_initial": True}, {"gate": "hard_sigmoid"},
]  # fmt: skip
STRANGE = {  # settings of single cells
    "jordan": [{"output": "linear"}, {"output": "sigmoid"}],
    "coupled_lstm": [{"peephole": True}],
    "conv_lstm": [{"peephole": True}, {"stride": 2}, {"dilation": 2}, {"kernel": 5}],
}
composed = functools.cache(configured)


def encoder(option, cell, layers=2, residual=False, **settings):
    config = composed("train", f"encoder={option}", f"cell={cell}")
    changes = {"hidden": 12, "layers": layers, "residual": residual, "cell": config["cell"] | settings}
    shape = (2, 5, 4) if cell in IMAGES else (7,)
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


CASES = {
    **{f"{g}={o}": (component, g, o) for g in ("extractor", "head", "smoothing") for o in options(g)},
    **{f"head={o},window={w}": (head, o, w) for o in options("head") for w in (0.02, 0.1)},
    **{f"conv_recurrent,{c}": (encoder, "conv_recurrent", c) for c in VECTORS},
    "spectral_recurrent,gru": (encoder, "spectral_recurrent", "gru", 1),
    **{f"{c},layers={n}": (encoder, "recurrent", c, n) for c in options("cell") for n in (1, 2, 3)},
    **{f"classifier,cell={c}": (whole, c) for c in VECTORS},
    **{
        f"classifier,{e},cell={c}": (seeing, e, "image_recurrent", c)
        for e in ("frames", "frame_difference", "optical_flow")
        for c in ("conv_lstm", "conv_gru", "gru")
    },
    "classifier,frame_cnn": (seeing, "frame_cnn", "recurrent", "lstm"),
    "classifier,audiovisual": (seeing, "audiovisual", "recurrent", "gru"),
    "fuse": (Fuse, 3, 2),
}
every_stage = pytest.mark.parametrize("name", CASES)


@functools.cache
def built(name):
    torch.manual_seed(1)
    make, *arguments = CASES[name]
    return make(*arguments).eval()


@pytest.fixture(autouse=True)
def build_first(request):
    """What cannot be built should fail once, not in every example that Hypothesis tries."""
    given = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if "name" in given:
        built(given["name"])
    elif "own" in given:
        with_setting(given["cell"], tuple(given["own"].items()), given["layers"])


def grain(stage):
    """Output steps of the smallest chunk: more than one where sound and pictures go together."""
    return math.lcm(stage.spec.grain, stage.hop) // stage.hop if hasattr(stage, "spec") else 1


def chunk(stage, rows, grains, seed=0):
    """A chunk as the stage takes it: noise; pictures 0 ... 255; or the tuple of both with marks of what is there."""
    generator = torch.Generator().manual_seed(seed)
    spec, steps = getattr(stage, "spec", InputSpec()), grains * grain(stage)
    if not spec.picture:
        return torch.randn(rows, steps * stage.hop, *stage.in_shape, generator=generator) * 0.5
    count = steps * stage.hop // spec.grain
    size = (rows, count, 3, spec.picture.height, spec.picture.width)
    pictures = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    if not spec.sound:
        return pictures
    marks = (torch.rand(rows, count, 2, generator=generator) < 0.7).float()
    return torch.randn(rows, steps * stage.hop, generator=generator) * 0.5, pictures, marks


def part(x, start, end, of):
    """The grains from ``start`` to ``end`` of a chunk of ``of`` grains."""
    return tree(lambda track: track[:, start * track.shape[1] // of : end * track.shape[1] // of], x)


def changed(x, start, of):
    """The same chunk with another future from grain ``start`` on."""

    def other(track):
        track, at = track.clone(), start * track.shape[1] // of
        track[:, at:] = 255 - track[:, at:] if track.dtype == torch.uint8 else track[:, at:] + 1.0
        return track

    return tree(other, x)


def close(a, b):
    return (a - b).abs().max().item() <= 1e-5 * max(1.0, b.abs().max().item()) if a.numel() else a.shape == b.shape


@every_stage
@torch.no_grad()
@settings(max_examples=8)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_chunk(name, sizes):
    stage = built(name)
    x = chunk(stage, 2, sum(sizes))
    together, last = stage(x, stage.initial(2))
    state, parts = stage.initial(2), []
    for start, size in zip(accumulate(sizes, initial=0), sizes):
        y, state = stage(part(x, start, start + size, max(1, sum(sizes))), state)
        parts.append(y)
    assert close(torch.cat(parts, 1), together)
    tree(assert_close, state, last)


def assert_close(a, b):
    finite = torch.isfinite(b)
    assert a.shape == b.shape and a.dtype == b.dtype and torch.equal(finite, torch.isfinite(a))
    assert close(a[finite].double(), b[finite].double())
    return a


@every_stage
@torch.no_grad()
@settings(max_examples=5)
@given(rows=st.integers(2, 5), steps=st.integers(1, 12))
def test_batch(name, rows, steps):
    stage = built(name)
    x = chunk(stage, rows, steps)
    warm = [stage(chunk(stage, 1, 3, seed), stage.initial(1))[1] for seed in range(rows)]
    together, after = stage(x, stack(warm))
    for row in range(rows):
        alone, state = stage(pick(x, row), warm[row])
        assert close(together[row : row + 1], alone)
        tree(assert_close, pick(after, row), state)


@every_stage
@torch.no_grad()
@settings(max_examples=5)
@given(steps=st.integers(0, 12))
def test_value(name, steps):
    stage = built(name)
    _, state = stage(chunk(stage, 2, 3), stage.initial(2))
    before = tree(torch.clone, state)
    stage(chunk(stage, 2, steps, 1), state)
    tree(assert_equal, state, before)


def assert_equal(a, b):
    assert torch.equal(a, b)
    return a


@every_stage
@torch.no_grad()
@settings(max_examples=5)
@given(rows=st.integers(1, 3), steps=st.integers(0, 12))
def test_rate(name, rows, steps):
    stage = built(name)
    y, state = stage(chunk(stage, rows, steps), stage.initial(rows))
    assert y.shape == (rows, steps * grain(stage), *stage.out_shape)
    tree(lambda a, b: a if a.shape == b.shape else pytest.fail("state changed shape"), state, stage.initial(rows))


@every_stage
@torch.no_grad()
@settings(max_examples=5)
@given(steps=st.integers(2, 12), data=st.data())
def test_causal(name, steps, data):
    stage = built(name)
    past = data.draw(st.integers(1, steps - 1))
    x = chunk(stage, 2, steps)
    y, _ = stage(x, stage.initial(2))
    z, _ = stage(changed(x, past, steps), stage.initial(2))
    past *= grain(stage)
    assert torch.equal(y[:, :past], z[:, :past])


@pytest.mark.parametrize(("cell", "own", "layers"), list(layered()))
@torch.no_grad()
@settings(max_examples=3)
@given(data=st.data(), rows=st.integers(2, 3), steps=st.integers(2, 12))
def test_all_laws_with_every_setting(cell, own, layers, data, rows, steps):
    stage = with_setting(cell, tuple(own.items()), layers)
    x, warm = chunk(stage, rows, steps), stage(chunk(stage, rows, 2, 1), stage.initial(rows))[1]
    before = tree(torch.clone, warm)
    cut = data.draw(st.integers(1, steps - 1))
    together, last = stage(x, warm)
    assert together.shape == (rows, steps, *stage.out_shape)
    first, middle = stage(x[:, :cut], warm)
    second, end = stage(x[:, cut:], middle)
    assert close(torch.cat([first, second], 1), together)
    tree(assert_close, end, last)
    tree(assert_equal, warm, before)
    for row in range(rows):
        alone, after = stage(x[row : row + 1], pick(warm, row))
        assert close(alone, together[row : row + 1])
        tree(assert_close, after, pick(last, row))
    other = torch.cat([x[:, :cut], x[:, cut:] + 1], 1)
    assert torch.equal(stage(other, warm)[0][:, :cut], together[:, :cut])


@functools.cache
def with_setting(cell, own, layers):
    torch.manual_seed(1)
    return encoder("recurrent", cell, layers, **dict(own)).eval()


@every_stage
def test_state_is_a_plain_value(name):
    stage = built(name)
    state = stage.initial(3)
    tree(lambda tensor: tensor if tensor.shape[0] == 3 else pytest.fail("batch is not axis 0"), state)
    assert not any(t.requires_grad for t in flatten(detach(state)))


def flatten(state):
    return [state] if isinstance(state, torch.Tensor) else [t for part in state for t in flatten(part)]


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
