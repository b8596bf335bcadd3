"""From encoder steps to class logits: a linear map, and a pool over time."""

from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn.functional import max_pool1d

from pipeline.layers.stage import Chain, Stage, State, left_context, running_max, sliding_sum


class Head(Chain):
    """A linear map to logits, then a running pool over time: ``(B, T, F) -> (B, T, classes)``.

    ``pool`` is ``mean``, ``max`` or ``last`` (none). The pool is causal, so a clip's last output is the clip's answer.
    ``window`` bounds it to the newest seconds, so that an endless stream forgets; None pools since the start, which is
    what clips are trained and classified with. ``live`` is the window used on streams.
    ``delay`` seconds are granted to the network before it must answer: in training the target of time t is asked for
    at t + delay, and in streaming time stamps are set back by it.
    """

    linear: "Linear"

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        step: float,
        pool: Literal["mean", "max", "last"] = "mean",
        window: PositiveFloat | None = None,
        live: PositiveFloat | None = 0.5,
        delay: Annotated[float, Field(ge=0, le=600)] = 0.0,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        """``shape`` of an encoder step (one axis), number of ``classes``, ``step`` in seconds."""
        linear = Linear(shape, classes, dropout, round(delay / step))
        super().__init__(linear=linear, pool=POOLS[pool](classes, max(1, round(window / step)) if window else 0))

    def scale(self, factor: ArrayLike, shift: ArrayLike) -> None:
        """As ``Linear.scale``."""
        self.linear.scale(factor, shift)


class Linear(Stage):
    """Dropout and W x + b: ``(B, T, F) -> (B, T, classes)``, logits of each step, trained to lag by ``delay`` steps."""

    def __init__(self, shape: tuple[int, ...], classes: int, dropout: float, delay: int) -> None:
        super().__init__()
        self.in_shape, self.out_shape, self.delay = shape, (classes,), delay
        self.dropout = nn.Dropout(dropout)
        self.map = nn.Linear(shape[0], classes)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Stateless."""
        return self.map(self.dropout(x)), state

    @torch.no_grad()
    def scale(self, factor: ArrayLike, shift: ArrayLike) -> None:
        """Multiply each logit, and add to it ``(classes,)``, for ever. Pools take that as it is, where factors are
        positive.
        """
        factors, shifts = (torch.as_tensor(np.asarray(one)).to(self.map.bias) for one in (factor, shift))
        self.map.weight.mul_(factors[:, None])
        self.map.bias.mul_(factors).add_(shifts)


class Last(Stage):
    """No pooling: the newest step is the answer."""

    def __init__(self, classes: int, window: int) -> None:
        super().__init__()
        self.in_shape = self.out_shape = (classes,)
        self.window = window  # steps; 0 for all since the start

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """As it came."""
        return x, state


class Max(Last):
    """Greatest logit of each class in the window, or since the start."""

    def initial(self, batch: int) -> State:
        """Nothing seen: minus infinity."""
        return self.zeros(batch, max(1, self.window - 1), *self.out_shape) - torch.inf

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The state is the last window - 1 steps, or the maximum since the start."""
        if self.window == 1:
            return x, state
        joined, recent = left_context(state, x)
        if self.window:
            return max_pool1d(joined.transpose(1, 2), self.window, 1).transpose(1, 2), recent
        pooled = running_max(joined)
        return pooled[:, 1:], pooled[:, -1:].clone()


class Mean(Last):
    """Mean logit of each class over the window, or since the start; steps before the start do not count."""

    def initial(self, batch: int) -> State:
        """What is remembered (the last window - 1 steps, or the mean), and the number of steps seen."""
        seen = torch.zeros(batch, 1, dtype=torch.int64, device=self.anchor.device)
        past = (self.window - 1, *self.out_shape) if self.window else self.out_shape
        return self.zeros(batch, *past), seen

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The mean since the start is kept as a mean, not as a sum that grows for ever."""
        past, seen = state
        steps = torch.arange(1, x.shape[1] + 1, device=x.device)
        count, seen = (seen + steps)[:, :, None], seen + x.shape[1]
        if self.window:
            joined, recent = left_context(past, x)
            total = sliding_sum(joined, self.window)
            return total / count.clamp(max=self.window), (recent, seen)
        pooled = (past[:, None] * (count[:, :1] - 1) + x.cumsum(1)) / count
        return pooled, (pooled[:, -1].clone(), seen)


POOLS = {"last": Last, "max": Max, "mean": Mean}
