"""What a source is: something that yields chunks until it ends."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from pipeline.intake import Arrays, Intake


@runtime_checkable
class Source(Protocol):
    """A source of chunks for one stream."""

    name: str

    def chunks(self, intake: Intake) -> Iterator[Arrays]:
        """What a model takes in, in chunks of any length, until the source ends; ConfigError if it has no such."""
        ...
