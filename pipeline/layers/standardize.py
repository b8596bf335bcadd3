"""Fixed normalisation: statistics of the training data, measured once and stored with the weights."""

from collections.abc import Iterable

import torch
from torch import Tensor

from pipeline.layers.stage import Stage, State


class Standardize(Stage):
    """(x - mean) / std per feature; per channel, if the steps are images ``(C, H, W)``.

    Normalising by the clip itself would need its future, so the figures are fixed.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        """``shape`` of one step; starts as the identity."""
        super().__init__()
        self.in_shape = self.out_shape = shape
        figures = (shape[0], 1, 1) if len(shape) == 3 else shape
        self.register_buffer("mean", torch.zeros(figures))
        self.register_buffer("std", torch.ones(figures))

    def fit(self, features: Iterable[Tensor], which: Tensor) -> None:
        """Set mean and standard deviation from tensors ``(N, *shape)``, summed in float64, of those features ``which``
        are marked, ``(F,)`` or ``(1,)``.
        """
        count = 0
        total = squares = torch.zeros(self.mean.shape, dtype=torch.float64)
        for block in features:
            block = block.cpu().double()  # which Apple's devices lack
            if block.ndim == 4:  # every pixel is an example of its channel
                block = block.movedim(1, -1).reshape(-1, block.shape[1], 1, 1)
            count += len(block)
            total = total + block.sum(0)
            squares = squares + block.square().sum(0)
        if count:
            mean = total / count
            std = (squares / count - mean.square()).clamp_min(1e-8).sqrt().clamp_min(1e-3)
            for own, found in ((self.mean, mean), (self.std, std)):
                own.copy_(torch.where(which.to(own.device), found.to(own), own))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Stateless."""
        return (x - self.mean) / self.std, state
