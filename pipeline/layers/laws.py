"""The five laws of a ``Stage`` (``stage.py``), as a check for any part, also one of your own:

from pipeline.layers.laws import check

check(MyCell)  # a kind: it is made with small sizes
check(MyConvCell, shape=(2, 6, 5), kernel=3)  # settings go to its constructor
check(stage)  # any stage that is already made
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.core.build import makers
from pipeline.layers.stage import Stage, State, leaves, pick, stack, tree

TOLERANCE = 1e-5  # of the greatest number
SIZES: dict[str, Any] = {"shape": (7,), "hidden": 6, "classes": 3, "step": 0.02}  # where a constructor asks for them


def check(part: Stage | Callable[..., Stage], /, *, examples: int = 5, seed: int = 0, **settings: Any) -> None:
    """Run the five laws on a stage, or on a kind of stage, with random input of random lengths.

    ``part``: a stage, or a class or function that makes one from ``settings``; what it needs of ``SIZES`` and does not
    get, it gets from there. The stage is checked as in evaluation. One with ``causal = False`` need not keep the laws
    *chunk* and *causal*. AssertionError says which law does not hold, and where.
    """
    stage = part if isinstance(part, Stage) else made(part, settings)
    training, generator = stage.training, torch.Generator().manual_seed(seed)
    stage.eval()
    try:
        with torch.no_grad():
            for _ in range(examples):
                for law in (rate, value, batch, *((chunk, causal) if stage.causal else ())):
                    try:
                        law(stage, generator)
                    except AssertionError as error:
                        raise AssertionError(
                            f"{type(stage).__name__} breaks the law {law.__name__!r}: {error}"
                        ) from None
    finally:
        stage.train(training)


def made(kind: Callable[..., Stage], settings: dict[str, Any]) -> Stage:
    """A stage of a kind, with small sizes where none are set."""
    parameters = [one for maker in makers(kind) for one in inspect.signature(maker).parameters.values()]
    needed = {parameter.name for parameter in parameters if parameter.default is parameter.empty}
    return kind(**{name: size for name, size in SIZES.items() if name in needed} | settings)


def rate(stage: Stage, generator: torch.Generator) -> None:
    """T_out = T_in / hop, and the state keeps its shapes, with the batch on axis 0."""
    rows, grains = integers(generator, 1, 4), integers(generator, 0, 12)
    first = stage.initial(rows)
    plain(first, rows)
    y, state = stage(noise(stage, rows, grains, generator), first)
    expected = (rows, grains * grain(stage), *stage.out_shape)
    assert tuple(y.shape) == expected, f"y has the shape {tuple(y.shape)}; expected {expected}"
    plain(state, rows)
    now, began = ([tuple(tensor.shape) for tensor in leaves(each)] for each in (state, first))
    assert now == began, f"the state has the shapes {now}; it began with {began}"


def value(stage: Stage, generator: torch.Generator) -> None:
    """A step never changes the state it was given."""
    state = warm(stage, 2, generator)
    before = tree(torch.clone, state)
    stage(noise(stage, 2, integers(generator, 1, 12), generator), state)
    same(state, before, "the state that was given, after the step", 0.0)


def batch(stage: Stage, generator: torch.Generator) -> None:
    """A stacked batch equals each row alone."""
    rows = integers(generator, 2, 5)
    x, states = (
        noise(stage, rows, integers(generator, 1, 12), generator),
        [warm(stage, 1, generator) for _ in range(rows)],
    )
    y, after = stage(x, stack(states))
    for row in range(rows):
        alone, state = stage(pick(x, row), states[row])
        same(y[row : row + 1], alone, f"y of row {row} among {rows}")
        same(pick(after, row), state, f"the state of row {row} among {rows}")


def chunk(stage: Stage, generator: torch.Generator) -> None:
    """Cutting x anywhere (at hops) does not change y."""
    grains = integers(generator, 2, 12)
    cuts = sorted(integers(generator, 0, grains) for _ in range(integers(generator, 1, 4)))
    x, state = noise(stage, 2, grains, generator), warm(stage, 2, generator)
    whole, last = stage(x, state)
    parts = []
    for start, end in zip([0, *cuts], [*cuts, grains], strict=True):
        y, state = stage(cut(x, start, end, grains), state)
        parts.append(y)
    where = f"when {grains * grain(stage)} steps are cut at {[at * grain(stage) for at in cuts]}"
    same(torch.cat(parts, 1), whole, f"y, {where}")
    same(state, last, f"the last state, {where}")


def causal(stage: Stage, generator: torch.Generator) -> None:
    """Changing the future leaves the past alone."""
    grains = integers(generator, 2, 12)
    past = integers(generator, 1, grains - 1)

    def other(track: Tensor) -> Tensor:
        track, at = track.clone(), past * track.shape[1] // grains
        track[:, at:] = 255 - track[:, at:] if track.dtype == torch.uint8 else track[:, at:] + 1
        return track

    x, state, steps = noise(stage, 2, grains, generator), warm(stage, 2, generator), past * grain(stage)
    y, z = stage(x, state)[0][:, :steps], stage(tree(other, x), state)[0][:, :steps]
    same(z, y, f"y before step {steps}, where x changed", 0.0)


def same(found: State, expected: State, what: str, tolerance: float = TOLERANCE) -> None:
    """AssertionError unless all tensors are equal within the tolerance, and infinite in the same places."""
    for one, other in zip(leaves(found), leaves(expected), strict=True):
        assert one.shape == other.shape, f"{what}: shape {tuple(one.shape)}, expected {tuple(other.shape)}"
        assert one.dtype == other.dtype, f"{what}: {one.dtype}, expected {other.dtype}"
        a, b = one.detach().double(), other.detach().double()
        apart = torch.where(a == b, 0.0, (a - b).abs()).nan_to_num(math.inf)
        finite = torch.where(b.isfinite(), b.abs(), 0.0)
        if apart.numel() and float(apart.max()) > tolerance * max(1.0, float(finite.max())):
            place = tuple(torch.nonzero(apart == apart.max())[0].tolist())
            raise AssertionError(f"{what}, differs by {float(apart.max()):.2g} at {place}")


def plain(state: State, rows: int) -> None:
    """AssertionError unless a state is a nested tuple of tensors with the batch on axis 0."""
    if isinstance(state, tuple):
        for item in state:
            plain(item, rows)
        return
    assert isinstance(state, Tensor), f"the state holds {type(state).__name__}; expected a nested tuple of tensors"
    assert state.ndim and len(state) == rows, f"the state of {rows} rows has the shape {tuple(state.shape)}"


def integers(generator: torch.Generator, low: int, high: int) -> int:
    """A random integer, both ends included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def grain(stage: Stage) -> int:
    """Output steps of the smallest chunk: more than one where sound and pictures go together."""
    spec = getattr(stage, "spec", None)
    return math.lcm(spec.grain, stage.hop) // stage.hop if spec else 1


def noise(stage: Stage, rows: int, grains: int, generator: torch.Generator) -> Any:
    """A chunk as the stage takes it: noise; pictures 0 ... 255; or a tuple of both with marks of what is there."""
    spec, steps = getattr(stage, "spec", None), grains * grain(stage) * stage.hop
    if spec is None or not spec.picture:
        return 0.5 * torch.randn(rows, steps, *stage.in_shape, generator=generator)
    count = steps // spec.grain
    size = (rows, count, 3, spec.picture.height, spec.picture.width)
    pictures = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    if not spec.sound:
        return pictures
    marks = (torch.rand(rows, count, 2, generator=generator) < 0.7).float()
    return 0.5 * torch.randn(rows, steps, generator=generator), pictures, marks


def cut(x: Any, start: int, end: int, grains: int) -> Any:
    """The part of a chunk of so many grains."""
    return tree(lambda track: track[:, start * track.shape[1] // grains : end * track.shape[1] // grains], x)


def warm(stage: Stage, rows: int, generator: torch.Generator) -> State:
    """A state after a few steps."""
    return stage(noise(stage, rows, 3, generator), stage.initial(rows))[1]
