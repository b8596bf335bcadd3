"""What a client's connection asks of the hall."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from pipeline.media.audio import Samples
from pipeline.media.input_spec import Arrays
from pipeline.media.picture import Image
from pipeline.serving.messages import Hello, Refused
from pipeline.sources.source import Policy

Shown: TypeAlias = tuple[int, Image]  # a picture, and its place in a chunk


class Enter(NamedTuple):
    """A client begins, or goes on."""

    hello: Hello


class Chunk(NamedTuple):
    """Input with pictures, which becomes Parts when they are decoded: samples, JPEGs by their places (None: none), and
    whether there is sound at each place.
    """

    sound: Samples | None
    pictures: list[bytes | None]
    heard: list[bool]


class Lost(NamedTuple):
    """A gap."""

    ticks: int
    why: str
    how: Policy


class Leave(NamedTuple):
    """The stream is over."""


class Gone(NamedTuple):
    """The connection is over; the stream may go on in another."""


class Stop(NamedTuple):
    """All clients are sent away with their seals."""


class Parts(NamedTuple):
    """A chunk as a model takes it, and the new pictures in it as they came."""

    x: Arrays
    shown: Sequence[Shown] = ()


Order: TypeAlias = Enter | Chunk | Parts | Lost | Leave | Gone | Stop | Refused
