"""What a sink is: somewhere results go. Sinks receive small values, so a new one is a few lines."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

from pipeline.core.errors import ConfigError
from pipeline.core.journal import Journal
from pipeline.sinks.items import Item, StreamInfo


def regular_file(path: str, key: str, what: str) -> Path:
    """Where a file that is written as a whole will be; a link stays one. ConfigError, which names the ``key``, if it is
    no regular file, OSError if it could not be written.
    """
    place = Path(os.path.realpath(Path(path).expanduser()))
    if place.exists() and not place.is_file():
        raise ConfigError(f"{key}: {path} is no regular file, which {what} must be")
    Journal(str(place), None)
    return place


class Closed(Exception):  # noqa: N818 - it is no error
    """Raised by a sink that somebody has closed: the stream ends as if the source had."""


class Sink:
    """Base of all sinks: does nothing with anything. Used as a context manager; leaving it keeps what was written.

    A stream: ``setup``, ``start``, then ``write`` and ``flush`` by turns, ``close``. Files: ``setup``, ``write``,
    ``finish``, ``close``.

    Attributes:
        pictures: whether it takes each ``Frame``; None: if there are any.
        files: whether it takes each ``FileResult``, besides what a stream says.
        stdout: what it writes to standard output: ``rows`` for programs, ``words`` for people, ``asides`` that it can
            do without, or nothing.
        outputs: the files that it writes.
        several: whether it takes several streams at a time, by ``beside``.
        share: writes an item to all sinks, or to none if it is alone. One that ``shares`` is closed before the others.
    """

    pictures: bool | None = False
    files = False
    stdout: Literal["rows", "words", "asides", ""] = ""
    outputs: tuple[Path, ...] = ()
    several = False
    stream: StreamInfo | None = None
    share: Callable[[Item], None] = staticmethod(lambda item: None)
    shares = False

    def setup(self, labels: list[str], background: list[str]) -> None:
        """Before all: the labels of the events that may come, and of the background, which makes none, and which of
        them are background. ConfigError if the sink has no use for such a model.
        """

    def start(self, stream: StreamInfo) -> None:
        """A stream has given its first piece. What a sink opens, it opens here (for files, at the first row): a source
        that cannot be read harms nothing.
        """
        self.stream = stream

    def beside(self, stream: StreamInfo) -> Self:
        """A sink for one more stream at the same time, which writes to the same place, until ``leave``. For sinks with
        ``several``.
        """
        other = copy.copy(self)
        other.stream = stream
        return other

    def leave(self) -> None:
        """The stream of a sink ``beside`` others is over."""

    def write(self, item: Item) -> None:
        """Take an item; those that are of no use are passed over."""

    def flush(self) -> None:
        """Called after each answer: the time to force to the disk what was written before."""

    def finish(self) -> None:
        """Every file has had its row: move temporary files into place."""

    def close(self) -> None:
        """All is written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
