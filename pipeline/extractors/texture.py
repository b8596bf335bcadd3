"""Texture of sound: what rain, engines, fire and sea differ by, which is no tune of events but statistics.

After McDermott & Simoncelli, Sound texture perception via statistics of the auditory periphery (Neuron 2011): means and
deviations of bands, and the strength of their modulations, over a second or so.
"""

import math
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat
from torch import Tensor

from pipeline.extractors.windows import Windows
from pipeline.layers.stage import power_spectrum

LITTLE = 1e-3  # deviation, in nepers, below which nothing is told apart


class Texture(Windows):
    """Samples ``(B, T*hop)`` to ``(B, T, 3*mels + 1 + groups*octaves)``: of the log-mel spectrum in the last ``span``
    seconds, the mean of each band over that of all, its deviation and its mean change from frame to frame (nepers);
    the share of frames that sound; and ln(1 + power) of the modulations of ``groups`` of bands, in octaves from 1/span
    Hz to half the rate of frames.

    Frames weigh as much as they sound: from 1 within half of ``depth`` below the loudest of the window down to 0 at
    ``depth``; so a bark is not diluted by the silence around it. Modulations are those of all frames. The level of a
    recording makes no difference, except in windows that reach the floor, such as the first ``span`` seconds, before
    which there was silence.
    """

    hann: Tensor
    mix: Tensor
    octaves: Tensor

    def __init__(self, depth: PositiveFloat = 40.0, groups: Annotated[int, Field(ge=1)] = 12, **options: Any) -> None:
        """``depth`` in dB; ``options``: those of ``Windows``. ValueError if there are more groups than bands."""
        super().__init__(**options)
        (mels,) = self.spectrum.out_shape
        if groups > mels:
            raise ValueError(f"extractor.groups: {groups} groups of {mels} bands; expected at most as many as bands")
        self.depth = depth * math.log(10) / 10  # nepers of power
        with torch.device("cpu"):  # also where a model is sketched without memory
            mix = means(np.arange(mels) * groups // mels)
            octaves = means(np.log2(np.arange(1, self.span // 2 + 1)).astype(int))
            octaves = torch.cat([torch.zeros_like(octaves[:1]), octaves])  # what does not change is in none
            hann = torch.hann_window(self.span)
        self.register_buffer("hann", hann, persistent=False)
        self.register_buffer("mix", mix, persistent=False)
        self.register_buffer("octaves", octaves, persistent=False)
        self.out_shape = (3 * mels + 1 + groups * octaves.shape[1],)

    def look(self, x: Tensor) -> Tensor:
        """Statistics of windows ``(B, T, mels, span)``."""
        loud = x.mean(2)
        weights = (2 - 2 * (loud.amax(-1, keepdim=True) - loud) / self.depth).clamp(0, 1)
        whole = weights[:, :, None] / weights.sum(-1)[:, :, None, None]
        mean = (x * whole).sum(-1)
        deviation = ((x - mean[..., None]).square() * whole).sum(-1)
        pairs = weights[..., 1:] * weights[..., :-1]
        change = (x.diff(dim=-1).abs() * pairs[:, :, None]).sum(-1) / pairs.sum(-1)[..., None].clamp(min=1)
        bands = x.transpose(2, 3) @ self.mix
        waves = (bands - bands.mean(2, keepdim=True)).transpose(2, 3)
        power = power_spectrum(waves, self.span, self.hann) @ self.octaves
        level = mean - mean.mean(-1, keepdim=True)
        share = weights.mean(-1, keepdim=True)
        return torch.cat([level, (deviation + LITTLE**2).sqrt(), change, share, power.log1p().flatten(2)], -1)


def means(owners: NDArray[np.int_]) -> Tensor:
    """The matrix ``(len(owners), groups)`` that takes the mean over each group, which has these ``owners``."""
    owned = torch.from_numpy(np.eye(owners.max() + 1, dtype=np.float32)[owners])
    return owned / owned.sum(0)
