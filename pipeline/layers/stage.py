"""The law: a Stage is ``y, state = stage(x, state)``.

Overlap buffer, mel filters, causal convolutions, recurrent layers, pooling, smoothing and chains of them all keep it:

* ``x`` is a chunk of *any* length. A whole recording is only a long chunk, so the offline call, the streaming call and
  the training call are one call. There is no streaming mode, no ``reset()`` and no ``step`` beside ``forward``.
* ``state`` is a plain value: a nested tuple of tensors with the batch on axis 0 (``()`` when there is nothing to
  remember). It goes in, it comes out, and the one that went in is never written to. So a snapshot is holding it,
  a restore is handing it back, a reset is ``initial(1)``, and serving many users is ``stack``.
* ``hop`` input steps make exactly one output step: ``T_out = T_in / hop``. Left context starts as zeros in the state,
  so the very first hop already yields an output and all states have a fixed shape.
* ``y`` lags ``x`` by ``delay`` output steps, which is declared, not hidden.

Five laws follow, and ``tests/test_laws.py`` proves them for every component that ``conf/`` names: *chunk* (cutting x
changes nothing), *batch* (a row does not see its neighbours), *value* (the given state is untouched), *rate* (the
number of output steps) and *causal* (the future does not reach the past, so right padding needs no mask).

Shapes here and everywhere: B batch, T time, F features, C H W channels, height, width.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, pairwise
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

# A nested tuple of tensors. mypy has no good word for "any nesting", and needs none: only the tree map looks inside.
State: TypeAlias = Any


class Stage(nn.Module):
    """One step of the graph. Subclasses set the four facts below and write ``forward`` (and ``initial``, if stateful).

    Attributes:
        in_shape: trailing shape of one input step; ``()`` for samples, ``(F,)`` for features, ``(C, H, W)`` for frames.
            A stage that joins several tracks takes a tuple of tensors, and has a tuple of such shapes.
        out_shape: trailing shape of one output step.
        hop: input steps per output step.
        delay: output steps by which y lags behind x.
        causal: False for a stage that looks at the whole clip; ``Stream`` refuses it.
    """

    in_shape: tuple[Any, ...]
    out_shape: tuple[int, ...]
    hop: int = 1
    delay: int = 0
    causal: bool = True
    anchor: Tensor

    def __init__(self) -> None:
        super().__init__()
        # An empty buffer that travels with .to(): it tells on which device and in which precision states begin.
        self.register_buffer("anchor", torch.zeros(0), persistent=False)

    def zeros(self, *shape: int) -> Tensor:
        """Zeros where this stage lives, for ``initial``."""
        return self.anchor.new_zeros(shape)

    def initial(self, batch: int) -> State:
        """The state before the first sample, for ``batch`` rows."""
        return ()

    def __call__(self, x: Any, state: State) -> tuple[Tensor, State]:
        """``forward``; a chunk of another shape is refused and an empty one answered here, so that no stage needs to
        think of them.
        """
        if shape_of(x) != self.in_shape:
            raise ValueError(
                f"{type(self).__name__}: got steps of shape {shape_of(x)}; expected {self.in_shape}: "
                f"x (B, T{''.join(f', {size}' for size in self.in_shape)})"
            )
        first = x[0] if isinstance(x, tuple) else x
        if not first.shape[1]:
            return self.zeros(first.shape[0], 0, *self.out_shape), state
        y, state = super().__call__(x, state)
        return y, state

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """``x (B, T*hop, *in_shape)`` and a state to ``y (B, T, *out_shape)`` and the next state."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")


class Chain(Stage):
    """Stages one after another: hops multiply, delays add up, the state is the tuple of the stages' states.

    The stages are attributes of the chain under their names, so that weights have readable names on disk.
    """

    def __init__(self, **stages: Stage) -> None:
        """Join ``stages``; ValueError if the shapes of two neighbours differ or the delays do not add up."""
        super().__init__()
        if not stages:
            raise ValueError("a chain needs at least one stage")
        for (name, first), (next_name, second) in pairwise(stages.items()):
            if first.out_shape != second.in_shape:
                raise ValueError(
                    f"{name} makes steps of shape {first.out_shape}, but {next_name} expects {second.in_shape}"
                )
        self.names = list(stages)
        self.in_shape, self.out_shape = next(iter(stages.values())).in_shape, [*stages.values()][-1].out_shape
        self.hop, lag = 1, 0  # lag: in steps of the chain's input
        for name, stage in stages.items():
            self.add_module(name, stage)
            self.hop *= stage.hop
            lag += stage.delay * self.hop
        if lag % self.hop:
            raise ValueError(f"the stages' delays add up to {lag} input steps, not a multiple of the hop {self.hop}")
        self.delay = lag // self.hop
        self.causal = all(stage.causal for stage in stages.values())

    @property
    def stages(self) -> list[Stage]:
        """The stages in order."""
        return [cast(Stage, self._modules[name]) for name in self.names]

    def initial(self, batch: int) -> State:
        """One state per stage."""
        return tuple(stage.initial(batch) for stage in self.stages)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """``x (B, T*hop, *in_shape)`` through every stage in turn."""
        return through(self.stages, x, state)


def through(stages: Iterable[Stage], x: Tensor, state: State) -> tuple[Tensor, State]:
    """Stages one after another, each with its own part of the state."""
    after = []
    for stage, before in zip(stages, state, strict=True):
        x, new = stage(x, before)
        after.append(new)
    return x, tuple(after)


def tree(function: Callable[..., Tensor], *states: State) -> State:
    """Apply ``function`` to the tensors that stand in the same place of each state: one map serves all needs."""
    if isinstance(states[0], Tensor):
        return function(*states)
    return tuple(tree(function, *parts) for parts in zip(*states, strict=True))


def leaves(state: State) -> Iterator[Tensor]:
    """The tensors of a state, in order."""
    if isinstance(state, Tensor):
        yield state
    else:
        for part in state:
            yield from leaves(part)


def stack(states: Iterable[State]) -> State:
    """Many states as one batch, in order."""
    return tree(lambda *tensors: torch.cat(tensors), *states)


def pick(state: State, row: int) -> State:
    """Row ``row`` of a batched state, as a batch of one that owns its memory."""
    return tree(lambda tensor: tensor[row : row + 1].clone(), state)


def detach(state: State) -> State:
    """Cut the gradient between blocks of time (truncated back-propagation)."""
    return tree(lambda tensor: tensor.detach(), state)


def shape_of(x: Any) -> tuple[Any, ...]:
    """Trailing shape of one step of a chunk; of each track, if it has several."""
    return tuple(shape_of(track) for track in x) if isinstance(x, tuple) else tuple(x.shape[2:])


def pieces(x: Tensor, size: int, axis: int) -> tuple[Tensor, ...]:
    """``torch.split``; in one piece while a graph is exported, which must not depend on how large a batch is."""
    return (x,) if torch.compiler.is_exporting() else torch.split(x, size, axis)


def windows(x: Tensor, size: int, hop: int) -> Tensor:
    """Overlapping windows over time, as by ``unfold``: ``(B, (T - 1) * hop + size, ...)`` to ``(B, T, ..., size)``.

    In a graph that is exported they are put together of pieces of ``hop`` steps: runtimes gather numbers one by one.
    """
    if not torch.compiler.is_exporting():
        return x.unfold(1, size, hop)
    times, steps = -(-size // hop), (x.shape[1] - size) // hop + 1
    x, spare = x.movedim(1, -1), times * hop - size
    if steps <= times:
        frames = torch.cat([x[..., k * hop : k * hop + size] for k in range(steps)], -1)
        return frames.reshape(*x.shape[:-1], steps, size).movedim(-2, 1)
    x = torch.nn.functional.pad(x, (spare, 0))
    x = x.reshape(*x.shape[:-1], -1, hop)
    parts = [x[..., k : k + steps, 0 if k else spare :] for k in range(times)]
    return torch.cat(parts, -1).movedim(-2, 1)


def power_spectrum(x: Tensor, size: int, hann: Tensor) -> Tensor:
    """Squared magnitudes ``(..., size // 2 + 1)`` of the Fourier transform of frames ``(..., N)``, weighted by a
    periodic Hann window ``(N,)`` and padded with zeros to ``size``. In a graph that is exported two products with
    waves, as runtimes have no fast transform: of the parts that are even and odd about the window's middle, where time
    is counted from, which changes no magnitude. The window begins with 0, and is even from there on.
    """
    if not torch.compiler.is_exporting():
        spectrum = torch.fft.rfft(x * hann, size)
        power: Tensor = spectrum.real.square() + spectrum.imag.square()
        return power
    count = x.shape[-1]
    half = count // 2
    times = np.arange(count - half, count) - count / 2
    angles = 2 * np.pi / size * np.outer(times, np.arange(size // 2 + 1))
    weights = np.where(times == 0, 0.5, 1)[:, None] * (0.5 + 0.5 * np.cos(2 * np.pi / count * times))[:, None]
    cosines, sines = (torch.from_numpy((weights * wave(angles)).astype(np.float32)) for wave in (np.cos, np.sin))
    late, early = x[..., count - half :], x[..., 1 : half + 1].flip(-1)
    even, odd = (late + early) @ cosines, (late - early) @ sines
    return even * even + odd * odd


def sliding_sum(x: Tensor, size: int) -> Tensor:
    """Sums over the last ``size`` steps: ``(B, size - 1 + T, F)`` to ``(B, T, F)``; in an exported graph a product."""
    if not torch.compiler.is_exporting():
        return x.unfold(1, size, 1).sum(-1)
    steps = x.shape[1] - size + 1
    return torch.ones(steps, x.shape[1]).triu().tril(size - 1) @ x


def running_max(x: Tensor) -> Tensor:
    """The greatest so far over time of ``(B, T, ...)``; in an exported graph step by step, as ONNX has no cummax."""
    if not torch.compiler.is_exporting():
        return x.cummax(1).values
    return torch.stack([*accumulate(x.unbind(1), torch.maximum)], 1)


def left_context(past: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Prepend remembered steps to a chunk; return it and the last ``past.shape[1]`` steps of it to remember next.

    ``past (B, P, ...)``, ``x (B, T, ...)`` -> ``(B, P + T, ...)`` and ``(B, P, ...)``.
    """
    joined = torch.cat([past, x], dim=1)
    return joined, joined[:, joined.shape[1] - past.shape[1] :].clone()
