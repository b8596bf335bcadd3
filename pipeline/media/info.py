"""What is known of a recording, and of any of its tracks."""

from dataclasses import dataclass, field
from fractions import Fraction
from math import inf
from typing import TypeAlias


@dataclass(kw_only=True)
class TrackInfo:
    """First what the header claims; once the track is read, the truth."""

    start: Fraction = Fraction(0)  # of the first sample or frame, in seconds on the file's clock
    decoded: int = 0  # samples or frames that came out
    warnings: list[str] = field(default_factory=list)  # codes of what is doubtful

    def warn(self, code: str) -> None:
        """Note a warning once."""
        if code not in self.warnings:
            self.warnings.append(code)


@dataclass
class AudioInfo(TrackInfo):
    """A sound track."""

    rate: int
    channels: int
    frames: int | None  # samples of each channel, as declared; None if unknown
    slack: float = inf  # samples by which the claim may be too high; infinite for a guess
    padded: bool = False  # more may come out than the claim, which is then no sound

    @property
    def seconds(self) -> float:
        return self.decoded / self.rate

    @property
    def length(self) -> float | None:
        """Seconds, as declared."""
        return self.frames / self.rate if self.frames else None


@dataclass
class VideoInfo(TrackInfo):
    """A video track."""

    width: int  # of the pictures, square pixels not assumed (see ``aspect``); upright once the first has been read
    height: int
    aspect: float  # width of a coded pixel by its height
    rate: float  # frames a second on average, as declared; 0 if unknown
    length: float | None  # seconds, as declared
    slack: float = inf  # seconds by which that may be too long; infinite for a guess
    end: Fraction = Fraction(0)  # of the last frame, in seconds after the first frame's start

    @property
    def seconds(self) -> float:
        return float(self.end)


@dataclass(kw_only=True)
class SeriesInfo(TrackInfo):
    """A series; ``decoded`` counts ticks."""

    rate: float
    left_out: int = 0  # rows whose time does not rise
    hole: int = 0  # ticks without any before the newest row of a live series, if they are too many to be filled
    length: None = None  # seconds as declared: no table declares any

    @property
    def seconds(self) -> float:
        return self.decoded / self.rate


class AVInfo:
    """Both tracks of a file; None for one that it lacks."""

    def __init__(self, sound: AudioInfo | None, pictures: VideoInfo | None) -> None:
        self.sound, self.pictures = sound, pictures

    @property
    def late(self) -> float:
        """Seconds by which the pictures begin after the sound."""
        if not (self.sound and self.pictures):
            return 0.0
        return float(max(Fraction(0), self.pictures.start - self.sound.start))

    @property
    def seconds(self) -> float:
        """From the start of the first track to the end of the last."""
        there = [info for info in (self.sound, self.pictures) if info]
        return max(float(info.start) + info.seconds for info in there) - float(min(info.start for info in there))

    @property
    def length(self) -> float | None:
        """Seconds of the longer track, as declared; None if either is unknown."""
        lengths = [info.length for info in (self.sound, self.pictures) if info]
        return None if None in lengths else self.late + max(length for length in lengths if length)

    @property
    def warnings(self) -> list[str]:
        """Of both tracks, each code once; ``no_audio`` or ``no_video`` where one is missing."""
        missing = [code for info, code in ((self.sound, "no_audio"), (self.pictures, "no_video")) if info is None]
        found = [code for info in (self.pictures, self.sound) if info for code in info.warnings]
        if not missing and found.count("beyond_end") == 1:  # the other track is longer
            found.remove("beyond_end")
        return list(dict.fromkeys(missing + found))


MediaInfo: TypeAlias = AudioInfo | VideoInfo | AVInfo | SeriesInfo
