"""What a source is: something that yields what a model takes in, piece by piece, and says what it lost."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pipeline.media.input_spec import Arrays, InputSpec
from pipeline.media.picture import Image

Policy: TypeAlias = Literal["reset", "hold", "zeros", "keep"]  # what a gap does to the state, see ``Stream.gap``


@dataclass(frozen=True)
class Piece:
    """The next chunk ``x`` of a source, of any length.

    ``captured``: when its newest part was captured, on the clock of ``time.monotonic``; None if it is not live.
    ``seen``: pictures as they were before they were fitted to the model, each with its time in seconds, if asked for.
    ``level``: the greatest sample as the device gave it, in dB of full scale, if the source measures it.
    """

    x: Arrays
    captured: float | None = None
    seen: tuple[tuple[float, Image], ...] = ()
    level: float | None = None


BEHIND = "behind"  # why a gap is there that our own slowness has made


@dataclass(frozen=True)
class Gap:
    """``ticks`` of the model's clock for which there is nothing, and ``why``; 0 ticks: it has only begun."""

    ticks: int
    why: str
    how: Policy = "reset"


class Source:
    """A source of pieces for one stream.

    Attributes:
        name: for people.
        live: whether it happens now: then the model is tested before.
        heard: whether a microphone's resampler is part of it.
        reads: files that it reads.
    """

    name: str
    live: bool = False
    heard: bool = False
    reads: tuple[Path, ...] = ()

    def pieces(self, spec: InputSpec, seen: bool = False) -> Iterator[Piece | Gap]:
        """What a model takes in until the source ends; ConfigError if it has no such. ``seen``: with the pictures as
        they were.
        """
        raise NotImplementedError(f"{type(self).__name__} has no pieces")
