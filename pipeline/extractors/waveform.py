"""Raw samples in frames, for networks that learn their own front end."""

from pydantic import PositiveFloat, PositiveInt

from pipeline.extractors.spectral import Frames


class Waveform(Frames):
    """Samples ``(B, T*hop)`` to overlapping frames ``(B, T, window)``, unchanged."""

    def __init__(self, rate: PositiveInt = 16000, window: PositiveFloat = 0.010, hop: PositiveFloat = 0.010) -> None:
        """``window`` and ``hop`` in seconds at ``rate`` Hz; equal means no overlap."""
        super().__init__(rate, window, hop)
