"""Sound and pictures together: an extractor of each, on one clock."""

from typing import Any

import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn

from pipeline.extractors.extractor import Extractor
from pipeline.layers.fuse import Fuse
from pipeline.layers.stage import State
from pipeline.layers.standardize import Standardize
from pipeline.media.input_spec import InputSpec


class AudioVisual(Extractor):
    """An extractor of sound and one of pictures, each standardised, joined at the sound's hop.

    ``x`` is the tuple ``(samples (B, N), pictures (B, T, 3, H, W), present (B, T, 2))`` with N / T samples a picture
    (``input_spec.py``); out comes ``(B, N / hop, F + 1 + S + 1)``, see ``Fuse``. Pictures that become images, not
    vectors, are flattened, or brought to ``size`` numbers by a linear map.
    """

    def __init__(self, sound: Extractor, picture: Extractor, size: NonNegativeInt = 0) -> None:
        """``sound`` (B, T*hop) -> (B, T, F), and ``picture`` with one step per picture. ``size`` 0: no linear map.

        ValueError if the sound's hop does not divide a picture's period.
        """
        super().__init__()
        if not sound.spec.sound or not picture.spec.picture:
            raise ValueError("extractor.sound must be an extractor of sound, extractor.picture one of pictures")
        self.spec = InputSpec(sound.spec.sound, picture.spec.picture)
        self.hop, self.rate = sound.hop, self.spec.rate
        if self.spec.grain % self.hop or picture.hop != 1:
            raise ValueError(
                f"extractor: a picture lasts {self.spec.grain} samples, which is no multiple of the sound's hop of "
                f"{self.hop}; change extractor.picture.rate or extractor.sound.hop"
            )
        self.sound, self.picture = sound, picture
        self.sound_scale, self.picture_scale = Standardize(sound.out_shape), Standardize(picture.out_shape)
        self.costly = sound.costly or picture.costly
        width = torch.Size(picture.out_shape).numel()
        self.map = nn.Sequential(nn.Linear(width, size), nn.LayerNorm(size)) if size else nn.Identity()
        self.fuse = Fuse(torch.Size(sound.out_shape).numel(), size or width)
        self.in_shape, self.out_shape = ((), picture.in_shape, (2,)), self.fuse.out_shape

    def initial(self, batch: int) -> State:
        """Of both extractors, whether the last picture was there, and of what joins them."""
        return self.sound.initial(batch), self.picture.initial(batch), (self.zeros(batch, 1), self.fuse.initial(batch))

    def recorded(self, config: dict[str, Any]) -> dict[str, Any]:
        """Of both extractors."""
        parts = {"sound": self.sound, "picture": self.picture}
        return config | {name: part.recorded(config[name]) for name, part in parts.items()}

    def fronts(self) -> list[tuple[Extractor, Standardize | None]]:
        """Sound, then pictures."""
        return [(self.sound, self.sound_scale), (self.picture, self.picture_scale)]

    def join(self, features: list[Tensor], present: Tensor | None) -> Tensor:
        """Whole clips, from nothing before them."""
        assert present is not None
        sound, picture = features
        return self.fused(sound, picture, present, self.initial(len(present))[2])[0]

    def forward(self, x: tuple[Tensor, Tensor, Tensor], state: State) -> tuple[Tensor, State]:  # type: ignore[override]
        """ValueError if the tracks are not of one length."""
        samples, pictures, present = x
        if samples.shape[1] != pictures.shape[1] * self.spec.grain or pictures.shape[:2] != present.shape[:2]:
            raise ValueError(
                f"got {samples.shape[1]} samples, {pictures.shape[1]} pictures and {present.shape[1]} marks; expected "
                f"{self.spec.grain} samples to each picture and mark"
            )
        heard, before, held = state
        fast, heard = self.sound(samples, heard)
        slow, before = self.picture(pictures, before)
        y, held = self.fused(fast, slow, present, held)
        return y, (heard, before, held)

    def fused(self, fast: Tensor, slow: Tensor, present: Tensor, state: State) -> tuple[Tensor, State]:
        """Features of both extractors, ``(B, T * times, F)`` and ``(B, T, ...)``, on one clock."""
        there, held = state
        seen = present[:, :, 1].to(slow)
        if self.picture.compares:  # with a picture that is not there: no motion
            before = torch.cat([there, seen[:, :-1]], 1)
            slow = slow * (before * seen).view(*seen.shape, *[1] * (slow.ndim - 2))
        fast, _ = self.sound_scale(fast, ())
        slow, _ = self.picture_scale(slow, ())
        fast, slow = fast.flatten(2), self.map(slow.flatten(2))
        times = self.spec.grain // self.hop  # sound steps per picture
        here = present[:, :, :1].repeat_interleave(times, 1)
        first = torch.zeros(slow.shape[1], times, 1, device=slow.device, dtype=slow.dtype)
        first[:, 0] = 1  # a picture is new at the first of its steps, or lost
        news = (2 * present[:, :, 1:, None] - 1).to(slow) * first
        spread = slow[:, :, None] * first
        joined = torch.cat([fast, here.to(fast), spread.flatten(1, 2), news.flatten(1, 2)], -1)
        y, held = self.fuse(joined, held)
        return y, (seen[:, -1:].clone(), held)
