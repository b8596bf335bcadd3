"""Subtitles (WebVTT): the events while the recording is played, in browsers and video players."""

from pathlib import Path

from pydantic import PositiveFloat

from pipeline.core.atomic import atomic_write
from pipeline.core.journal import Journal
from pipeline.core.text import clean
from pipeline.sinks.sink import Row, Sink

HEAD = "WEBVTT\n\n"


class VTT(Sink):
    """A cue for each event. They are written as the events end, and put in the order of their starts at the end (not on
    standard output).
    """

    def __init__(self, path: str | None = None, sync: PositiveFloat | None = 1.0) -> None:
        """``path`` of the vtt file (None: standard output), forced to the disk every ``sync`` seconds."""
        super().__init__()
        self.journal, self.path = Journal(path, sync), Path(path).expanduser() if path else None
        self.stdout, self.outputs = ("", (self.path,)) if self.path else ("rows", ())
        self.found: list[Row] = []

    def start(self, name: str, labels: list[str], rate: int, hop: int) -> None:
        """Write the head."""
        super().start(name, labels, rate, hop)
        self.journal.write(HEAD)

    def settle(self) -> None:
        """To the disk, if it is time."""
        self.journal.settle()

    def event(self, row: Row) -> None:
        """An event."""
        self.journal.write(cue(row))
        if self.path:
            self.found.append(row)

    def close(self) -> None:
        """Close the file, its cues in order."""
        self.journal.close()
        ordered = sorted(self.found, key=lambda row: (row["start"], row["end"]))
        if self.path and self.path.is_file() and ordered != self.found:
            with atomic_write(self.path) as file:
                file.writelines(text.encode("utf-8", "surrogateescape") for text in (HEAD, *map(cue, ordered)))


def cue(row: Row) -> str:
    """One subtitle. An arrow in a label would be a time, a < a tag."""
    label = clean(row["label"]).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{stamp(row['start'])} --> {stamp(row['end'])}\n{label} {row['score']:.2f}\n\n"


def stamp(seconds: float) -> str:
    """Hours, minutes, seconds, milliseconds."""
    whole, part = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}.{part:03}"
