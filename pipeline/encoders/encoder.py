"""The encoder: optional convolutions, over pictures, spectra or time, then stacked recurrent layers."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt
from torch import Tensor

from pipeline.cells.cell import Cell
from pipeline.cells.conv_cell import ConvCell
from pipeline.encoders.convolution import CausalConv, SpectrumConv
from pipeline.encoders.recurrent import RecurrentLayer
from pipeline.encoders.stem import ImageConv, ImagePool, ToVector
from pipeline.encoders.unroll import checkpointed
from pipeline.layers.stage import Chain, Stage, State

Share = Annotated[float, Field(ge=0, lt=1)]


class ImageConvolution(BaseModel):
    """One entry of ``encoder.stem``."""

    model_config = ConfigDict(extra="forbid")
    channels: PositiveInt
    kernel: PositiveInt = 3
    stride: PositiveInt = 1


class SpectrumConvolution(ImageConvolution):
    """One entry of ``encoder.spectrum``."""

    squeeze: PositiveInt = 1


class Convolution(ImageConvolution):
    """One entry of ``encoder.convolutions``."""

    kernel: PositiveInt = 5
    dilation: PositiveInt = 1


class Encoder(Chain):
    """Features ``(B, T*hop, F)``, or images ``(B, T, C, H, W)``, to ``(B, T, hidden)``; hop is the product of the
    convolutions' strides.

    Images first pass the stem. A cell over images keeps them images up to the end, any other cell gets vectors.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        cell: Callable[..., Cell],
        hidden: PositiveInt | list[PositiveInt] = 128,
        layers: Annotated[int, Field(ge=0, le=100)] = 1,
        dropout: Share = 0.1,
        layer_norm: bool = True,
        residual: bool = False,
        stem: list[ImageConvolution] | None = None,
        pool: PositiveInt = 1,
        spatial: Literal["mean", "max", "flatten"] = "mean",
        spectrum: list[SpectrumConvolution] | None = None,
        convolutions: list[Convolution] | None = None,
        checkpoint: NonNegativeInt = 0,
    ) -> None:
        """``shape`` of one step. ``hidden``: size of each of ``layers`` layers, or one size per layer as a list.
        ``residual``: add a layer's input to its output where sizes agree. For images: ``stem``, convolutions on each
        picture; ``pool``: the greatest of so many pixels squared between two recurrent layers; ``spatial``: how images
        become vectors. ``convolutions``: causal ones over time, on vectors. ``checkpoint``: in training, compute blocks
        of so many input steps twice to save memory (0: off; a multiple of the hop).

        ValueError if the shape does not suit the cell, or if there is no layer at all.
        """
        sizes = sizes_of(hidden, layers)
        made: Any = getattr(cell, "func", cell)  # a class, or one with settings of its own
        over_images = isinstance(made, type) and issubclass(made, ConvCell)
        self.check(shape, cell, over_images, bool(stem), bool(convolutions))
        stages: dict[str, Stage] = {}

        def add(name: str, stage: Stage) -> tuple[int, ...]:
            stages[name] = stage
            return stage.out_shape

        for number, entry in enumerate(stem or [], 1):
            shape = add(f"stem{number}", ImageConv(shape, dropout=dropout, **entry.model_dump()))
        if len(shape) == 3 and not over_images:
            shape = add("vector", ToVector(shape, spatial))
        planes = 1
        for number, bands in enumerate(spectrum or [], 1):
            shape = add(f"spectrum{number}", SpectrumConv(shape[0], planes, dropout=dropout, **bands.model_dump()))
            planes = bands.channels
        for number, conv in enumerate(convolutions or [], 1):
            shape = add(f"conv{number}", CausalConv(shape[0], dropout=dropout, **conv.model_dump()))
        for number, size in enumerate(sizes, 1):
            if number > 1 and pool > 1 and len(shape) == 3:
                shape = add(f"pool{number - 1}", ImagePool(shape, pool))
            shape = add(f"recurrent{number}", RecurrentLayer(cell, shape, size, layer_norm, dropout, residual))
        if not stages:
            raise ValueError("encoder.layers is 0 and encoder.convolutions is empty: there is nothing to train")
        if len(shape) == 3:
            shape = add("vector", ToVector(shape, spatial))
        super().__init__(**stages)
        self.checkpoint = checkpoint
        if checkpoint % self.hop:
            raise ValueError(f"encoder.checkpoint is {checkpoint}; expected a multiple of the hop {self.hop}")

    @staticmethod
    def check(shape: tuple[int, ...], cell: Callable[..., Cell], over_images: bool, stem: bool, conv: bool) -> None:
        """ValueError for what does not go together."""
        if len(shape) not in (1, 3):
            raise ValueError(f"encoder: got steps of shape {shape}; expected feature vectors (F,) or images (C, H, W)")
        if len(shape) == 1 and (stem or over_images):
            made: Any = getattr(cell, "func", cell)
            what = "encoder.stem is" if stem else f"{made.__name__} is a cell"
            raise ValueError(f"encoder: {what} for images, got steps of shape {shape}; choose an extractor of pictures")
        if conv and over_images:
            raise ValueError("encoder.convolutions work on vectors; for a cell over images use encoder.stem")
        for key in {"hidden", "shape"} & getattr(cell, "keywords", {}).keys():
            raise ValueError(f"cell.{key} cannot be set; the size of the layers is encoder.hidden")

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Through every stage, in blocks if memory is to be saved."""
        if self.checkpoint and self.training and x.shape[1] > self.checkpoint:
            return checkpointed(self, x, state, self.checkpoint)
        return super().forward(x, state)


def sizes_of(hidden: int | list[int], layers: int) -> list[int]:
    """One size per layer; ValueError if the numbers contradict each other."""
    if not isinstance(hidden, list):
        return [hidden] * layers
    if not hidden or layers not in (1, len(hidden)):
        raise ValueError(f"encoder.hidden lists {len(hidden)} layers, but encoder.layers is {layers}")
    return hidden
