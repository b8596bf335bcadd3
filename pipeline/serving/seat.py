"""A client's place in the hall, which it keeps while it is away for less than a minute."""

from dataclasses import dataclass
from typing import Any

from pipeline.sinks.sink import Sink
from pipeline.streaming.stream import Stream


@dataclass(eq=False)
class Seat:
    """A session. ``told``, ``heard``: the first step, and the first tick, that its sink does not know.

    Attributes:
        began: seconds after 1970 at tick 0.
        due: when its next seal is (on time.monotonic).
        left: when its client had gone, on time.monotonic.
    """

    session: str
    name: str
    stream: Stream
    sink: Sink
    told: int
    heard: int
    began: float
    client: Any = None
    posteriors: bool = True
    due: float = 0.0
    left: float = 0.0
