"""Several sinks at once."""

import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ConfigError, UserError
from pipeline.core.text import clean
from pipeline.media.picture import Image
from pipeline.model.decoder import Event
from pipeline.sinks.sink import Closed, Row, Sink


class Fanout(Sink):
    """Hands all on to each of its sinks. One that fails (a full disk) is told on standard error and left out, and the
    others go on; ``close`` then raises its error. Without any left the error is raised at once.
    """

    def __init__(self, sinks: Mapping[str, Sink]) -> None:
        """``sinks`` by name. ConfigError if there is none, or if two of them would mix on standard output."""
        super().__init__()
        if not sinks:
            raise ConfigError("sink: is empty; choose at least one, such as sink=console")
        self.working = dict(sinks)
        self.error: OSError | UserError | None = None
        self.pictures = any(sink.pictures for sink in sinks.values())
        self.streamed = [name for name, sink in sinks.items() if not sink.files]  # those that have no use for files
        spoken = {name: sink for name, sink in sinks.items() if sink.stdout in ("rows", "words")}
        rows = [name for name, sink in spoken.items() if sink.stdout == "rows"]
        if len(spoken) > 1:
            name = rows[-1] if rows else next(iter(spoken))
            other = next(other for other in spoken if other != name)
            raise ConfigError(
                f"sink.{name}.path: is not set, but {other} writes to standard output, too; give a file: "
                f"sink.{name}.path=..."
            )
        for sink in sinks.values():
            sink.quiet = bool(spoken) and sink.stdout == "asides"

    def spare(self, read: Iterable[str | Path]) -> None:
        """ConfigError if a sink would write over one of these files, or over what another sink writes."""
        taken: dict[tuple[int, int] | Path, str] = {}
        for name, sink in self.working.items():
            for path in sink.outputs:
                other = taken.setdefault(identity(path), name)
                if other != name:
                    raise ConfigError(f"sink.{name}.path: {path} is written by {other}, too; choose another name")
        if not any(isinstance(place, tuple) for place in taken):
            return  # nothing is there that could be read
        for path in map(Path, read):
            if identity(path) in taken:
                name = taken[identity(path)]
                raise ConfigError(f"sink.{name}.path: {path} is a file that is read; choose another name")

    def each(self, call: Callable[[Sink], None]) -> None:
        """One call to every sink that still works; Closed is raised once all have had it."""
        closed = False
        for name, sink in list(self.working.items()):
            try:
                call(sink)
            except Closed:
                closed = True
            except (OSError, UserError) as error:
                self.fail(name, error)
        if self.error and not self.working:
            raise self.error
        if closed:
            raise Closed

    def fail(self, name: str, error: OSError | UserError) -> None:
        """Leave a sink out from now on."""
        sink = self.working.pop(name)
        self.error = self.error or error
        with suppress(OSError, UserError, Closed):
            sink.close()
        if self.working:
            print(f"warning: sink={name} has failed, the others go on: {clean(str(error))}", file=sys.stderr)

    def start(self, name: str, labels: list[str], rate: int, hop: int) -> None:
        """Start all. What one of them cannot do ends it all, as nothing has happened yet."""
        super().start(name, labels, rate, hop)
        for sink in self.working.values():
            sink.start(name, labels, rate, hop)

    def events(self, events: list[Event]) -> None:
        """Events that have ended."""
        self.each(lambda sink: sink.events(events))

    def steps(self, first: int, posteriors: NDArray[np.float32], age: float | None = None) -> None:
        """Posteriors of steps."""
        self.each(lambda sink: sink.steps(first, posteriors, age))

    def settle(self) -> None:
        """Each sink does by itself."""

    def begun(self, events: list[Event]) -> None:
        """What is open."""
        self.each(lambda sink: sink.begun(events))

    def gap(self, row: Row) -> None:
        """A gap."""
        self.each(lambda sink: sink.gap(row))

    def warning(self, row: Row) -> None:
        """A warning."""
        self.each(lambda sink: sink.warning(row))

    def sound(self, samples: NDArray[np.float32], level: float | None = None) -> None:
        """Samples."""
        self.each(lambda sink: sink.sound(samples, level))

    def picture(self, seconds: float, image: Image) -> None:
        """A picture, to those that show it."""
        self.each(lambda sink: sink.picture(seconds, image) if sink.pictures else None)

    def file(self, row: Row) -> None:
        """A file, to those that tell it at once."""
        self.each(lambda sink: None if sink.outputs else sink.file(row))

    @property
    def written(self) -> list[Path]:
        """The files that are written."""
        return [path for sink in self.working.values() for path in sink.outputs]

    @property
    def lasting(self) -> list[str]:
        """The sinks that write files, which want all rows in order."""
        return [name for name, sink in self.working.items() if sink.outputs]

    def record(self, row: Row) -> None:
        """A file, to those."""
        self.each(lambda sink: sink.file(row) if sink.outputs else None)

    def know(self, labels: list[str], quiet: list[str]) -> None:
        """The classes, told to all. What one of them cannot do ends it all, as nothing has happened yet."""
        for sink in self.working.values():
            sink.know(labels, quiet)

    def describe(self, facts: dict[str, str]) -> None:
        """What there is to be said of the whole run."""
        self.each(lambda sink: sink.describe(facts))

    def finish(self) -> None:
        """All files have been recorded."""
        self.each(lambda sink: sink.finish())

    def close(self) -> None:
        """Close all that still work, whatever happens to some; then raise what was the first error of all."""
        for name, sink in list(self.working.items()):
            try:
                sink.close()
            except (OSError, UserError) as error:
                self.working.pop(name)
                self.error = self.error or error
        self.working = {}
        if self.error:
            raise self.error


def identity(path: Path) -> tuple[int, int] | Path:
    """What tells a regular file from others, under whatever name; of one that is not there yet, the name."""
    real = Path(os.path.realpath(path.expanduser()))  # which takes links in circles, and names with NUL, as they are
    try:
        found = real.stat()
    except (OSError, ValueError):
        return real
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else real
