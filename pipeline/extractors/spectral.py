"""From samples to mel power spectra, chunk by chunk: what log-mel and MFCC share.

A frame ends at the newest sample it may see: frame t covers samples ``(t + 1) * hop - window`` to ``(t + 1) * hop``,
with zeros before the recording's start. So T_out = T_in / hop, and there is no centring and no look-ahead.
"""

import torch
import torchaudio
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from pipeline.extractors.extractor import Extractor
from pipeline.layers.stage import State, left_context, pieces, power_spectrum, windows
from pipeline.media.input_spec import InputSpec

MAX_FILTER_SIZE = 2**26  # filters times samples of a transform
MANY_FRAMES = 400  # frames transformed at a time without gradient: more do not stay in the cache


def steps(seconds: float, rate: int, key: str) -> int:
    """Seconds as a whole number of samples, at least one; ValueError names the key."""
    count = round(seconds * rate)
    if count < 1:
        raise ValueError(f"extractor.{key}: {seconds} s is less than one sample at {rate} Hz")
    return count


class Frames(Extractor):
    """Overlapping frames: samples ``x (B, T*hop)`` to ``(B, T, window)``. The state: the last window - hop samples."""

    def __init__(self, rate: int, window: float, hop: float) -> None:
        """``window`` and ``hop`` in seconds at ``rate`` Hz."""
        super().__init__()
        self.rate, self.window, self.hop = rate, steps(window, rate, "window"), steps(hop, rate, "hop")
        if self.window < self.hop:
            raise ValueError(f"extractor.window ({window} s) must not be shorter than extractor.hop ({hop} s)")
        self.in_shape, self.out_shape = (), (self.window,)
        self.spec = InputSpec(sound=rate)

    def initial(self, batch: int) -> State:
        """Silence before the recording."""
        return self.zeros(batch, self.window - self.hop)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The frames that end in this chunk."""
        joined, state = left_context(state, x)
        return windows(joined, self.window, self.hop), state


class MelSpectrum(Frames):
    """Mel power spectrum: ``(B, T*hop) -> (B, T, mels)``, periodic Hann window, |STFT|^2, triangular filters."""

    hann: Tensor
    filters: Tensor

    def __init__(
        self,
        rate: PositiveInt = 16000,
        window: PositiveFloat = 0.025,
        hop: PositiveFloat = 0.010,
        mels: PositiveInt = 64,
        low: NonNegativeFloat = 20.0,
        high: PositiveFloat | None = None,
        floor: PositiveFloat = 1e-6,
    ) -> None:
        """``window``, ``hop`` in seconds; ``low``, ``high`` in Hz (``high=None``: half the rate); ``floor``: the power
        below which nothing is told apart, added before a logarithm.

        The filters are Slaney's (area 1, librosa's default), made by torchaudio. ValueError for an empty band.
        """
        super().__init__(rate, window, hop)
        self.floor = floor
        self.low, self.top = low, (top := high or rate / 2)
        if not low < top <= rate / 2:
            raise ValueError(f"extractor.high: the band {low} to {top} Hz does not fit into 0 to {rate / 2} Hz")
        self.fft = 1 << (self.window - 1).bit_length()
        if self.fft * max(mels, 2) > MAX_FILTER_SIZE:
            raise ValueError(f"extractor.mels: {mels} filters of {self.fft} samples take too much memory; lower either")
        with torch.device("cpu"):  # torchaudio looks at the values, which a model sketched without memory lacks
            filters = torchaudio.functional.melscale_fbanks(
                self.fft // 2 + 1, low, top, mels, rate, norm="slaney", mel_scale="slaney"
            )
            hann = torch.hann_window(self.window)  # which torch makes of Python where there is no memory: half a second
        self.register_buffer("hann", hann, persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.out_shape = (mels,)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Always in the precision of the samples: half precision is not enough for a power spectrum."""
        frames, state = super().forward(x, state)
        with torch.autocast(x.device.type, enabled=False):
            if not x.is_cpu or torch.is_grad_enabled():
                return self.power(frames), state
            axis, size = (1, MANY_FRAMES) if frames.shape[1] > MANY_FRAMES else (0, MANY_FRAMES // frames.shape[1])
            return torch.cat([self.power(part) for part in pieces(frames, size, axis)], axis), state

    def power(self, frames: Tensor) -> Tensor:
        """Mel power ``(B, T, mels)`` of frames ``(B, T, window)``."""
        return power_spectrum(frames, self.fft, self.hann) @ self.filters
