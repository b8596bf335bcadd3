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
from itertools import pairwise
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from pipeline.layers.lean import MODE, Array, Arrays, array, arrays, hooked, serves, tensors

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
        if first.shape[0] > 1 and self in MODE.serial:
            rows = [self(pick(x, row), pick(state, row)) for row in range(first.shape[0])]
            return torch.cat([y for y, _ in rows]), stack(after for _, after in rows)
        answer = self.leanly(x, state) if not torch.is_grad_enabled() and self.able else None
        y, state = super().__call__(x, state) if answer is None else answer
        return y, state

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """``x (B, T*hop, *in_shape)`` and a state to ``y (B, T, *out_shape)`` and the next state."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def lean(self, x: Array, state: Arrays) -> tuple[Array, Arrays] | None:
        """``forward`` on arrays, for small calls without gradient on a CPU; None where ``forward`` has to do it.

        Optional, and only for speed: ``x (B, T*hop, *in_shape)`` float32, T > 0. A subclass that has a ``forward`` of
        its own does not inherit this.
        """
        return None

    able = False  # whether there is a ``lean``

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "lean" in cls.__dict__ or "forward" in cls.__dict__:
            cls.able = "lean" in cls.__dict__

    def leanly(self, x: Any, state: State) -> tuple[Tensor, State] | None:
        """By ``lean``; None if hooks, tracing, the device or the precision forbid it."""
        if isinstance(x, tuple) or x.ndim > 3 or not serves(x, x.ndim) or hooked(self):
            return None
        try:
            given = arrays(state)
        except TypeError:
            return None
        answer = self.lean(array(x.contiguous()), given)
        return None if answer is None else tensors(answer)


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
        after = []
        for stage, before in zip(self.stages, state, strict=True):
            x, new = stage(x, before)
            after.append(new)
        return x, tuple(after)

    def lean(self, x: Array, state: Arrays) -> tuple[Array, Arrays] | None:
        """The same; a stage without ``lean`` gets its tensors."""
        after, serial = [], MODE.serial
        for stage, before in zip(self.stages, state, strict=True):
            direct = stage.able and x.shape[1] and not (serial and stage in serial) and not hooked(stage)
            answer = stage.lean(x, before) if direct else None
            if answer is None:
                y, new = stage(*tensors((x, before)))
                if y.dtype != torch.float32 or y.ndim > 3:
                    return None
                answer = arrays((y, new))
            x, new = answer
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


def left_context(past: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Prepend remembered steps to a chunk; return it and the last ``past.shape[1]`` steps of it to remember next.

    ``past (B, P, ...)``, ``x (B, T, ...)`` -> ``(B, P + T, ...)`` and ``(B, P, ...)``.
    """
    joined = torch.cat([past, x], dim=1)
    return joined, joined[:, joined.shape[1] - past.shape[1] :].clone()
