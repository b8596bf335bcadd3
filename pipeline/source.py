"""What a source is: something that yields samples until it ends."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from pipeline.media import Samples


@runtime_checkable
class Source(Protocol):
    """A source of samples for one stream."""

    name: str

    def chunks(self, rate: int) -> Iterator[Samples]:
        """Mono float32 samples at ``rate`` Hz, in chunks of any length, until the source ends."""
        ...
