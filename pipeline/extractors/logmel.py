"""Log-mel spectrum, the field's standard picture of sound."""

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from pipeline.spectral import MelSpectrum
from pipeline.stage import State


class LogMel(MelSpectrum):
    """ln(mel power + floor): samples ``(B, T*hop)`` in -1 ... 1 to ``(B, T, mels)``."""

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
        """See ``MelSpectrum``; ``floor`` is the power below which nothing is told apart."""
        super().__init__(rate, window, hop, mels, low, high)
        self.floor = floor

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Log of the mel power."""
        power, state = super().forward(x, state)
        return (power + self.floor).log(), state
