"""From what was not expected to how unusual it is: its energy, held against what is usual."""

import math
from typing import Annotated

import torch
from numpy.typing import ArrayLike
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from pipeline.layers.heads import Mean
from pipeline.layers.stage import Chain, State

LEAST_ENERGY = 1e-8
LEAST_DEVIATION = 0.1  # of a log energy: what differs by less is never unusual
SIGMAS = 3.0  # deviations above the mean at which the logit is 0, so the score 0.5
NO_LIMIT = 1e6  # a logit that is above all others


class EnergyHead(Chain):
    """The log energy of each step, then how unusual it is: ``(B, T, *shape) -> (B, T, columns)``, logits.

    The first column is of all numbers of a step. The others are of its parts: of so many bands of a vector ``(F,)``, or
    of the regions of an image ``(C, H, W)``, row by row.
    """

    pool: "Usual"

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        step: float,
        span: PositiveFloat = 0.1,
        window: PositiveFloat | None = None,
        live: PositiveFloat | None = 30.0,
        warm: NonNegativeFloat = 2.0,
        slow: Annotated[float, Field(ge=1)] = 20.0,
        normal: float | None = None,
    ) -> None:
        """``shape`` of an encoder step, number of columns, ``step`` in seconds. Seconds: ``span`` of an energy;
        ``window`` (and ``live``, the same on streams) of the past that each step is held against, None for whole clips;
        ``warm``, ``slow`` and ``normal``: see ``Usual``.
        """
        energy = Energy(shape, classes, max(1, round(span / step)))
        steps = (max(2, round(window / step)), math.ceil(warm / step)) if window else (0, 0)
        super().__init__(energy=energy, pool=Usual(classes, *steps, slow, normal))

    def scale(self, factor: ArrayLike, shift: ArrayLike) -> None:
        """As ``Usual.scale``."""
        self.pool.scale(factor, shift)


class Energy(Mean):
    """ln(mean square) over the newest steps, of all numbers and of each part: ``(B, T, *shape) -> (B, T, columns)``."""

    shares: Tensor

    def __init__(self, shape: tuple[int, ...], columns: int, window: int) -> None:
        """``window`` in steps."""
        super().__init__(columns, window)
        self.in_shape = shape
        size, parts = torch.Size(shape).numel(), part_of(shape, columns - 1)
        shares = torch.ones(size, 1)
        if columns > 1:
            shares = torch.cat([shares, torch.nn.functional.one_hot(parts, columns - 1).float()], 1)
        self.register_buffer("shares", shares / shares.sum(0), persistent=False)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The state is that of the mean."""
        y, state = super().forward(x.flatten(2).square() @ self.shares, state)
        return (y + LEAST_ENERGY).log(), state


class Usual(Mean):
    """How many deviations x is above what is usual, less ``SIGMAS``: ``(B, T, K) -> (B, T, K)``, logits.

    On streams, mean and deviation are those of the stream itself, so that each place has its own: averages of the last
    ``steps``, from the first one on. The first ``warm`` steps are never unusual. From one deviation on it learns more
    slowly, above 3 ``slow`` times, so that what is unusual does not become usual while it lasts. The state is mean,
    variance, and steps known. What lies less than ``normal`` deviations above the steps of normal recordings is usual
    everywhere (None: it is not asked). Of whole clips (``steps`` 0) the mean since the start is told, in deviations of
    normal clips.
    """

    factor: Tensor
    shift: Tensor
    step_factor: Tensor
    step_shift: Tensor

    def __init__(self, columns: int, steps: int, warm: int, slow: float, normal: float | None) -> None:
        super().__init__(columns, 0)
        self.steps, self.warm, self.slow, self.normal = steps, warm, slow, normal
        self.register_buffer("factor", torch.ones(columns))
        self.register_buffer("shift", torch.zeros(columns))
        if normal is not None:
            self.register_buffer("step_factor", torch.ones(columns))
            self.register_buffer("step_shift", torch.full((columns,), NO_LIMIT))

    def initial(self, batch: int) -> State:
        """Nothing is usual."""
        if not self.steps:
            return super().initial(batch)
        return *(self.zeros(batch, *self.out_shape) for _ in range(2)), self.zeros(batch, 1)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Step by step, each against those before it."""
        if not self.steps:
            y, state = super().forward(x, state)
            return y * self.factor + self.shift, state
        mean, variance, known = state
        outputs = []
        for now in x.unbind(1):
            away = now - mean
            sigmas = away / variance.clamp_min(LEAST_DEVIATION**2).sqrt()
            sigmas = torch.where(known < self.warm, 0.0, sigmas)
            known = (known + 1).clamp(max=self.steps)
            rate = 1 / (known * (1 + (self.slow - 1) * ((sigmas - 1) / 2).clamp(0, 1)))
            mean = mean + rate * away
            variance = (1 - rate) * (variance + rate * away.square())
            outputs.append(sigmas - SIGMAS)
        y = torch.stack(outputs, 1)
        if self.normal is not None:
            y = torch.minimum(y, x * self.step_factor + self.step_shift - self.normal)
        return y, (mean, variance, known)

    @torch.no_grad()
    def scale(self, factor: ArrayLike, shift: ArrayLike) -> None:
        """By what logits of clips and steps ``(2, columns)`` are to be multiplied, and what is to be added."""
        factors, shifts = (torch.as_tensor(one).to(self.shift) for one in (factor, shift))
        self.factor.mul_(factors[0])
        self.shift.mul_(factors[0]).add_(shifts[0])
        if self.normal is not None:  # steps are counted as they come, whatever was fitted before
            self.step_factor.copy_(factors[1])
            self.step_shift.copy_(shifts[1])


def part_of(shape: tuple[int, ...], parts: int) -> Tensor:
    """The part of each number of a flattened step ``(F,)``: of so many bands of a vector, or, of an image, of so many
    regions in as many rows as columns.
    """
    if len(shape) == 1:
        return torch.arange(shape[0]) * parts // shape[0]
    side = math.isqrt(parts)
    down, right = (torch.arange(size) * side // size for size in shape[1:])
    return (down[:, None] * side + right).expand(shape).flatten()
