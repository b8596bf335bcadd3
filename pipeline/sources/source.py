"""The contract of sources: a source yields chunks of what a model takes in, and says what it lost."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pipeline.media.input_spec import Arrays, InputSpec
from pipeline.media.picture import Image

Policy: TypeAlias = Literal["reset", "hold", "zeros", "keep"]  # what a gap does to the state, see ``Stream.gap``
BEHIND = "behind"  # ``Gap.why`` if the model was too slow


@dataclass(frozen=True)
class Piece:
    """The next chunk ``x`` of a source, of any length, also 0.

    ``captured``: when its newest part was captured, on the clock of ``time.monotonic``; None if the source is not live.
    ``seen``: original pictures with their times in seconds, if asked for. ``level``: the peak of the device's samples
    in dB of full scale, if the source measures it.
    """

    x: Arrays
    captured: float | None = None
    seen: tuple[tuple[float, Image], ...] = ()
    level: float | None = None


@dataclass(frozen=True)
class Gap:
    """``ticks`` of the model's clock without input, the reason, and what to do with the state. 0 ticks: the gap has
    only begun; its length follows.
    """

    ticks: int
    why: str
    how: Policy = "reset"


class Source:
    """A source of chunks for one stream.

    Attributes:
        name: shown to users.
        live: captures in real time. The model is tested before it starts.
        resamples: converts a device's sample rate. The test includes the converter.
        reads: files that it reads; no sink may overwrite them.
    """

    name: str
    live: bool = False
    resamples: bool = False
    reads: tuple[Path, ...] = ()

    def list_devices(self) -> str | None:
        """The devices that exist, one a line, if the user asked for a list (``source.list=true``); else None."""
        return None

    def pieces(self, spec: InputSpec, seen: bool = False) -> Iterator[Piece | Gap]:
        """Yield chunks and gaps until the source ends; with ``seen``, the original pictures, too. ConfigError if the
        source cannot give what ``spec`` asks for; MediaError if it fails.
        """
        raise NotImplementedError
