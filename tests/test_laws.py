"""The five laws, on every component that conf/ names."""

import functools
import itertools

import pytest
import torch
from conftest import configured, options
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.build import build
from pipeline.model import Classifier
from pipeline.stage import Chain, Stage, detach, pick, stack, tree

STEP = {"shape": (7,), "step": 0.02}
GIVEN = {"head": STEP | {"classes": 4}, "smoothing": STEP}


def component(group, option):
    return build(configured("train", f"{group}={option}")[group], Stage, at=group, **GIVEN.get(group, {}))


def encoder(option, cell):
    config = configured("train", f"encoder={option}", f"cell={cell}", "encoder.hidden=12", "encoder.layers=2")
    return build(config["encoder"] | {"cell": config["cell"]}, Chain, at="encoder", shape=(7,))


def head(option, window):
    return build(configured("train", f"head={option}")["head"] | {"window": window}, Stage, at="head", **GIVEN["head"])


def whole(cell):
    return Classifier(configured("train", f"cell={cell}", "encoder=conv_recurrent", "head=max"), ["a", "b", "c"])


CASES = {
    **{f"{g}={o}": (component, g, o) for g in ("extractor", "head", "smoothing") for o in options(g)},
    **{f"head={o},window={w}": (head, o, w) for o in options("head") for w in (0.02, 0.1)},
    **{f"encoder={e},cell={c}": (encoder, e, c) for e, c in itertools.product(options("encoder"), options("cell"))},
    **{f"classifier,cell={c}": (whole, c) for c in options("cell")},
}
every_stage = pytest.mark.parametrize("name", CASES)


@functools.cache
def built(name):
    torch.manual_seed(1)
    make, *arguments = CASES[name]
    return make(*arguments).eval()


def chunk(stage, rows, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, steps * stage.hop, *stage.in_shape, generator=generator) * 0.5


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
    for part in x.split([size * stage.hop for size in sizes], 1):
        y, state = stage(part, state)
        parts.append(y)
    assert close(torch.cat(parts, 1), together)
    tree(lambda a, b: assert_close(a, b), state, last)


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
        alone, state = stage(x[row : row + 1], warm[row])
        assert close(together[row : row + 1], alone)
        tree(lambda a, b: assert_close(a, b), pick(after, row), state)


@every_stage
@torch.no_grad()
@settings(max_examples=5)
@given(steps=st.integers(0, 12))
def test_value(name, steps):
    stage = built(name)
    _, state = stage(chunk(stage, 2, 3), stage.initial(2))
    before = tree(torch.clone, state)
    stage(chunk(stage, 2, steps, 1), state)
    tree(lambda a, b: assert_equal(a, b), state, before)


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
    assert y.shape == (rows, steps, *stage.out_shape)
    tree(lambda a, b: a if a.shape == b.shape else pytest.fail("state changed shape"), state, stage.initial(rows))


@every_stage
@torch.no_grad()
@settings(max_examples=5)
@given(steps=st.integers(2, 12), data=st.data())
def test_causal(name, steps, data):
    stage = built(name)
    past = data.draw(st.integers(1, steps - 1))
    x = chunk(stage, 2, steps)
    other = x.clone()
    other[:, past * stage.hop :] += 1.0
    y, _ = stage(x, stage.initial(2))
    z, _ = stage(other, stage.initial(2))
    assert torch.equal(y[:, :past], z[:, :past])


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
