"""The last second of the log-mel spectrum, every so often: what texture and pictures of spectra look at."""

import math

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from pipeline.extractors.extractor import Extractor
from pipeline.extractors.spectral import MelSpectrum
from pipeline.layers.stage import State, left_context, pieces, windows

BLOCK = 64  # windows that are looked at together
LEAST = 8  # frames of a window


class Windows(Extractor):
    """Base: samples ``(B, T*hop)`` to what ``look`` makes of the ``span`` seconds before each step: ``(B, T, F)``."""

    def __init__(
        self,
        rate: PositiveInt = 16000,
        window: PositiveFloat = 0.04,
        hop: PositiveFloat = 0.02,
        mels: PositiveInt = 48,
        low: NonNegativeFloat = 20.0,
        high: PositiveFloat | None = None,
        floor: PositiveFloat = 1e-6,
        span: PositiveFloat = 1.0,
        every: PositiveFloat = 0.24,
    ) -> None:
        """``window`` ... ``floor``: of the log-mel spectrum. ``span``: seconds that are looked back; ``every``: seconds
        from one step to the next, both in whole frames. ValueError if these do not go together.
        """
        super().__init__()
        self.spectrum = MelSpectrum(rate, window, hop, mels, low, high, floor)
        frame = self.spectrum.hop / rate
        self.span, self.every = round(span / frame), round(every / frame)
        if not 1 <= self.every <= self.span or self.span < LEAST:
            raise ValueError(
                f"extractor.span: {span} s are {self.span} frames, extractor.every: {every} s are {self.every}; "
                f"expected at least {LEAST} and 1, and not more of the latter"
            )
        self.spec, self.hop, self.in_shape = self.spectrum.spec, self.every * self.spectrum.hop, ()
        self.silence = math.log(floor)

    def initial(self, batch: int) -> State:
        """Silence before the recording, as samples and as frames."""
        frames = self.zeros(batch, self.span - self.every, *self.spectrum.out_shape) + self.silence
        return self.spectrum.initial(batch), frames

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The windows that end in this chunk."""
        samples, frames = state
        y, samples = self.spectrum(x, samples)
        with torch.autocast(x.device.type, enabled=False):  # half precision is not enough for differences of logarithms
            joined, frames = left_context(frames, (y + self.spectrum.floor).log())
            parts = pieces(windows(joined, self.span, self.every), BLOCK, 1)
            return torch.cat([self.look(part) for part in parts], 1), (samples, frames)

    def look(self, x: Tensor) -> Tensor:
        """Windows ``(B, T, mels, span)`` to features ``(B, T, F)``."""
        raise NotImplementedError(f"{type(self).__name__} has no look")
