"""The encoder: optional causal convolutions, then stacked recurrent layers."""

from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt
from torch import Tensor

from pipeline.cell import Cell
from pipeline.convolution import CausalConv
from pipeline.recurrent import RecurrentLayer, SpatialMean
from pipeline.stage import Chain, Stage, State
from pipeline.unroll import checkpointed

Share = Annotated[float, Field(ge=0, lt=1)]


class Convolution(BaseModel):
    """One entry of ``encoder.convolutions``."""

    model_config = ConfigDict(extra="forbid")
    channels: PositiveInt
    kernel: PositiveInt = 5
    stride: PositiveInt = 1
    dilation: PositiveInt = 1


class Encoder(Chain):
    """Features ``(B, T*hop, F)``, or images ``(B, T, C, H, W)``, to ``(B, T, hidden)``; hop is the product of the
    convolutions' strides.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        cell: Callable[..., Cell],
        hidden: PositiveInt | list[PositiveInt] = 128,
        layers: NonNegativeInt = 1,
        dropout: Share = 0.1,
        layer_norm: bool = True,
        residual: bool = False,
        convolutions: list[Convolution] | None = None,
        checkpoint: NonNegativeInt = 0,
    ) -> None:
        """``shape`` of one step. ``hidden``: size of each of ``layers`` layers, or one size per layer as a list.
        ``residual``: add a layer's input to its output where sizes agree. ``checkpoint``: in training, compute blocks
        of so many input steps twice to save memory (0: off; a multiple of the hop).

        ValueError if the shape does not suit the cell, or if there is no layer at all.
        """
        if isinstance(hidden, list):
            if not hidden or layers not in (1, len(hidden)):
                raise ValueError(f"encoder.hidden lists {len(hidden)} layers, but encoder.layers is {layers}")
            sizes = hidden
        else:
            sizes = [hidden] * layers
        if len(shape) not in (1, 3) or (len(shape) == 3 and convolutions):
            raise ValueError(
                f"encoder: got steps of shape {shape}; expected feature vectors, or images without encoder.convolutions"
            )
        for key in {"hidden", "shape"} & getattr(cell, "keywords", {}).keys():
            raise ValueError(f"cell.{key} cannot be set; the size of the layers is encoder.hidden")
        stages: dict[str, Stage] = {}
        for number, conv in enumerate(convolutions or [], 1):
            stages[f"conv{number}"] = CausalConv(shape[0], dropout=dropout, **conv.model_dump())
            shape = (conv.channels,)
        for number, size in enumerate(sizes, 1):
            layer = RecurrentLayer(cell, shape, size, layer_norm, dropout, residual)
            stages[f"recurrent{number}"], shape = layer, layer.out_shape
        if len(shape) == 3 and stages:
            stages["pool"] = SpatialMean(shape)
        if not stages:
            raise ValueError("encoder.layers is 0 and encoder.convolutions is empty: there is nothing to train")
        super().__init__(**stages)
        self.checkpoint = checkpoint
        if checkpoint % self.hop:
            raise ValueError(f"encoder.checkpoint is {checkpoint}; expected a multiple of the hop {self.hop}")

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Through every stage, in blocks if memory is to be saved."""
        if self.checkpoint and self.training and x.shape[1] > self.checkpoint:
            return checkpointed(self, x, state, self.checkpoint)
        return super().forward(x, state)
