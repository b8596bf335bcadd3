"""Log-mel spectrum, the field's standard picture of sound."""

import torch
from torch import Tensor

from pipeline.extractors.spectral import MelSpectrum
from pipeline.layers.stage import State


class LogMel(MelSpectrum):
    """ln(mel power + floor): samples ``(B, T*hop)`` in -1 ... 1 to ``(B, T, mels)``. Settings: see ``MelSpectrum``."""

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Log of the mel power."""
        power, state = super().forward(x, state)
        return (power + self.floor).log(), state

    def bands(self) -> Tensor:
        """Where the filters have their peaks."""
        from librosa import mel_frequencies  # for training alone

        return torch.from_numpy(mel_frequencies(len(self.filters.T) + 2, fmin=self.low, fmax=self.top)[1:-1]).float()
