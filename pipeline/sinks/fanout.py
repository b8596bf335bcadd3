"""Several sinks at once."""

import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from pipeline.core.errors import ConfigError, UserError
from pipeline.core.text import clean
from pipeline.sinks.items import FileResult, Item, StreamInfo
from pipeline.sinks.sink import Closed, Sink


class Fanout(Sink):
    """Hands all on to each of its sinks. One that fails (a full disk) is left out with a warning, and the others go
    on; ``close`` then raises its error. Without any left the error is raised at once.
    """

    def __init__(self, sinks: Mapping[str, Sink]) -> None:
        """``sinks`` by name. ConfigError if there is none, or if two of them would mix on standard output."""
        if not sinks:
            raise ConfigError("sink: is empty; choose at least one, such as sink=console")
        self.working, self.origin = dict(sinks), self
        self.error: OSError | UserError | None = None
        wishes = {sink.pictures for sink in sinks.values()}
        self.pictures = True if True in wishes else None if None in wishes else False
        for sink in sinks.values():
            sink.share = self.write
        speaking = [name for name, sink in sinks.items() if sink.stdout in ("rows", "words")]
        if len(speaking) > 1:
            other, *_, name = sorted(speaking, key=lambda name: sinks[name].stdout == "rows")
            raise ConfigError(
                f"sink.{name}.path: is not set, but {other} writes to standard output, too; give a file: "
                f"sink.{name}.path=..."
            )
        for sink in sinks.values() if speaking else ():
            if sink.stdout == "asides":  # which are left out
                sink.stdout = ""

    @property
    def written(self) -> list[Path]:
        """The files that the working sinks write."""
        return [path for sink in self.working.values() for path in sink.outputs]

    def check_overwrites(self, read: Iterable[str | Path]) -> None:
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

    def check_files(self) -> None:
        """ConfigError if a sink has no use for files."""
        if streamed := [name for name, sink in self.working.items() if not sink.files]:
            kinds = "console, csv, jsonl, parquet or report"
            raise ConfigError(
                f"sink: {', '.join(streamed)} takes one stream; with source=files or source=ledgers choose {kinds}"
            )

    def check_several(self) -> None:
        """ConfigError if a sink takes one stream at a time."""
        if single := [name for name, sink in self.working.items() if not sink.several]:
            kinds = "console, jsonl, sqlite, clips, mqtt, webhook or command"
            raise ConfigError(f"sink: {', '.join(single)} takes one stream; with source=browser choose {kinds}")

    def beside(self, stream: StreamInfo) -> Self:
        """One more stream to all; a sink that fails there has failed for all streams."""
        other = super().beside(stream)
        other.working = {}
        for name, sink in list(self.working.items()):
            try:
                other.working[name] = sink.beside(stream)
            except (OSError, UserError) as error:
                self.fail(name, error)
        if self.origin.error and not self.origin.working:
            raise self.origin.error
        for sink in other.working.values():
            sink.share = other.write
        return other

    def leave(self) -> None:
        """The stream is over, for each."""
        self.each(lambda sink: sink.leave())

    def each(self, call: Callable[[Sink], None]) -> None:
        """One call to every sink that still works; Closed is raised once all have had it."""
        closed = False
        for name, sink in list(self.working.items()):
            if name not in self.origin.working:  # it failed as another shared something with it
                continue
            try:
                call(sink)
            except Closed:
                closed = True
            except (OSError, UserError) as error:
                self.fail(name, error)
        if self.origin.error and not self.origin.working:
            raise self.origin.error
        if closed:
            raise Closed

    def fail(self, name: str, error: OSError | UserError) -> None:
        """Leave a sink out from now on."""
        origin = self.origin
        sink = origin.working.pop(name)
        origin.error = origin.error or error
        with suppress(OSError, UserError, Closed):
            sink.close()
        if origin.working:
            print(f"warning: sink={name} has failed, the others go on: {clean(str(error))}", file=sys.stderr)

    def setup(self, labels: list[str], background: list[str]) -> None:
        """Set up each sink. An error ends the program: nothing has been written yet."""
        for sink in self.working.values():
            sink.setup(labels, background)

    def start(self, stream: StreamInfo) -> None:
        """As ``setup``."""
        super().start(stream)
        for sink in self.working.values():
            sink.start(stream)

    def write(self, item: Item) -> None:
        self.each(lambda sink: sink.write(item))

    def write_result(self, result: FileResult, to_files: bool) -> None:
        """A file's answer, to those that write files, which want all of them in order, or to the others."""
        self.each(lambda sink: sink.write(result) if bool(sink.outputs) == to_files else None)

    def flush(self) -> None:
        self.each(lambda sink: sink.flush())

    def finish(self) -> None:
        self.each(lambda sink: sink.finish())

    def close(self) -> None:
        """Close all that still work, whatever happens to some; then raise what was the first error of all."""
        for name in sorted(self.working, key=lambda name: not self.working[name].shares):
            try:
                if sink := self.working.pop(name, None):  # unless a last clip of another has failed in it
                    sink.close()
            except (OSError, UserError) as error:
                self.error = self.error or error
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
