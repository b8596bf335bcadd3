"""The spectrum as a picture: a network that has learnt from photographs looks at the last second of it.

After Palanisamy, Singhania & Yao, Rethinking CNN models for audio classification (2020, arXiv 2007.11154).
"""

import math
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from pipeline.extractors import efficientnet
from pipeline.extractors.windows import Windows
from pipeline.layers.stage import pieces

AT_ONCE = 16  # pictures


class SpectrumPicture(Windows):
    """Samples ``(B, T*hop)`` to the numbers ``(B, T, F)`` that EfficientNet-Lite0 makes of the log-mel spectrum of the
    last ``span`` seconds: 112 in its ``block`` 10, 1280 in its last layer.

    The loudest point of each picture is white, and what is ``depth`` dB below it black. So level makes no difference.
    """

    costly = True
    borrowed = efficientnet.WEIGHTS

    def __init__(
        self,
        hop: PositiveFloat = 0.01,
        mels: PositiveInt = 128,
        depth: PositiveFloat = 80.0,
        block: Annotated[int, Field(ge=0, le=15)] | None = 10,
        weights: str | None = None,
        **options: Any,
    ) -> None:
        """``options``: those of ``Windows``. ``block``: 0 to 15, or None for the last layer. ``weights``: a copy of the
        package's file; either is only read when a training begins, and then stored with the model.
        """
        super().__init__(hop=hop, mels=mels, **options)
        self.depth, self.weights = depth * math.log(10) / 10, weights  # nepers of power
        self.net = efficientnet.lite0(block).requires_grad_(False)
        self.out_shape = (efficientnet.convolutions(self.net)[-1].out_channels,)

    def fetch(self) -> None:
        """Those of the network."""
        efficientnet.fetch(self.net, self.weights)

    def look(self, x: Tensor) -> Tensor:
        """Windows ``(B, T, mels, span)`` as pictures, low sounds at the top."""
        white = (1 + (x - x.amax((2, 3), keepdim=True)) / self.depth).clamp(min=0)
        grey = (white.flatten(0, 1)[:, None] - efficientnet.MEAN[0]) / efficientnet.STD[0]
        images = grey.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        y = [self.net(part) for part in pieces(images, AT_ONCE, 0)]
        return torch.cat(y).view(*x.shape[:2], -1)
