"""Heads over the encoder's own numbers: as they are, an embedding; or how near they are to the centres of groups."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import PositiveFloat
from torch import Tensor

from pipeline.layers.heads import POOLS, Head
from pipeline.layers.stage import Chain, Stage, State

Pool = Literal["mean", "max", "last"]


class Pooled(Head):
    """A running pool alone, ``(B, T, F) -> (B, T, F)``: its last step is the embedding of a clip. See ``Head``."""

    def __init__(
        self, shape: tuple[int, ...], classes: int, step: float, pool: Pool = "mean",
        window: PositiveFloat | None = None, live: PositiveFloat | None = 0.5,
    ) -> None:  # fmt: skip
        """``classes`` is F, the size of the encoder."""
        Chain.__init__(self, pool=POOLS[pool](shape[0], max(1, round(window / step)) if window else 0))


class Nearest(Head):
    """The pooled embedding, then the logits of groups by their distances: ``(B, T, F) -> (B, T, groups)``."""

    distance: "Distance"

    def __init__(
        self, shape: tuple[int, ...], classes: int, step: float, pool: Pool = "mean",
        window: PositiveFloat | None = None, live: PositiveFloat | None = 0.5,
    ) -> None:  # fmt: skip
        """As of ``Head``."""
        pooled = POOLS[pool](shape[0], max(1, round(window / step)) if window else 0)
        Chain.__init__(self, pool=pooled, distance=Distance(shape, classes))


class Distance(Stage):
    """Less half the squared distance from each centre, in squared deviations of the clips from their own centre: the
    logits of equal round Gaussians. ``(B, T, F) -> (B, T, K)``.
    """

    centres: Tensor
    spread: Tensor

    def __init__(self, shape: tuple[int, ...], groups: int) -> None:
        super().__init__()
        self.in_shape, self.out_shape = shape, (groups,)
        self.register_buffer("centres", torch.zeros(groups, *shape))
        self.register_buffer("spread", torch.ones(1))

    @torch.no_grad()
    def settle(self, centres: ArrayLike, spread: float) -> None:
        """Take ``centres (K, F)`` and the mean squared deviation from them."""
        self.centres.copy_(torch.from_numpy(np.asarray(centres)))
        self.spread.fill_(max(spread, 1e-12))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Stateless."""
        return (x[:, :, None] - self.centres).square().sum(-1) / (-2 * self.spread), state
