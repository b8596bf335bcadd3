"""How far steps lie from what is normal, without any training: the distance of Mahalanobis (1936)."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.cells.cell import Cell
from pipeline.layers.stage import Stage, State

MOST = 2048  # numbers of a step, whose square a matrix has
LEAST = 1e-4  # of the greatest variance: directions with less say nothing


class Whiten(Stage):
    """(x - mean) W, so that normal steps have no correlations and the variance 1: ``(B, T, *shape)`` to the same.

    The square of a step is that of its distance of Mahalanobis. W = C^(-1/2) is symmetric, so each number still stands
    for its own band or place (ZCA, Bell & Sejnowski 1997). It is fitted once; there is nothing to train.
    """

    mean: Tensor
    weight: Tensor

    def __init__(self, shape: tuple[int, ...], cell: Callable[..., Cell] | None = None) -> None:
        """``shape`` of a step; starts as the identity. ``cell``: not used."""
        super().__init__()
        self.in_shape = self.out_shape = shape
        if (size := torch.Size(shape).numel()) > MOST:
            hint = "lower extractor.height and extractor.width, or extractor.mels, or take extractor=motion_statistics"
            raise ValueError(f"encoder=whiten: steps of {size} numbers; expected at most {MOST}; {hint}")
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("weight", torch.eye(size))

    @torch.no_grad()
    def fit(self, mean: Tensor, covariance: Tensor) -> None:
        """Take the mean ``(F,)`` and the covariance ``(F, F)`` of normal steps."""
        variances, axes = torch.linalg.eigh(covariance)
        least = LEAST * variances.max()
        self.mean.copy_(mean)
        self.weight.copy_(axes @ torch.diag(variances.clamp_min(least).rsqrt()) @ axes.T)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Stateless."""
        return ((x.flatten(2) - self.mean) @ self.weight).reshape(x.shape), state
