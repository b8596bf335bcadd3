"""Log-mel spectrum, the field's standard picture of sound."""

from torch import Tensor

from pipeline.spectral import MelSpectrum
from pipeline.stage import State


class LogMel(MelSpectrum):
    """ln(mel power + floor): samples ``(B, T*hop)`` in -1 ... 1 to ``(B, T, mels)``. Settings: see ``MelSpectrum``."""

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Log of the mel power."""
        power, state = super().forward(x, state)
        return (power + self.floor).log(), state
