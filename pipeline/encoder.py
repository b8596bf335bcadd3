"""The encoder: optional causal convolutions, then stacked recurrent layers."""

from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from pipeline.cell import Cell
from pipeline.convolution import CausalConv
from pipeline.recurrent import RecurrentLayer
from pipeline.stage import Chain, Stage

Share = Annotated[float, Field(ge=0, lt=1)]


class Convolution(BaseModel):
    """One entry of ``encoder.convolutions``."""

    model_config = ConfigDict(extra="forbid")
    channels: PositiveInt
    kernel: PositiveInt = 5
    stride: PositiveInt = 1
    dilation: PositiveInt = 1


class Encoder(Chain):
    """Features ``(B, T*hop, F)`` to ``(B, T, hidden)``; hop is the product of the convolutions' strides."""

    def __init__(
        self,
        shape: tuple[int, ...],
        cell: Callable[..., Cell],
        hidden: PositiveInt = 128,
        layers: NonNegativeInt = 1,
        dropout: Share = 0.1,
        layer_norm: bool = True,
        convolutions: list[Convolution] | None = None,
    ) -> None:
        """``shape`` of one step of features, one axis; ValueError otherwise, or if there is no layer at all."""
        if len(shape) != 1:
            raise ValueError(f"encoder: expected feature vectors, got steps of shape {shape}; choose another extractor")
        stages: dict[str, Stage] = {}
        width = shape[0]
        for number, conv in enumerate(convolutions or [], 1):
            stages[f"conv{number}"] = CausalConv(width, dropout=dropout, **conv.model_dump())
            width = conv.channels
        for number in range(1, layers + 1):
            stages[f"recurrent{number}"] = RecurrentLayer(cell, width, hidden, layer_norm, dropout)
            width = hidden
        if not stages:
            raise ValueError("encoder.layers is 0 and encoder.convolutions is empty: there is nothing to train")
        super().__init__(**stages)
