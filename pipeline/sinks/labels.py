"""A label track for Audacity (File, Import, Labels): to see and hear the events beside the sound."""

from pydantic import PositiveFloat

from pipeline.core.journal import Journal
from pipeline.core.text import clean
from pipeline.sinks.sink import Row, Sink


class Labels(Sink):
    """Start, end (seconds) and the label with its score, separated by tabs."""

    def __init__(self, path: str | None = None, sync: PositiveFloat | None = 1.0) -> None:
        """``path`` of the text file (None: standard output), forced to the disk every ``sync`` seconds."""
        super().__init__()
        self.journal = Journal(path, sync)
        self.stdout, self.outputs = ("", (self.journal.path,)) if self.journal.path else ("rows", ())

    def start(self, name: str, labels: list[str], rate: int, hop: int) -> None:
        """Empty the file."""
        super().start(name, labels, rate, hop)
        self.journal.open()

    def settle(self) -> None:
        """To the disk, if it is time."""
        self.journal.settle()

    def event(self, row: Row) -> None:
        """An event."""
        self.journal.write(f"{row['start']:.6f}\t{row['end']:.6f}\t{clean(row['label'])} {row['score']:.2f}\n")

    def close(self) -> None:
        """Close the file."""
        self.journal.close()
