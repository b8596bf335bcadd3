"""Random changes to training data that leave the label true: on samples, and on features."""

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor
from torch.nn.functional import avg_pool1d, interpolate
from torchaudio.functional import mask_along_axis_iid

from pipeline.augmentation import Augmentation
from pipeline.errors import ConfigError
from pipeline.intake import Intake
from pipeline.sample import Batch, Span

Share = Annotated[float, Field(ge=0, le=1)]


class Augment(Augmentation):
    """Level, place in time, speed, noise; bands and stretches of features masked (SpecAugment, Park et al. 2019)."""

    raw = True

    def __init__(
        self,
        gain: NonNegativeFloat = 6.0,
        shift: NonNegativeFloat = 0.1,
        speed: Annotated[float, Field(ge=0, lt=0.5)] = 0.1,
        noise: Share = 0.5,
        quietest: float = 10.0,
        time_mask: NonNegativeFloat = 0.1,
        band_mask: NonNegativeInt = 8,
        masks: NonNegativeInt = 2,
    ) -> None:
        """``gain``: up to so many dB up or down. ``shift``: up to so many seconds earlier or later (zeros come in).
        ``speed``: a batch is played up to so much faster or slower, pitch included.
        ``noise``: share of clips that get noise of random colour at ``quietest`` to ``quietest + 30`` dB below them.
        ``time_mask`` seconds and ``band_mask`` feature channels at most are set to the mean, ``masks`` times each.
        """
        self.gain, self.shift, self.speed, self.noise, self.quietest = gain, shift, speed, noise, quietest
        self.time_mask, self.band_mask, self.masks = time_mask, band_mask, masks

    def know(self, labels: list[str], intake: Intake) -> None:
        """ConfigError for a model of pictures."""
        if intake.picture:
            better = "both" if intake.sound else "pictures"
            raise ConfigError(f"augment: changes sound, but the model takes pictures; choose augment={better}")

    def clips(self, batch: Batch, intake: Intake) -> Batch:
        """A batch whose samples, lengths and times are changed alike."""
        waves, lengths, spans, rate = batch.x[0], batch.lengths, batch.spans, intake.sound or 0
        if self.speed:
            factor = 1 + self.speed * (2 * torch.rand(()).item() - 1)
            waves = interpolate(waves[:, None], round(waves.shape[1] * factor), mode="linear")[:, 0]
            lengths = (lengths * factor).long().clamp(1, waves.shape[1])
            spans = [moved(row, factor, 0, waves.shape[1]) for row in spans]
        if self.shift:
            shifts = torch.randint(-round(self.shift * rate), round(self.shift * rate) + 1, (len(waves),))
            waves = rolled(waves, shifts)
            spans = [moved(row, 1.0, by, waves.shape[1]) for row, by in zip(spans, shifts.tolist(), strict=True)]
        if self.noise:
            waves = waves + self.noise_for(waves)
        if self.gain:
            waves = waves * 10 ** ((torch.rand(len(waves), 1) * 2 - 1) * self.gain / 20)
        return replace(batch, x=(waves, *batch.x[1:]), lengths=lengths, spans=spans)

    def noise_for(self, x: Tensor) -> Tensor:
        """Noise to add to ``x``: zero for the rows left clean."""
        noise = torch.zeros_like(x)
        chosen = (torch.rand(len(x)) < self.noise).nonzero()[:, 0].to(x.device)
        rows = len(chosen)
        white = torch.randn(rows, x.shape[1], device=x.device)
        smooth = avg_pool1d(white[:, None], 9, 1, 4)[:, 0] * 3
        colour = torch.rand(rows, 1, device=x.device)
        level = x[chosen].square().mean(1, keepdim=True).sqrt()
        decibel = self.quietest + 30 * torch.rand(rows, 1, device=x.device)
        noise[chosen] = (colour * white + (1 - colour) * smooth) * level * 10 ** (-decibel / 20)
        return noise

    def features(self, x: Tensor, step: float) -> Tensor:
        """Standardised features ``(B, T, F)`` with stretches masked; ``step`` in seconds. Images stay as they are."""
        if x.ndim > 3:
            return x
        for _ in range(self.masks):
            for axis, size in ((1, round(self.time_mask / step)), (2, self.band_mask)):
                if 0 < size < x.shape[axis]:
                    x = mask_along_axis_iid(x[:, None], size, 0.0, axis + 1)[:, 0]
        return x


def rolled(x: Tensor, shifts: Tensor) -> Tensor:
    """Each row moved later by its number of samples (earlier, if negative); zeros come in."""
    moved = torch.zeros_like(x)
    for row, shift in enumerate(shifts.tolist()):
        if abs(shift) < x.shape[1]:
            moved[row, max(0, shift) : x.shape[1] + min(0, shift)] = x[row, max(0, -shift) : x.shape[1] - max(0, shift)]
    return moved


def moved(spans: list[Span] | None, factor: float, shift: int, length: int) -> list[Span] | None:
    """Spans stretched by ``factor``, then moved, as far as they are still inside."""
    if spans is None:
        return None
    placed = ((round(start * factor) + shift, round(end * factor) + shift, label) for start, end, label in spans)
    return [(max(0, start), min(length, end), label) for start, end, label in placed if end > 0 and start < length]
