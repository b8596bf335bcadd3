"""Random changes to training data that leave the label true: on samples, and on features."""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor
from torchaudio.functional import mask_along_axis_iid

Share = Annotated[float, Field(ge=0, le=1)]


class Augment:
    """Level, place in time, noise; bands and stretches of features masked (SpecAugment, Park et al. 2019).

    Draws from torch's global generator, so a seed repeats a run.
    """

    def __init__(
        self,
        gain: NonNegativeFloat = 6.0,
        shift: NonNegativeFloat = 0.1,
        noise: Share = 0.5,
        quietest: float = 10.0,
        time_mask: NonNegativeFloat = 0.1,
        band_mask: NonNegativeInt = 8,
        masks: NonNegativeInt = 2,
    ) -> None:
        """``gain``: up to so many dB up or down. ``shift``: up to so many seconds earlier or later (zeros come in).
        ``noise``: share of clips that get noise of random colour at ``quietest`` to ``quietest + 30`` dB below them.
        ``time_mask`` seconds and ``band_mask`` feature channels at most are set to the mean, ``masks`` times each.
        """
        self.gain, self.shift, self.noise, self.quietest = gain, shift, noise, quietest
        self.time_mask, self.band_mask, self.masks = time_mask, band_mask, masks

    def waves(self, x: Tensor, rate: int) -> Tensor:
        """Samples ``(B, N)``, changed row by row."""
        rows = len(x)
        if self.shift:
            x = rolled(x, torch.randint(-round(self.shift * rate), round(self.shift * rate) + 1, (rows,)))
        if self.noise:
            x = x + self.noise_for(x)
        if self.gain:
            x = x * 10 ** ((torch.rand(rows, 1, device=x.device) * 2 - 1) * self.gain / 20)
        return x

    def noise_for(self, x: Tensor) -> Tensor:
        """Noise to add to ``x``: zero for the rows left clean."""
        rows, length = x.shape
        white = torch.randn(rows, length, device=x.device)
        colour = torch.rand(rows, 1, device=x.device)
        smooth = torch.nn.functional.avg_pool1d(white[:, None], 9, 1, 4)[:, 0] * 3
        mixed = colour * white + (1 - colour) * smooth
        level = x.square().mean(1, keepdim=True).sqrt()
        decibel = self.quietest + 30 * torch.rand(rows, 1, device=x.device)
        chosen = torch.rand(rows, 1, device=x.device) < self.noise
        return mixed * level * 10 ** (-decibel / 20) * chosen

    def features(self, x: Tensor, step: float) -> Tensor:
        """Standardised features ``(B, T, F)`` with stretches masked; ``step`` in seconds."""
        for _ in range(self.masks):
            for axis, size in ((1, round(self.time_mask / step)), (2, self.band_mask)):
                if 0 < size < x.shape[axis]:
                    x = mask_along_axis_iid(x[:, None], size, 0.0, axis + 1)[:, 0]
        return x


def rolled(x: Tensor, shifts: Tensor) -> Tensor:
    """Each row moved by its number of samples; zeros come in."""
    rows, length = x.shape
    at = torch.arange(length)[None, :] - shifts[:, None]
    moved = x.gather(1, at.clamp(0, length - 1).to(x.device))
    return moved * ((at >= 0) & (at < length)).to(x.device)
