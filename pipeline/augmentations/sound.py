"""Random changes to sound that leave the label true: on samples, and on features."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor
from torchaudio.functional import mask_along_axis_iid

from pipeline.augmentations.acoustics import (
    BANDS,
    align_rooms,
    convolve,
    cut_excerpts,
    draw_noise,
    draw_rooms,
    filter_microphone,
    mix,
)
from pipeline.augmentations.augmentation import Augmentation, draw_symmetric
from pipeline.augmentations.recordings import read_recordings
from pipeline.augmentations.warp import change_tempo, move_spans, place_clips, warp_frequencies
from pipeline.core.errors import ConfigError
from pipeline.extractors.extractor import Extractor
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Batch, Span

Share = Annotated[float, Field(ge=0, le=1)]
Stretch = Annotated[float, Field(ge=0, lt=0.5)]
Range = tuple[float, float]
NOISE_SECONDS = {"each": 60.0, "total": 1800.0}  # seconds of recorded noise that are read: 115 MB at 16 kHz
ROOM_SECONDS = {"each": 1.0, "total": 300.0}  # and of impulse responses


@dataclass(eq=False)
class Augment(Augmentation):
    """A sound is stretched and moved, stands in a room, gets noise, passes a microphone; then its features are
    stretched, and bands and stretches of them masked (SpecAugment, Park et al. 2019). Each clip draws for itself.

    Attributes:
        gain, tilt, equalizer: at most so many dB up or down (in all, an octave, in each octave).
        shift: at most so many seconds earlier or later.
        speed, tempo, warp: shares by which a clip is longer or shorter (lower or higher with it; pitch kept), and its
            spectrum higher or lower (``warp.py``).
        room, noise, babble, recorded, band: shares of the clips that are heard in a room, get noise of random colour,
            another clip of the batch or noise of ``noises``, and are cut to a band.
        rooms, noises: folders or files.
        reverb, direct, snr, low, high: the lowest and the highest number that is drawn; of what, ``acoustics.py`` says.
        masks: times ``time_mask`` seconds and ``band_mask`` channels at most are set to the mean.
        mixup: see ``Augmentation``.

    ValueError for what cannot act.
    """

    gain: NonNegativeFloat = 6.0
    polarity: bool = False
    shift: NonNegativeFloat = 0.1
    speed: Stretch = 0.1
    tempo: Stretch = 0.0
    room: Share = 0.0
    rooms: str | list[str] | None = None
    reverb: Range = (0.1, 0.6)
    direct: Range = (0.0, 15.0)
    noise: Share = 0.5
    babble: Share = 0.0
    recorded: Share = 0.5
    noises: str | list[str] | None = None
    snr: Range = (10.0, 40.0)
    tilt: NonNegativeFloat = 0.0
    equalizer: NonNegativeFloat = 0.0
    band: Share = 0.0
    low: Range = (50.0, 500.0)
    high: Range = (3000.0, 8000.0)
    warp: Stretch = 0.0
    time_mask: NonNegativeFloat = 0.1
    band_mask: NonNegativeInt = 8
    masks: NonNegativeInt = 2
    mixup: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        for key in ("reverb", "direct", "snr", "low", "high"):
            least, most = getattr(self, key)
            if least > most or (least <= 0 and key in ("reverb", "low", "high")):
                raise ValueError(f"augment.{key}: got {[least, most]}; expected two numbers, the smaller one first")
        for files, share in (("rooms", "room"), ("noises", "recorded")):
            if getattr(self, files) and not getattr(self, share):
                raise ValueError(f"augment.{files} would not be heard: set augment.{share}, the share of clips with it")
        self.recorded = self.recorded if self.noises else 0.0
        self.raw = bool(self.speed or self.shift or self.sample_keys())
        self.bands, self.top, self.hop = torch.zeros(0), 0.0, 1  # Hz of the features' channels; samples of a step
        self.responses, self.recording = torch.zeros(0, 0), torch.zeros(0)

    def time_keys(self) -> list[str]:
        """The keys in use that act in time."""
        return [key for key in ("shift", "speed", "tempo") if getattr(self, key)]

    def sample_keys(self) -> list[str]:
        """The keys in use that act on samples, but not in time."""
        keys = ("gain", "polarity", "room", "noise", "babble", "recorded", "tilt", "equalizer", "band")
        return [key for key in keys if getattr(self, key)]

    def setup(self, labels: list[str], extractor: Extractor) -> None:
        """ConfigError for a model of pictures, or what it says in ``setup_sound``."""
        if extractor.spec.picture or extractor.spec.series:
            raise self.refuse("sound", extractor.spec)
        self.setup_sound(extractor, "augment")

    def setup_sound(self, front: Extractor, at: str) -> None:
        """Recordings are read, and the extractor is asked for its channels; ``at`` is where the keys stand. ConfigError
        if there are none.
        """
        rate = front.spec.rate
        self.top, self.hop = rate / 2, front.hop
        if self.warp:
            bands = front.bands()
            if bands is None:
                kind = type(front).__name__
                raise ConfigError(
                    f"{at}.warp: stretches frequencies, but features of {kind} have no axis of them; set {at}.warp=0, "
                    "or take extractor=logmel"
                )
            self.bands = bands
        if self.noises and not len(self.recording):
            self.recording = torch.cat(read_recordings(self.noises, rate, f"{at}.noises", **NOISE_SECONDS))
        if self.rooms and not len(self.responses):
            self.responses = align_rooms(read_recordings(self.rooms, rate, f"{at}.rooms", **ROOM_SECONDS))

    def clips(self, batch: Batch, spec: InputSpec) -> Batch:
        """A batch whose samples, lengths and times are changed alike."""
        waves, lengths, spans, rate = batch.x[0], batch.lengths, batch.spans, spec.sound or 0
        if self.speed or self.shift:
            waves, lengths, spans = self.change_time(waves, lengths, spans, rate)
        waves = self.add_surroundings(waves, rate)
        if self.tilt or self.equalizer or self.band:
            waves = self.pass_microphones(waves, rate)
        if self.gain:
            waves = waves * 10 ** (draw_symmetric(len(waves), 1) * self.gain / 20)
        if self.polarity:
            waves = waves * torch.randint(2, (len(waves), 1)).mul(2).sub(1)
        return replace(batch, x=(waves, *batch.x[1:]), lengths=lengths, spans=spans)

    def change_time(
        self, x: Tensor, lengths: Tensor, spans: list[list[Span] | None], rate: int
    ) -> tuple[Tensor, Tensor, list[list[Span] | None]]:
        """Longer or shorter, earlier or later."""
        factors = (1 + self.speed * draw_symmetric(len(x))).tolist()
        shifts = (self.shift * rate * draw_symmetric(len(x))).round().int().tolist()
        x, lengths = place_clips(x, lengths, factors, shifts)
        return x, lengths, list(map(move_spans, spans, factors, shifts, lengths.tolist()))

    def add_surroundings(self, x: Tensor, rate: int) -> Tensor:
        """In rooms, among noises: those of each kind that are drawn."""
        changed, length = x.clone(), x.shape[1]
        if len(rows := draw_rows(len(x), self.room)):
            changed[rows] = convolve(x[rows], self.room_responses(len(rows), rate))
        kinds: list[tuple[float, Callable[[Tensor], Tensor], bool]] = [
            (self.babble, lambda rows: x[rows - 1], True),  # batches are shuffled
            (self.recorded, lambda rows: cut_excerpts(self.recording, len(rows), length), False),
            (self.noise, lambda rows: draw_noise(len(rows), length), False),
        ]
        for share, noise, clips in kinds:
            if len(rows := draw_rows(len(x), share)):
                added = noise(rows)
                changed[rows] = mix(changed[rows], added, self.draw_between("snr", len(rows)), rate, clips)
        return changed

    def room_responses(self, rows: int, rate: int) -> Tensor:
        """Impulse responses ``(B, L)``, of recordings if there are any."""
        if len(self.responses):
            return self.responses[torch.randint(len(self.responses), (rows,))]
        return draw_rooms(self.draw_between("reverb", rows), self.draw_between("direct", rows), rate)

    def pass_microphones(self, x: Tensor, rate: int) -> Tensor:
        """Through microphones, some of them of a narrow band."""
        rows = len(x)
        narrow = torch.rand(rows, 1) < self.band
        low = torch.where(narrow, self.draw_between("low", rows, geometric=True), 0.0)
        high = torch.where(narrow, self.draw_between("high", rows, geometric=True), torch.inf)
        high = torch.where(high < rate / 2, high, torch.inf)
        gains = self.equalizer * draw_symmetric(rows, BANDS)
        return filter_microphone(x, self.tilt * draw_symmetric(rows, 1), gains, low, high, rate)

    def draw_between(self, key: str, rows: int, geometric: bool = False) -> Tensor:
        """Numbers ``(rows, 1)`` between those of ``key``, drawn evenly, or evenly over their logarithm."""
        ends = torch.tensor(getattr(self, key))
        least, most = ends.log() if geometric else ends
        drawn: Tensor = least + (most - least) * torch.rand(rows, 1)
        return drawn.exp() if geometric else drawn

    def tracks(self, features: list[Tensor], batch: Batch, front: Extractor) -> tuple[list[Tensor], Batch]:
        """The features of the sound, as the extractor made them, stretched over frequency and time."""
        x = features[0]
        if self.warp:
            x = warp_frequencies(
                x, self.bands.to(x.device), (1 + self.warp * draw_symmetric(len(x), 1)).to(x.device), self.top
            )
        if self.tempo:
            factors = 1 + self.tempo * draw_symmetric(len(x))
            lengths = (batch.lengths * factors).round().long().clamp(min=1)
            x = change_tempo(x, -(-batch.lengths // self.hop), -(-lengths // self.hop))
            spans = list(map(move_spans, batch.spans, factors.tolist(), [0] * len(x), lengths.tolist()))
            batch = replace(batch, lengths=lengths, spans=spans)
        return [x, *features[1:]], batch

    def features(self, x: Tensor, step: float) -> Tensor:
        """Standardised features ``(B, T, F)`` with stretches masked; ``step`` in seconds. Images stay as they are."""
        if x.ndim > 3:
            return x
        for _ in range(self.masks):
            for axis, size in ((1, round(self.time_mask / step)), (2, self.band_mask)):
                if 0 < size < x.shape[axis]:
                    x = mask_along_axis_iid(x[:, None], size, 0.0, axis + 1)[:, 0]
        return x


def draw_rows(rows: int, share: float) -> Tensor:
    """Which of ``rows`` are drawn, each by the chance ``share``."""
    return (torch.rand(rows) < share).nonzero()[:, 0] if share else torch.zeros(0, dtype=torch.int64)
