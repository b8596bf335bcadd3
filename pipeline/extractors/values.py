"""The columns of a series: the newest known value of each, and whether it is new."""

import torch
from pydantic import PositiveFloat
from torch import Tensor

from pipeline.extractors.extractor import Extractor
from pipeline.layers.stage import State, running_max
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Batch
from pipeline.media.series import Series

STILL = 1e-6  # of the mean: a column that moves less does not move


class Values(Extractor):
    """Rows ``(B, T, C)`` with NaN where a value is missing to ``(B, T, 2 C)``: the newest value of each column, by its
    mean and deviation in training; and 1 where it is of this row, else 0. Before its first value a column is at its
    mean. Held values alone would hide that a sensor is silent, and marks alone would forget what it said.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, columns: list[str] | None = None, rate: PositiveFloat = 1.0, time: str = "time") -> None:
        """``columns`` of the tables that are read, ``rate`` rows a second; ``time``: the column with their times, if
        the tables have it. ValueError without columns.
        """
        super().__init__()
        if not columns or len(set(columns)) < len(columns):
            raise ValueError(f"extractor.columns: got {columns}; expected names of columns, each once, such as [x,y,z]")
        self.spec = InputSpec(series=Series(rate, tuple(columns), time))
        self.in_shape, self.out_shape = (len(columns),), (2 * len(columns),)
        self.register_buffer("mean", torch.zeros(len(columns)))
        self.register_buffer("std", torch.ones(len(columns)))
        self.measured = [torch.zeros(len(columns), dtype=torch.float64)] * 3  # count, mean, sum of squares around it

    def meet(self, batch: Batch) -> None:
        """Join the batch's statistics with those before (Chan et al. 1979), in float64; a still column's deviation
        is 1.
        """
        rows = torch.cat([row[:n] for row, n in zip(batch.x[0], batch.lengths.tolist(), strict=True)]).cpu().double()
        there, (before, mean, squares) = ~rows.isnan(), self.measured
        count = there.sum(0)
        own = torch.where(there, rows, 0).sum(0) / count.clamp(min=1)
        share, apart = count / (before + count).clamp(min=1), own - mean
        squares = squares + torch.where(there, rows - own, 0).square().sum(0) + apart.square() * before * share
        self.measured = [before + count, mean + apart * share, squares]
        std = (squares / (before + count).clamp(min=1)).sqrt()
        self.mean.copy_(self.measured[1])
        self.std.copy_(torch.where(std > STILL * self.measured[1].abs(), std, 1))

    def lasting(self) -> Tensor:
        """None: values are normalised here, and marks stay as they are."""
        return torch.zeros(self.out_shape, dtype=torch.bool)

    def initial(self, batch: int) -> State:
        """The newest value of each column, normalised: the mean."""
        return self.zeros(batch, *self.in_shape)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Each step takes the value of the last row that had one, from this chunk or before."""
        there = ~x.isnan()
        values = torch.cat([state[:, None], torch.where(there, (x - self.mean) / self.std, 0)], 1)
        steps = torch.arange(1, x.shape[1] + 1, device=x.device).view(1, -1, 1)
        values = values.gather(1, running_max(there * steps))  # 0: from before this chunk
        return torch.cat([values, there.to(values)], -1), values[:, -1].clone()
