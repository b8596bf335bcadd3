"""From logits to posteriors, smoothed over time."""

import math
from typing import Literal, TypeAlias

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from pipeline.layers.stage import Stage, State

Link: TypeAlias = Literal["softmax", "sigmoid", "linear"]  # from logits to posteriors; linear: to any numbers
BLOCK_STEPS = 128  # steps solved at once: memory stays flat for recordings of any length


class EMA(Stage):
    """Softmax, sigmoid, or scale and shift, then an exponential moving average: ``(B, T, K) -> (B, T, K)``.

    a = exp(-step / seconds);  s(t) = a s(t-1) + (1 - a) p(t);  w(t) = a w(t-1) + (1 - a);  y(t) = s(t) / w(t).
    Dividing by the weight seen so far removes the pull towards the zero start (Kingma & Ba 2015), so y is a
    mean of posteriors from the first step on. ``seconds=0`` leaves the posteriors as they are.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, shape: tuple[int, ...], step: float, seconds: NonNegativeFloat = 0.05, link: Link = "softmax"
    ) -> None:
        """``shape`` of a step of logits; ``step`` in seconds; time constant ``seconds``; ``link``: what p(t) is."""
        super().__init__()
        self.in_shape = self.out_shape = shape
        self.link = link
        if link == "linear":
            self.register_buffer("scale", torch.ones(shape))
            self.register_buffer("shift", torch.zeros(shape))
        self.decay = math.exp(-step / seconds) if seconds else 0.0

    def initial(self, batch: int) -> State:
        """Average and its weight, both zero."""
        return self.zeros(batch, *self.out_shape), self.zeros(batch, 1)

    def told(self, x: Tensor) -> Tensor:
        """What logits mean, before smoothing."""
        if self.link == "linear":
            return x * self.scale + self.shift
        return x.softmax(-1) if self.link == "softmax" else x.sigmoid()

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Posteriors of every step."""
        average, weight = state
        outputs = []
        for block in torch.split(self.told(x), BLOCK_STEPS, 1):
            kernel, carry = closed_form(self.decay, block)
            averages = kernel @ block + carry * average[:, None]
            weights = kernel.sum(1, keepdim=True) + carry * weight[:, None]
            outputs.append(averages / weights)
            average, weight = averages[:, -1].clone(), weights[:, -1].clone()
        return (torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0]), (average, weight)


def closed_form(decay: float, block: Tensor) -> tuple[Tensor, Tensor]:
    """The recurrence over a block ``(B, T, K)``: what each input adds to each average ``(T, T)``, and what is left of
    the past ``(T, 1)``. Never kept: what is made while a graph is traced belongs to that graph.
    """
    t = torch.arange(block.shape[1], device=block.device, dtype=block.dtype)
    lag = t[:, None] - t[None, :]
    kernel = torch.where(lag >= 0, (1 - decay) * decay ** lag.clamp(min=0), 0.0)
    return kernel, decay ** (t[:, None] + 1)
