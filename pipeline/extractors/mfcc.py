"""Mel-frequency cepstral coefficients: Davis & Mermelstein, IEEE Trans. ASSP 28 (1980)."""

from typing import Any

import torch
import torchaudio
from pydantic import PositiveInt
from torch import Tensor

from pipeline.extractors.spectral import MelSpectrum
from pipeline.layers.stage import State


class MFCC(MelSpectrum):
    """Orthonormal DCT-II of ln(mel power + floor): samples ``(B, T*hop)`` to ``(B, T, coefficients)``."""

    dct: Tensor

    def __init__(self, *args: Any, coefficients: PositiveInt = 20, **options: Any) -> None:
        """See ``MelSpectrum``; the first ``coefficients`` of ``mels`` are kept. ValueError if there are not so many."""
        super().__init__(*args, **options)
        (mels,) = self.out_shape
        if coefficients > mels:
            raise ValueError(f"extractor.coefficients ({coefficients}) must not exceed extractor.mels ({mels})")
        self.register_buffer("dct", torchaudio.functional.create_dct(coefficients, mels, "ortho"), persistent=False)
        self.out_shape = (coefficients,)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """DCT of the log-mel spectrum."""
        power, state = super().forward(x, state)
        with torch.autocast(x.device.type, enabled=False):
            return (power + self.floor).log() @ self.dct, state
